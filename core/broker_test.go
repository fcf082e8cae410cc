package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A peer is a client with a receiver and a confirmer that remember.
type peer struct {
	*core.Client
	t *testing.T

	mu       sync.Mutex
	got      []core.Delivery
	notices  []core.Notice
	confirms []core.Confirmation
}

func (p *peer) Deliver(ds []core.Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range ds {
		p.got = append(p.got, d.Clone())
	}
}

func (p *peer) Notice(n core.Notice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notices = append(p.notices, n)
}

func (p *peer) Confirm(cs []core.Confirmation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.confirms = append(p.confirms, cs...)
}

// take returns the payloads that came, once all is quiet, and forgets them.
func (p *peer) take() []string {
	p.t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	out := []string{}
	for _, d := range p.got {
		out = append(out, string(d.Payload))
	}
	p.got = nil
	return out
}

func (p *peer) deliveries() []core.Delivery {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

func (p *peer) want(payloads ...string) {
	p.t.Helper()
	if got := p.take(); !slices.Equal(got, payloads) {
		p.t.Fatalf("got %q, want %q", got, payloads)
	}
}

func (p *peer) publish(topic string, payloads ...string) {
	p.t.Helper()
	for _, s := range payloads {
		err := p.Publish(context.Background(), &core.Envelope{Topic: topic, Payload: []byte(s), Guarantee: core.AtLeastOnce}, 0)
		if err != nil {
			p.t.Fatal(err)
		}
	}
	synctest.Wait()
}

func (p *peer) subscribe(from core.From, filters ...string) *core.Consumer {
	p.t.Helper()
	s := core.Subscription{From: from}
	for i, f := range filters {
		s.Bindings = append(s.Bindings, core.Binding{Filter: core.Filter(f), Tag: uint64(i)})
	}
	k, err := p.Subscribe(context.Background(), s, p)
	if err != nil {
		p.t.Fatal(err)
	}
	return k
}

func (p *peer) consume(queue string) *core.Consumer {
	p.t.Helper()
	k, err := p.Consume(context.Background(), core.Consumption{Queue: queue, Create: true, Settlement: core.SettleAlways}, p)
	if err != nil {
		p.t.Fatal(err)
	}
	return k
}

var plenty = core.Credit{Messages: 1000, Bytes: 1 << 20}

// world runs a test against a broker over the model engine, in a bubble with
// its own clock. restart closes the broker and opens it again.
type world struct {
	t      *testing.T
	engine *coretest.Engine
	broker *core.Broker
	o      core.Options
}

func run(t *testing.T, f func(w *world)) { runWith(t, core.Options{}, f) }

func runWith(t *testing.T, o core.Options, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, engine: coretest.NewEngine(), o: o}
		w.o.Engine = w.engine
		w.open()
		f(w)
		w.close()
	})
}

func (w *world) open() {
	w.t.Helper()
	b, err := core.Open(context.Background(), w.o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.broker = b
}

func (w *world) close() {
	w.t.Helper()
	if err := w.broker.Close(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) restart() {
	w.t.Helper()
	w.close()
	w.open()
}

func (w *world) peer(name string) *peer {
	w.t.Helper()
	p := &peer{t: w.t}
	c, err := w.broker.Connect(context.Background(), core.Credentials{Protocol: "test", Client: name}, p)
	if err != nil {
		w.t.Fatal(err)
	}
	p.Client = c
	return p
}

func TestLive(t *testing.T) {
	run(t, func(w *world) {
		a, b := w.peer("a"), w.peer("b")
		b.subscribe(core.Latest, "x/+").Grant(plenty)
		synctest.Wait()
		a.publish("x/1", "one")
		a.publish("y", "no")
		a.publish("x/2", "two")
		b.want("one", "two")
	})
}

func TestSubscribeBeginsNow(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.publish("x", "before")
		a.subscribe(core.Latest, "x").Grant(plenty)
		a.publish("x", "after")
		a.want("after")
	})
}

func TestCreditStopsAndGoesOn(t *testing.T) {
	run(t, func(w *world) {
		a, b := w.peer("a"), w.peer("b")
		s := core.Subscription{Bindings: []core.Binding{{Filter: "x", Settlement: core.SettleAlways}}}
		k, err := b.Subscribe(context.Background(), s, b)
		if err != nil {
			t.Fatal(err)
		}
		k.Grant(core.Credit{Messages: 2, Bytes: 1 << 20})
		a.publish("x", "1", "2", "3", "4", "5")
		b.want("1", "2")
		a.publish("x", "6")
		b.want()
		k.Grant(core.Credit{Messages: 3})
		b.want("3", "4", "5")
		k.Grant(core.Credit{Messages: 10})
		b.want("6")
		a.publish("x", "7")
		b.want("7")
	})
}

func TestReplayThenLive(t *testing.T) {
	run(t, func(w *world) {
		a, b := w.peer("a"), w.peer("b")
		var want []string
		for i := range 1000 {
			s := fmt.Sprint(i)
			a.publish("x", s)
			want = append(want, s)
		}
		b.subscribe(core.Earliest, "x").Grant(core.Credit{Messages: 1, Bytes: 1 << 30})
		b.want(want...)
		a.publish("x", "live")
		b.want("live")
		if len(b.notices) != 1 || b.notices[0].Kind != core.NoticeCaughtUp {
			t.Fatalf("notices %v, want one caught up", b.notices)
		}
		c := w.peer("c")
		c.subscribe(core.FromLast(3), "x").Grant(plenty)
		c.want("998", "999", "live")
		d := w.peer("d")
		d.subscribe(core.FromOffset(1000), "x").Grant(plenty)
		d.want("999", "live")
		_, err := d.Subscribe(context.Background(), core.Subscription{Bindings: []core.Binding{{Filter: "x"}}, From: core.FromOffset(5000)}, d)
		var removed *core.OffsetRemovedError
		if !errors.As(err, &removed) {
			t.Fatalf("offset ahead of the log: %v", err)
		}
	})
}

func TestConfirmsInOrder(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		for i := 1; i <= 300; i++ {
			topic := "x"
			if i%7 == 0 {
				topic = "bad/#"
			}
			if err := a.Publish(context.Background(), &core.Envelope{Topic: topic, Guarantee: core.AtLeastOnce}, core.Receipt(i)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if len(a.confirms) != 300 {
			t.Fatalf("%d confirms", len(a.confirms))
		}
		for i, c := range a.confirms {
			if c.Receipt != core.Receipt(i+1) {
				t.Fatalf("confirm %d is for %d", i, c.Receipt)
			}
			if bad := (i+1)%7 == 0; bad != errors.Is(c.Err, core.ErrInvalidTopic) || bad == (c.Offset > 0) {
				t.Fatalf("confirm %+v", c)
			}
		}
	})
}

// What a publisher lends is not kept: here it is written over after each call.
func TestPublishKeepsNothingOfTheCallers(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		var all string
		for i := range 3 {
			buf := []byte("$queue/q" + fmt.Sprint(i) + "id" + fmt.Sprint(i) + "payload")
			lent := func(from, to int) string { return unsafe.String(&buf[from], to-from) }
			e := core.Envelope{Topic: lent(0, 9), ID: lent(9, 12), Once: lent(9, 12), Key: lent(9, 12), Payload: buf[12:]}
			if err := a.Publish(context.Background(), &e, 0); err != nil {
				t.Fatal(err)
			}
			k, err := a.Subscribe(context.Background(), core.Subscription{Bindings: []core.Binding{{Filter: core.Filter(lent(9, 12))}}}, a)
			if err != nil {
				t.Fatal(err)
			}
			k.Grant(plenty)
			for i := range buf {
				buf[i] = 'X'
			}
			if bs := k.Bindings(); bs[0].Filter != core.Filter(fmt.Sprint("id", i)) {
				t.Fatalf("bindings %v", bs)
			}
		}
		synctest.Wait()
		for i := range 3 {
			a.consume("q" + fmt.Sprint(i)).Grant(plenty)
			all += fmt.Sprint(a.take())
		}
		if all != "[payload][payload][payload]" {
			t.Fatal(all)
		}
	})
}

func TestQueueCompetes(t *testing.T) {
	run(t, func(w *world) {
		a, b, c := w.peer("a"), w.peer("b"), w.peer("c")
		a.publish("$queue/q", "1", "2", "3", "4")
		kb, kc := b.consume("q"), c.consume("q")
		kb.Grant(core.Credit{Messages: 2, Bytes: 1 << 20})
		kc.Grant(core.Credit{Messages: 1, Bytes: 1 << 20})
		gb, gc := b.deliveries(), c.deliveries()
		if len(gb)+len(gc) != 3 {
			t.Fatalf("%d and %d delivered, want 3 together", len(gb), len(gc))
		}
		if err := kc.Settle(gb[0].Offset, core.Accepted, core.SettleOptions{}); !errors.Is(err, core.ErrNotHeld) {
			t.Fatalf("settling another's: %v", err)
		}
		kc.Close()
		for _, d := range gb {
			if err := kb.Settle(d.Offset, core.Accepted, core.SettleOptions{Credit: core.Credit{Messages: 1}}); err != nil {
				t.Fatal(err)
			}
		}
		rest := b.deliveries()
		all := append(gb, rest...)
		seen := map[string]int{}
		for _, d := range all {
			seen[string(d.Payload)]++
		}
		if len(all) != 4 || len(seen) != 4 {
			t.Fatalf("b got %v", seen)
		}
	})
}

// What was released and goes to a consumer that never settles is settled as it
// is handed over, as it would have been the first time.
func TestReleasedToAConsumerThatNeverSettles(t *testing.T) {
	run(t, func(w *world) {
		a, b, c := w.peer("a"), w.peer("b"), w.peer("c")
		k := a.consume("q")
		k.Grant(plenty)
		b.publish("$queue/q", "1")
		if got := a.deliveries(); len(got) != 1 {
			t.Error(got)
		}
		k.Close()
		never, err := b.Consume(context.Background(), core.Consumption{Queue: "q"}, b)
		if err != nil {
			t.Fatal(err)
		}
		never.Grant(plenty)
		if got := b.deliveries(); len(got) != 1 || got[0].Attempt != 2 || !got[0].Settled {
			t.Errorf("%+v", got)
		}
		never.Close()
		c.consume("q").Grant(plenty)
		c.want()
	})
}

// Of those who want to be alone the first works, and the next takes over; once
// none is left, all compete.
func TestConsumersAlone(t *testing.T) {
	run(t, func(w *world) {
		pub := w.peer("pub")
		consume := func(name string, alone bool) (*peer, *core.Consumer) {
			p := w.peer(name)
			k, err := p.Consume(context.Background(), core.Consumption{Queue: "q", Create: true, Alone: alone}, p)
			if err != nil {
				t.Fatal(err)
			}
			k.Grant(plenty)
			return p, k
		}
		a, _ := consume("a", false)
		b, kb := consume("b", true)
		c, kc := consume("c", true)
		pub.publish("$queue/q", "1", "2")
		b.want("1", "2")
		kb.Close()
		pub.publish("$queue/q", "3", "4")
		c.want("3", "4")
		a.want()
		kc.Close()
		pub.publish("$queue/q", "5")
		a.want("5")
	})
}

func TestQueueSurvivesRestart(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.publish("$queue/q", "1", "2", "3")
		k := a.consume("q")
		k.Grant(plenty)
		got := a.deliveries()
		if len(got) != 3 {
			t.Fatalf("%d delivered", len(got))
		}
		if err := k.Settle(got[1].Offset, core.Accepted, core.SettleOptions{}); err != nil {
			t.Fatal(err)
		}
		w.restart()
		b := w.peer("b")
		b.publish("$queue/q", "4")
		b.consume("q").Grant(plenty)
		again := b.deliveries()
		if len(again) != 3 || again[0].Attempt != 2 || again[1].Attempt != 2 || again[2].Attempt != 1 {
			t.Fatalf("%+v", again)
		}
	})
}

func TestReleaseBackoffAndDeadLetter(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		if err := a.DeclareQueue(context.Background(), core.QueueDefinition{Name: "q", Settings: core.QueueSettings{MaxAttempts: 3}}); err != nil {
			t.Fatal(err)
		}
		k := a.consume("q")
		k.Grant(plenty)
		err := a.Publish(context.Background(), &core.Envelope{Topic: "$queue/q", Payload: []byte("p"), Headers: []core.Header{{Name: "h", Value: "v"}}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for attempt := uint16(1); attempt <= 3; attempt++ {
			got := a.deliveries()
			if len(got) != 1 || got[0].Attempt != attempt {
				t.Fatalf("attempt %d: %+v", attempt, got)
			}
			if err := k.Settle(got[0].Offset, core.Released, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
			a.want()
			time.Sleep(time.Minute)
		}
		a.want()
		dead := w.peer("dead")
		dead.consume("q.dead").Grant(plenty)
		got := dead.deliveries()
		if len(got) != 1 || string(got[0].Payload) != "p" {
			t.Fatalf("dead letters: %+v", got)
		}
		h := map[string]string{}
		for _, x := range got[0].Headers {
			h[x.Name] = x.Value
		}
		if h["h"] != "v" || h[core.HeaderDeadReason] != "attempts" || h[core.HeaderDeadQueue] != "q" || h[core.HeaderDeadAttempts] != "3" {
			t.Fatalf("headers %v", h)
		}
	})
}

// Dead letters may go to an exchange, by its bindings or to its alternate; one
// that is gone by then has them dropped.
func TestDeadLettersToAnExchange(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		for _, x := range []core.ExchangeDefinition{{Name: "rest", Kind: core.Fanout}, {Name: "dlx", Kind: core.Direct, Alternate: "rest"}} {
			if err := a.DeclareExchange(ctx, x); err != nil {
				t.Fatal(err)
			}
		}
		for queue, b := range map[string]core.Binding{"one": {Exchange: "dlx", Key: "k"}, "other": {Exchange: "rest"}} {
			if err := a.DeclareQueue(ctx, core.QueueDefinition{Name: queue, Bindings: []core.Binding{b}}); err != nil {
				t.Fatal(err)
			}
		}
		for queue, to := range map[string]string{"q": "$exchange/dlx/k", "r": "$exchange/dlx/unknown", "s": "$exchange/none/k"} {
			if err := a.DeclareQueue(ctx, core.QueueDefinition{Name: queue, Settings: core.QueueSettings{DeadLetter: to}}); err != nil {
				t.Fatal(err)
			}
			p := w.peer(queue)
			k := p.consume(queue)
			k.Grant(plenty)
			a.publish("$queue/"+queue, "dead of "+queue)
			for _, d := range p.deliveries() {
				if err := k.Settle(d.Offset, core.Rejected, core.SettleOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for queue, want := range map[string]string{"one": "dead of q", "other": "dead of r"} {
			p := w.peer(queue)
			p.consume(queue).Grant(plenty)
			p.want(want)
		}
		if err := a.DeclareQueue(ctx, core.QueueDefinition{Name: "t", Settings: core.QueueSettings{DeadLetter: "$exchange//k"}}); !errors.Is(err, core.ErrInvalidTopic) {
			t.Errorf("an exchange without a name: %v", err)
		}
	})
}

func TestRejectIsOneDeadLetter(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		k := a.consume("q")
		k.Grant(plenty)
		a.publish("$queue/q", "bad", "good")
		got := a.deliveries()
		if err := k.Settle(got[0].Offset, core.Rejected, core.SettleOptions{Reason: "broken", Receipt: 7}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(a.confirms) != 1 || a.confirms[0].Receipt != 7 {
			t.Fatalf("confirms %+v", a.confirms)
		}
		w.restart()
		b := w.peer("b")
		b.consume("q.dead").Grant(plenty)
		b.want("bad")
		c := w.peer("c")
		c.consume("q").Grant(plenty)
		c.want("good")
	})
}

func TestLeaseTimesOut(t *testing.T) {
	run(t, func(w *world) {
		a, b := w.peer("a"), w.peer("b")
		a.consume("q").Grant(plenty)
		a.publish("$queue/q", "x")
		a.want("x")
		b.consume("q").Grant(plenty)
		time.Sleep(4 * time.Minute)
		b.want()
		time.Sleep(2 * time.Minute)
		got := append(a.deliveries(), b.deliveries()...)
		if len(got) != 1 || got[0].Attempt != 2 {
			t.Fatalf("after the lease: %+v", got)
		}
	})
}

func TestLeaseTokens(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		ctx := context.Background()
		q := core.LeaseRequest{Consumption: core.Consumption{Queue: "q", Create: true}, Max: 10, For: time.Minute}
		if got, err := a.Lease(ctx, q); err != nil || len(got) != 0 {
			t.Fatalf("%v %v", got, err)
		}
		a.publish("$queue/q", "1", "2", "3")
		got, err := a.Lease(ctx, q)
		if err != nil || len(got) != 3 {
			t.Fatalf("%v %v", got, err)
		}
		if err := a.SettleLease(ctx, got[0].Token, core.Accepted, core.SettleOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := a.SettleLease(ctx, got[0].Token, core.Accepted, core.SettleOptions{}); !errors.Is(err, core.ErrNotHeld) {
			t.Fatalf("settled twice: %v", err)
		}
		if _, err := a.ExtendLease(ctx, got[1].Token, time.Hour); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		again, err := a.Lease(ctx, q)
		if err != nil || len(again) != 1 || string(again[0].Payload) != "3" || again[0].Attempt != 2 {
			t.Fatalf("%+v %v", again, err)
		}
		// Waiting ends as soon as something comes.
		go func() { time.Sleep(5 * time.Second); a.publish("$queue/q", "4") }()
		start := time.Now()
		q.Wait = time.Hour
		more, err := a.Lease(ctx, q)
		if err != nil || len(more) != 1 || time.Since(start) != 5*time.Second {
			t.Fatalf("%+v %v after %s", more, err, time.Since(start))
		}
	})
}

func TestRetained(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		ctx := context.Background()
		for _, s := range []string{"r/1", "r/2", "r/3", "other"} {
			if err := a.Publish(ctx, &core.Envelope{Topic: s, Payload: []byte(s), Retain: true}, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Publish(ctx, &core.Envelope{Topic: "r/2", Retain: true}, 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.restart()
		b := w.peer("b")
		k, err := b.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "r/#"}}, Retained: true}, b)
		if err != nil {
			t.Fatal(err)
		}
		k.Grant(plenty)
		got := b.deliveries()
		if len(got) != 2 || !got[0].Retained || string(got[0].Payload) != "r/1" || string(got[1].Payload) != "r/3" {
			t.Fatalf("%+v", got)
		}
		b.publish("r/1", "live")
		if got = b.deliveries(); len(got) != 1 || got[0].Retained {
			t.Fatalf("%+v", got)
		}
		if err := k.Bind(ctx, core.Binding{Filter: "other"}, core.BindOptions{Retained: true}); err != nil {
			t.Fatal(err)
		}
		b.want("other")
	})
}

func TestExchanges(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		ctx := context.Background()
		for _, d := range []core.ExchangeDefinition{{Name: "d", Kind: core.Direct}, {Name: "f", Kind: core.Fanout}, {Name: "t", Kind: core.TopicExchange}} {
			if err := a.DeclareExchange(ctx, d); err != nil {
				t.Fatal(err)
			}
		}
		bind := func(queue, exchange, key string) {
			t.Helper()
			err := a.DeclareQueue(ctx, core.QueueDefinition{Name: queue, Bindings: []core.Binding{{Exchange: exchange, Key: key}}})
			if err != nil {
				t.Fatal(err)
			}
		}
		bind("q1", "d", "red")
		bind("q2", "f", "")
		bind("q3", "t", "#.error")
		bind("q3", "t", "kern.*")
		if err := a.Publish(ctx, &core.Envelope{Topic: "$exchange/none/x"}, 0); !errors.Is(err, core.ErrNotFound) {
			t.Fatalf("no such exchange: %v", err)
		}
		a.publish("$exchange/d/red", "d1")
		a.publish("$exchange/d/blue", "d2")
		a.publish("$exchange/f/any", "f1")
		a.publish("$exchange/t/app.db.error", "t1")
		a.publish("$exchange/t/kern.info", "t2")
		a.publish("$exchange/t/kern.error", "t3")
		a.publish("$exchange/t/app.info", "t4")
		w.restart()
		for queue, want := range map[string][]string{"q1": {"d1"}, "q2": {"f1"}, "q3": {"t1", "t2", "t3"}} {
			p := w.peer(queue)
			p.consume(queue).Grant(plenty)
			p.want(want...)
		}
	})
}

func TestGroupSharesOnePosition(t *testing.T) {
	run(t, func(w *world) {
		a, b, c := w.peer("a"), w.peer("b"), w.peer("c")
		s := core.DefaultGroupSettings()
		join := func(p *peer) *core.Consumer {
			k, err := p.Consume(context.Background(), core.Consumption{
				Queue: core.GroupQueue("g", "x/#"), Create: true, Settings: &s, Bindings: []core.Binding{{Filter: "x/#"}}, Settlement: core.SettleAlways,
			}, p)
			if err != nil {
				t.Fatal(err)
			}
			k.Grant(plenty)
			return k
		}
		kb := join(b)
		join(c)
		for i := range 10 {
			a.publish("x/1", fmt.Sprint(i))
		}
		gb, gc := b.deliveries(), c.deliveries()
		if len(gb) != 5 || len(gc) != 5 {
			t.Fatalf("%d and %d", len(gb), len(gc))
		}
		kb.Close()
		if got := c.deliveries(); len(got) != 5 || got[0].Attempt != 2 {
			t.Fatalf("after a member left: %+v", got)
		}
	})
}

// The dead letters of a group and of a session stand in queues that anybody
// can name.
func TestDeadLettersOfGroupsAndSessions(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		reject := func(queue string, s core.QueueSettings) {
			t.Helper()
			k, err := a.Consume(context.Background(), core.Consumption{
				Queue: queue, Create: true, Settings: &s, Bindings: []core.Binding{{Filter: "x/#"}}, Settlement: core.SettleAlways,
			}, a)
			if err != nil {
				t.Fatal(err)
			}
			k.Grant(plenty)
			a.publish("x/1", queue)
			for _, d := range a.deliveries() {
				if err := k.Settle(d.Offset, core.Rejected, core.SettleOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			k.Close()
		}
		reject(core.GroupQueue("g", "x/#"), core.DefaultGroupSettings())
		reject(core.SessionQueue("s"), core.QueueSettings{Kind: core.KindSession})
		for queue, want := range map[string]string{"g.dead": "$share/g/x/#", "session/s.dead": "$session/s"} {
			p := w.peer(queue)
			p.consume(queue).Grant(plenty)
			p.want(want)
		}
	})
}

func TestMessageIDs(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		send := func(p *peer, id string, r core.Receipt) {
			if err := p.Publish(context.Background(), &core.Envelope{Topic: "x", ID: id, Guarantee: core.AtLeastOnce}, r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		send(a, "i", 1)
		send(a, "i", 2)
		w.restart()
		b := w.peer("b")
		send(b, "i", 3)
		time.Sleep(11 * time.Minute)
		send(b, "i", 4)
		first, second, third, fourth := a.confirms[0], a.confirms[1], b.confirms[0], b.confirms[1]
		if first.Duplicate || !second.Duplicate || second.Offset != first.Offset || !third.Duplicate || third.Offset != first.Offset || fourth.Duplicate {
			t.Fatalf("%+v %+v", a.confirms, b.confirms)
		}
	})
}

func TestOnceUntilForgotten(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		send := func(p *peer, r core.Receipt) {
			if err := p.Publish(context.Background(), &core.Envelope{Topic: "x", Once: "s/1", Guarantee: core.ExactlyOnce}, r); err != nil {
				t.Fatal(err)
			}
		}
		send(a, 1)
		send(a, 2)
		synctest.Wait()
		w.restart()
		b := w.peer("b")
		send(b, 3)
		if err := b.Forget(context.Background(), "s/1", 4); err != nil {
			t.Fatal(err)
		}
		send(b, 5)
		synctest.Wait()
		if !a.confirms[1].Duplicate || !b.confirms[0].Duplicate || b.confirms[2].Duplicate {
			t.Fatalf("%+v %+v", a.confirms, b.confirms)
		}
	})
}

// A publish that a full log kept from being forgotten is still known, so that it
// can be forgotten for good later: what its name is used for next is not lost
// after a restart.
func TestForgetWhileTheLogIsFull(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		send := func(p *peer, r core.Receipt) {
			if err := p.Publish(ctx, &core.Envelope{Topic: "x", Once: "s/1", Guarantee: core.ExactlyOnce}, r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		forget := func(r core.Receipt) {
			if err := a.Forget(ctx, "s/1", r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		send(a, 1)
		w.engine.Fail(core.ErrStorageFull)
		forget(2)
		w.engine.Fail(nil)
		send(a, 3)
		forget(4)
		w.restart()
		b := w.peer("b")
		send(b, 1)
		if c := a.confirms; len(c) != 4 || !errors.Is(c[1].Err, core.ErrStorageFull) || !c[2].Duplicate || c[3].Err != nil {
			t.Fatalf("%+v", c)
		}
		if c := b.confirms; len(c) != 1 || c[0].Duplicate || c[0].Err != nil {
			t.Fatalf("the new one: %+v", c)
		}
	})
}

func TestDelayed(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.subscribe(core.Latest, "x").Grant(plenty)
		put := func(s string, d time.Duration) {
			if err := a.Publish(context.Background(), &core.Envelope{Topic: "x", Payload: []byte(s), DeliverAt: time.Now().Add(d)}, 0); err != nil {
				t.Fatal(err)
			}
		}
		put("soon", 1500*time.Microsecond)
		time.Sleep(1499 * time.Microsecond)
		a.want()
		time.Sleep(time.Millisecond)
		a.want("soon")
		put("hour", time.Hour)
		put("minute", time.Minute)
		put("second", time.Second)
		a.want()
		time.Sleep(time.Second + time.Millisecond)
		a.want("second")
		time.Sleep(time.Minute)
		a.want("minute")
		w.restart()
		b := w.peer("b")
		b.subscribe(core.Latest, "x").Grant(plenty)
		time.Sleep(time.Hour)
		b.want("hour")
	})
}

func TestExpiry(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.consume("q").Close()
		for _, s := range []string{"$queue/q", "x"} {
			if err := a.Publish(context.Background(), &core.Envelope{Topic: s, Payload: []byte("old"), Expires: time.Now().Add(time.Second)}, 0); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		a.consume("q").Grant(plenty)
		a.subscribe(core.Earliest, "x").Grant(plenty)
		a.want()
	})
}

func TestStorageFailureConfirmsNothing(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		w.engine.Fail(errors.New("disk on fire"))
		for r := core.Receipt(1); r <= 3; r++ {
			if err := a.Publish(context.Background(), &core.Envelope{Topic: "x", Guarantee: core.AtLeastOnce}, r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for _, c := range a.confirms {
			if !errors.Is(c.Err, core.ErrStorage) {
				t.Fatalf("%+v", c)
			}
		}
		if len(a.confirms) != 3 {
			t.Fatalf("%d confirms", len(a.confirms))
		}
		if err := w.broker.Err(); !errors.Is(err, core.ErrStorage) {
			t.Fatalf("the broker says %v", err)
		}
	})
}

// While the log is full publishes are refused, and what the broker itself had
// in a refused commit is there once there is room again.
func TestLogFullThenRoom(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.publish("$queue/q", "1", "2")
		k := a.consume("q")
		k.Grant(plenty)
		got := a.deliveries()
		w.engine.Fail(core.ErrStorageFull)
		if err := k.Settle(got[0].Offset, core.Accepted, core.SettleOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := a.Publish(context.Background(), &core.Envelope{Topic: "$queue/new", Guarantee: core.AtLeastOnce}, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(a.confirms) != 1 || !errors.Is(a.confirms[0].Err, core.ErrStorageFull) {
			t.Fatalf("%+v", a.confirms)
		}
		w.engine.Fail(nil)
		a.publish("$queue/new", "3")
		time.Sleep(time.Second)
		synctest.Wait()
		if err := w.broker.Err(); err != nil {
			t.Fatal(err)
		}
		w.restart()
		b := w.peer("b")
		b.consume("q").Grant(plenty)
		b.want("2")
		b.consume("new").Grant(plenty)
		b.want("3")
	})
}

// While the log is full no exchange is made or deleted, and a binding between
// two that was refused is either there and durable, or not there.
func TestExchangesWhileTheLogIsFull(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		for _, name := range []string{"from", "to"} {
			if err := a.DeclareExchange(ctx, core.ExchangeDefinition{Name: name, Kind: core.Fanout}); err != nil {
				t.Fatal(err)
			}
		}
		w.engine.Fail(core.ErrStorageFull)
		for what, err := range map[string]error{
			"declare": a.DeclareExchange(ctx, core.ExchangeDefinition{Name: "new", Kind: core.Fanout}),
			"delete":  a.DeleteExchange(ctx, "from"),
			"bind":    a.BindExchange(ctx, core.ExchangeBinding{From: "from", To: "to"}),
		} {
			if !errors.Is(err, core.ErrStorageFull) {
				t.Errorf("%s: %v", what, err)
			}
		}
		bound := func() (names []string, bindings int) {
			for x := range w.peer("b").Exchanges() {
				if !strings.HasPrefix(x.Name, "amq.") {
					names = append(names, x.Name)
				}
			}
			return names, len(a.ExchangeBindings())
		}
		names, bindings := bound()
		if !slices.Equal(names, []string{"from", "to"}) {
			t.Fatalf("there are %q", names)
		}
		if err := a.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Bindings: []core.Binding{{Exchange: "new"}}}); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("a queue is bound to an exchange that was refused: %v", err)
		}
		w.engine.Fail(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		w.restart()
		a = w.peer("c")
		if again, n := bound(); !slices.Equal(again, names) || n != bindings {
			t.Fatalf("after a restart there are %q with %d bindings, there were %q with %d", again, n, names, bindings)
		}
	})
}

func TestPublishBlocksWhileTheLogIsFull(t *testing.T) {
	runWith(t, core.Options{Limits: core.Limits{PendingBytes: 1000}}, func(w *world) {
		hold := make(chan struct{})
		w.engine.Hold = func() { <-hold }
		a := w.peer("a")
		var n int
		done := make(chan error)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		go func() {
			for {
				if err := a.Publish(ctx, &core.Envelope{Topic: "x", Payload: make([]byte, 100)}, 0); err != nil {
					done <- err
					return
				}
				n++
			}
		}()
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if n < 5 || n > 30 {
			t.Fatalf("%d messages were taken", n)
		}
		close(hold)
	})
}

func TestTransaction(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		k := a.consume("q")
		k.Grant(plenty)
		a.publish("$queue/q", "in")
		in := a.deliveries()[0]
		out := w.peer("out")
		out.subscribe(core.Latest, "x").Grant(plenty)
		settle := []core.Settling{{Consumer: k, Offset: in.Offset, Outcome: core.Accepted}}
		err := a.Commit(context.Background(), core.Transaction{Publish: []*core.Envelope{{Topic: "x", Payload: []byte("1")}, {Topic: "x/#"}}, Settle: settle}, 0)
		if !errors.Is(err, core.ErrInvalidTopic) {
			t.Fatal(err)
		}
		out.want()
		err = a.Commit(context.Background(), core.Transaction{Publish: []*core.Envelope{{Topic: "x", Payload: []byte("1")}, {Topic: "x", Payload: []byte("2")}}, Settle: settle}, 9)
		if err != nil {
			t.Fatal(err)
		}
		out.want("1", "2")
		if len(a.confirms) != 1 || a.confirms[0].Receipt != 9 || a.confirms[0].Err != nil {
			t.Fatalf("%+v", a.confirms)
		}
		if err := k.Settle(in.Offset, core.Accepted, core.SettleOptions{}); !errors.Is(err, core.ErrNotHeld) {
			t.Fatalf("settled in the transaction and again: %v", err)
		}
	})
}

func TestUnusedQueueExpires(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		s := core.QueueSettings{Expires: time.Hour}
		k, err := a.Consume(context.Background(), core.Consumption{Queue: "q", Create: true, Settings: &s}, a)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		k.Close()
		time.Sleep(30 * time.Minute)
		w.restart()
		b := w.peer("b")
		if _, err := b.Queue("q"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(31 * time.Minute)
		if _, err := b.Queue("q"); !errors.Is(err, core.ErrNotFound) {
			t.Fatal(err)
		}
	})
}

// Whether a queue has a timer at once or gets one later, it ends when it is due,
// also if somebody was there in between.
func TestQueuesExpireWhenTheyAreDue(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		const moment = time.Second
		for _, expires := range []time.Duration{5 * time.Second, 9 * time.Minute, 10 * time.Minute, 11 * time.Minute, 6 * time.Hour} {
			s := core.QueueSettings{Kind: core.KindSession, Expires: expires}
			visit := func() {
				k, err := a.Consume(ctx, core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &s}, a)
				if err != nil {
					t.Fatal(err)
				}
				k.Close()
			}
			visit()
			time.Sleep(expires - moment)
			visit()
			time.Sleep(expires - moment)
			if !a.HasQueue(core.SessionQueue("s")) {
				t.Errorf("%v: gone too early", expires)
			}
			time.Sleep(2 * moment)
			if a.HasQueue(core.SessionQueue("s")) {
				t.Errorf("%v: still there", expires)
			}
		}
	})
}

// A session ends when its client, which has left, said last.
func TestSessionExpiresAsUpdated(t *testing.T) {
	for _, c := range []struct{ first, then time.Duration }{{time.Hour, 3 * time.Hour}, {3 * time.Hour, time.Hour}} {
		for _, again := range []func(*world){func(*world) {}, (*world).restart} {
			run(t, func(w *world) {
				ctx := context.Background()
				a := w.peer("a")
				s := core.QueueSettings{Kind: core.KindSession, Expires: c.first}
				k, err := a.Consume(ctx, core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &s}, a)
				if err != nil {
					t.Fatal(err)
				}
				k.Close()
				s.Expires = c.then
				if err := k.UpdateSession(ctx, s); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Minute)
				again(w)
				b := w.peer("b")
				time.Sleep(c.then - 11*time.Minute)
				if !b.HasQueue(core.SessionQueue("s")) {
					t.Errorf("%v, then %v: gone too early", c.first, c.then)
				}
				time.Sleep(2 * time.Minute)
				if b.HasQueue(core.SessionQueue("s")) {
					t.Errorf("%v, then %v: still there", c.first, c.then)
				}
			})
		}
	}
}

func TestReadPages(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		ctx := context.Background()
		for i := range 25 {
			a.publish("x", fmt.Sprint(i))
			a.publish("y", "no")
		}
		page, err := a.Read(ctx, core.ReadRequest{Filters: []core.Filter{"x"}, From: core.FromLast(20), Limit: 10})
		if err != nil || len(page.Messages) != 10 || string(page.Messages[0].Payload) != "5" || !page.More {
			t.Fatalf("%+v %v", page, err)
		}
		page, err = a.Read(ctx, core.ReadRequest{Filters: []core.Filter{"x"}, From: core.FromOffset(page.Next), Limit: 100})
		if err != nil || len(page.Messages) != 10 || string(page.Messages[9].Payload) != "24" || page.More {
			t.Fatalf("%+v %v", page, err)
		}
		go func() { time.Sleep(time.Second); a.publish("x", "new") }()
		page, err = a.Read(ctx, core.ReadRequest{Filters: []core.Filter{"x"}, From: core.FromOffset(page.Next), Wait: time.Minute})
		if err != nil || len(page.Messages) != 1 || string(page.Messages[0].Payload) != "new" {
			t.Fatalf("%+v %v", page, err)
		}
		start := time.Now()
		page, err = a.Read(ctx, core.ReadRequest{Filters: []core.Filter{"x"}, From: core.FromOffset(page.Next), Wait: time.Minute})
		if err != nil || len(page.Messages) != 0 || time.Since(start) < time.Minute {
			t.Fatalf("%+v %v", page, err)
		}
	})
}

// Fields that not every protocol could carry, or that would have to be
// remembered at any length, are refused.
func TestFieldsAreBounded(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		most := strings.Repeat("x", core.MaxFieldBytes)
		for name, set := range map[string]func(e *core.Envelope, s string){
			"key":            func(e *core.Envelope, s string) { e.Key = s },
			"content type":   func(e *core.Envelope, s string) { e.ContentType = s },
			"reply-to":       func(e *core.Envelope, s string) { e.ReplyTo = s },
			"correlation id": func(e *core.Envelope, s string) { e.CorrelationID = []byte(s) },
			"message id": func(e *core.Envelope, s string) {
				e.ID = s[:core.MaxIDBytes+len(s)-core.MaxFieldBytes]
			},
		} {
			for s, want := range map[string]error{most: nil, most + "x": core.ErrTooLarge} {
				e := &core.Envelope{Topic: "a"}
				set(e, s)
				if err := p.Publish(context.Background(), e, 0); !errors.Is(err, want) {
					t.Errorf("%s with %d bytes: %v", name, len(s), err)
				}
			}
		}
	})
}
