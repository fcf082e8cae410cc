package http

import (
	"encoding/json"
	"fmt"
	nethttp "net/http"
	"strconv"
	"time"

	"github.com/sluicemq/sluice/core"
)

// adminBytes bounds a body under /v1/.
const adminBytes = 64 << 10

// A span is a duration in JSON: a string such as "5m", or "unlimited".
type span time.Duration

func (d span) MarshalJSON() ([]byte, error) {
	if d == core.Unlimited {
		return []byte(`"unlimited"`), nil
	}
	return json.Marshal(time.Duration(d).String())
}

func (d *span) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("want a time such as \"5m\", or \"unlimited\"")
	}
	if s == "unlimited" {
		*d = core.Unlimited
		return nil
	}
	t, ok := parseDuration(s)
	if !ok {
		return fmt.Errorf("want a time such as \"5m\", not %q", s)
	}
	*d = span(t)
	return nil
}

// queueSettings are a queue's settings on this door; what is left out is the
// default.
type queueSettings struct {
	MaxAttempts  int           `json:"max_attempts,omitempty"`
	Lease        span          `json:"lease,omitempty"`
	Backoff      span          `json:"backoff,omitempty"`
	BackoffMax   span          `json:"backoff_max,omitempty"`
	DeadLetter   string        `json:"dead_letter,omitempty"`
	TTL          span          `json:"ttl,omitempty"`
	MaxLength    int64         `json:"max_length,omitempty"`
	MaxBytes     int64         `json:"max_bytes,omitempty"`
	Overflow     core.Overflow `json:"overflow,omitempty"`
	Priority     bool          `json:"priority,omitempty"`
	Ordered      bool          `json:"ordered,omitempty"`
	SingleActive bool          `json:"single_active,omitempty"`
	Expires      span          `json:"expires,omitempty"`
	Unpinned     bool          `json:"unpinned,omitempty"`

	DeadLetterExpired bool `json:"dead_letter_expired,omitempty"`
	AutoDelete        bool `json:"auto_delete,omitempty"`
	DedupWindow       span `json:"dedup_window,omitempty"`
	// Exclusive is of a queue that a connection of another door declared.
	Exclusive bool `json:"exclusive,omitempty"`
}

func (q queueSettings) core() core.QueueSettings {
	return core.QueueSettings{
		MaxAttempts: q.MaxAttempts, Lease: time.Duration(q.Lease), Backoff: time.Duration(q.Backoff), BackoffMax: time.Duration(q.BackoffMax),
		DeadLetter: q.DeadLetter, TTL: time.Duration(q.TTL), MaxLength: q.MaxLength, MaxBytes: q.MaxBytes, Overflow: q.Overflow,
		Priority: q.Priority, Ordered: q.Ordered, SingleActive: q.SingleActive, Expires: time.Duration(q.Expires), Unpinned: q.Unpinned,
		DeadLetterExpired: q.DeadLetterExpired, AutoDelete: q.AutoDelete, DedupWindow: time.Duration(q.DedupWindow),
	}
}

func settingsOf(c core.QueueSettings) queueSettings {
	return queueSettings{
		MaxAttempts: c.MaxAttempts, Lease: span(c.Lease), Backoff: span(c.Backoff), BackoffMax: span(c.BackoffMax),
		DeadLetter: c.DeadLetter, TTL: span(c.TTL), MaxLength: c.MaxLength, MaxBytes: c.MaxBytes, Overflow: c.Overflow,
		Priority: c.Priority, Ordered: c.Ordered, SingleActive: c.SingleActive, Expires: span(c.Expires), Unpinned: c.Unpinned,
		DeadLetterExpired: c.DeadLetterExpired, AutoDelete: c.AutoDelete, DedupWindow: span(c.DedupWindow), Exclusive: c.Exclusive,
	}
}

// A binding is a queue's binding on this door.
type binding struct {
	Filter   core.Filter `json:"filter,omitempty"`
	Exchange string      `json:"exchange,omitempty"`
	Key      string      `json:"key,omitempty"`
	Where    string      `json:"where,omitempty"`
	// Headers, of which Match all or any have to be there, are another way to
	// say Where.
	Match   string      `json:"match,omitempty"`
	Headers [][2]string `json:"headers,omitempty"`
}

func (b *binding) core() (core.Binding, error) {
	if err := b.condition(); err != nil {
		return core.Binding{}, err
	}
	if (b.Filter == "") == (b.Exchange == "") || b.Key != "" && b.Exchange == "" {
		return core.Binding{}, badRequest.with("a binding has a filter, or an exchange and a key")
	}
	if b.Filter != "" {
		if _, err := core.ParseFilter(string(b.Filter)); err != nil {
			return core.Binding{}, err
		}
	}
	return core.Binding{Filter: b.Filter, Exchange: b.Exchange, Key: b.Key, Where: b.Where, Settlement: core.SettleAlways}, nil
}

func bindingsOf(bs []core.Binding) []binding {
	out := make([]binding, len(bs))
	for i, b := range bs {
		out[i] = binding{Filter: b.Filter, Exchange: b.Exchange, Key: b.Key, Where: b.Where}
	}
	return out
}

// queueInfo describes a queue on this door.
type queueInfo struct {
	Name     string         `json:"name"`
	Kind     core.QueueKind `json:"kind,omitempty"`
	Settings queueSettings  `json:"settings"`
	Bindings []binding      `json:"bindings"`
	Position core.Offset    `json:"position"`
	Lag      *int           `json:"lag"` // null where it has not been counted
	// Oldest is when the oldest that lag counts was published, LagSeconds how
	// long that is ago.
	Oldest     string  `json:"oldest,omitempty"`
	LagSeconds float64 `json:"lag_seconds,omitempty"`
	Held       int     `json:"held"`
	Waiting    int     `json:"waiting"`
	Consumers  int     `json:"consumers"`
}

func infoOf(q core.QueueInfo) queueInfo {
	info := queueInfo{
		Name: q.Name, Kind: q.Settings.Kind, Settings: settingsOf(q.Settings), Bindings: bindingsOf(q.Bindings),
		Position: q.Position, Held: q.Held, Waiting: q.Waiting, Consumers: q.Consumers,
	}
	if q.Lag >= 0 {
		info.Lag = &q.Lag
	}
	if !q.Oldest.IsZero() {
		info.Oldest = q.Oldest.UTC().Format(time.RFC3339Nano)
		info.LagSeconds = max(time.Since(q.Oldest), 0).Round(time.Millisecond).Seconds()
	}
	return info
}

// tag is the entity tag of a queue's definition.
func (q queueInfo) tag() string {
	return tagOf(struct {
		Settings queueSettings
		Bindings []binding
	}{q.Settings, q.Bindings})
}

// answerDefinition answers with a queue and the tag of its definition. As the
// rest of the answer changes all the time, there is no 304 for it.
func (s *Server) answerDefinition(w nethttp.ResponseWriter, status int, q queueInfo) {
	w.Header()["Etag"] = []string{q.tag()}
	s.answerJSON(w, status, q)
}

// answerJSON answers with one JSON value.
func (s *Server) answerJSON(w nethttp.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // what is answered here can be marshalled
	}
	h := w.Header()
	h["Content-Type"] = jsonTypes
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = nosniff
	b = compress(w, append(b, '\n'))
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	if s.writeUntil(w) == nil {
		w.WriteHeader(status)
		s.writeAll(w, b)
	}
}

// admin runs a request of /v1/: it reads the body into into where there is one,
// connects and calls do.
func (s *Server) admin(w nethttp.ResponseWriter, r *nethttp.Request, into any, do func(h *hold) error) {
	err := func() error {
		h, err := s.connect(r)
		if err != nil {
			return err
		}
		defer h.release()
		if into != nil {
			if ct := r.Header.Get("Content-Type"); ct != "" && ct != formType && !isJSON(ct) {
				return wrongType.with("the body is JSON")
			}
			body, err := s.readBody(w, r, nil, adminBytes)
			if err != nil {
				return err
			}
			if len(body) > 0 {
				if err := unmarshalStrict(body, into); err != nil {
					return badRequest.with("the body: " + err.Error())
				}
			}
		}
		return do(h)
	}()
	if err != nil {
		s.fail(w, r, err)
	}
}
