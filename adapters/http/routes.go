package http

import (
	nethttp "net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/sluicemq/sluice/core"
)

// routes builds the router. Topics and keys are the rest of the path, verbatim:
// nothing cleans paths or redirects.
func (s *Server) routes() *chi.Mux {
	m := chi.NewMux()
	m.NotFound(s.handle(func(_ nethttp.ResponseWriter, r *nethttp.Request) error { return noSuchPath(r) }))
	m.MethodNotAllowed(s.handle(s.noSuchMethod))
	get := func(pattern string, h nethttp.HandlerFunc) {
		m.Get(pattern, h)
		m.Head(pattern, h)
	}
	read := func(pattern string, h handler) { get(pattern, s.handle(h)) }

	m.Post("/t", s.handle(s.publishLines))
	m.Post("/t/*", s.handle(s.publishTopic))
	read("/t/*", s.readTopic)
	read("/sse/*", s.streamTopic)
	read("/last/*", s.readRetained)
	m.Delete("/last/*", s.handle(s.clearRetained))

	m.Post("/q/{queue}", s.handle(s.publishQueue))
	read("/q/{queue}", s.browse)
	m.Post("/q/{queue}/lease", s.handle(s.lease))
	m.Post("/lease", s.handle(s.settleLines))
	m.Post("/lease/{token}/{verb}", s.handle(s.settle))

	m.Post("/x/{exchange}", s.handle(s.publishExchange))
	m.Post("/x/{exchange}/*", s.handle(s.publishExchange))

	get("/v1/queues", s.listQueues)
	get("/v1/queues/{queue}", s.bare(s.showQueue))
	m.Put("/v1/queues/{queue}", s.bare(s.declareQueue))
	m.Delete("/v1/queues/{queue}", s.bare(s.deleteQueue))
	get("/v1/queues/{queue}/bindings", s.bare(s.listBindings))
	m.Post("/v1/queues/{queue}/bindings", s.bare(s.bind))
	m.Delete("/v1/queues/{queue}/bindings", s.unbind)
	m.Post("/v1/queues/{queue}/rewind", s.bare(s.rewindQueue))
	m.Post("/v1/queues/{queue}/purge", s.bare(s.purgeQueue))
	m.Post("/v1/queues/{queue}/move", s.bare(s.transferOf(func(c *core.Client) transferring { return c.Move }, true)))
	m.Post("/v1/queues/{queue}/copy", s.bare(s.transferOf(func(c *core.Client) transferring { return c.Copy }, true)))
	m.Post("/v1/queues/{queue}/requeue", s.bare(s.transferOf(func(c *core.Client) transferring { return c.Requeue }, false)))
	get("/v1/bindings", s.listRoutes)
	m.Post("/v1/bindings", s.bare(s.addRoute))
	m.Delete("/v1/bindings", s.removeRoute)
	get("/v1/exchanges", s.listExchanges)
	get("/v1/exchanges/{exchange}", s.bare(s.showExchange))
	m.Put("/v1/exchanges/{exchange}", s.bare(s.declareExchange))
	m.Delete("/v1/exchanges/{exchange}", s.bare(s.deleteExchange))

	get("/v1/webhooks", s.listWebhooks)
	get("/v1/queues/{queue}/webhook", s.bare(s.showWebhook))
	m.Put("/v1/queues/{queue}/webhook", s.bare(s.setWebhook))
	m.Delete("/v1/queues/{queue}/webhook", s.bare(s.deleteWebhook))
	get("/v1/clients", s.listClients)
	m.Delete("/v1/clients/{protocol}/{client}", s.handle(s.disconnect))
	get("/v1/groups", s.listGroups)
	get("/v1/delayed", s.listDelayed)
	m.Post("/v1/delayed/cancel", s.bare(s.cancelDelayed))
	get("/v1/delayed/{offset}", s.showDelayed)
	m.Delete("/v1/delayed/{offset}", s.handle(s.cancelOne))
	get("/v1/policies", s.listPolicies)
	get("/v1/retained", s.listRetained)
	get("/v1/topics", s.listTopics)

	get("/", s.front)
	get("/healthz", s.healthy)
	read("/readyz", s.ready)
	get("/openapi.json", s.description(openapi))
	get("/asyncapi.json", s.description(asyncapi))
	for _, a := range assets {
		get(a.path, s.serveAsset(a))
	}
	get("/try.json", s.tellPorts)
	for at, h := range s.options.Mount {
		method, path, _ := strings.Cut(at, " ")
		m.Method(method, path, unhurried(h))
		if method == nethttp.MethodGet {
			m.Method(nethttp.MethodHead, path, unhurried(h))
		}
	}
	return m
}

// unhurried takes the deadline away that the connection's answer before left.
func unhurried(h nethttp.Handler) nethttp.Handler {
	return nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if c, ok := w.(*coded); ok {
			w = c.ResponseWriter // it does its own
		}
		if err := nethttp.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
			return // the connection is gone
		}
		h.ServeHTTP(w, r)
	})
}

// serve is every request's way in.
func (s *Server) serve(w nethttp.ResponseWriter, r *nethttp.Request) {
	defer func() {
		if v := recover(); v != nil && v != nethttp.ErrAbortHandler {
			s.log.Error("request panicked", "method", r.Method, "panic", v, "stack", string(debug.Stack()))
			panic(nethttp.ErrAbortHandler) // the answer may have begun: cut it
		} else if v != nil {
			panic(v)
		}
	}()
	p := peerOf(r)
	p.answering.Store(true)
	if bad, n := p.follower.bad.Load(), p.served.Add(1); bad > 0 && n >= bad {
		w.Header().Set("Connection", "close")
		s.fail(w, r, badRequest.with("Transfer-Encoding and Content-Length do not go together"))
		return
	}
	if err := s.guard.check(w, r); err != nil {
		s.fail(w, r, err)
		return
	}
	if err := checkFraming(r); err != nil {
		w.Header().Set("Connection", "close")
		s.fail(w, r, err)
		return
	}
	if r.Method == nethttp.MethodOptions {
		s.tellOptions(w, r)
		return
	}
	// What is asked for most goes straight to where the router would send it,
	// which saves it a copy of the request.
	if r.Method == nethttp.MethodPost && r.URL.RawPath == "" && strings.HasPrefix(r.URL.Path, "/t/") {
		if err := s.publishTopic(w, r); err != nil {
			s.fail(w, r, err)
		}
		return
	}
	s.mux.ServeHTTP(offerCoding(w, r), r)
}

// A handler answers a request, or says why not before anything of an answer has
// been written.
type handler func(nethttp.ResponseWriter, *nethttp.Request) error

// handle makes a handler one of net/http's, which answers with the problem that
// an error is.
func (s *Server) handle(h handler) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if err := h(w, r); err != nil {
			s.fail(w, r, err)
		}
	}
}

// bare makes a handler refuse every query parameter, as none means anything to it.
func (s *Server) bare(h nethttp.HandlerFunc) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if q := queryOf(r); q.err != nil {
			s.fail(w, r, q.err)
			return
		}
		h(w, r)
	}
}

// noSuchPath is 404.
func noSuchPath(r *nethttp.Request) error {
	return notFound.with("there is nothing at " + quote(r.URL.EscapedPath()))
}

// noSuchMethod answers 405 (RFC 9110, 15.5.6).
func (s *Server) noSuchMethod(w nethttp.ResponseWriter, r *nethttp.Request) error {
	w.Header().Set("Allow", s.allowed(r))
	return wrongMethod.with(quote(r.Method) + " is not a method of this path")
}

// tellOptions answers OPTIONS, which asks for the methods of a path (RFC 9110,
// 9.3.7) and is what browsers ask before they call from another site.
func (s *Server) tellOptions(w nethttp.ResponseWriter, r *nethttp.Request) {
	allowed := s.allowed(r)
	if r.URL.Path == "*" { // the server as a whole
		allowed = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
	}
	if allowed == "OPTIONS" {
		s.fail(w, r, noSuchPath(r))
		return
	}
	w.Header().Set("Allow", allowed)
	s.answerNothing(w)
}

// allowed lists the methods of a request's path.
func (s *Server) allowed(r *nethttp.Request) string {
	path := r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath
	}
	var methods []string
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "DELETE"} {
		if s.mux.Match(chi.NewRouteContext(), m, path) {
			methods = append(methods, m)
		}
	}
	return strings.Join(append(methods, "OPTIONS"), ", ")
}
