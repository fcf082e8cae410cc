package core_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A keptMember is a session that is a member of a group, in the model's eyes.
type keptMember struct {
	name    string
	lasting bool
	epoch   int // counts the sessions of the name
	p       *peer
	k       *core.Consumer
	main    *core.Consumer // of a lasting session's own queue
	held    []core.Delivery
}

func (m *keptMember) session() string { return fmt.Sprintf("%s of %d", m.name, m.epoch) }

// keptWorld is a group with members that come, go, settle, end and are killed at
// random, with what has become of each message that was published exactly once.
type keptWorld struct {
	*world
	r       *rand.Rand
	members []*keptMember
	pub     *peer
	n       int
	owner   map[string]string // by payload, the session that was given it
	settled map[string]bool
	over    map[string]bool // sessions that have ended
	ordered bool            // the group keeps the order of each key
}

const keptGroup = "$share/g/x"

func (w *keptWorld) attach(m *keptMember) {
	w.t.Helper()
	ctx := context.Background()
	m.p = w.peer(m.name)
	var err error
	if m.lasting {
		s := core.QueueSettings{Kind: core.KindSession, MaxAttempts: core.Unlimited, DeadLetter: core.NoDeadLetter}
		m.main, err = m.p.Consume(ctx, core.Consumption{Queue: core.SessionQueue(m.name), Create: true, Settings: &s, Exclusive: true}, m.p)
		if err != nil {
			w.t.Fatal(err)
		}
	}
	s := core.DefaultGroupSettings()
	s.Ordered = w.ordered
	m.k, err = m.p.Consume(ctx, core.Consumption{
		Queue: keptGroup, Create: true, Settings: &s, Bindings: []core.Binding{{Filter: "x"}},
		Settlement: core.SettleGuaranteed, Session: m.name, Once: true,
	}, m.p)
	if err != nil {
		w.t.Fatal(err)
	}
	m.k.Grant(core.Credit{Messages: 1 + w.r.IntN(4), Bytes: 1 << 20})
}

// left takes note that a member has no connection any more.
func (w *keptWorld) left(m *keptMember) {
	m.p, m.k, m.main, m.held = nil, nil, nil, nil
	if !m.lasting {
		w.over[m.session()] = true
		m.epoch++
	}
}

func (w *keptWorld) leave(m *keptMember) {
	if m.k != nil {
		w.look()
		m.k.Close()
		if m.main != nil {
			m.main.Close()
		}
		m.p.Close()
		w.left(m)
	}
}

func (w *keptWorld) end(m *keptMember) {
	w.t.Helper()
	w.leave(m)
	if !m.lasting {
		return
	}
	w.over[m.session()] = true
	m.epoch++
	if err := w.pub.EndSession(context.Background(), m.name); err != nil {
		w.t.Fatal(err)
	}
}

// look takes what has been delivered and compares it with the model.
func (w *keptWorld) look() {
	w.t.Helper()
	for _, m := range w.members {
		if m.p == nil {
			continue
		}
		for _, d := range m.p.deliveries() {
			m.held = append(m.held, d)
			if d.Guarantee != core.ExactlyOnce {
				continue
			}
			body := string(d.Payload)
			if o := w.owner[body]; o != "" && o != m.session() {
				w.t.Fatalf("%s was given to %s and then to %s", body, o, m.session())
			}
			w.owner[body] = m.session()
		}
	}
}

func (w *keptWorld) settle(m *keptMember) {
	w.t.Helper()
	if len(m.held) == 0 {
		return
	}
	i := w.r.IntN(len(m.held))
	d := m.held[i]
	if w.r.IntN(3) == 0 { // a settlement that there is no room for changes nothing
		w.engine.Fail(core.ErrStorageFull)
		err := m.k.Settle(d.Offset, []core.Outcome{core.Accepted, core.Released, core.Rejected}[w.r.IntN(3)], core.SettleOptions{Receipt: 1, Delay: time.Hour})
		synctest.Wait()
		if w.engine.Fail(nil); err != nil && d.Guarantee == core.ExactlyOnce {
			w.t.Fatalf("%s of %s: %v", d.Payload, m.session(), err)
		}
		return
	}
	m.held = slices.Delete(m.held, i, i+1)
	err := m.k.Settle(d.Offset, core.Accepted, core.SettleOptions{Credit: core.Credit{Messages: 1, Bytes: d.Size()}})
	if err != nil && d.Guarantee == core.ExactlyOnce {
		w.t.Fatalf("%s of %s: %v", d.Payload, m.session(), err) // no lease may end it
	}
	w.settled[string(d.Payload)] = true
}

func (w *keptWorld) kill() {
	w.look()
	w.world.kill()
	for _, m := range w.members {
		if m.p != nil {
			w.left(m)
		}
	}
	w.pub = w.peer("pub")
}

// What was published exactly once and given to a session's member of a group comes
// to no other session, and is not lost: whatever comes, goes, ends or is killed in
// between, it is settled, or given to who is left, or a dead letter.
func TestKeptForSession(t *testing.T) {
	for seed := range uint64(40) {
		run(t, func(base *world) {
			w := &keptWorld{
				world: base, r: rand.New(rand.NewPCG(seed, 1)), pub: base.peer("pub"),
				ordered: seed%2 == 1, owner: map[string]string{}, settled: map[string]bool{}, over: map[string]bool{},
			}
			for i := range 4 {
				w.members = append(w.members, &keptMember{name: fmt.Sprint("s", i), lasting: i > 0})
			}
			w.attach(w.members[1])
			for range 80 {
				m := w.members[w.r.IntN(len(w.members))]
				switch n := w.r.IntN(20); {
				case n < 7:
					e := core.Envelope{Topic: "x", Guarantee: core.ExactlyOnce, Key: []string{"", "k", "j"}[w.r.IntN(3)]}
					if w.n++; w.r.IntN(4) == 0 {
						e.Guarantee = core.AtLeastOnce
					}
					e.Payload = fmt.Appendf(nil, "%d:%d", w.n, e.Guarantee)
					if err := w.pub.Publish(context.Background(), &e, 0); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				case n < 11:
					if m.k == nil {
						w.attach(m)
					}
				case n < 15:
					w.settle(m)
				case n < 17:
					w.leave(m)
				case n < 18:
					w.end(m)
				case n < 19:
					w.kill()
				default:
					time.Sleep(10 * time.Minute) // longer than a lease
				}
				w.look()
			}
			for _, m := range w.members {
				w.end(m)
			}
			last := w.members[1]
			w.attach(last)
			last.k.Grant(plenty)
			w.look()
			dead := w.peer("dead")
			if _, err := dead.Queue("g.dead"); err == nil {
				dead.consume("g.dead").Grant(plenty)
			}
			for _, d := range dead.deliveries() {
				body := string(d.Payload)
				if o := w.owner[body]; o != "" && !w.over[o] {
					t.Errorf("seed %d: %s is dead, and its session %s is not", seed, body, o)
				}
				w.settled[body] = true
			}
			through := make(map[string]core.Offset) // by key, what has come
			for len(last.held) > 0 {
				held := last.held
				last.held = nil
				for _, d := range held {
					w.settled[string(d.Payload)] = true
					if w.ordered && d.Key != "" && d.Offset < through[d.Key] {
						t.Errorf("seed %d: %s comes behind what is later in its key", seed, d.Payload)
					}
					through[d.Key] = d.Offset
					if err := last.k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				w.look()
			}
			for i := range w.n {
				for _, g := range []core.Guarantee{core.AtLeastOnce, core.ExactlyOnce} {
					if body := fmt.Sprintf("%d:%d", i+1, g); !w.settled[body] && !w.settled[fmt.Sprintf("%d:%d", i+1, 3-g)] {
						t.Errorf("seed %d: %s is lost", seed, body)
					}
				}
			}
		})
	}
}

// Messages to a member come in their order, whatever their guarantee, and what
// nobody has seen before is not marked as repeated.
func TestKeptInOrder(t *testing.T) {
	run(t, func(base *world) {
		w := &keptWorld{world: base, r: rand.New(rand.NewPCG(1, 1)), pub: base.peer("pub"), over: map[string]bool{}}
		m := &keptMember{name: "s", lasting: true}
		w.attach(m)
		m.k.Grant(plenty)
		const n = 500
		for i := range n {
			err := w.pub.Publish(context.Background(), &core.Envelope{Topic: "x", Payload: fmt.Append(nil, i), Guarantee: core.Guarantee(1 + i%2)}, 0)
			if err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		got := m.p.deliveries()
		if len(got) != n {
			t.Fatalf("%d messages, want %d", len(got), n)
		}
		for i, d := range got {
			if string(d.Payload) != fmt.Sprint(i) || d.Attempt != 1 {
				t.Fatalf("message %d is %s, attempt %d", i, d.Payload, d.Attempt)
			}
		}
	})
}

// A consumer that is retired is given nothing new and settles what it holds; what
// it has not settled when it is closed goes to others.
func TestRetiredConsumer(t *testing.T) {
	run(t, func(w *world) {
		pub := w.peer("pub")
		a, ka := w.consumeWith("a", "q", 10)
		pub.publish("$queue/q", "1", "2")
		ds := a.deliveries()
		if len(ds) != 2 {
			t.Fatalf("%d messages", len(ds))
		}
		ka.Retire()
		b, _ := w.consumeWith("b", "q", 10)
		pub.publish("$queue/q", "3")
		a.want()
		b.want("3")
		if err := ka.Settle(ds[0].Offset, core.Accepted, core.SettleOptions{}); err != nil {
			t.Fatal(err)
		}
		ka.Close()
		b.want("2")
	})
}

// What a session has been given is completed with it although it expires
// meanwhile: in its own queue, and where a group keeps it for the session, be the
// group swept for what expires or not. What nobody was given is gone.
func TestBegunDeliveriesDoNotExpire(t *testing.T) {
	for _, swept := range []bool{false, true} {
		t.Run(fmt.Sprint("swept ", swept), func(t *testing.T) {
			run(t, func(w *world) {
				ctx := context.Background()
				pub := w.peer("pub")
				var p *peer
				attach := func(messages int) {
					p = w.peer("a")
					own := core.QueueSettings{Kind: core.KindSession, MaxAttempts: core.Unlimited, DeadLetter: core.NoDeadLetter}
					main, err := p.Consume(ctx, core.Consumption{Queue: core.SessionQueue("a"), Create: true, Settings: &own, Exclusive: true}, p)
					if err != nil {
						t.Fatal(err)
					}
					if err := main.Bind(ctx, core.Binding{Filter: "y", Settlement: core.SettleGuaranteed}, core.BindOptions{}); err != nil {
						t.Fatal(err)
					}
					settings := core.DefaultGroupSettings()
					settings.DeadLetterExpired = swept
					k, err := p.Consume(ctx, core.Consumption{
						Queue: keptGroup, Create: true, Settings: &settings, Bindings: []core.Binding{{Filter: "x"}},
						Settlement: core.SettleGuaranteed, Session: "a", Once: true,
					}, p)
					if err != nil {
						t.Fatal(err)
					}
					for _, k := range []*core.Consumer{main, k} {
						k.Grant(core.Credit{Messages: messages, Bytes: 1 << 20})
					}
				}
				got := func() (bodies []string) {
					time.Sleep(time.Minute)
					synctest.Wait()
					for _, d := range p.deliveries() {
						bodies = append(bodies, string(d.Payload))
					}
					slices.Sort(bodies)
					return bodies
				}
				attach(1)
				for _, body := range []string{"1", "2"} {
					for _, topic := range []string{"x", "y"} {
						e := core.Envelope{Topic: topic, Payload: []byte(topic + body), Guarantee: core.ExactlyOnce, Expires: time.Now().Add(time.Second)}
						if err := pub.Publish(ctx, &e, 0); err != nil {
							t.Fatal(err)
						}
					}
					synctest.Wait()
				}
				want := []string{"x1", "y1"}
				if bodies := got(); !slices.Equal(bodies, want) {
					t.Fatalf("got %q, want %q", bodies, want)
				}
				for _, comesBack := range []func(){func() { p.Close() }, w.kill} {
					comesBack()
					attach(0) // it waits until there is credit
					if bodies := got(); len(bodies) > 0 {
						t.Fatalf("got %q without credit", bodies)
					}
					p.Close()
					attach(10)
					if bodies := got(); !slices.Equal(bodies, want) {
						t.Errorf("got %q again, want %q", bodies, want)
					}
				}
			})
		})
	}
}
