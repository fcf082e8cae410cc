package core_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// noRoomFor has an engine refuse the batches with a record that is longer.
func (w *world) noRoomFor(bytes int) {
	w.engine.Refuse = func(b *core.Batch) error {
		from := uint32(0)
		for _, end := range b.Ends {
			if int(end-from) > bytes {
				return core.ErrStorageFull
			}
			from = end
		}
		return nil
	}
}

// inQueue is what a queue has for a consumer of a broker on what an engine left.
func (w *world) inQueue(e *coretest.Engine, queue string) []string {
	w.t.Helper()
	b, err := core.Open(context.Background(), core.Options{Engine: e})
	if err != nil {
		w.t.Fatal(err)
	}
	other := &world{t: w.t, engine: e, broker: b}
	defer other.close()
	p := other.peer("left")
	k, err := p.Consume(context.Background(), core.Consumption{Queue: queue, Settlement: core.SettleAlways}, p)
	if errors.Is(err, core.ErrNotFound) {
		return nil
	} else if err != nil {
		w.t.Fatal(err)
	}
	k.Grant(plenty)
	time.Sleep(2 * time.Minute) // a backoff may have to pass
	got := p.take()
	slices.Sort(got)
	return slices.Compact(got)
}

// A commit that was refused for lack of room has no part that becomes durable:
// not its settlements of one queue with the next commit, which had been
// gathered while it was on its way, and those of another one never.
func TestNothingOfARefusedTransaction(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		var ks []*core.Consumer
		var held [][]core.Delivery
		for _, q := range []string{"one", "two"} {
			k := a.consume(q)
			a.publish("$queue/"+q, "in", "beside")
			k.Grant(plenty)
			ks, held = append(ks, k), append(held, a.deliveries())
		}
		time.Sleep(time.Second)
		synctest.Wait()

		// Each batch waits for its turn, so that what comes meanwhile is the
		// next one. What is durable before each is kept.
		turn := make(chan bool)
		var images []*coretest.Engine
		w.engine.Hold = func() {
			images = append(images, w.engine.Clone())
			<-turn
		}
		w.noRoomFor(1000)
		err := a.Commit(ctx, core.Transaction{
			Publish: []*core.Envelope{{Topic: "out", Payload: make([]byte, 2000)}},
			Settle:  []core.Settling{{Consumer: ks[0], Offset: held[0][0].Offset, Outcome: core.Accepted}, {Consumer: ks[1], Offset: held[1][0].Offset, Outcome: core.Rejected}},
		}, 1)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for i, k := range ks {
			if err := k.Settle(held[i][1].Offset, core.Accepted, core.SettleOptions{Receipt: core.Receipt(2 + i)}); err != nil {
				t.Fatal(err)
			}
		}
		for range 4 {
			time.Sleep(time.Second)
			synctest.Wait()
			select {
			case turn <- true:
			default:
			}
		}
		close(turn)
		synctest.Wait()
		images = append(images, w.engine.Clone())
		if len(a.confirms) != 3 || !errors.Is(a.confirms[0].Err, core.ErrStorageFull) || a.confirms[1].Err != nil || a.confirms[2].Err != nil {
			t.Fatalf("%+v", a.confirms)
		}
		if len(images) < 3 {
			t.Fatalf("just %d batches", len(images))
		}
		for i, e := range images {
			for _, q := range []string{"one", "two"} {
				if got := w.inQueue(e, q); !slices.Contains(got, "in") {
					t.Errorf("after batch %d the queue %s has just %q", i, q, got)
				}
			}
		}
	})
}

// However long there is no room, what is owed does not grow, it is tried at a
// measured pace, and the log of the program is not filled with it.
func TestLongWithoutRoom(t *testing.T) {
	var log bytes.Buffer
	runWith(t, core.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(w *world) {
		a := w.peer("a")
		k := a.consume("q")
		a.publish("$queue/q", "1")
		k.Grant(plenty)
		held := a.deliveries()
		time.Sleep(time.Second)
		synctest.Wait()
		batches, most := 0, 0
		w.engine.Refuse = func(b *core.Batch) error {
			batches, most = batches+1, max(most, len(b.Changes))
			return core.ErrStorageFull
		}
		if err := k.Settle(held[0].Offset, core.Accepted, core.SettleOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		w.engine.Refuse = nil
		if most > 4 || batches > 300 {
			t.Errorf("%d batches of up to %d changes", batches, most)
		}
		if n := strings.Count(log.String(), "level=WARN"); n == 0 || n > 7 {
			t.Errorf("%d warnings in a minute", n)
		}
	})
}

// What is published to a queue that was made in a refused commit is not without
// the queue, when the process ends behind the next one.
func TestQueueOfARefusedCommit(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		var image *coretest.Engine
		turn := make(chan bool)
		w.engine.Hold = func() { <-turn }
		w.noRoomFor(1000)
		publish := func(topic string, size int, r core.Receipt) {
			t.Helper()
			if err := a.Publish(ctx, &core.Envelope{Topic: topic, Payload: make([]byte, size), Guarantee: core.AtLeastOnce}, r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		// The queue is in one batch with its first message, behind another one.
		publish("other", 10, 0)
		publish("$queue/new", 2000, 1)
		turn <- true
		synctest.Wait()
		publish("$queue/new", 10, 2)
		turn <- true
		synctest.Wait()
		w.engine.Hold = func() {
			if image == nil {
				image = w.engine.Clone() // behind the second one
			}
		}
		turn <- true
		synctest.Wait()
		if len(a.confirms) != 2 || !errors.Is(a.confirms[0].Err, core.ErrStorageFull) || a.confirms[1].Err != nil {
			t.Fatalf("%+v", a.confirms)
		}
		if image == nil {
			image = w.engine.Clone()
		}
		if got := w.inQueue(image, "new"); len(got) != 1 {
			t.Fatalf("the queue has %d messages", len(got))
		}
	})
}

// A queue whose end was refused ends when there is room again, and the state has
// nothing of it.
func TestEndOfAQueueIsRefused(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		a.declare("q", core.QueueSettings{MaxLength: 10})
		synctest.Wait() // it was counted
		a.publish("$queue/q", "1")
		time.Sleep(time.Minute)
		synctest.Wait()
		keys := func() (list []string) {
			for s, err := range w.engine.Clone().State("", "") {
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(s.Key, "/q") {
					list = append(list, s.Key)
				}
			}
			return list
		}
		if got := keys(); len(got) != 3 {
			t.Fatalf("of the queue the state has %q", got)
		}
		w.engine.Fail(core.ErrStorageFull)
		if err := a.DeleteQueue(ctx, "q"); !errors.Is(err, core.ErrStorageFull) {
			t.Fatal(err)
		}
		w.engine.Fail(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := w.inQueue(w.engine.Clone(), "q"); got != nil {
			t.Fatalf("it is there, with %q", got)
		}
		if got := keys(); len(got) > 0 {
			t.Errorf("the state still has %q", got)
		}
	})
}

// What was moved, or purged, in a refused commit is where it was: what nobody had
// been given yet as well as what waits to be delivered again.
func TestRefusedSift(t *testing.T) {
	for _, s := range []core.QueueSettings{{}, {Ordered: true}, {Priority: true}, {MaxLength: 10}} {
		runWith(t, core.Options{}, func(w *world) {
			ctx := context.Background()
			a := w.peer("a")
			if err := a.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Settings: s}); err != nil {
				t.Fatal(err)
			}
			for i := range 6 {
				e := &core.Envelope{Topic: "$queue/q", Key: "k", Payload: fmt.Append(nil, i)}
				if err := a.Publish(ctx, e, 0); err != nil {
					t.Fatal(err)
				}
			}
			k := a.consume("q")
			k.Grant(core.Credit{Messages: 2, Bytes: 1 << 20})
			a.take()
			k.Close()
			w.engine.Fail(core.ErrStorageFull)
			if got, err := a.Move(ctx, "q", core.Transfer{To: "$queue/other"}); !errors.Is(err, core.ErrStorageFull) || got.Messages != 0 {
				t.Fatalf("moved %+v, %v", got, err)
			}
			if got, err := a.Purge(ctx, "q", core.Selection{}, false); !errors.Is(err, core.ErrStorageFull) || got.Messages != 0 {
				t.Fatalf("purged %+v, %v", got, err)
			}
			w.engine.Fail(nil)
			time.Sleep(time.Second)
			synctest.Wait()
			if got := w.inQueue(w.engine.Clone(), "q"); !s.Ordered && len(got) != 6 || len(got) == 0 {
				t.Errorf("%+v: after a kill there are %q", s, got)
			}
			k = a.consume("q")
			k.Grant(plenty)
			var got []string
			for range 6 {
				for _, d := range a.deliveries() {
					got = append(got, string(d.Payload))
					if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if want := []string{"0", "1", "2", "3", "4", "5"}; !slices.Equal(got, want) {
				t.Errorf("%+v: there are %q", s, got)
			}
			if s.MaxLength > 0 {
				for i := range 11 {
					a.confirms = nil
					if err := a.Publish(ctx, &core.Envelope{Topic: "$queue/q"}, 1); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					if full := errors.Is(a.confirms[0].Err, core.ErrQueueFull); full != (i == 10) {
						t.Fatalf("publish %d: %v", i, a.confirms[0].Err)
					}
				}
			}
		})
	}
}

// A queue whose position the log has no room for is told of to who leases from
// it, at once, and delivers by itself when there is room again.
func TestDeliveryWaitsForRoom(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a, b := w.peer("a"), w.peer("b")
		a.publish("$queue/q", "1", "2")
		a.publish("$queue/p", "3")
		w.engine.Fail(core.ErrStorageFull)
		began := time.Now()
		got, err := a.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 1})
		if !errors.Is(err, core.ErrStorageFull) || len(got) > 0 || time.Since(began) > time.Second {
			t.Fatalf("%d leases after %v: %v", len(got), time.Since(began), err)
		}
		b.consume("p").Grant(plenty)
		b.want()
		go func() {
			time.Sleep(10 * time.Second)
			w.engine.Fail(nil)
		}()
		got, err = a.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 1, Wait: time.Minute})
		if err != nil || len(got) != 1 || time.Since(began) > 15*time.Second {
			t.Fatalf("%d leases after %v: %v", len(got), time.Since(began), err)
		}
		time.Sleep(time.Second)
		b.want("3")
		w.engine.Fail(core.ErrStorageFull)
		began = time.Now()
		if _, err := a.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 1, Wait: 3 * time.Second}); !errors.Is(err, core.ErrStorageFull) || time.Since(began) != 3*time.Second {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		w.engine.Fail(nil)
	})
}

// A queue is durable when a declaration of it returns, also where somebody else
// is making it or has not been able to; the same goes for its bindings.
func TestSecondDeclare(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a, b, c := w.peer("a"), w.peer("b"), w.peer("c")
		turn := make(chan bool)
		w.engine.Hold = func() { <-turn }
		d := core.QueueDefinition{Name: "q", Bindings: []core.Binding{{Filter: "t"}}}
		type result struct {
			who   string
			err   error
			there bool
		}
		results := make(chan result, 3)
		tell := func(who string, err error) {
			v, _ := w.engine.Get("q/q")
			results <- result{who, err, v != nil}
		}
		go func() { tell("first", a.DeclareQueue(ctx, d)) }()
		synctest.Wait()
		go func() { tell("second", b.DeclareQueue(ctx, d)) }()
		go func() {
			_, err := c.Consume(ctx, core.Consumption{Queue: "q", Create: true}, c)
			tell("consumer", err)
		}()
		synctest.Wait()
		if n := len(results); n > 0 {
			t.Fatalf("%+v before anything is durable", <-results)
		}
		close(turn)
		for range 3 {
			if r := <-results; r.err != nil || !r.there {
				t.Fatalf("%+v", r)
			}
		}

		// Nothing is written for what is durable already.
		synctest.Wait()
		time.Sleep(time.Second)
		w.engine.Fail(core.ErrStorageFull)
		if err := b.DeclareQueue(ctx, d); err != nil {
			t.Fatal(err)
		}
		d.Bindings = append(d.Bindings, core.Binding{Filter: "u"})
		for range 2 {
			if err := b.DeclareQueue(ctx, d); !errors.Is(err, core.ErrStorageFull) {
				t.Fatalf("a binding that there is no room for: %v", err)
			}
			other := core.QueueDefinition{Name: "other"}
			if err := b.DeclareQueue(ctx, other); !errors.Is(err, core.ErrStorageFull) {
				t.Fatalf("a queue that there is no room for: %v", err)
			}
			if _, err := c.Consume(ctx, core.Consumption{Queue: "other"}, c); !errors.Is(err, core.ErrStorageFull) {
				t.Fatalf("a consumer of a queue that there is no room for: %v", err)
			}
		}
		w.engine.Fail(nil)
		if err := b.DeclareQueue(ctx, d); err != nil {
			t.Fatal(err)
		}
		if v, _ := w.engine.Get("q/q"); !strings.Contains(string(v), `"u"`) {
			t.Fatalf("durable is %s", v)
		}
	})
}

// A lease that could not be settled for want of room is what it was: the message
// is there, nobody else gets it, and the token settles it once there is room.
// That the queue's position goes into the log again does not settle it.
func TestRefusedLease(t *testing.T) {
	outcomes := []core.Outcome{core.Accepted, core.Released, core.Rejected}
	for _, s := range []core.QueueSettings{{}, {Ordered: true}, {SingleActive: true}, {MaxLength: 10}, {AutoDelete: true}} {
		for _, o := range outcomes {
			runWith(t, core.Options{}, func(w *world) {
				ctx := context.Background()
				a := w.peer("a")
				if err := a.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Settings: s}); err != nil {
					t.Fatal(err)
				}
				for i := range 2 {
					if err := a.Publish(ctx, &core.Envelope{Topic: "$queue/q", Key: "k", Payload: fmt.Append(nil, i)}, 0); err != nil {
						t.Fatal(err)
					}
				}
				lease := func() string {
					t.Helper()
					got, err := a.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 1, Wait: time.Minute, For: time.Hour})
					if err != nil || len(got) != 1 {
						t.Fatalf("%+v: %d leases, %v", s, len(got), err)
					}
					return got[0].Token
				}
				token := lease()
				time.Sleep(time.Second)
				synctest.Wait()
				w.engine.Fail(core.ErrStorageFull)
				settle := func() error {
					return a.SettleLease(ctx, token, o, core.SettleOptions{Delay: time.Hour})
				}
				for range 2 {
					if err := settle(); !errors.Is(err, core.ErrStorageFull) {
						t.Fatalf("%+v, %v: %v", s, o, err)
					}
				}
				w.engine.Fail(nil)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if got := w.inQueue(w.engine.Clone(), "q"); !slices.Contains(got, "0") {
					t.Errorf("%+v, %v: after a kill there are %q", s, o, got)
				}
				if dead := w.inQueue(w.engine.Clone(), "q.dead"); dead != nil {
					t.Errorf("%+v, %v: the dead letters are %q", s, o, dead)
				}
				if err := settle(); err != nil {
					t.Fatalf("%+v, %v: with room: %v", s, o, err)
				}
				if err := settle(); !errors.Is(err, core.ErrNotHeld) {
					t.Fatalf("%+v, %v: a second time: %v", s, o, err)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if got := w.inQueue(w.engine.Clone(), "q"); o != core.Released && slices.Contains(got, "0") {
					t.Errorf("%+v, %v: it is settled, and there are %q", s, o, got)
				}
				if dead := w.inQueue(w.engine.Clone(), "q.dead"); o == core.Rejected && len(dead) != 1 {
					t.Errorf("%+v, %v: the dead letters are %q", s, o, dead)
				}
			})
		}
	}
}

// A settlement that there is no room for, of which the client wants to know, has
// not happened: the consumer holds the message as before, without the credit
// that the settlement was to bring, and settles it once there is room.
func TestRefusedSettlement(t *testing.T) {
	outcomes := []core.Outcome{core.Accepted, core.Released, core.Rejected}
	for _, s := range []core.QueueSettings{{}, {Ordered: true}, {SingleActive: true}, {Priority: true}, {MaxLength: 10}, {AutoDelete: true}} {
		for _, o := range outcomes {
			for _, transaction := range []bool{false, true} {
				run(t, func(w *world) {
					ctx := context.Background()
					a := w.peer("a")
					a.declare("q", s)
					for i := range 3 {
						if err := a.Publish(ctx, &core.Envelope{Topic: "$queue/q", Key: fmt.Sprint("k", i%2), Payload: fmt.Append(nil, i)}, 0); err != nil {
							t.Fatal(err)
						}
					}
					k := a.consumeWhere("q", "", core.Credit{Messages: 1, Bytes: 1 << 20})
					held := a.deliveries()
					if len(held) != 1 {
						t.Fatalf("%+v: %d held", s, len(held))
					}
					at := held[0].Offset
					time.Sleep(time.Second)
					synctest.Wait()
					receipt := core.Receipt(0)
					settle := func(want error) {
						t.Helper()
						receipt++
						opts := core.SettleOptions{Receipt: receipt, Delay: time.Hour, Credit: core.Credit{Messages: 1}}
						var err error
						if transaction {
							err = a.Commit(ctx, core.Transaction{Settle: []core.Settling{{Consumer: k, Offset: at, Outcome: o, Options: opts}}}, receipt)
						} else {
							err = k.Settle(at, o, opts)
						}
						synctest.Wait()
						if err == nil {
							err = a.confirms[len(a.confirms)-1].Err
						}
						if !errors.Is(err, want) {
							t.Fatalf("%+v, %v: %v, want %v", s, o, err, want)
						}
					}
					w.engine.Fail(core.ErrStorageFull)
					settle(core.ErrStorageFull)
					settle(core.ErrStorageFull)
					w.engine.Fail(nil)
					time.Sleep(10 * time.Second)
					others := len(a.take()) // what the credit brought until it was taken back
					if !k.Holds(at) {
						t.Fatalf("%+v, %v: it is not held any more", s, o)
					}
					if got := w.inQueue(w.engine.Clone(), "q"); !slices.Contains(got, "0") {
						t.Errorf("%+v, %v: after a kill there are %q", s, o, got)
					}
					if dead := w.inQueue(w.engine.Clone(), "q.dead"); dead != nil {
						t.Errorf("%+v, %v: the dead letters are %q", s, o, dead)
					}
					settle(nil)
					settle(core.ErrNotHeld)
					time.Sleep(10 * time.Second)
					if others += len(a.take()); others != 1 {
						t.Errorf("%+v, %v: it had credit for %d others", s, o, others)
					}
					if got := w.inQueue(w.engine.Clone(), "q"); o != core.Released && slices.Contains(got, "0") {
						t.Errorf("%+v, %v: it is settled, and there are %q", s, o, got)
					}
					if dead := w.inQueue(w.engine.Clone(), "q.dead"); o == core.Rejected && !slices.Equal(dead, []string{"0"}) {
						t.Errorf("%+v, %v: the dead letters are %q", s, o, dead)
					}
				})
			}
		}
	}
}

// A message was released, and that is refused when it has gone further already:
// it was on its way to a consumer, which left meanwhile, or it was moved, or
// purged, by a later commit that there is room for. Then it has the attempts that
// it had, and stays where it went.
func TestReleaseRefusedTooLate(t *testing.T) {
	for name, test := range map[string]struct {
		settings core.QueueSettings
		lease    bool
		// further is what happens while the release is on its way.
		further func(w *world, a *peer, k *core.Consumer)
		q, to   string // what the queues have after it, each with its attempt
	}{
		"assigned": {q: "in:3", further: func(w *world, _ *peer, k *core.Consumer) {
			k.Grant(plenty)
			synctest.Wait()
			k.Close()
		}},
		"assigned in order": {settings: core.QueueSettings{Ordered: true}, q: "in:3", further: func(w *world, _ *peer, k *core.Consumer) {
			k.Grant(plenty)
			synctest.Wait()
			k.Close()
		}},
		"moved": {to: "in:1", further: func(w *world, a *peer, _ *core.Consumer) {
			go a.Move(context.Background(), "q", core.Transfer{To: core.QueueTopic("to")})
		}},
		"purged": {further: func(w *world, a *peer, _ *core.Consumer) {
			go a.Purge(context.Background(), "q", core.Selection{}, false)
		}},
		"leased and moved": {lease: true, to: "in:1", further: func(w *world, a *peer, _ *core.Consumer) {
			go a.Move(context.Background(), "q", core.Transfer{To: core.QueueTopic("to")})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(w *world) {
				ctx := context.Background()
				a := w.peer("a")
				s := test.settings
				s.Backoff, s.BackoffMax = 1, 1
				a.declare("q", s)
				a.declare("to", core.QueueSettings{})
				if err := a.Publish(ctx, &core.Envelope{Topic: core.QueueTopic("q"), Key: "k", Payload: []byte("in")}, 0); err != nil {
					t.Fatal(err)
				}
				var k *core.Consumer
				var release func()
				if test.lease {
					leases, err := a.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 1, Wait: time.Minute, For: time.Hour})
					if err != nil || len(leases) != 1 {
						t.Fatalf("%d leases, %v", len(leases), err)
					}
					release = func() {
						go a.SettleLease(ctx, leases[0].Token, core.Released, core.SettleOptions{Delay: core.NoDelay})
					}
				} else {
					one := core.Credit{Messages: 1, Bytes: 1 << 20}
					k = a.consumeWhere("q", "", one)
					for attempt := 1; ; attempt++ {
						held := a.deliveries()
						if len(held) != 1 || int(held[0].Attempt) != attempt {
							t.Fatalf("%+v", held)
						}
						if attempt == 2 || test.to != "" || test.q == "" {
							release = func() {
								if err := k.Settle(held[0].Offset, core.Released, core.SettleOptions{Receipt: 1, Delay: core.NoDelay}); err != nil {
									t.Error(err)
								}
							}
							break
						}
						if err := k.Settle(held[0].Offset, core.Released, core.SettleOptions{Delay: core.NoDelay, Credit: one}); err != nil {
							t.Fatal(err)
						}
					}
				}
				time.Sleep(time.Second)
				synctest.Wait()

				// The release is on its way alone, and what comes further is the next
				// commit.
				goOn := w.refuseNext(1)
				release()
				synctest.Wait()
				test.further(w, a, k)
				goOn()
				if len(a.take()) > 0 {
					t.Error("a consumer got it that had left")
				}
				if k != nil {
					k.Close()
				}
				for i, want := range []string{test.q, test.to} {
					q := []string{"q", "to"}[i]
					b := w.peer("b" + q)
					held := b.consumeWhere(q, "", plenty)
					if got := b.attempts(); got != want {
						t.Errorf("the queue %q has %q, want %q", q, got, want)
					}
					held.Close()
					if info, err := b.Queue(q); err != nil || info.Held != 0 {
						t.Errorf("%+v, %v", info, err)
					}
				}
				for i, want := range []string{test.q, test.to} {
					q := []string{"q", "to"}[i]
					if got := w.inQueue(w.engine.Clone(), q); (len(got) > 0) != (want != "") {
						t.Errorf("after a kill the queue %q has %q", q, got)
					}
				}
			})
		})
	}
}

// What a consumer released comes to it once more while that is on its way, by the
// credit that came with it. If the release is refused then, the credit is spent.
func TestCreditOfALateRefusal(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.declare("q", core.QueueSettings{Backoff: 1, BackoffMax: 1})
		a.publish(core.QueueTopic("q"), "in")
		one := core.Credit{Messages: 1, Bytes: 1 << 20}
		k := a.consumeWhere("q", "", one)
		at := a.deliveries()[0].Offset
		time.Sleep(time.Second)
		synctest.Wait()
		goOn := w.refuseNext(1)
		if err := k.Settle(at, core.Released, core.SettleOptions{Receipt: 1, Credit: one, Delay: core.NoDelay}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		goOn()
		if got := a.attempts(); got != "in:2" || !errors.Is(a.confirms[len(a.confirms)-1].Err, core.ErrStorageFull) {
			t.Fatalf("got %q, and of the release %v", got, a.confirms)
		}
		if err := k.Settle(at, core.Accepted, core.SettleOptions{Credit: one}); err != nil {
			t.Fatal(err)
		}
		a.publish(core.QueueTopic("q"), "next")
		if got := a.attempts(); got != "next:1" {
			t.Fatalf("got %q: a credit is lost", got)
		}
	})
}

// Publishes that there was no room for do not push out what is remembered of
// others, however often they are tried again.
func TestRefusedIDsPushNothingOut(t *testing.T) {
	runWith(t, core.Options{Limits: core.Limits{DedupIDs: 3}}, func(w *world) {
		a := w.peer("a")
		publish := func(id string) {
			t.Helper()
			if err := a.Publish(context.Background(), &core.Envelope{Topic: "t", ID: id, Guarantee: core.AtLeastOnce}, 1); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for _, id := range []string{"1", "2", "3"} {
			publish(id)
		}
		w.engine.Fail(core.ErrStorageFull)
		for range 10 {
			publish("new")
		}
		w.engine.Fail(nil)
		repeated := func(want ...string) {
			t.Helper()
			for _, id := range want {
				before := w.broker.Stats().Duplicates.Load()
				if publish(id); w.broker.Stats().Duplicates.Load() == before {
					t.Errorf("%s is not known any more", id)
				}
			}
		}
		repeated("1", "2", "3")
		publish("new")
		repeated("2", "3", "new")
		w.restart()
		a = w.peer("a")
		repeated("2", "3", "new")
		publish("4")
		repeated("3", "new", "4")
	})
}

// What is remembered of a session's publishes ends with the session also where
// there was no room for its end.
func TestOnceOfARefusedEnd(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		s := core.QueueSettings{Kind: core.KindSession, Once: []byte("of s ")}
		k, err := a.Consume(ctx, core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &s}, a)
		if err != nil {
			t.Fatal(err)
		}
		k.Close()
		for _, once := range []string{"of s 1", "of s 2", "other"} {
			if err := a.Publish(ctx, &core.Envelope{Topic: "t", Once: once, Guarantee: core.ExactlyOnce}, 1); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		remembered := func(want ...string) {
			t.Helper()
			var got []string
			for s, err := range w.engine.Clone().State("o/", "") {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, s.Key)
			}
			if !slices.Equal(got, want) {
				t.Errorf("the state has %q, want %q", got, want)
			}
		}
		remembered("o/of s 1", "o/of s 2", "o/other")
		w.engine.Fail(core.ErrStorageFull)
		if err := a.Forget(ctx, "other", 1); err != nil {
			t.Fatal(err)
		}
		if err := a.EndSession(ctx, "s"); !errors.Is(err, core.ErrStorageFull) {
			t.Fatal(err)
		}
		w.engine.Fail(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		remembered("o/other") // that it is forgotten was refused, which the client was told
	})
}
