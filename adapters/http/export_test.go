package http

import (
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
