package http

import (
	nethttp "net/http"

	"github.com/sluicemq/sluice/core"
)

// exchangeList is how exchanges are listed.
var exchangeList = listing[core.ExchangeDefinition]{name: func(d *core.ExchangeDefinition) string { return d.Name }}

// listExchanges is GET /v1/exchanges.
func (s *Server) listExchanges(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, exchangeList.parameters()...)
	s.admin(w, r, nil, func(h *hold) error {
		p := exchangeList.page(&q, h.client.Exchanges())
		if q.err != nil {
			return q.err
		}
		answerList(s, w, r, p)
		return nil
	})
}

// exchange returns one exchange's definition.
func (h *hold) exchange(name string) (core.ExchangeDefinition, error) {
	for d := range h.client.Exchanges() {
		if d.Name == name {
			return d, nil
		}
	}
	return core.ExchangeDefinition{}, notFound.with("there is no exchange " + quote(name))
}

// showExchange is GET /v1/exchanges/<exchange>.
func (s *Server) showExchange(w nethttp.ResponseWriter, r *nethttp.Request) {
	s.admin(w, r, nil, func(h *hold) error {
		name, err := exchangeOf(r)
		if err != nil {
			return err
		}
		d, err := h.exchange(name)
		if err != nil {
			return err
		}
		s.answerTagged(w, r, 200, d, tagOf(d))
		return nil
	})
}

// declareExchange is PUT /v1/exchanges/<exchange>.
func (s *Server) declareExchange(w nethttp.ResponseWriter, r *nethttp.Request) {
	var in struct {
		Kind      core.ExchangeKind `json:"kind"`
		Alternate string            `json:"alternate"`
	}
	s.admin(w, r, &in, func(h *hold) error {
		name, err := exchangeOf(r)
		if err != nil {
			return err
		}
		switch in.Kind {
		case core.Direct, core.Fanout, core.TopicExchange, core.HeadersExchange:
		default:
			return badRequest.with("kind is direct, fanout, topic or headers, not " + quote(string(in.Kind)))
		}
		status, tag := 201, ""
		if was, err := h.exchange(name); err == nil {
			status, tag = 200, tagOf(was)
		}
		if err := checkMatch(r, tag); err != nil {
			return err
		}
		d := core.ExchangeDefinition{Name: name, Kind: in.Kind, Alternate: in.Alternate}
		if err := h.client.DeclareExchange(r.Context(), d); err != nil {
			return err
		}
		s.answerTagged(w, r, status, d, tagOf(d))
		return nil
	})
}

// deleteExchange is DELETE /v1/exchanges/<exchange>.
func (s *Server) deleteExchange(w nethttp.ResponseWriter, r *nethttp.Request) {
	s.admin(w, r, nil, func(h *hold) error {
		name, err := exchangeOf(r)
		if err != nil {
			return err
		}
		if r.Header["If-Match"] != nil {
			was, err := h.exchange(name)
			if err != nil {
				return err
			}
			if err := checkMatch(r, tagOf(was)); err != nil {
				return err
			}
		}
		if err := h.client.DeleteExchange(r.Context(), name); err != nil {
			return err
		}
		s.answerNothing(w)
		return nil
	})
}
