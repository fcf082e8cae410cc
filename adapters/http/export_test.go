package http

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
)

func testMetrics() *adapters.ProtocolMetrics {
	return adapters.NewMetrics(prometheus.NewRegistry()).Protocol("http")
}
