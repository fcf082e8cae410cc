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
	traffic     [4]*prometheus.CounterVec // in the order of Traffic's fields

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
	m.traffic = [...]*prometheus.CounterVec{
		counter("bytes_received_total", "Bytes read from connections; of protocols that count them."),
		counter("bytes_sent_total", "Bytes written to connections; of protocols that count them."),
		counter("payload_bytes_received_total", "Payload bytes of messages taken from publishers; of protocols that count them."),
		counter("payload_bytes_sent_total", "Payload bytes of messages sent to consumers; of protocols that count them."),
	}
	r.MustRegister(m.connections)
	m.sums = prometheus.NewRegistry()
	m.sums.MustRegister(m.connects, m.received, m.sent)
	for _, c := range m.traffic {
		m.sums.MustRegister(c)
	}
	return m
}

// Totals are counters over all protocols.
type Totals struct {
	// Connects are connections that were authenticated, Received and Sent
	// messages.
	Connects, Received, Sent uint64
	// BytesReceived and BytesSent went over connections, PayloadReceived and
	// PayloadSent are messages' payloads among them; of the protocols that count
	// them.
	BytesReceived, BytesSent, PayloadReceived, PayloadSent uint64
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
		case "sluice_bytes_received_total":
			t.BytesReceived = uint64(sum)
		case "sluice_bytes_sent_total":
			t.BytesSent = uint64(sum)
		case "sluice_payload_bytes_received_total":
			t.PayloadReceived = uint64(sum)
		case "sluice_payload_bytes_sent_total":
			t.PayloadSent = uint64(sum)
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

// Traffic counts bytes of one protocol: of its connections, and of messages'
// payloads among them.
type Traffic struct {
	Received, Sent, PayloadReceived, PayloadSent prometheus.Counter
}

// Traffic resolves one protocol's counters of bytes; an adapter that counts them
// does so once.
func (m *Metrics) Traffic(name string) *Traffic {
	return &Traffic{
		Received: m.traffic[0].WithLabelValues(name), Sent: m.traffic[1].WithLabelValues(name),
		PayloadReceived: m.traffic[2].WithLabelValues(name), PayloadSent: m.traffic[3].WithLabelValues(name),
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
