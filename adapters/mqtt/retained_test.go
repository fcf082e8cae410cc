package mqtt

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluicemq/sluice/core/coretest"
)

// TestRetainedByModel: a client with a lasting session subscribes to topics that
// have retained values, takes them a few at a time, and loses its connection, or
// the broker dies, at any moment. Each value comes, one of QoS 2 once.
func TestRetainedByModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		o := siteOptions{limits: patientLimits(), engine: &reopened{Engine: coretest.NewEngine()}}
		w := &modelWorld{site: &site{t: t, options: o, limits: o.limits}, again: make(map[string]bool)}
		w.start()
		defer func() { w.lose(); w.close() }()
		for i := range 2 {
			w.clients = append(w.clients, &modelClient{id: fmt.Sprintf("c%d", i), v: v5, acks: make(map[byte]map[uint16]bool), got2: make(map[uint16]bool)})
		}
		from, to := w.clients[0], w.clients[1]
		to.most = byte(rapid.IntRange(1, 4).Draw(rt, "receive maximum"))
		try := func(what string, err error) {
			if err != nil {
				rt.Fatalf("%s: %v", what, err)
			}
		}
		try("connect", w.connect(from, true))
		try("connect", w.connect(to, true))
		kept := make(map[string]*modelPublish)
		retain := func(i int, qos byte) {
			p := &modelPublish{topic: fmt.Sprintf("r/%d", i), qos: qos, retain: true}
			if old := kept[p.topic]; old != nil {
				delete(to.must, old.payload) // if it is yet to be sent
			}
			try("publish", w.send(from, p, true))
			kept[p.topic] = p
		}
		for i := range rapid.IntRange(1, 10).Draw(rt, "values") {
			retain(i, byte(rapid.IntRange(1, 2).Draw(rt, "qos")))
		}
		subscribe := func(qos byte) {
			try("settle", to.settle())
			try("subscribe", w.subscribe(to, "r/+", qos))
			clear(to.once) // it has them from then on, and from before
			for _, p := range kept {
				to.may[p.payload], to.must[p.payload] = struct{}{}, min(qos, p.qos)
			}
		}
		subscribe(2)
		for _, p := range kept {
			if p.qos == 2 {
				to.once[p.payload] = struct{}{}
			}
		}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			for _, c := range w.clients {
				if c.nc == nil {
					try("connect", w.connect(c, false))
				}
			}
			switch op := rapid.SampledFrom([]string{
				"barrier", "barrier", "barrier", "hold", "go on", "drop", "take over", "kill", "kill", "restart", "retain", "unsubscribe", "subscribe",
			}).Draw(rt, "do"); op {
			case "go on":
				to.hold = false
				for _, ack := range to.held {
					to.nc.Write(ack())
				}
				to.held = nil
			case "retain":
				retain(rapid.IntRange(0, 9).Draw(rt, "topic"), byte(rapid.IntRange(1, 2).Draw(rt, "qos")))
			case "unsubscribe":
				try(op, w.unsubscribe(to, "r/+"))
			case "subscribe":
				subscribe(byte(rapid.IntRange(1, 2).Draw(rt, "qos")))
			default:
				try(op, w.disturb(to, op))
			}
		}
		try("check", w.check(to))
	})
}
