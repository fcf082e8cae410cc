package bench

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A scenario is one thing that is measured.
type scenario struct {
	name  string
	about string
	// rivals can do it too.
	rivals []string
	// starts: it starts and kills its server by itself.
	starts bool
	// inProcess: it needs no server, or makes its data before one is started.
	inProcess bool
	// named: it runs only if it is named.
	named bool
	goals []goal
	run   func(ctx context.Context, r *rig) (result, error)
}

// A goal is what a reading should reach: one of times and bound, or either
// where both are set.
type goal struct {
	reading string
	// times is how much better than the first of the rivals at least, 0 if that
	// is no goal.
	times float64
	// of, where it is set, names a scenario of our own that times is held
	// against, instead of a rival.
	of string
	// bound is the absolute value to reach, 0 if that is no goal.
	bound float64
}

// A rig is what a scenario is run on: one server, started for it.
type rig struct {
	*server
	root   string // the run's folder
	disk   machine
	dialer *dialer
	span   span
	// scale shortens what is counted instead of timed: 1 is in full.
	scale float64
	size  int // of a payload
	pause time.Duration
	// settle is how far apart readings of memory are that must be the same.
	settle time.Duration
}

// scaled is n, shortened, at least 100.
func (r *rig) scaled(n int) int { return max(min(n, 100), int(float64(n)*r.scale)) }

// A result is what one run of a scenario on one server measured.
type result struct {
	Readings []reading `json:"readings"`
	// Faults are what was wrong: messages lost, repeated or out of order.
	Faults []string `json:"faults,omitempty"`
}

// A reading is one measured value.
type reading struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
	// Lower says that less is better.
	Lower bool `json:"lower_is_better,omitempty"`
	// Aside says that the value is not the server's: it is not compared.
	Aside bool `json:"aside,omitempty"`
}

func (r *result) add(name, unit string, value float64) {
	r.Readings = append(r.Readings, reading{Name: name, Unit: unit, Value: value})
}

func (r *result) addLower(name, unit string, value float64) {
	r.Readings = append(r.Readings, reading{Name: name, Unit: unit, Value: value, Lower: true})
}

func (r *result) addAside(name, unit string, value float64) {
	r.Readings = append(r.Readings, reading{Name: name, Unit: unit, Value: value, Aside: true})
}

// scenarios are all there are, in the order in which a suite runs them.
func scenarios() []scenario {
	ahead := []goal{{reading: "messages", times: 1}, {reading: "server CPU", times: 1}}
	asMany := []goal{{reading: "messages", times: 1}}
	return append([]scenario{
		pubsubScenario("mqtt-fan-in", "QoS 0, 50 publishers, 1 subscriber", ahead,
			mqttShape{publishers: 50, subscribers: 1, level: 4, window: 8192}),
		pubsubScenario("mqtt-fan-out", "QoS 0, 1 publisher, 100 subscribers", ahead,
			mqttShape{publishers: 1, subscribers: 100, level: 4, window: 256}),
		pubsubScenario("mqtt-pairs", "QoS 0, 50 publishers, 50 subscribers, one to one", ahead,
			mqttShape{publishers: 50, subscribers: 50, pairs: true, level: 4, window: 8192}),
		pubsubScenario("mqtt-confirm", "QoS 1, 50 publishers with 64 in flight, nobody subscribed", asMany,
			mqttShape{publishers: 50, qos: 1, level: 4, window: 1 << 30, flight: 64}),
		pubsubScenario("mqtt-fan-in-1", "QoS 1, 50 publishers with 64 in flight, 1 subscriber with 1,024", asMany,
			mqttShape{publishers: 50, subscribers: 1, qos: 1, level: 5, window: 50 * 1024, flight: 64}),
		pubsubScenario("mqtt-single", "QoS 1, 1 publisher with 256 in flight, nobody subscribed",
			[]goal{{reading: "messages", bound: 60_000}},
			mqttShape{publishers: 1, qos: 1, level: 4, window: 1 << 30, flight: 256}),
		pubsubScenario("mqtt-latency", "QoS 1, 1 publisher at 5,000/s, 1 subscriber",
			[]goal{{reading: "delivered p99", times: 0.5, bound: 2}},
			mqttShape{publishers: 1, subscribers: 1, qos: 1, level: 5, window: 1 << 30, flight: 1024, rate: 5000}),
		pubsubScenario("mqtt-fan-out-1000", "QoS 0, 1 publisher, 1,000 subscribers", ahead,
			mqttShape{publishers: 1, subscribers: 1000, level: 4, window: 64}),
		mqttIdleScenario("mqtt-idle", 5000, 20),
		backlogScenario(),
		restartScenario(),
		recoveryScenario(),
		logPublishScenario("log-publish", 100, []int{256, 1}, goal{reading: "256 in flight", bound: 500_000}, goal{reading: "1 in flight", bound: 5000}, goal{reading: "written", bound: 1.9}),
		logPublishScenario("log-publish-1k", 1024, []int{4096, 256, 1}, goal{reading: "payload", bound: 350}, goal{reading: "written", bound: 1.1}),
		logReadScenario(),
		httpScenario("http-publish", "64 kept connections, one request at a time each, one message a request", 64, 0,
			goal{reading: "messages", bound: 40_000}),
		httpScenario("http-batch", "8 kept connections, requests of 1,000 lines of JSON", 8, 1000,
			goal{reading: "messages", bound: 300_000}),
		streamScenario("sse-fan-out", "1 MQTT publisher, QoS 0, to 1,000 server-sent event streams", 1000, 64, oneSSE, goal{reading: "messages", times: 0.7, of: "mqtt-fan-out-1000"}),
		sseIdleScenario(),
		streamScenario("ws-fan-out", "1 MQTT publisher, QoS 0, to 1,000 WebSockets", 1000, 64, oneWS, goal{reading: "messages", times: 0.7, of: "mqtt-fan-out-1000"}),
		wsIdleScenario(),
		stompQueueScenario("stomp-queue", "8 senders with 64 receipts in flight, 8 consumers, each message acknowledged",
			[]goal{{reading: "messages", times: 5}, {reading: "server CPU", times: 10}}, 8, 64, 8, 256, 8192),
	}, gridScenarios()...)
}

// pubsubScenario measures a shape of MQTT publishers and subscribers.
func pubsubScenario(name, about string, goals []goal, shape mqttShape) scenario {
	return scenario{name: name, about: about, goals: goals, rivals: []string{mosquittoName}, run: func(ctx context.Context, r *rig) (result, error) {
		shape := shape
		if shape.size == 0 {
			shape.size = r.size
		}
		return r.traffic(ctx, name, func(l *loop) (*traffic, error) {
			if err := raiseFiles(uint64(shape.publishers+shape.subscribers) + 200); err != nil {
				return nil, err
			}
			if shape.rate > 0 {
				l.longest = 0
				if err := l.tick(time.Second / time.Duration(shape.rate)); err != nil {
					return nil, err
				}
			}
			return shape.connect(l, r.dialer, r.mqtt)
		})
	}}
}

// traffic connects a load, drives it, and reads what came of it.
func (r *rig) traffic(ctx context.Context, name string, connect func(*loop) (*traffic, error)) (result, error) {
	var out result
	l, err := newLoop()
	if err != nil {
		return out, err
	}
	defer l.close()
	l.longest = r.pause
	t, err := connect(l)
	if err != nil {
		return out, err
	}
	m, err := drive(ctx, l, t, r.span, r.pid())
	if err != nil {
		return out, err
	}
	n := m.delivered
	if !t.delivers() {
		n = m.confirmed
	}
	out.throughput(m, n)
	if t.exact {
		out.latency("delivered", t.deliver)
		out.latency("confirmed", t.confirm)
	}
	out.Faults = t.verdict().faults(m.stalls)
	return out, nil
}

// throughput adds how many messages went through, and what each cost.
func (r *result) throughput(m measured, n uint64) {
	each := func(d time.Duration) float64 { return microseconds(d) / float64(max(n, 1)) }
	r.add("messages", "/s", float64(n)/m.time.Seconds())
	r.addLower("server CPU", "µs/msg", each(m.server))
	r.addAside("generator CPU", "µs/msg", each(m.own))
	r.addAside("other processes", "% of machine", 100*m.others.Seconds()/m.time.Seconds()/float64(runtime.NumCPU()))
	r.addAside("generator reads", "msg/read", float64(n)/float64(max(m.reads, 1)))
}

// latency adds percentiles of a histogram in microseconds.
func (r *result) latency(what string, h *hdrhistogram.Histogram) {
	for _, q := range []float64{50, 99} {
		r.addLower(fmt.Sprintf("%s p%.0f", what, q), "ms", float64(h.ValueAtQuantile(q))/1000)
	}
}
