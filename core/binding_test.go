package core_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/sluicemq/sluice/core"
)

// What a queue has passed over stays in it when the binding that led it there is
// replaced, or ends, also across a restart.
func TestPassedOverOutlivesItsBinding(t *testing.T) {
	for name, where := range map[string]string{"by priority": "", "by selector": "color = 'red'"} {
		for _, unbound := range []bool{false, true} {
			t.Run(fmt.Sprint(name, unbound), func(t *testing.T) {
				run(t, func(w *world) {
					ctx := context.Background()
					p := w.peer("p")
					p.declare("q", core.QueueSettings{Priority: where == ""})
					bind := func(s core.Settlement) {
						t.Helper()
						if err := p.BindQueue(ctx, "q", core.Binding{Filter: "t", Settlement: s}, core.Latest); err != nil {
							t.Fatal(err)
						}
					}
					bind(core.SettleNever)
					for i, color := range []string{"red", "blue", "blue"} {
						e := colored("q", color, fmt.Sprint(i))
						e.Topic = "t"
						p.send(e)
					}
					credit := plenty
					if where == "" {
						credit.Messages = 1
					}
					k := p.consumeWhere("q", where, credit)
					p.want("0")
					if unbound {
						if err := p.UnbindQueue(ctx, "q", core.Binding{Filter: "t"}); err != nil {
							t.Fatal(err)
						}
					} else {
						bind(core.SettleAlways)
					}
					k.Close()
					w.restart()
					p = w.peer("p")
					p.consumeWhere("q", "", plenty)
					p.want("0", "1", "2")
				})
			})
		}
	}
}

// A binding that cannot be replaced, for too many were that a message still waits
// under, goes on.
func TestBindBeyondTheLimit(t *testing.T) {
	runWith(t, core.Options{Limits: core.Limits{Subscriptions: 2}}, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		k := p.consume("q")
		if err := k.Bind(ctx, core.Binding{Filter: "a"}, core.BindOptions{}); err != nil {
			t.Fatal(err)
		}
		p.publish("a", "1")
		for tag := range uint64(2) {
			if err := k.Bind(ctx, core.Binding{Filter: "a", Tag: tag + 1}, core.BindOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		err := k.Bind(ctx, core.Binding{Filter: "a", Tag: 3}, core.BindOptions{})
		if !errors.Is(err, core.ErrLimit) {
			t.Fatalf("replaced a third time: %v", err)
		}
		// The same once more takes no place.
		if err := k.Bind(ctx, core.Binding{Filter: "a", Tag: 2}, core.BindOptions{}); err != nil {
			t.Fatal(err)
		}
		k.Grant(plenty)
		p.publish("a", "2")
		p.want("1", "2")
	})
}

// A retained value that is published while somebody subscribes comes, from the
// one side or the other.
func TestStressBindRetained(t *testing.T) {
	ctx := context.Background()
	c := alone(t, core.Credentials{})
	got := &arrivals{topics: make(chan string, 1000)}
	k, err := c.Subscribe(ctx, core.Subscription{}, got)
	if err != nil {
		t.Fatal(err)
	}
	k.Grant(core.Credit{Messages: 1 << 20, Bytes: 1 << 30})
	for i := range 300 {
		topic := fmt.Sprint("t", i)
		go func() {
			_ = c.Publish(ctx, &core.Envelope{Topic: topic, Payload: []byte("v"), Retain: true}, 0)
		}()
		if err := k.Bind(ctx, core.Binding{Filter: core.Filter(topic)}, core.BindOptions{Retained: true}); err != nil {
			t.Fatal(err)
		}
		got.want(t, topic)
	}
}

// A queue that was deleted is not written down again by who still binds to it.
func TestDeletedStaysDeleted(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p, other := w.peer("p"), w.peer("other")
		k := p.consume("q")
		if err := k.Bind(ctx, core.Binding{Filter: "a"}, core.BindOptions{Unsaved: true}); err != nil {
			t.Fatal(err)
		}
		if err := other.DeleteQueue(ctx, "q"); err != nil {
			t.Fatal(err)
		}
		if err := k.Save(ctx); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("saved: %v", err)
		}
		w.restart()
		if w.peer("p").HasQueue("q") {
			t.Error("the queue is back")
		}
	})
}

// An exchange that is deleted while something is bound to it, or let go, is
// there or not there for both, also after a restart.
func TestExchangeDeletedMeanwhile(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.declare("q", core.QueueSettings{})
		bd := core.Binding{Exchange: "x", Key: "k"}
		link := core.ExchangeBinding{From: "amq.fanout", To: "x"}
		for i := range 200 {
			if err := p.DeclareExchange(ctx, core.ExchangeDefinition{Name: "x", Kind: core.Direct}); err != nil {
				t.Fatal(err)
			}
			deleted := make(chan error, 1)
			if i%2 == 0 {
				go func() { deleted <- p.DeleteExchange(ctx, "x") }()
				bound := p.BindQueue(ctx, "q", bd, core.Latest)
				if err := <-deleted; (err == nil) == (bound == nil) {
					t.Fatalf("deleted: %v, bound: %v", err, bound)
				}
				if bound == nil {
					if err := p.UnbindQueue(ctx, "q", bd); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				if err := p.BindExchange(ctx, link); err != nil {
					t.Fatal(err)
				}
				go func() {
					var err error
					for err = core.ErrInUse; errors.Is(err, core.ErrInUse); {
						err = p.DeleteExchange(ctx, "x")
					}
					deleted <- err
				}()
				if err := p.UnbindExchange(ctx, link); err != nil {
					t.Fatal(err)
				}
				if err := <-deleted; err != nil {
					t.Fatal(err)
				}
			}
			if i%20 >= 18 {
				there := len(exchanges(p))
				w.restart()
				if p = w.peer("p"); len(exchanges(p)) != there {
					t.Fatalf("%d exchanges were there, %d are", there, len(exchanges(p)))
				}
			}
		}
	})
}

func exchanges(p *peer) (all []core.ExchangeDefinition) {
	for x := range p.Exchanges() {
		all = append(all, x)
	}
	return all
}

// An exchange is gone before that a binding to it had ended is written down:
// the broker opens, and what had come over the exchange is still there.
func TestExchangeGoneBeforeItsBinding(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.declare("q", core.QueueSettings{})
		if err := p.DeclareExchange(ctx, core.ExchangeDefinition{Name: "x", Kind: core.Fanout}); err != nil {
			t.Fatal(err)
		}
		bd := core.Binding{Exchange: "x", Key: "k"}
		if err := p.BindQueue(ctx, "q", bd, core.Latest); err != nil {
			t.Fatal(err)
		}
		p.publish(core.ExchangeTopic("x", "any"), "m")
		w.engine.Fail(core.ErrStorageFull)
		if err := p.UnbindQueue(ctx, "q", bd); !errors.Is(err, core.ErrStorageFull) {
			t.Fatalf("unbound: %v", err)
		}
		w.engine.Fail(nil)
		if err := p.DeleteExchange(ctx, "x"); err != nil {
			t.Fatal(err)
		}
		w.kill()
		p = w.peer("p")
		p.consumeWhere("q", "", plenty)
		p.want("m")
	})
}

// Of those who take a queue over at the same time, one has it.
func TestOneTakesOver(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.declare("q", core.QueueSettings{})
		for range 50 {
			const many = 4
			peers := make([]*peer, many)
			taken := make(chan error, many)
			for i := range peers {
				peers[i] = w.peer(fmt.Sprint("c", i))
				go func() {
					k, err := peers[i].Consume(context.Background(), core.Consumption{Queue: "q", Exclusive: true, Settlement: core.SettleNever}, peers[i])
					if err == nil {
						k.Grant(plenty)
					}
					taken <- err
				}()
			}
			for range many {
				if err := <-taken; err != nil {
					t.Fatal(err)
				}
			}
			if info, err := p.Queue("q"); err != nil || info.Consumers != 1 {
				t.Fatalf("%d consumers, %v", info.Consumers, err)
			}
			for _, c := range peers {
				c.Close()
			}
		}
	})
}

// Bindings that have ended, and that messages still wait under, take no place of
// those in force; they have a bound of their own.
func TestEndedBindingsTakeNoPlace(t *testing.T) {
	runWith(t, core.Options{Limits: core.Limits{Subscriptions: 4}}, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		s := core.QueueSettings{Kind: core.KindSession}
		k, err := p.Consume(ctx, core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &s, Exclusive: true}, p)
		if err != nil {
			t.Fatal(err)
		}
		k.Grant(plenty)
		binding := func(round, i int) core.Binding {
			return core.Binding{Filter: core.Filter(fmt.Sprintf("t/%d/%d", round, i)), Settlement: core.SettleAlways}
		}
		bindFour := func(round int) {
			t.Helper()
			for i := range 4 {
				if err := k.Bind(ctx, binding(round, i), core.BindOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if err := k.Bind(ctx, binding(round, 4), core.BindOptions{}); !errors.Is(err, core.ErrLimit) {
				t.Fatalf("a fifth one: %v", err)
			}
		}
		unbindFour := func(round int) {
			t.Helper()
			for i := range 4 {
				p.publish(string(binding(round, i).Filter), "x")
				if err := k.Unbind(ctx, binding(round, i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		bindFour(0)
		unbindFour(0)
		bindFour(1) // while four messages are held
		unbindFour(1)
		held := p.deliveries()
		if len(held) != 8 {
			t.Fatalf("%d messages", len(held))
		}
		if err := k.Bind(ctx, binding(2, 0), core.BindOptions{}); !errors.Is(err, core.ErrLimit) {
			t.Fatalf("with eight that have ended: %v", err)
		}
		for _, d := range held {
			if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		bindFour(2)
	})
}
