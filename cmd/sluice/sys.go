package main

import (
	"context"
	"log/slog"
	"math"
	"runtime/metrics"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// sysTopics begins the names of the figures that a sysReporter publishes. They
// are mosquitto's, as far as the broker has such a figure.
const sysTopics = core.SysPrefix + "broker/"

// sysFresh is how old figures may be that somebody asks for.
const sysFresh = time.Second

// A sysReporter publishes what the broker tells of itself, as retained values:
// those that have changed, when somebody asks for them, and at every interval
// those that somebody listens to. While nobody looks it writes nothing, so that
// an idle disk stays idle.
type sysReporter struct {
	broker   *core.Broker
	client   *core.Client
	gate     *adapters.Gate
	metrics  *adapters.Metrics
	log      *slog.Logger
	interval time.Duration
	started  time.Time

	confirmed chan core.Confirmation
	stop      chan struct{}
	stopped   sync.WaitGroup

	mu       sync.Mutex // guards what follows; held while figures are published
	told     map[string]string
	figures  []figure
	measured time.Time // when figures were
	loads    [len(sysLoads)]sysLoad
	sampled  time.Time // when loads were
	clients  int       // the most that there were
	heap     uint64    // likewise
	retained struct {
		n    int
		next time.Time // not to be counted before
	}
}

// A figure is one topic, below sysTopics, and its value.
type figure struct{ topic, value string }

// sysPending bounds the publishes whose confirmations are waited for together.
const sysPending = 16

// startSysReporter begins to report, until close.
func startSysReporter(b *core.Broker, g *adapters.Gate, m *adapters.Metrics, interval time.Duration, log *slog.Logger) *sysReporter {
	now := time.Now()
	r := &sysReporter{
		broker: b, gate: g, metrics: m, log: log, interval: interval, started: now, sampled: now,
		confirmed: make(chan core.Confirmation, sysPending), stop: make(chan struct{}), told: make(map[string]string),
	}
	r.client = b.Report(r.asked, r)
	r.stopped.Go(r.run)
	return r
}

// Confirm implements core.Confirmer. No more confirmations are outstanding than
// there is room for.
func (r *sysReporter) Confirm(cs []core.Confirmation) {
	for _, c := range cs {
		r.confirmed <- c
	}
}

func (r *sysReporter) run() {
	t := time.NewTicker(r.interval)
	defer t.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-t.C:
			r.mu.Lock()
			r.sample(time.Now())
			if len(r.figures) == 0 || slices.ContainsFunc(r.figures, r.heard) {
				r.measure()
				r.tell(context.Background(), r.heard)
			}
			r.mu.Unlock()
		}
	}
}

// heard reports whether somebody listens to a figure.
func (r *sysReporter) heard(f figure) bool { return r.client.Heard(sysTopics + f.topic) }

func (r *sysReporter) close() {
	close(r.stop)
	r.stopped.Wait()
	r.client.Close()
}

// asked publishes what a filter matches, so that who asks finds it.
func (r *sysReporter) asked(ctx context.Context, f core.Filter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.measured) > sysFresh {
		r.measure()
	}
	r.tell(ctx, func(g figure) bool { return f.Match(sysTopics + g.topic) })
}

// tell publishes the figures that have changed and are wanted, without asking
// for a sync, and returns once they can be read. r.mu is held.
func (r *sysReporter) tell(ctx context.Context, wanted func(figure) bool) {
	var sent []figure
	for _, f := range r.figures {
		if r.told[f.topic] == f.value || !wanted(f) {
			continue
		}
		e := &core.Envelope{Topic: sysTopics + f.topic, Payload: []byte(f.value), Retain: true}
		if r.client.Publish(ctx, e, core.Receipt(len(sent)+1)) != nil {
			break // who asks has gone, or the broker is being closed
		}
		if sent = append(sent, f); len(sent) == sysPending {
			if !r.settle(sent) {
				return
			}
			sent = sent[:0]
		}
	}
	r.settle(sent)
}

// settle waits until what was published is in the log, or refused, which it is
// while the disk is full: then it is told again the next time. It is false once
// the reporter is closed, however long the log takes.
func (r *sysReporter) settle(sent []figure) bool {
	for range sent {
		select {
		case <-r.stop:
			return false
		case c := <-r.confirmed:
			if f := sent[c.Receipt-1]; c.Err == nil {
				r.told[f.topic] = f.value
			} else {
				delete(r.told, f.topic)
				r.log.Debug("figure not published", "topic", sysTopics+f.topic, "err", c.Err)
			}
		}
	}
	return true
}

// measure makes the figures. r.mu is held.
func (r *sysReporter) measure() {
	now := time.Now()
	r.measured = now
	r.figures = r.figures[:0]
	add := func(topic, value string) { r.figures = append(r.figures, figure{topic, value}) }
	number := func(topic string, n uint64) { add(topic, strconv.FormatUint(n, 10)) }

	add("version", "sluice version "+versionString())
	add("uptime", strconv.Itoa(int(now.Sub(r.started).Seconds()))+" seconds")

	there := r.broker.Attendance()
	all := there.Clients + there.Away
	r.clients = max(r.clients, all)
	number("clients/connected", uint64(there.Clients))
	number("clients/disconnected", uint64(there.Away))
	number("clients/inactive", uint64(there.Away))
	number("clients/active", uint64(there.Clients))
	number("clients/total", uint64(all))
	number("clients/maximum", uint64(r.clients))
	number("clients/expired", r.broker.Stats().SessionsExpired.Load())
	number("subscriptions/count", uint64(there.Subscriptions))
	number("shared_subscriptions/count", uint64(there.Shared))

	counts := r.counts()
	number("messages/received", counts.Received)
	number("messages/sent", counts.Sent)
	number("publish/messages/received", counts.Received)
	number("publish/messages/sent", counts.Sent)
	number("publish/messages/dropped", counts.dropped)

	sizes := r.broker.Sizes()
	number("messages/stored", uint64(sizes.End-sizes.First))
	number("store/messages/count", uint64(sizes.End-sizes.First))
	number("retained messages/count", uint64(r.countRetained(now)))

	heap := heapBytes()
	r.heap = max(r.heap, heap)
	number("heap/current", heap)
	number("heap/maximum", r.heap)

	for i, l := range sysLoads {
		for w, window := range sysWindows {
			add("load/"+l.topic+"/"+window.name, strconv.FormatFloat(r.loads[i].average[w], 'f', 2, 64))
		}
	}
}

// countRetained counts the retained values, unless it did lately.
func (r *sysReporter) countRetained(now time.Time) int {
	if now.Before(r.retained.next) {
		return r.retained.n
	}
	n, err := r.broker.CountRetained()
	if err != nil {
		r.log.Error("retained values not counted", "err", err)
	} else {
		r.retained.n = n
	}
	r.retained.next = time.Now().Add(sysShare * time.Since(now))
	return r.retained.n
}

// sysShare bounds the time that goes into counting, to one part in so many.
const sysShare = 100

// heapBytes is how much the process has on its heap.
func heapBytes() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// sysCounts are the counters of which there is a load.
type sysCounts struct {
	adapters.Totals
	dropped, sockets uint64
}

func (r *sysReporter) counts() sysCounts {
	s := r.broker.Stats()
	return sysCounts{
		Totals:  r.metrics.Totals(),
		dropped: s.Expired.Load() + s.Dropped.Load() + s.Overflowed.Load() + s.Unreadable.Load(),
		sockets: r.gate.Accepted(),
	}
}

// sysLoads are the figures of which there is a moving average.
var sysLoads = [...]struct {
	topic string
	count func(*sysCounts) uint64
}{
	{"messages/received", func(c *sysCounts) uint64 { return c.Received }},
	{"messages/sent", func(c *sysCounts) uint64 { return c.Sent }},
	{"publish/received", func(c *sysCounts) uint64 { return c.Received }},
	{"publish/sent", func(c *sysCounts) uint64 { return c.Sent }},
	{"publish/dropped", func(c *sysCounts) uint64 { return c.dropped }},
	{"sockets", func(c *sysCounts) uint64 { return c.sockets }},
	{"connections", func(c *sysCounts) uint64 { return c.Connects }},
}

// sysWindows are how far back averages look.
var sysWindows = [...]struct {
	name    string
	minutes float64
}{{"1min", 1}, {"5min", 5}, {"15min", 15}}

// A sysLoad is a counter's growth a minute, as moving averages.
type sysLoad struct {
	count   uint64
	average [len(sysWindows)]float64
}

// sample moves the averages and the maxima on. r.mu is held.
func (r *sysReporter) sample(now time.Time) {
	minutes := now.Sub(r.sampled).Minutes()
	r.sampled = now
	there := r.broker.Attendance()
	r.clients = max(r.clients, there.Clients+there.Away)
	r.heap = max(r.heap, heapBytes())
	counts := r.counts()
	for i := range sysLoads {
		r.loads[i].add(sysLoads[i].count(&counts), minutes)
	}
}

// add takes in what a counter has come to after so many minutes.
func (l *sysLoad) add(count uint64, minutes float64) {
	if minutes <= 0 {
		return
	}
	rate := float64(count-l.count) / minutes
	l.count = count
	for w, window := range sysWindows {
		decay := math.Exp(-minutes / window.minutes)
		l.average[w] = l.average[w]*decay + rate*(1-decay)
	}
}
