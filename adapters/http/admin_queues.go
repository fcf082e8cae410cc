package http

import (
	"errors"
	nethttp "net/http"
	"time"

	"github.com/sluicemq/sluice/core"
)

// queueList is how queues are listed.
var queueList = listing[core.QueueInfo]{
	name: func(q *core.QueueInfo) string { return q.Name },
	keys: map[string]func(*core.QueueInfo) int64{
		"held":      func(q *core.QueueInfo) int64 { return int64(q.Held) },
		"waiting":   func(q *core.QueueInfo) int64 { return int64(q.Waiting) },
		"consumers": func(q *core.QueueInfo) int64 { return int64(q.Consumers) },
		"position":  func(q *core.QueueInfo) int64 { return int64(q.Position) },
	},
}

// listQueues is GET /v1/queues: those whose names begin with ?prefix=.
func (s *Server) listQueues(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, queueList.parameters("prefix", "kind")...)
	kind := core.QueueKind(q.string("kind"))
	switch q.string("kind") {
	case "", "group", "session":
	case "queue":
		kind = core.KindQueue
	default:
		q.bad("kind", "queue, group or session")
	}
	s.admin(w, r, nil, func(h *hold) error {
		p := queueList.page(&q, func(yield func(core.QueueInfo) bool) {
			for info := range h.client.Queues(q.string("prefix")) {
				if (!q.has("kind") || info.Settings.Kind == kind) && !yield(info) {
					return
				}
			}
		})
		if q.err != nil {
			return q.err
		}
		out := pageOf[queueInfo]{Items: make([]queueInfo, len(p.Items)), Next: p.Next, Total: p.Total}
		for i := range p.Items {
			out.Items[i] = infoOf(p.Items[i])
		}
		answerList(s, w, r, out)
		return nil
	})
}

// anyQueueOf is the queue that a path names, a group's or session's included.
func anyQueueOf(r *nethttp.Request) (string, error) { return segment(r, "queue") }

// showQueue is GET /v1/queues/<queue>.
func (s *Server) showQueue(w nethttp.ResponseWriter, r *nethttp.Request) {
	s.admin(w, r, nil, func(h *hold) error {
		name, err := anyQueueOf(r)
		if err != nil {
			return err
		}
		info, err := h.client.Queue(name)
		if err != nil {
			return err
		}
		s.answerDefinition(w, 200, infoOf(info))
		return nil
	})
}

// declareQueue is PUT /v1/queues/<queue>: 201 where it is new, 200 where it was
// there with the same settings, 409 where with others. Bindings are added.
func (s *Server) declareQueue(w nethttp.ResponseWriter, r *nethttp.Request) {
	var in struct {
		Settings queueSettings `json:"settings"`
		Bindings []binding     `json:"bindings"`
		From     string        `json:"from"`
	}
	s.admin(w, r, &in, func(h *hold) error {
		name, err := queueOf(r)
		if err != nil {
			return err
		}
		d := core.QueueDefinition{Name: name, Settings: in.Settings.core()}
		if d.From, err = parseFrom(in.From); err != nil {
			return err
		}
		if in.Settings.Exclusive {
			return badRequest.with("an exclusive queue belongs to a connection, and a request has none: declare it by another protocol")
		}
		for _, b := range in.Bindings {
			cb, err := b.core()
			if err != nil {
				return err
			}
			d.Bindings = append(d.Bindings, cb)
		}
		status, tag := 200, ""
		switch info, err := h.client.Queue(name); {
		case errors.Is(err, core.ErrNotFound):
			status = 201
		case err != nil:
			return err
		default:
			tag = infoOf(info).tag()
		}
		if err := checkMatch(r, tag); err != nil {
			return err
		}
		if err := h.client.DeclareQueue(r.Context(), d); err != nil {
			return err
		}
		info, err := h.client.Queue(name)
		if err != nil {
			return err
		}
		s.answerDefinition(w, status, infoOf(info))
		return nil
	})
}

func parseFrom(s string) (core.From, error) {
	if s == "" {
		return core.Latest, nil
	}
	return core.ParseFrom(s, time.Now())
}

// deleteQueue is DELETE /v1/queues/<queue>.
func (s *Server) deleteQueue(w nethttp.ResponseWriter, r *nethttp.Request) {
	s.admin(w, r, nil, func(h *hold) error {
		name, err := anyQueueOf(r)
		if err != nil {
			return err
		}
		if r.Header["If-Match"] != nil {
			info, err := h.client.Queue(name)
			if err != nil {
				return err
			}
			if err := checkMatch(r, infoOf(info).tag()); err != nil {
				return err
			}
		}
		if err := h.client.DeleteQueue(r.Context(), name); err != nil {
			return err
		}
		s.answerNothing(w)
		return nil
	})
}

// listBindings is GET /v1/queues/<queue>/bindings.
func (s *Server) listBindings(w nethttp.ResponseWriter, r *nethttp.Request) {
	s.admin(w, r, nil, func(h *hold) error {
		name, err := anyQueueOf(r)
		if err != nil {
			return err
		}
		info, err := h.client.Queue(name)
		if err != nil {
			return err
		}
		bs := bindingsOf(info.Bindings)
		answerList(s, w, r, pageOf[binding]{Items: bs, Total: len(bs)})
		return nil
	})
}

// bind is POST /v1/queues/<queue>/bindings.
func (s *Server) bind(w nethttp.ResponseWriter, r *nethttp.Request) {
	var in struct {
		binding
		From string `json:"from"`
	}
	s.admin(w, r, &in, func(h *hold) error {
		name, err := queueOf(r)
		if err != nil {
			return err
		}
		b, err := in.binding.core()
		if err != nil {
			return err
		}
		from, err := parseFrom(in.From)
		if err != nil {
			return err
		}
		if err := h.client.BindQueue(r.Context(), name, b, from); err != nil {
			return err
		}
		s.answerJSON(w, 201, in.binding)
		return nil
	})
}

// unbind is DELETE /v1/queues/<queue>/bindings?filter= or ?exchange=&key=, with
// &where= for a binding that has a condition.
func (s *Server) unbind(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, "filter", "exchange", "key", "where")
	s.admin(w, r, nil, func(h *hold) error {
		if q.err != nil {
			return q.err
		}
		name, err := queueOf(r)
		if err != nil {
			return err
		}
		named := binding{Filter: core.Filter(q.string("filter")), Exchange: q.string("exchange"), Key: q.string("key"), Where: q.string("where")}
		b, err := named.core()
		if err != nil {
			return err
		}
		if err := h.client.UnbindQueue(r.Context(), name, b); err != nil {
			return err
		}
		s.answerNothing(w)
		return nil
	})
}
