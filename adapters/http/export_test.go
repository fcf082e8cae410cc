package http

import (
	"net"
	nethttp "net/http"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
)

func testMetrics() *adapters.ProtocolMetrics {
	return adapters.NewMetrics(prometheus.NewRegistry()).Protocol("http")
}

// Routes are the methods of each pattern of the router.
func (s *Server) Routes() map[string][]string {
	routes := make(map[string][]string)
	chi.Walk(s.mux, func(method, pattern string, _ nethttp.Handler, _ ...func(nethttp.Handler) nethttp.Handler) error {
		routes[pattern] = append(routes[pattern], method)
		return nil
	})
	return routes
}

// Wrap has each connection that is accepted from now on wrapped. It is called
// after Start and before Serve.
func (s *Server) Wrap(wrap func(net.Conn) net.Conn) {
	for i, l := range s.listeners {
		s.listeners[i] = wrapped{l, wrap}
	}
}

type wrapped struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (w wrapped) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return w.wrap(c), nil
}
