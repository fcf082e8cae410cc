package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/core"
)

// A line is a message as JSON on its way in, the object that appendMessage
// writes. What only the broker says ("o", "ts", "n", "pub", "lease", "until",
// "retained") is taken and not looked at, so that what was read can be published again.
type line struct {
	T       *string         `json:"t"`
	Topic   *string         `json:"topic"`
	D       json.RawMessage `json:"d"`
	B       *[]byte         `json:"b"`
	Type    string          `json:"type"`
	H       json.RawMessage `json:"h"`
	Reply   string          `json:"reply"`
	Corr    *string         `json:"corr"`
	Corr64  *[]byte         `json:"corr64"`
	TTL     *int64          `json:"ttl"`
	Key     string          `json:"key"`
	Prio    *int            `json:"prio"`
	Durable *bool           `json:"durable"`
	ID      string          `json:"id"`
	Delay   *int64          `json:"delay"`
	Retain  bool            `json:"retain"`
	Must    bool            `json:"mandatory"`

	O     json.RawMessage `json:"o"`
	TS    json.RawMessage `json:"ts"`
	N     json.RawMessage `json:"n"`
	Pub   json.RawMessage `json:"pub"`
	Lease json.RawMessage `json:"lease"`
	Until json.RawMessage `json:"until"`
	Was   json.RawMessage `json:"retained"`
}

// A lineDecoder decodes lines, one after the other.
type lineDecoder struct {
	line line
	text []byte // decoded "d"
}

// decode makes an envelope of a line. The topic is topic unless the line names
// one. The envelope is valid until the next call, or until data changes; of e,
// the array behind Headers is used again.
func (l *lineDecoder) decode(data []byte, topic string, now time.Time, e *core.Envelope) error {
	if !utf8.Valid(data) {
		return badRequest.with("the line is not UTF-8")
	}
	headers := e.Headers[:0]
	*e = core.Envelope{Topic: topic, Headers: headers, Guarantee: core.AtLeastOnce}
	if decodePlain(data, e) {
		return nil
	}
	return l.decodeAny(data, topic, now, e, headers)
}

// decodeAny is decode for lines of every shape.
func (l *lineDecoder) decodeAny(data []byte, topic string, now time.Time, e *core.Envelope, headers []core.Header) error {
	*e = core.Envelope{Topic: topic, Headers: headers, Guarantee: core.AtLeastOnce}
	l.line = line{}
	if err := unmarshalStrict(data, &l.line); err != nil {
		return badRequest.with("the line is not a message: " + err.Error())
	}
	in := &l.line
	if in.Topic != nil {
		e.Topic = *in.Topic
	}
	if in.T != nil {
		e.Topic = *in.T
	}
	e.ContentType, e.Key, e.ID, e.ReplyTo, e.Retain = in.Type, in.Key, in.ID, in.Reply, in.Retain
	e.Mandatory = in.Must
	switch {
	case in.D != nil && in.B != nil:
		return badRequest.with(`the line has both "d" and "b"`)
	case in.B != nil:
		e.Payload = *in.B
	case len(in.D) > 0 && in.D[0] == '"':
		var text string
		if err := json.Unmarshal(in.D, &text); err != nil {
			return badRequest.with(`"d": ` + err.Error())
		}
		l.text = append(l.text[:0], text...)
		e.Payload = l.text
	case in.D != nil:
		e.Payload = in.D
		if e.ContentType == "" {
			e.ContentType = "application/json"
		}
	}
	switch {
	case in.Corr != nil && in.Corr64 != nil:
		return badRequest.with(`the line has both "corr" and "corr64"`)
	case in.Corr != nil:
		e.CorrelationID = []byte(*in.Corr)
	case in.Corr64 != nil:
		e.CorrelationID = *in.Corr64
	}
	if in.H != nil {
		var err error
		if e.Headers, err = parseHeaders(headers, in.H); err != nil {
			return badRequest.with(`"h": ` + err.Error())
		}
	}
	if in.TTL != nil {
		if *in.TTL <= 0 || *in.TTL > longestDelay.Milliseconds() {
			return badRequest.with(`"ttl" is milliseconds, more than zero`)
		}
		e.Expires = now.Add(time.Duration(*in.TTL) * time.Millisecond)
	}
	if in.Delay != nil {
		if *in.Delay < 0 || *in.Delay > longestDelay.Milliseconds() {
			return badRequest.with(`"delay" is milliseconds`)
		}
		if *in.Delay > 0 {
			e.DeliverAt = now.Add(time.Duration(*in.Delay) * time.Millisecond)
		}
	}
	if in.Prio != nil {
		if *in.Prio < 0 || *in.Prio > 9 {
			return badRequest.with(`"prio" is a number from 0 to 9`)
		}
		e.Priority = core.PriorityOf(*in.Prio)
	}
	if in.Durable != nil && !*in.Durable {
		e.Guarantee = core.AtMostOnce
	}
	return nil
}

// unmarshalStrict decodes one JSON value with no unknown fields and nothing
// behind it.
func unmarshalStrict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if len(bytes.TrimLeft(data[d.InputOffset():], " \t\r\n")) > 0 {
		return errors.New("something stands behind the value")
	}
	return nil
}

// parseHeaders appends the headers of a JSON list of pairs, or of an object,
// in the order that they stand in.
func parseHeaders(dst []core.Header, data []byte) ([]core.Header, error) {
	data = bytes.TrimLeft(data, " \t\r\n")
	if len(data) > 0 && data[0] == '[' {
		var pairs [][]string
		if err := json.Unmarshal(data, &pairs); err != nil {
			return dst, errors.New("want a list of pairs of strings: " + err.Error())
		}
		for _, p := range pairs {
			if len(p) != 2 {
				return dst, fmt.Errorf("a pair has %d strings", len(p))
			}
			dst = append(dst, core.Header{Name: p[0], Value: p[1]})
		}
		return dst, nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	open, err := d.Token()
	if err != nil || open != json.Delim('{') {
		return dst, errors.New("want a list of pairs, or an object")
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return dst, err
		}
		value, err := d.Token()
		if err != nil {
			return dst, err
		}
		v, ok := value.(string)
		if !ok {
			return dst, fmt.Errorf("the value of %q is not a string", name)
		}
		dst = append(dst, core.Header{Name: name.(string), Value: v})
	}
	if _, err := d.Token(); err != nil {
		return dst, err
	}
	if len(bytes.TrimLeft(data[d.InputOffset():], " \t\r\n")) > 0 {
		return dst, errors.New("something stands behind the object")
	}
	return dst, nil
}
