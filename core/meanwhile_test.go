package core_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// refuseNext has the engine hold the commits that come. Once goOn is called, the
// first ones are refused, so many, and those behind them are not.
func (w *world) refuseNext(n int) (goOn func()) {
	turn, left := make(chan bool), new(atomic.Int64)
	left.Store(int64(n))
	w.engine.Hold = func() { <-turn }
	w.engine.Refuse = func(*core.Batch) error {
		if left.Add(-1) >= 0 {
			return core.ErrStorageFull
		}
		return nil
	}
	return func() {
		w.t.Helper()
		synctest.Wait()
		close(turn)
		rest()
		if n := left.Load(); n > 0 {
			w.t.Errorf("%d more were to be refused", n)
		}
	}
}

// rest lets everything become durable that is to be.
func rest() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// confirmed is what has come of a receipt.
func (p *peer) confirmed(r core.Receipt) error {
	p.t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.confirms {
		if c.Receipt == r {
			return c.Err
		}
	}
	p.t.Fatalf("nothing is confirmed of the receipt %d", r)
	return nil
}

// A message that is kept for a session is so still when the log has no room for
// its settlement: no lease ends that, and if the session's client leaves it waits
// for the next one, or, where the session has ended, goes to the dead letters.
func TestKeptWhenRefused(t *testing.T) {
	for _, o := range []core.Outcome{core.Accepted, core.Released, core.Rejected} {
		for name, test := range map[string]struct {
			before, after func(a *peer, k *core.Consumer) // the refusal
			to, dead      string                          // where it is then: with the session's next consumer, or dead
			held          bool
		}{
			"stays":           {held: true},
			"leaves later":    {after: func(_ *peer, k *core.Consumer) { k.Close() }, to: "in:2"},
			"leaves":          {before: func(_ *peer, k *core.Consumer) { k.Close() }, to: "in:2"},
			"ends later":      {after: endSession, dead: "in"},
			"ends":            {before: endSession, dead: "in"},
			"waits for hours": {after: func(*peer, *core.Consumer) { time.Sleep(3 * time.Hour) }, held: true},
		} {
			run(t, func(w *world) {
				ctx := context.Background()
				a, b := w.peer("a"), w.peer("b")
				s := core.QueueSettings{Kind: core.KindSession}
				if _, err := a.Consume(ctx, core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &s}, a); err != nil {
					t.Fatal(err)
				}
				group := core.DefaultGroupSettings()
				member := func(p *peer, session string) *core.Consumer {
					k, err := p.Consume(ctx, core.Consumption{
						Queue: keptGroup, Create: true, Settings: &group, Bindings: []core.Binding{{Filter: "x", Settlement: core.SettleAlways}},
						Settlement: core.SettleAlways, Session: session, Once: true,
					}, p)
					if err != nil {
						t.Fatal(err)
					}
					k.Grant(core.Credit{Messages: 1, Bytes: 1 << 20})
					return k
				}
				k := member(a, "s")
				if err := a.Publish(ctx, &core.Envelope{Topic: "x", Payload: []byte("in"), Guarantee: core.ExactlyOnce}, 0); err != nil {
					t.Fatal(err)
				}
				held := a.deliveries()
				member(b, "other")
				rest()
				goOn := w.refuseNext(1)
				if err := k.Settle(held[0].Offset, o, core.SettleOptions{Receipt: 1, Delay: time.Minute}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if test.before != nil {
					test.before(a, k)
				}
				goOn()
				if err := a.confirmed(1); !errors.Is(err, core.ErrStorageFull) {
					t.Fatal(err)
				}
				if test.after != nil {
					test.after(a, k)
				}
				rest()
				if got := b.take(); len(got) > 0 {
					t.Errorf("%v, %s: another session was given %q", o, name, got)
				}
				if k.Holds(held[0].Offset) != test.held {
					t.Errorf("%v, %s: it is held: %v", o, name, !test.held)
				}
				c := w.peer("c")
				member(c, "s")
				if got := c.attempts(); got != test.to {
					t.Errorf("%v, %s: the next consumer gets %q, want %q", o, name, got, test.to)
				}
				if got := strings.Join(w.inQueue(w.engine.Clone(), "g.dead"), " "); got != test.dead {
					t.Errorf("%v, %s: the dead letters are %q, want %q", o, name, got, test.dead)
				}
			})
		}
	}
}

func endSession(a *peer, k *core.Consumer) {
	k.Close()
	go a.EndSession(context.Background(), "s")
	synctest.Wait()
}

// A transaction that has a publish which repeats another one, still on its way,
// has it itself when that is refused.
func TestTransactionRepeatsARefusedPublish(t *testing.T) {
	for _, once := range []bool{false, true} {
		for _, refused := range []int{0, 1} {
			run(t, func(w *world) {
				ctx := context.Background()
				a, b := w.peer("a"), w.peer("b")
				a.declare("q", core.QueueSettings{})
				rest()
				x := func() *core.Envelope {
					e := &core.Envelope{Topic: "$queue/q", ID: "x", Payload: []byte("x"), Guarantee: core.AtLeastOnce}
					if once {
						e.ID, e.Once = "", "x"
					}
					return e
				}
				goOn := w.refuseNext(refused)
				if err := a.Publish(ctx, x(), 1); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				go b.Commit(ctx, core.Transaction{Publish: []*core.Envelope{x(), {Topic: "$queue/q", Payload: []byte("y")}, x()}}, 1)
				goOn()
				if err := a.confirmed(1); errors.Is(err, core.ErrStorageFull) != (refused > 0) {
					t.Fatal(err)
				}
				if err := b.confirmed(1); err != nil {
					t.Fatal(err)
				}
				if got := a.browse("q"); got != "x y" {
					t.Errorf("there are %q", got)
				}
			})
		}
	}
}

// What is forgotten twice is not known any more if the log has room for one of
// both.
func TestForgottenTwice(t *testing.T) {
	for _, refused := range []func(n int) bool{
		func(n int) bool { return n == 1 },
		func(n int) bool { return n == 2 },
		func(n int) bool { return n <= 2 },
		func(n int) bool { return false },
	} {
		run(t, func(w *world) {
			ctx := context.Background()
			a, b := w.peer("a"), w.peer("b")
			publish := func(r core.Receipt) (duplicate bool) {
				t.Helper()
				if err := a.Publish(ctx, &core.Envelope{Topic: "t", Once: "1", Guarantee: core.ExactlyOnce}, r); err != nil {
					t.Fatal(err)
				}
				if err := a.confirmed(r); err != nil {
					t.Fatal(err)
				}
				return a.confirms[len(a.confirms)-1].Duplicate
			}
			publish(1)
			goOn, n := w.refuseNext(0), 0
			w.engine.Refuse = func(*core.Batch) error {
				if n++; refused(n) {
					return core.ErrStorageFull
				}
				return nil
			}
			for _, p := range []*peer{a, b} {
				if err := p.Forget(ctx, "1", 2); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
			goOn()
			known := true
			for i, p := range []*peer{a, b} {
				err := p.confirmed(2)
				if errors.Is(err, core.ErrStorageFull) != refused(i+1) {
					t.Fatal(err)
				}
				known = known && err != nil
			}
			if value, _ := w.engine.Get("o/1"); (value != nil) != known {
				t.Errorf("the state knows it: %v, want %v", value != nil, known)
			}
			if publish(3) != known {
				t.Errorf("a publish is a duplicate: %v, want %v", !known, known)
			}
		})
	}
}

// What was to be forgotten, which is refused, is forgotten nevertheless if its
// session ends meanwhile.
func TestForgottenAsTheSessionEnds(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		s := core.QueueSettings{Kind: core.KindSession, Once: []byte("of s ")}
		if _, err := a.Consume(ctx, core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &s}, a); err != nil {
			t.Fatal(err)
		}
		publish := func(r core.Receipt) {
			if err := a.Publish(ctx, &core.Envelope{Topic: "t", Once: "of s 1", Guarantee: core.ExactlyOnce}, r); err != nil {
				t.Fatal(err)
			}
		}
		publish(1)
		rest()
		goOn := w.refuseNext(1)
		if err := a.Forget(ctx, "of s 1", 2); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		go a.EndSession(ctx, "s")
		goOn()
		if err := a.confirmed(2); !errors.Is(err, core.ErrStorageFull) {
			t.Fatal(err)
		}
		if value, _ := w.engine.Get("o/of s 1"); value != nil {
			t.Error("the state knows it still")
		}
		publish(3)
		if a.confirmed(3); a.confirms[len(a.confirms)-1].Duplicate {
			t.Error("it is known still")
		}
	})
}

// A session that begins anew where the end of the one before was refused has
// nothing of that, whenever the broker is killed: not the retained values that
// were left to deliver, nor what was remembered of its publishes.
func TestSessionAnewWhenItsEndIsRefused(t *testing.T) {
	for _, known := range []bool{false, true} { // that it is refused, as the next one begins
		for _, fails := range []bool{false, true} { // as does the first publish of that
			run(t, func(w *world) {
				ctx := context.Background()
				a := w.peer("a")
				if err := a.Publish(ctx, &core.Envelope{Topic: "r", Payload: []byte("retained"), Retain: true, Guarantee: core.AtLeastOnce}, 0); err != nil {
					t.Fatal(err)
				}
				begin := func(s core.QueueSettings, retained bool) {
					s.Kind, s.Once = core.KindSession, []byte("of s ")
					k, err := a.Consume(ctx, core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &s, Settlement: core.SettleAlways}, a)
					if err == nil {
						err = k.Bind(ctx, core.Binding{Filter: "r", Settlement: core.SettleAlways}, core.BindOptions{Retained: retained})
					}
					if err != nil {
						t.Error(err)
					}
				}
				publish := func(p *peer, r core.Receipt) {
					if err := p.Publish(ctx, &core.Envelope{Topic: "t", Once: "of s 1", Guarantee: core.ExactlyOnce}, r); err != nil {
						t.Error(err)
					}
				}
				begin(core.QueueSettings{}, true) // without credit
				publish(a, 1)
				rest()
				var images []*coretest.Engine
				turn, n := make(chan bool), 0
				w.engine.Hold = func() {
					images = append(images, w.engine.Clone())
					<-turn
				}
				w.engine.Refuse = func(b *core.Batch) error {
					if n++; n == 1 || fails && len(b.Ends) > 0 {
						return core.ErrStorageFull
					}
					return nil
				}
				go a.EndSession(ctx, "s")
				synctest.Wait()
				if known {
					turn <- true
					synctest.Wait()
				}
				go func() {
					begin(core.QueueSettings{Expires: time.Hour}, false)
					publish(a, 2)
				}()
				synctest.Wait()
				close(turn)
				rest()
				if err := a.confirmed(2); errors.Is(err, core.ErrStorageFull) != fails {
					t.Fatal(err)
				}
				anew := 0
				for i, e := range append(images, w.engine.Clone()) {
					if value, _ := e.Get("q/" + core.SessionQueue("s")); !strings.Contains(string(value), `"expires"`) {
						continue // that is the session before
					}
					anew++
					b, err := core.Open(ctx, core.Options{Engine: e})
					if err != nil {
						t.Fatal(err)
					}
					other := &world{t: t, engine: e, broker: b}
					p := other.peer("s")
					k, err := p.Consume(ctx, core.Consumption{Queue: core.SessionQueue("s"), Settings: &core.QueueSettings{Kind: core.KindSession}, Settlement: core.SettleAlways}, p)
					if err != nil {
						t.Fatal(err)
					}
					k.Grant(plenty)
					if got := p.take(); len(got) > 0 {
						t.Errorf("known %v, killed before commit %d: it is given %q", known, i, got)
					}
					publish(p, 1)
					if p.confirmed(1); fails && p.confirms[0].Duplicate {
						t.Errorf("known %v, killed before commit %d: its publish is a duplicate", known, i)
					}
					other.close()
				}
				if anew == 0 {
					t.Error("no session has begun anew")
				}
			})
		}
	}
}

// What was settled twice in one commit that is refused is what it was before both:
// a message that a lease had released and that was moved is leased as before.
func TestReleasedAndMovedInOneCommit(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		a.declare("q", core.QueueSettings{})
		a.publish("$queue/q", "in")
		leases, err := a.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 1, Wait: time.Minute, For: time.Hour})
		if err != nil || len(leases) != 1 {
			t.Fatalf("%d leases, %v", len(leases), err)
		}
		rest()
		goOn := w.refuseNext(2)
		a.publish("t", "before")
		go a.SettleLease(ctx, leases[0].Token, core.Released, core.SettleOptions{Delay: core.NoDelay})
		synctest.Wait()
		go a.Move(ctx, "q", core.Transfer{To: "$queue/to"})
		goOn()
		if err := a.SettleLease(ctx, leases[0].Token, core.Accepted, core.SettleOptions{}); err != nil {
			t.Error(err)
		}
		if got := w.inQueue(w.engine.Clone(), "to"); len(got) > 0 {
			t.Errorf("it was moved, too: %q", got)
		}
		if got := a.browse("q"); got != "" {
			t.Errorf("it is there still: %q", got)
		}
	})
}

// An exclusive queue that there was no room for is its client's nevertheless, who
// may declare it once more, and ends with it.
func TestExclusiveQueueIsRefused(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a, b := w.peer("a"), w.peer("b")
		d := core.QueueDefinition{Name: "q", Settings: core.QueueSettings{Exclusive: true}}
		w.engine.Fail(core.ErrStorageFull)
		if err := a.DeclareQueue(ctx, d); !errors.Is(err, core.ErrStorageFull) {
			t.Fatal(err)
		}
		w.engine.Fail(nil)
		if err := b.DeclareQueue(ctx, d); !errors.Is(err, core.ErrInUse) {
			t.Errorf("another client: %v", err)
		}
		if err := a.DeclareQueue(ctx, d); err != nil {
			t.Errorf("the same client: %v", err)
		}
		a.Close()
		rest()
		if b.HasQueue("q") {
			t.Error("it is there still")
		}
	})
}

// An exclusive queue that is made while its client ends goes with it: it would be
// nobody's, and refuse everybody.
func TestExclusiveQueueOfOneWhoEnds(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.Close()
		d := core.QueueDefinition{Name: "q", Settings: core.QueueSettings{Exclusive: true}}
		if err := p.DeclareQueue(context.Background(), d); !errors.Is(err, core.ErrClosed) {
			t.Errorf("%v", err)
		}
		w.peer("other").declare("q", d.Settings)
	})
}

// A publish that is refused pushes nothing out of a queue that drops its oldest.
func TestRefusedPublishPushesNothingOut(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		a.declare("q", core.QueueSettings{MaxLength: 3, Overflow: core.OverflowDropOldest})
		a.publish("$queue/q", "1", "2", "3")
		rest()
		// The first commit is done, the second one is refused.
		turn, n := make(chan bool), 0
		w.engine.Hold = func() { <-turn }
		w.engine.Refuse = func(*core.Batch) error {
			if n++; n == 2 {
				return core.ErrStorageFull
			}
			return nil
		}
		publish := func(payload string, r core.Receipt) {
			if err := a.Publish(ctx, &core.Envelope{Topic: "$queue/q", Payload: []byte(payload), Guarantee: core.AtLeastOnce}, r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		publish("4", 1)
		publish("5", 2)
		publish("6", 3)
		turn <- true
		synctest.Wait()
		close(turn)
		rest()
		if a.confirmed(1) != nil || !errors.Is(a.confirmed(2), core.ErrStorageFull) || !errors.Is(a.confirmed(3), core.ErrStorageFull) {
			t.Fatalf("%+v", a.confirms)
		}
		if got := a.browse("q"); got != "2 3 4" {
			t.Errorf("the queue has %q", got)
		}
	})
}

// What was released, which is refused, is settled by who holds it while it is on
// its way there once more; but that is refused, too, and so is the settlement. Then
// it is held as before.
func TestSettledOnItsWay(t *testing.T) {
	for _, o := range []core.Outcome{core.Accepted, core.Released, core.Rejected} {
		run(t, func(w *world) {
			a := w.peer("a")
			a.declare("q", core.QueueSettings{Backoff: 1, BackoffMax: 1})
			a.publish("$queue/q", "in")
			k := a.consumeWhere("q", "", core.Credit{Messages: 1, Bytes: 1 << 20})
			at := a.deliveries()[0].Offset
			rest()
			turn := make(chan bool)
			w.engine.Hold = func() { <-turn }
			w.engine.Fail(core.ErrStorageFull)
			if err := k.Settle(at, core.Released, core.SettleOptions{Receipt: 1, Delay: core.NoDelay}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			k.Grant(core.Credit{Messages: 1})
			synctest.Wait()
			turn <- true
			synctest.Wait()
			if err := k.Settle(at, o, core.SettleOptions{Receipt: 2, Delay: core.NoDelay}); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				turn <- true
				synctest.Wait()
			}
			close(turn)
			synctest.Wait()
			w.engine.Fail(nil)
			for r := core.Receipt(1); r <= 2; r++ {
				if err := a.confirmed(r); !errors.Is(err, core.ErrStorageFull) {
					t.Fatal(r, err)
				}
			}
			rest()
			if !k.Holds(at) {
				t.Errorf("%v: it is not held any more", o)
			}
			k.Close()
			if got := w.inQueue(w.engine.Clone(), "q"); len(got) != 1 {
				t.Errorf("%v: after a kill there are %q", o, got)
			}
			b := w.peer("b")
			b.consumeWhere("q", "", plenty)
			if got := b.take(); len(got) != 1 {
				t.Errorf("%v: the next consumer gets %q", o, got)
			}
		})
	}
}

// What is owed of a refused commit goes into the next one also where that is made
// for nothing but to be waited for: who waits, as to reclaim space does, relies on
// what there was before.
func TestOwedWithWhatIsWaitedFor(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.declare("q", core.QueueSettings{})
		a.publish("$queue/q", "in")
		k := a.consumeWhere("q", "", plenty)
		at := a.deliveries()[0].Offset
		rest()
		turn, first := make(chan bool), true
		w.engine.Hold = func() { <-turn }
		w.engine.Refuse = func(*core.Batch) error {
			if first {
				first = false
				return core.ErrStorageFull
			}
			return nil
		}
		if err := k.Settle(at, core.Accepted, core.SettleOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // its position is on its way
		if err := a.Forget(context.Background(), "unknown", 1); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			turn <- true
			synctest.Wait()
		}
		if err := a.confirmed(1); err != nil {
			t.Fatal(err)
		}
		left := w.engine.Clone()
		close(turn)
		rest()
		if got := w.inQueue(left, "q"); len(got) > 0 {
			t.Errorf("what was accepted is there once more: %q", got)
		}
	})
}

// A consumer that is given nothing new holds what it holds also where there is no
// room for its settlement.
func TestRetiredWhenRefused(t *testing.T) {
	run(t, func(w *world) {
		a, b := w.peer("a"), w.peer("b")
		k := a.consume("q")
		a.publish("$queue/q", "in")
		k.Grant(plenty)
		at := a.deliveries()[0].Offset
		k.Retire()
		b.consume("q").Grant(plenty)
		rest()
		w.engine.Fail(core.ErrStorageFull)
		if err := k.Settle(at, core.Accepted, core.SettleOptions{Receipt: 1}); err != nil {
			t.Fatal(err)
		}
		rest()
		w.engine.Fail(nil)
		rest()
		if err := a.confirmed(1); !errors.Is(err, core.ErrStorageFull) {
			t.Fatal(err)
		}
		b.want()
		if err := k.Settle(at, core.Accepted, core.SettleOptions{Receipt: 2}); err != nil || a.confirmed(2) != nil {
			t.Errorf("%v, %v", err, a.confirms)
		}
	})
}

// However commits are refused and what comes in between, each message is in one
// place: where it was published to, unless a settlement has taken it from there
// that was not refused, and then nowhere else than that says. The queue counts
// what it has, and holds nothing for nobody.
func TestRefusedAtRandom(t *testing.T) {
	for seed := range 60 {
		for _, s := range []core.QueueSettings{
			{}, {Ordered: true}, {Priority: true}, {MaxLength: 1000}, {SingleActive: true},
		} {
			s.MaxAttempts, s.Backoff, s.BackoffMax = core.Unlimited, 1, 1
			runWith(t, core.Options{}, func(w *world) {
				(&refusing{world: w, r: rand.New(rand.NewPCG(uint64(seed), 1)), settings: s}).run(seed)
			})
		}
	}
}

// refusing is a queue of which commits are refused at random, with what must have
// become of its messages.
type refusing struct {
	*world
	r        *rand.Rand
	settings core.QueueSettings

	mu      sync.Mutex
	places  map[string][]string // by payload, where a settlement has taken it to
	there   map[string]bool     // what was published
	pending map[*peer]map[core.Receipt]func(err error)
	// sure is, by payload, where a settlement has taken it to that was confirmed,
	// open how many settlements are on their way, or were not to be confirmed.
	sure    map[string]string
	open    map[string]int
	history []string
}

// an image is what a kill would have left, and what must be in the queue of it.
type image struct {
	engine   *coretest.Engine
	is, gone []string
}

func (w *refusing) image() image {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := image{engine: w.engine.Clone()}
	for payload, there := range w.there {
		switch {
		case w.sure[payload] != "":
			i.gone = append(i.gone, payload)
		case there && w.open[payload] == 0 && w.places[payload] == nil:
			i.is = append(i.is, payload)
		}
	}
	w.history = append(w.history, "killed")
	return i
}

// settling takes note that a settlement begins, and settled that it has ended.
func (w *refusing) settling(payload string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[payload]++
}

func (w *refusing) settled(payload, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[payload]--
	if to != "" {
		w.sure[payload] = to
	}
}

func (w *refusing) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, fmt.Sprintf(format, args...))
}

func (w *refusing) took(payload, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.places[payload] = append(w.places[payload], to)
}

// confirmations has what waits for them.
func (w *refusing) confirmations() {
	synctest.Wait()
	for p, waits := range w.pending {
		p.mu.Lock()
		cs := p.confirms
		p.confirms = nil
		p.mu.Unlock()
		for _, c := range cs {
			waits[c.Receipt](c.Err)
			delete(waits, c.Receipt)
		}
	}
}

var settledTo = map[core.Outcome]string{core.Accepted: "nowhere", core.Rejected: "q.dead"}

func (w *refusing) run(seed int) {
	t, r, ctx := w.t, w.r, context.Background()
	w.sure, w.open = make(map[string]string), make(map[string]int)
	var images []image
	w.places, w.there, w.pending = make(map[string][]string), make(map[string]bool), make(map[*peer]map[core.Receipt]func(error))
	a := w.peer("a")
	a.declare("q", w.settings)
	a.declare("q.dead", core.QueueSettings{MaxAttempts: core.Unlimited})
	a.declare("to", core.QueueSettings{})
	type member struct {
		p    *peer
		k    *core.Consumer
		held []core.Delivery
	}
	var members []*member
	var leases []core.Lease
	receipt, n := core.Receipt(0), 0
	expect := func(p *peer, f func(error)) core.Receipt {
		receipt++
		if w.pending[p] == nil {
			w.pending[p] = make(map[core.Receipt]func(error))
		}
		w.pending[p][receipt] = f
		return receipt
	}
	turn, room := make(chan bool), new(atomic.Bool)
	w.engine.Hold = func() { <-turn }
	refuse := rand.New(rand.NewPCG(uint64(seed), 2))
	w.engine.Refuse = func(*core.Batch) error {
		if !room.Load() && refuse.IntN(3) == 0 {
			w.say("refused")
			return core.ErrStorageFull
		}
		w.say("durable")
		return nil
	}
	for range 80 {
		switch op := r.IntN(14); {
		case op < 4:
			select {
			case turn <- true:
			default:
			}
		case op < 6:
			n++
			payload := fmt.Sprint(n)
			e := &core.Envelope{Topic: "$queue/q", Key: fmt.Sprint("k", r.IntN(3)), Payload: []byte(payload), Guarantee: core.AtLeastOnce}
			w.say("publish %s", payload)
			if err := a.Publish(ctx, e, expect(a, func(err error) { w.there[payload] = err == nil })); err != nil {
				t.Fatal(err)
			}
		case op == 6 && len(members) < 3:
			m := &member{p: w.peer(fmt.Sprint("m", n, len(members)))}
			members = append(members, m)
			started := make(chan *core.Consumer, 1)
			go func() {
				k, err := m.p.Consume(ctx, core.Consumption{Queue: "q", Settlement: core.SettleAlways}, m.p)
				if err != nil {
					k = nil
				}
				started <- k
			}()
			synctest.Wait()
			select {
			case m.k = <-started:
				m.k.Grant(core.Credit{Messages: 1 + r.IntN(3), Bytes: 1 << 20})
			default:
				t.Fatal("consuming waits")
			}
			w.say("member")
		case op == 7 && len(members) > 0:
			i := r.IntN(len(members))
			w.say("member leaves, who held %d", len(members[i].held))
			members[i].k.Close()
			members = slices.Delete(members, i, i+1)
		case op < 11 && len(members) > 0:
			m := members[r.IntN(len(members))]
			m.held = append(m.held, m.p.deliveries()...)
			if len(m.held) == 0 {
				break
			}
			i := r.IntN(len(m.held))
			d := m.held[i]
			payload := string(d.Payload)
			m.held = slices.Delete(m.held, i, i+1)
			o := []core.Outcome{core.Accepted, core.Released, core.Rejected}[r.IntN(3)]
			opts := core.SettleOptions{Delay: core.NoDelay, Credit: core.Credit{Messages: 1}}
			w.settling(payload)
			if r.IntN(4) > 0 {
				opts.Receipt = expect(m.p, func(err error) {
					w.say("%v of %s with a receipt: %v", o, payload, err)
					switch {
					case err != nil:
						m.held = append(m.held, d)
						w.settled(payload, "")
					case o != core.Released:
						w.took(payload, settledTo[o])
						w.settled(payload, settledTo[o])
					default:
						w.settled(payload, "")
					}
				})
			}
			err := m.k.Settle(d.Offset, o, opts)
			w.say("%v of %s, receipt %d: %v", o, payload, opts.Receipt, err)
			switch {
			case err != nil:
				delete(w.pending[m.p], opts.Receipt)
				w.settled(payload, "")
			case opts.Receipt == 0 && o != core.Released:
				w.took(payload, settledTo[o])
			}
		case op == 11:
			go func() {
				got, err := a.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 1, For: time.Hour})
				w.mu.Lock()
				leases = append(leases, got...)
				w.mu.Unlock()
				for _, l := range got {
					w.say("leased %s, %v", l.Payload, err)
				}
			}()
		case op == 12 && len(leases) > 0:
			w.mu.Lock()
			i := r.IntN(len(leases))
			l := leases[i]
			leases = slices.Delete(leases, i, i+1)
			w.mu.Unlock()
			o := []core.Outcome{core.Accepted, core.Released, core.Rejected}[r.IntN(3)]
			payload := string(l.Payload)
			w.say("%v of %s, leased", o, payload)
			w.settling(payload)
			go func() {
				err := a.SettleLease(ctx, l.Token, o, core.SettleOptions{Delay: core.NoDelay})
				w.say("%v of %s, leased: %v", o, payload, err)
				switch {
				case errors.Is(err, core.ErrStorageFull):
					w.mu.Lock()
					leases = append(leases, l)
					w.mu.Unlock()
				case err == nil && o != core.Released:
					w.took(payload, settledTo[o])
					w.settled(payload, settledTo[o])
					return
				}
				w.settled(payload, "")
			}()
		case op == 13 && n > 0:
			payload, purge := fmt.Sprint(1+r.IntN(n)), r.IntN(3) == 0
			var sel core.Selection
			page, err := a.Browse(ctx, "q", core.ReadRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range page.Messages {
				if string(d.Payload) == payload {
					sel.Offsets = []core.Offset{d.Offset}
				}
			}
			if sel.Offsets == nil {
				break
			}
			w.say("move or purge %s", payload)
			w.settling(payload)
			go func() {
				var got core.Sifted
				var err error
				if purge {
					got, err = a.Purge(ctx, "q", sel, false)
				} else {
					got, err = a.Move(ctx, "q", core.Transfer{Selection: sel, To: "$queue/to"})
				}
				w.say("moved or purged %s: %d, %v", payload, got.Messages, err)
				switch {
				case got.Messages == 0:
					w.settled(payload, "")
				case purge:
					w.took(payload, "nowhere")
					w.settled(payload, "nowhere")
				default:
					w.took(payload, "to")
					w.settled(payload, "to")
				}
			}()
		}
		synctest.Wait()
		if r.IntN(3) == 0 {
			time.Sleep(30 * time.Millisecond)
		}
		w.confirmations()
		if r.IntN(20) == 0 {
			images = append(images, w.image())
		}
	}
	room.Store(true)
	close(turn)
	time.Sleep(10 * time.Second)
	w.confirmations()
	for _, m := range members {
		m.k.Close()
	}
	for _, l := range leases {
		_ = a.SettleLease(ctx, l.Token, core.Released, core.SettleOptions{Delay: core.NoDelay})
	}
	time.Sleep(10 * time.Second)
	w.confirmations()

	is := make(map[string][]string)
	if err := w.broker.Miscounts(ctx, "q"); err != nil {
		t.Error(err)
	}
	if info, err := a.Queue("q"); err != nil || info.Held != 0 {
		t.Errorf("%d are held by nobody, %v", info.Held, err)
	}
	for _, q := range []string{"q", "to", "q.dead"} {
		p := w.peer("drains " + q)
		k := p.consume(q)
		for range 30 {
			k.Grant(plenty)
			for _, d := range p.deliveries() {
				is[string(d.Payload)] = append(is[string(d.Payload)], q)
				if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(20 * time.Second)
		}
	}
	for _, i := range images {
		if w.settings.Ordered {
			break // one message of a key comes at a time
		}
		got := w.inQueue(i.engine, "q")
		for _, payload := range i.is {
			if !slices.Contains(got, payload) {
				t.Errorf("after a kill %s is not there, but %q", payload, got)
			}
		}
		for _, payload := range i.gone {
			if slices.Contains(got, payload) {
				t.Errorf("after a kill %s is there still: %q", payload, got)
			}
		}
	}
	for payload, there := range w.there {
		want := w.places[payload]
		if want == nil {
			want = []string{"q"}
		}
		if !there {
			want = nil
		}
		want = slices.DeleteFunc(slices.Clone(want), func(to string) bool { return to == "nowhere" })
		if !slices.Equal(is[payload], want) || len(w.places[payload]) > 1 {
			t.Errorf("%s is in %q, settled to %q", payload, is[payload], w.places[payload])
		}
	}
	if t.Failed() {
		t.Fatalf("seed %d, %v:\n%s", seed, w.settings, strings.Join(w.history, "\n"))
	}
}
