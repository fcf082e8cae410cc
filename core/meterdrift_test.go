package core_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// What a queue counts is what it holds, also where what leads to it changes, or
// it is rewound, while messages are on their way to the log.
func TestMeterOfWhatIsOnItsWay(t *testing.T) {
	settings := core.QueueSettings{MaxLength: 100, Lease: core.Unlimited}
	ctx := context.Background()
	topic, other := core.Binding{Filter: "t"}, core.Binding{Filter: "u"}
	for name, c := range map[string]struct{ before, meanwhile func(p *peer) error }{
		"declared": {
			nil,
			func(p *peer) error {
				return p.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Settings: settings, Bindings: []core.Binding{topic}})
			},
		},
		"declared from the beginning": {
			func(p *peer) error { p.publish("t", "1", "2"); return nil },
			func(p *peer) error {
				return p.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Settings: settings, Bindings: []core.Binding{topic}, From: core.Earliest})
			},
		},
		"bound": {
			func(p *peer) error { p.declare("q", settings); return nil },
			func(p *peer) error { return p.BindQueue(ctx, "q", topic, core.Latest) },
		},
		"bound from the beginning": {
			func(p *peer) error { p.declare("q", settings, other); p.publish("t", "1", "2"); return nil },
			func(p *peer) error { return p.BindQueue(ctx, "q", topic, core.Earliest) },
		},
		"unbound": {
			func(p *peer) error { p.declare("q", settings, topic); return nil },
			func(p *peer) error { return p.UnbindQueue(ctx, "q", topic) },
		},
		"exchanges bound": {
			func(p *peer) error {
				p.exchange(core.ExchangeDefinition{Name: "x", Kind: core.Fanout})
				p.exchange(core.ExchangeDefinition{Name: "y", Kind: core.Fanout})
				p.declare("q", settings, core.Binding{Exchange: "y"})
				return nil
			},
			func(p *peer) error { return p.BindExchange(ctx, core.ExchangeBinding{From: "x", To: "y"}) },
		},
		"rewound": {
			func(p *peer) error {
				p.declare("q", settings, topic)
				p.publish("t", "1", "2", "3")
				k := p.consumeWhere("q", "", core.Credit{Messages: 3, Bytes: 1 << 20})
				ds := p.deliveries()
				if err := k.Settle(ds[1].Offset, core.Accepted, core.SettleOptions{}); err != nil {
					return err
				}
				p.want() // and the others stay with it
				return nil
			},
			func(p *peer) error { _, err := p.Rewind(ctx, "q", core.Earliest, false); return err },
		},
	} {
		for _, refused := range []bool{false, true} {
			run(t, func(w *world) {
				p := w.peer("p")
				if c.before != nil {
					if err := c.before(p); err != nil {
						t.Fatal(err)
					}
				}
				turn := make(chan bool)
				w.engine.Hold = func() { <-turn }
				if refused {
					w.noRoomFor(1000)
				}
				_ = p.Publish(ctx, &core.Envelope{Topic: "none"}, 0) // so that the three come in one batch
				synctest.Wait()
				for _, topic := range []string{"t", "u", core.ExchangeTopic("x", "k")} {
					if err := p.Publish(ctx, &core.Envelope{Topic: topic, Payload: make([]byte, 2000)}, 0); err != nil && name != "declared" && !errors.Is(err, core.ErrNotFound) {
						t.Fatal(err)
					}
				}
				turn <- true
				synctest.Wait()
				for _, topic := range []string{"t", core.ExchangeTopic("x", "k")} {
					_ = p.Publish(ctx, &core.Envelope{Topic: topic}, 0) // in the next batch
				}
				done := make(chan error, 1)
				go func() { done <- c.meanwhile(p) }()
				synctest.Wait()
				close(turn)
				if err := <-done; err != nil {
					t.Errorf("%s: %v", name, err)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				counted, holds := w.broker.Metered("q")
				if counted != holds || name != "unbound" && holds.Length == 0 {
					t.Errorf("%s, refused %v: %+v are counted, and %+v are there", name, refused, counted, holds)
				}
			})
		}
	}
}

// A queue is counted also while the log has no room for anything that is published
// meanwhile, and nobody tries again and again.
func TestMeterWhileFull(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.declare("q", core.QueueSettings{MaxLength: 100, Lease: core.Unlimited}, core.Binding{Filter: "t"})
		p.publish("t", "1", "2", "3")
		k := p.consumeWhere("q", "", core.Credit{Messages: 2, Bytes: 1 << 20})
		for _, d := range p.deliveries() {
			if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second) // that is in the log
		p.want()
		turn := make(chan bool)
		w.engine.Hold = func() { <-turn }
		w.noRoomFor(1000)
		publish := func(size int) {
			if err := p.Publish(ctx, &core.Envelope{Topic: "t", Payload: make([]byte, size)}, 0); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		publish(10)
		done := make(chan error, 1)
		go func() { _, err := p.Rewind(ctx, "q", core.Earliest, false); done <- err }()
		synctest.Wait()
		for range 10 {
			publish(2000)
			turn <- true
			synctest.Wait()
		}
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, core.ErrStorageFull) {
				t.Error(err)
			}
		default:
			t.Error("the queue is being counted as long as something is refused")
		}
		w.engine.Refuse = nil
		close(turn)
		time.Sleep(time.Second)
		synctest.Wait()
		if counted, holds := w.broker.Metered("q"); counted != holds || holds.Length != 5 { // with the last one, for which there is room
			t.Errorf("%+v are counted, and %+v are there", counted, holds)
		}
	})
}

// A delayed message in a transaction is let in beyond a queue's bounds, as one
// that is published by itself, and so is what is published for the second time.
func TestTransactionOfWhatDoesNotCount(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.declare("q", core.QueueSettings{MaxLength: 1})
		once := &core.Envelope{Topic: core.QueueTopic("q"), ID: "1"}
		if err := p.Publish(ctx, once, 0); err != nil {
			t.Fatal(err)
		}
		later := &core.Envelope{Topic: core.QueueTopic("q"), DeliverAt: time.Now().Add(time.Hour)}
		if err := p.Commit(ctx, core.Transaction{Publish: []*core.Envelope{later, once}}, 0); err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(ctx, core.Transaction{Publish: []*core.Envelope{{Topic: core.QueueTopic("q")}}}, 0); !errors.Is(err, core.ErrQueueFull) {
			t.Fatal(err)
		}
	})
}
