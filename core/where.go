package core

import (
	"fmt"
	"unsafe"

	"github.com/sluicemq/sluice/core/selector"
)

// A where is a condition on envelopes; a nil one holds for all.
type where struct {
	text     string
	selector *selector.Selector
}

// parseWhere reads a selector; a blank one is nil. The error wraps ErrInvalid
// and a *selector.SyntaxError, which has the position.
func parseWhere(text string) (*where, error) {
	if text == "" {
		return nil, nil
	}
	s, err := selector.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if s.String() == "" {
		return nil, nil
	}
	return &where{text: s.String(), selector: s}, nil
}

// CanonicalWhere returns a selector, as in [Binding.Where], in one form for all
// the texts that mean it; a blank one is empty. Its errors are CheckWhere's.
func CanonicalWhere(text string) (string, error) {
	w, err := parseWhere(text)
	if w == nil {
		return "", err
	}
	return w.text, nil
}

// CheckWhere says what is wrong with a selector, as in [Binding.Where]. The
// error wraps [ErrInvalid] and names the byte at which it stops being one.
func CheckWhere(text string) error {
	_, err := parseWhere(text)
	return err
}

func (w *where) match(e *Envelope, at Offset) bool {
	return w == nil || w.selector.Match(e, uint64(at))
}

// Header returns the value of the first header of that name.
func (e *Envelope) Header(name string) (value string, ok bool) {
	for i := range e.Headers {
		if e.Headers[i].Name == name {
			return e.Headers[i].Value, true
		}
	}
	return "", false
}

// Field is what a selector's name for one of the broker's own fields stands
// for.
func (e *Envelope) Field(f selector.Field) selector.Value {
	switch f {
	case selector.Topic:
		return selector.Text(e.Topic)
	case selector.Key:
		return selector.Text(e.Key)
	case selector.ID:
		return selector.Text(e.ID)
	case selector.ContentType:
		return selector.Text(e.ContentType)
	case selector.ReplyTo:
		return selector.Text(e.ReplyTo)
	case selector.CorrelationID:
		// The value does not outlive the call, and nobody writes meanwhile.
		return selector.Text(unsafe.String(unsafe.SliceData(e.CorrelationID), len(e.CorrelationID)))
	case selector.DeliveryMode:
		if e.Guarantee == AtMostOnce {
			return selector.String("NON_PERSISTENT")
		}
		return selector.String("PERSISTENT")
	case selector.Priority:
		if level, ok := e.Priority.Level(); ok {
			return selector.Whole(int64(level))
		}
	case selector.Time:
		if !e.Time.IsZero() {
			return selector.Whole(e.Time.UnixMilli())
		}
	}
	return selector.Value{}
}
