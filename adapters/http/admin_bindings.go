package http

import (
	"context"
	nethttp "net/http"
	"strings"

	"github.com/sluicemq/sluice/core"
)

type transferring = func(context.Context, string, core.Transfer) (core.Sifted, error)

// A route is a binding with what it leads to: a queue, or an exchange (To).
type route struct {
	binding
	Queue string `json:"queue,omitempty"`
	To    string `json:"to,omitempty"`
}

// routeList is how all bindings are listed.
var routeList = listing[route]{name: func(r *route) string {
	return strings.Join([]string{r.Queue, r.To, r.Exchange, string(r.Filter), r.Key, r.Where}, "\x1f")
}}

// listRoutes is GET /v1/bindings: those of ?queue= or to ?to=, and from
// ?exchange=, where these are asked for.
func (s *Server) listRoutes(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, routeList.parameters("queue", "to", "exchange")...)
	s.admin(w, r, nil, func(h *hold) error {
		p := routeList.page(&q, func(yield func(route) bool) {
			wanted := func(rt route) bool {
				return (!q.has("queue") || rt.Queue == q.string("queue")) && (!q.has("to") || rt.To == q.string("to")) &&
					(!q.has("exchange") || rt.Exchange == q.string("exchange"))
			}
			if !q.has("to") {
				for info := range h.client.Queues(q.string("queue")) {
					for _, b := range bindingsOf(info.Bindings) {
						if rt := (route{binding: b, Queue: info.Name}); wanted(rt) && !yield(rt) {
							return
						}
					}
				}
			}
			for _, b := range h.client.ExchangeBindings() {
				rt := route{binding: binding{Exchange: b.From, Key: b.Key, Where: b.Where}, To: b.To}
				if wanted(rt) && !yield(rt) {
					return
				}
			}
		})
		if q.err != nil {
			return q.err
		}
		answerList(s, w, r, p)
		return nil
	})
}

// change binds or unbinds.
func (rt *route) change(ctx context.Context, c *core.Client, from core.From, bind bool) error {
	b, err := rt.binding.core()
	switch {
	case err != nil:
		return err
	case (rt.Queue == "") == (rt.To == ""):
		return badRequest.with("a binding leads to a queue, or to an exchange")
	case rt.Queue != "" && bind:
		if err := core.CheckQueueName(rt.Queue); err != nil {
			return err
		}
		return c.BindQueue(ctx, rt.Queue, b, from)
	case rt.Queue != "":
		return c.UnbindQueue(ctx, rt.Queue, b)
	case rt.Exchange == "":
		return badRequest.with("only an exchange is bound to an exchange")
	}
	x := core.ExchangeBinding{From: b.Exchange, To: rt.To, Key: b.Key, Where: b.Where}
	if bind {
		if from != core.Latest {
			return badRequest.with("a binding between exchanges begins now")
		}
		return c.BindExchange(ctx, x)
	}
	return c.UnbindExchange(ctx, x)
}

// addRoute is POST /v1/bindings. A binding that is there already is fine.
func (s *Server) addRoute(w nethttp.ResponseWriter, r *nethttp.Request) {
	var in struct {
		route
		From string `json:"from"`
	}
	s.admin(w, r, &in, func(h *hold) error {
		from, err := parseFrom(in.From)
		if err != nil {
			return err
		}
		if err := in.route.change(r.Context(), h.client, from, true); err != nil {
			return err
		}
		s.answerJSON(w, 201, in.route)
		return nil
	})
}

// removeRoute is DELETE /v1/bindings, with what names the binding in the query.
func (s *Server) removeRoute(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, "queue", "to", "filter", "exchange", "key", "where")
	s.admin(w, r, nil, func(h *hold) error {
		if q.err != nil {
			return q.err
		}
		rt := route{Queue: q.string("queue"), To: q.string("to"), binding: binding{
			Filter: core.Filter(q.string("filter")), Exchange: q.string("exchange"), Key: q.string("key"), Where: q.string("where"),
		}}
		if err := rt.change(r.Context(), h.client, core.Latest, false); err != nil {
			return err
		}
		s.answerNothing(w)
		return nil
	})
}

// condition turns the headers that a binding asks for into its selector.
func (b *binding) condition() error {
	if b.Match == "" && len(b.Headers) == 0 {
		return nil
	}
	if b.Where != "" || b.Exchange == "" {
		return badRequest.with("headers and match go with an exchange, and without where")
	}
	if b.Match != "" && b.Match != "all" && b.Match != "any" {
		return badRequest.with("match is all or any, not " + quote(b.Match))
	}
	hs := make([]core.Header, len(b.Headers))
	for i, h := range b.Headers {
		hs[i] = core.Header{Name: h[0], Value: h[1]}
	}
	where, err := core.MatchHeaders(b.Match != "any", hs)
	b.Where, b.Match, b.Headers = where, "", nil
	return err
}
