package main

import (
	"errors"
	"net"
	nethttp "net/http"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/cmd/sluice/internal/access"
	"github.com/sluicemq/sluice/core"
)

// metricsTopic is what somebody may subscribe to who may read the figures.
const metricsTopic = "$SYS/metrics"

// collectProcess registers the figures of the process and of the broker; a is
// nil where there are no users.
func collectProcess(r prometheus.Registerer, b *core.Broker, a *access.Access) {
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	stats := b.Stats()
	counter := func(name, help string, load func() uint64, labels ...string) {
		o := prometheus.CounterOpts{Namespace: "sluice", Name: name + "_total", Help: help}
		if len(labels) == 2 {
			o.ConstLabels = prometheus.Labels{labels[0]: labels[1]}
		}
		r.MustRegister(prometheus.NewCounterFunc(o, func() float64 { return float64(load()) }))
	}
	gauge := func(name, help string, load func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "sluice", Name: name, Help: help}, load))
	}
	counter("published", "Messages appended to the log.", stats.Published.Load)
	counter("publishes_refused", "Publishes that the core refused.", stats.Refused.Load)
	counter("publishes_duplicate", "Publishes found to be repetitions.", stats.Duplicates.Load)
	counter("publishes_throttled", "Publishes that had to wait because the disk was low.", stats.Throttled.Load)
	counter("clients_shed", "Clients that were ended because they read too slowly while the memory was short.", stats.Shed.Load)
	counter("sessions_expired", "Sessions that were deleted because their clients did not come back in time.", stats.SessionsExpired.Load)
	counter("queue_overflows", "How often a queue's oldest messages made room.", stats.Overflowed.Load)
	counter("delivered", "Deliveries to consumers.", stats.Delivered.Load)
	counter("redelivered", "Deliveries that were not a message's first.", stats.Redelivered.Load)
	const settled = "Deliveries, by how they were settled."
	counter("settled", settled, stats.Accepted.Load, "outcome", "accepted")
	counter("settled", settled, stats.Released.Load, "outcome", "released")
	counter("settled", settled, stats.DeadLettered.Load, "outcome", "dead_lettered")
	counter("settled", settled, stats.Dropped.Load, "outcome", "dropped")
	counter("leases_expired", "Deliveries released because their time was over.", stats.LeasesExpired.Load)
	const undelivered = "Messages that were not delivered, by reason."
	counter("undelivered", undelivered, stats.Expired.Load, "reason", "expired")
	counter("undelivered", undelivered, stats.Withheld.Load, "reason", "not_authorized")
	counter("undelivered", undelivered, stats.Unreadable.Load, "reason", "unreadable")
	counter("storage_failures", "Commits that were not made durable.", stats.StorageFailures.Load)
	counter("reclaimed_bytes", "Bytes of the log that retention freed.", stats.ReclaimedBytes.Load)
	if a != nil {
		const checked = "Passwords that were checked: by their hash, or remembered from a check shortly before."
		counter("passwords_checked", checked, a.Hashed, "how", "hashed")
		counter("passwords_checked", checked, a.Recalled, "how", "remembered")
	}
	gauge("queues", "Queues, groups and sessions.", func() float64 { return float64(b.Sizes().Queues) })
	gauge("queues_full", "Queues, groups and sessions that read on only when something of them is settled: limits.outstanding of their messages are held or wait.", func() float64 { return float64(b.CountFull()) })
	gauge("exchanges", "Exchanges.", func() float64 { return float64(b.Sizes().Exchanges) })
	gauge("log_first_offset", "The earliest offset left.", func() float64 { return float64(b.Sizes().First) })
	gauge("log_end_offset", "The offset that the next message gets.", func() float64 { return float64(b.Sizes().End) })
}

// metricsHandler serves the figures. Where there are users, it asks for one
// who may subscribe to metricsTopic.
func metricsHandler(g prometheus.Gatherer, gate *adapters.Gate, a *access.Access) nethttp.Handler {
	return onlyFor(core.Subscribe, metricsTopic, gate, a, promhttp.HandlerFor(g, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
}

// onlyFor serves those who may do something with a resource. Where there are no
// users it serves everybody.
func onlyFor(action core.Action, resource string, gate *adapters.Gate, a *access.Access, h nethttp.Handler) nethttp.Handler {
	if a == nil {
		return h
	}
	return nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		remote := net.Addr(&net.TCPAddr{})
		if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			remote = net.TCPAddrFromAddrPort(at)
		}
		if !gate.MayLogin(remote) {
			http.Refuse(w, http.ErrTooManyLogins)
			return
		}
		c := core.Credentials{Protocol: "http", Remote: remote}
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
			c.Token = token
		}
		user, password, _ := r.BasicAuth()
		c.User, c.Password = user, []byte(password)
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			c.Certificate = r.TLS.PeerCertificates[0]
		}
		p, err := a.Authenticate(r.Context(), c)
		if err != nil {
			if errors.Is(err, core.ErrUnauthenticated) && (c.User != "" || password != "" || c.Token != "") {
				gate.LoginFailed(remote)
			}
			http.Refuse(w, err)
			return
		}
		if !gate.MayLogin(remote) {
			http.Refuse(w, http.ErrTooManyLogins)
			return
		}
		if err := a.Authorize(p, action, resource); err != nil {
			http.Refuse(w, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}
