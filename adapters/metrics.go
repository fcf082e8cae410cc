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

	sums *prometheus.Registry // of what Totals sums up
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
	m.sums = prometheus.NewRegistry()
	m.sums.MustRegister(m.connects, m.received, m.sent)
	return m
}

// Totals are counters over all protocols.
type Totals struct {
	// Connects are connections that were authenticated, Received and Sent
	// messages.
	Connects, Received, Sent uint64
}

// Totals sums the counters up.
func (m *Metrics) Totals() Totals {
	families, err := m.sums.Gather()
	if err != nil {
		panic(err) // plain counters of our own
	}
	var t Totals
	for _, f := range families {
		sum := 0.0
		for _, one := range f.GetMetric() {
			sum += one.GetCounter().GetValue()
		}
		switch f.GetName() {
		case "sluice_connects_total":
			t.Connects = uint64(sum)
		case "sluice_messages_received_total":
			t.Received = uint64(sum)
		case "sluice_messages_sent_total":
			t.Sent = uint64(sum)
		}
	}
	return t
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
