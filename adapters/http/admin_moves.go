package http

import (
	nethttp "net/http"

	"github.com/sluicemq/sluice/core"
)

// A selection picks messages of a queue, on this door.
type selection struct {
	Offsets []core.Offset `json:"offsets"`
	Filters []string      `json:"filters"`
	Where   string        `json:"where"`
	Limit   int64         `json:"limit"`
	DryRun  bool          `json:"dry_run"`
}

func (s *selection) core() (core.Selection, error) {
	out := core.Selection{Offsets: s.Offsets, Where: s.Where, Limit: s.Limit}
	if s.Limit < 0 {
		return out, badRequest.with("limit is not negative")
	}
	for _, text := range s.Filters {
		f, err := core.ParseFilter(text)
		if err != nil {
			return out, err
		}
		out.Filters = append(out.Filters, f)
	}
	return out, nil
}

// A transfer is a selection and where it goes: a queue, a topic, or an exchange
// with a key.
type transfer struct {
	selection
	Queue    string  `json:"queue"`
	Topic    string  `json:"topic"`
	Exchange string  `json:"exchange"`
	Key      string  `json:"key"`
	Rate     float64 `json:"rate"`
}

// core reads the transfer; where must is unset, it may lead nowhere.
func (t *transfer) core(must bool) (core.Transfer, error) {
	s, err := t.selection.core()
	if err != nil {
		return core.Transfer{}, err
	}
	out := core.Transfer{Selection: s, Rate: t.Rate, Dry: t.DryRun}
	n := 0
	for _, to := range []struct{ name, topic string }{
		{t.Queue, core.QueueTopic(t.Queue)}, {t.Topic, t.Topic}, {t.Exchange, core.ExchangeTopic(t.Exchange, t.Key)},
	} {
		if to.name != "" {
			out.To = to.topic
			n++
		}
	}
	switch {
	case n > 1, n == 0 && must, t.Key != "" && t.Exchange == "":
		return out, badRequest.with("where to: queue, topic, or exchange and key")
	case t.Rate < 0:
		return out, badRequest.with("rate, in messages a second, is not negative")
	}
	return out, nil
}

// sifted is what became of a selection, on this door.
type sifted struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"`
	DryRun   bool  `json:"dry_run"`
	// Error is why not all were, where some were.
	Error string `json:"error,omitempty"`
}

func (s *Server) answerSifted(w nethttp.ResponseWriter, got core.Sifted, dry bool, err error) error {
	out := sifted{got.Messages, got.Bytes, dry, ""}
	if err != nil {
		if got.Messages == 0 || dry {
			return err
		}
		out.Error = err.Error()
	}
	s.answerJSON(w, 200, out)
	return nil
}

// rewindQueue is POST /v1/queues/<queue>/rewind.
func (s *Server) rewindQueue(w nethttp.ResponseWriter, r *nethttp.Request) {
	var in struct {
		To     string `json:"to"`
		DryRun bool   `json:"dry_run"`
	}
	s.admin(w, r, &in, func(h *hold) error {
		name, err := anyQueueOf(r)
		if err != nil {
			return err
		}
		if in.To == "" {
			return badRequest.with(`to is missing: earliest, latest, an offset ("1042"), the last n ("-100"), a time ago ("@2h") or a moment`)
		}
		to, err := parseFrom(in.To)
		if err != nil {
			return err
		}
		got, err := h.client.Rewind(r.Context(), name, to, in.DryRun)
		if err != nil {
			return err
		}
		s.answerJSON(w, 200, struct {
			From    core.Offset `json:"from"`
			To      core.Offset `json:"to"`
			Again   int64       `json:"again"`
			Skipped int64       `json:"skipped"`
			DryRun  bool        `json:"dry_run"`
		}{got.From, got.To, got.Again, got.Skipped, in.DryRun})
		return nil
	})
}

// purgeQueue is POST /v1/queues/<queue>/purge.
func (s *Server) purgeQueue(w nethttp.ResponseWriter, r *nethttp.Request) {
	var in selection
	s.admin(w, r, &in, func(h *hold) error {
		name, err := anyQueueOf(r)
		if err != nil {
			return err
		}
		sel, err := in.core()
		if err != nil {
			return err
		}
		got, err := h.client.Purge(r.Context(), name, sel, in.DryRun)
		return s.answerSifted(w, got, in.DryRun, err)
	})
}

// transferOf makes a handler of POST /v1/queues/<queue>/move, copy or requeue.
func (s *Server) transferOf(do func(*core.Client) transferring, must bool) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, r *nethttp.Request) {
		var in transfer
		s.admin(w, r, &in, func(h *hold) error {
			name, err := anyQueueOf(r)
			if err != nil {
				return err
			}
			t, err := in.core(must)
			if err != nil {
				return err
			}
			got, err := do(h.client)(r.Context(), name, t)
			return s.answerSifted(w, got, in.DryRun, err)
		})
	}
}
