package adapters

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the counters that every adapter keeps, by protocol. No label ever
// holds a peer's words.
type Metrics struct {
	connections *prometheus.GaugeVec
	connects    *prometheus.CounterVec
	received    *prometheus.CounterVec
	sent        *prometheus.CounterVec
	refused     *prometheus.CounterVec
	fallbacks   *prometheus.CounterVec
}

// NewMetrics makes the counters and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "sluice", Name: name, Help: help}, append([]string{"protocol"}, labels...))
		r.MustRegister(c)
		return c
	}
	m := &Metrics{
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "sluice", Name: "connections", Help: "Connections that are open."}, []string{"protocol"}),
		connects:    counter("connects_total", "Connections that were authenticated."),
		received:    counter("messages_received_total", "Messages taken from publishers."),
		sent:        counter("messages_sent_total", "Messages sent to consumers."),
		refused:     counter("refused_total", "What was refused, by reason: a limit, a malformed packet, a right that is missing.", "reason"),
		fallbacks:   counter("translation_fallbacks_total", "What a protocol could not express and how it was sent instead.", "field"),
	}
	r.MustRegister(m.connections)
	return m
}

// Protocol resolves one protocol's counters; an adapter does so once.
func (m *Metrics) Protocol(name string) *ProtocolMetrics {
	return &ProtocolMetrics{
		Connections: m.connections.WithLabelValues(name),
		Connects:    m.connects.WithLabelValues(name),
		Received:    m.received.WithLabelValues(name),
		Sent:        m.sent.WithLabelValues(name),
		refused:     m.refused.MustCurryWith(prometheus.Labels{"protocol": name}),
		fallbacks:   m.fallbacks.MustCurryWith(prometheus.Labels{"protocol": name}),
	}
}

// ProtocolMetrics are one protocol's counters.
type ProtocolMetrics struct {
	Connections              prometheus.Gauge
	Connects, Received, Sent prometheus.Counter

	refused, fallbacks *prometheus.CounterVec
}

// Refused counts a refusal; reason is a fixed lower-case word of the adapter's,
// such as "malformed" or "packet_too_large".
func (p *ProtocolMetrics) Refused(reason string) { p.refused.WithLabelValues(reason).Inc() }

// Fallback counts a field that the protocol could not express.
func (p *ProtocolMetrics) Fallback(field string) { p.fallbacks.WithLabelValues(field).Inc() }
