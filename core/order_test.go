package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// keyed publishes messages of one key to a queue.
func (p *peer) keyed(queue, key string, payloads ...string) {
	p.t.Helper()
	for _, s := range payloads {
		p.send(core.Envelope{Topic: core.QueueTopic(queue), Key: key, Payload: []byte(s)})
	}
}

// The next message of a key comes once the transaction that settles the one
// before is durable, and not at all where it was refused: then that one is held
// as before.
func TestKeyWaitsForItsTransaction(t *testing.T) {
	for _, refused := range []bool{false, true} {
		run(t, func(w *world) {
			ctx := context.Background()
			p := w.peer("p")
			p.declare("q", core.QueueSettings{Ordered: true, Lease: core.Unlimited})
			p.keyed("q", "k", "1", "2", "3")
			p.keyed("q", "j", "other")
			k := p.consumeWhere("q", "", plenty)
			held := p.deliveries()
			if len(held) != 2 {
				t.Fatalf("%d came", len(held))
			}
			turn := make(chan bool)
			w.engine.Hold = func() { <-turn }
			if refused {
				w.noRoomFor(1000)
			}
			tx := core.Transaction{
				Publish: []*core.Envelope{{Topic: "out", Payload: make([]byte, 2000)}},
				Settle:  []core.Settling{{Consumer: k, Offset: held[0].Offset, Outcome: core.Accepted}},
			}
			if err := p.Commit(ctx, tx, 1); err != nil {
				t.Fatal(err)
			}
			p.want()
			// The queue is looked at for another reason.
			if err := k.Settle(held[1].Offset, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
			p.want()
			close(turn)
			if refused {
				p.want()
				if len(p.confirms) != 1 || !errors.Is(p.confirms[0].Err, core.ErrStorageFull) {
					t.Fatalf("%+v", p.confirms)
				}
				if err := k.Settle(held[0].Offset, core.Accepted, core.SettleOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			for _, want := range []string{"2", "3"} {
				if got := p.acceptAll(k); !slices.Equal(got, []string{want}) {
					t.Fatalf("refused %v: %v came, want %s", refused, got, want)
				}
			}
		})
	}
}

// The members of a group that was asked to keep the order of keys have the messages
// of one key one after the other, whoever of them that is, also where one leaves;
// what has no key waits for nothing. A group that was made without is not given the
// order by who asks for it later.
func TestGroupKeepsOrderOfKeys(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		members := make(map[*peer]*core.Consumer)
		for _, name := range []string{"b", "c"} {
			p := w.peer(name)
			s := core.DefaultGroupSettings()
			s.Ordered = name == "b" // the other one takes the group as it is
			k, err := p.Consume(context.Background(), core.Consumption{
				Queue: core.GroupQueue("g", "x"), Create: true, Settings: &s, Bindings: []core.Binding{{Filter: "x"}}, Settlement: core.SettleAlways,
			}, p)
			if err != nil {
				t.Fatal(err)
			}
			k.Grant(plenty)
			members[p] = k
		}
		// come is what has come to somebody, who holds it.
		come := func() (payloads []string, holder *peer, at core.Offset) {
			for p := range members {
				for _, d := range p.deliveries() {
					payloads, holder, at = append(payloads, string(d.Payload)), p, d.Offset
				}
			}
			return payloads, holder, at
		}
		for _, payload := range []string{"1", "2", "3", "4"} {
			a.send(core.Envelope{Topic: "x", Key: "k", Payload: []byte(payload)})
		}
		for _, want := range []string{"1", "2", "2", "3", "4"} {
			got, holder, at := come()
			if !slices.Equal(got, []string{want}) {
				t.Fatalf("%q came, want %s", got, want)
			}
			if want == "2" && len(members) == 2 {
				members[holder].Close()
				delete(members, holder)
			} else if err := members[holder].Settle(at, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		a.publish("x", "free", "too")
		if got, _, _ := come(); !slices.Equal(got, []string{"free", "too"}) {
			t.Errorf("%q came without a key", got)
		}
		for _, ordered := range []bool{false, true} {
			s := core.DefaultGroupSettings()
			s.Ordered = ordered
			_, err := a.Consume(context.Background(), core.Consumption{
				Queue: core.GroupQueue("h", "x"), Create: true, Settings: &s, Bindings: []core.Binding{{Filter: "x"}}, Settlement: core.SettleAlways,
			}, a)
			if errors.Is(err, core.ErrConflict) != ordered {
				t.Errorf("ordered %v: %v", ordered, err)
			}
		}
	})
}

// A key whose queue was rewound behind a message that is held goes on with the
// earlier ones, once that one is given back or settled.
func TestKeyRewoundBehindWhatIsHeld(t *testing.T) {
	for _, outcome := range []core.Outcome{core.Accepted, core.Released, core.Rejected} {
		run(t, func(w *world) {
			p := w.peer("p")
			p.declare("q", core.QueueSettings{Ordered: true, Lease: core.Unlimited})
			p.keyed("q", "k", "1", "2", "3")
			k := p.consumeWhere("q", "", plenty)
			if got := p.acceptAll(k); !slices.Equal(got, []string{"1"}) {
				t.Fatal(got)
			}
			held := p.deliveries()
			if _, err := p.Rewind(context.Background(), "q", core.Earliest, false); err != nil {
				t.Fatal(err)
			}
			p.want()
			p.keyed("q", "j", "other")
			other := p.deliveries()
			if len(other) != 1 {
				t.Fatalf("%d came", len(other))
			}
			// It goes for a minute, and something else comes back in between.
			if err := k.Settle(held[0].Offset, outcome, core.SettleOptions{Delay: time.Minute}); err != nil {
				t.Fatal(err)
			}
			first := p.deliveries()
			if len(first) != 1 || string(first[0].Payload) != "1" {
				t.Fatalf("%v: %d came", outcome, len(first))
			}
			if err := k.Settle(other[0].Offset, core.Released, core.SettleOptions{Delay: 10 * time.Second}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Second)
			if got := p.acceptAll(k); !slices.Equal(got, []string{"other"}) {
				t.Fatal(got)
			}
			if err := k.Settle(first[0].Offset, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
			want := []string{"3"}
			if outcome == core.Released {
				p.want()
				want = []string{"2", "3"}
			}
			time.Sleep(time.Minute)
			for _, s := range want {
				if got := p.acceptAll(k); !slices.Equal(got, []string{s}) {
					t.Fatalf("%v: %v came, want %s", outcome, got, s)
				}
			}
		})
	}
}

// A message that nobody takes holds up its key also where the queue had no place
// left to note it.
func TestKeyHeldUpWithoutPlace(t *testing.T) {
	runWith(t, core.Options{Limits: core.Limits{Outstanding: 2}}, func(w *world) {
		p, red, blue := w.peer("p"), w.peer("red"), w.peer("blue")
		p.declare("q", core.QueueSettings{Ordered: true, Lease: core.Unlimited})
		for _, m := range [][3]string{{"1", "k", "blue"}, {"2", "j", "blue"}, {"3", "i", "blue"}, {"4", "i", "red"}, {"5", "h", "green"}} {
			e := colored("q", m[2], m[0])
			e.Key = m[1]
			p.send(e)
		}
		if _, err := p.Purge(context.Background(), "q", core.Selection{Where: "color = 'green'"}, false); err != nil {
			t.Fatal(err)
		}
		kr := red.consumeWhere("q", "color = 'red'", plenty)
		red.want()
		if n := w.broker.CountFull(); n != 1 {
			t.Errorf("%d queues are full", n)
		}
		kb := blue.consumeWhere("q", "color = 'blue'", core.Credit{Messages: 1, Bytes: 1 << 20})
		if got := blue.acceptAll(kb); !slices.Equal(got, []string{"1"}) {
			t.Fatal(got)
		}
		red.want()
		for _, want := range []string{"2", "3"} {
			kb.Grant(core.Credit{Messages: 1})
			if got := blue.acceptAll(kb); !slices.Equal(got, []string{want}) {
				t.Fatalf("%v, want %s", got, want)
			}
		}
		if got := red.acceptAll(kr); !slices.Equal(got, []string{"4"}) {
			t.Fatal(got)
		}
		if n := w.broker.CountFull(); n != 0 {
			t.Errorf("%d queues are full", n)
		}
	})
}

// What is held when its queue is rewound stays with who holds it: settled, it
// does not come again, and is a dead letter once.
func TestRewoundBehindWhatIsHeld(t *testing.T) {
	for _, s := range []core.QueueSettings{{}, {Priority: true}, {Ordered: true}, {MaxLength: 5}} {
		for _, restart := range []bool{false, true} {
			run(t, func(w *world) {
				s.Lease = core.Unlimited
				p := w.peer("p")
				p.declare("q", s)
				for _, name := range []string{"1", "2", "3", "4", "5"} {
					p.keyed("q", name, name)
				}
				k := p.consumeWhere("q", "", core.Credit{Messages: 5, Bytes: 1 << 20})
				held := p.deliveries()
				for _, i := range []int{0, 2} {
					if err := k.Settle(held[i].Offset, core.Accepted, core.SettleOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				got, err := p.Rewind(context.Background(), "q", core.Earliest, false)
				if err != nil || got.Again != 2 || got.Skipped != 0 {
					t.Fatalf("%+v, %v", got, err)
				}
				for i, o := range map[int]core.Outcome{1: core.Accepted, 3: core.Rejected} {
					if err := k.Settle(held[i].Offset, o, core.SettleOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if got := p.browse("q"); got != "1 3 5" {
					t.Errorf("there are %s", got)
				}
				if info, err := p.Queue("q"); err != nil || info.Lag != 2 || info.Held != 1 {
					t.Errorf("%+v, %v", info, err)
				}
				p.declare("to", core.QueueSettings{})
				if got, err := p.Move(context.Background(), "q", core.Transfer{To: core.QueueTopic("to"), Selection: core.Selection{Limit: 1}}); err != nil || got.Messages != 1 {
					t.Fatalf("%+v, %v", got, err)
				}
				time.Sleep(time.Second)
				if restart {
					w.restart()
					p = w.peer("p")
				} else {
					k.Close()
				}
				for range 3 { // no more than five fit in, of which two are there
					p.publish(core.QueueTopic("q"), "new")
				}
				if err := p.Publish(context.Background(), &core.Envelope{Topic: core.QueueTopic("q")}, 0); errors.Is(err, core.ErrQueueFull) != (s.MaxLength > 0) {
					t.Errorf("%v", err)
				}
				if got, want := w.drain("q"), map[bool]string{false: "3 5 new new new ", true: "3 5 new new new"}[s.MaxLength > 0]; got != want && got != "5 3"+want[3:] {
					t.Errorf("%+v, restarted %v: %q came, want %q", s, restart, got, want)
				}
				if got := p.browse("q.dead"); got != "4" {
					t.Errorf("the dead letters are %s", got)
				}
			})
		}
	}
}

// A lease that does not wait comes with what is there, also where it has first to
// be found behind what others had no credit for.
func TestLeaseOfOrderedAtOnce(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.declare("q", core.QueueSettings{Ordered: true})
		for i, color := range []string{"red", "red", "blue"} {
			e := colored("q", color, fmt.Sprint(i))
			e.Key = color
			a.send(e)
		}
		w.peer("b").consumeWhere("q", "color = 'blue'", core.Credit{})
		w.peer("c").consumeWhere("q", "", core.Credit{})
		for _, want := range []string{"0", "2"} {
			ls, err := a.Lease(context.Background(), core.LeaseRequest{Consumption: core.Consumption{Queue: "q", Where: "NOT color = 'x'"}, Max: 1})
			if err != nil || len(ls) != 1 || string(ls[0].Payload) != want {
				t.Fatalf("%d leases, %v, want %s", len(ls), err, want)
			}
		}
		w.kill()
		a = w.peer("a")
		for _, want := range []string{"0", "2"} { // they wait to be delivered again
			ls, err := a.Lease(context.Background(), core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 1})
			if err != nil || len(ls) != 1 || string(ls[0].Payload) != want || ls[0].Attempt != 2 {
				t.Fatalf("after a kill %d leases, %v, want %s", len(ls), err, want)
			}
		}
	})
}

// What is older than its queue lets it be is not among what waits there.
func TestBrowsingLeavesOutWhatIsTooOld(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.declare("q", core.QueueSettings{TTL: 10 * time.Second})
		a.publish("$queue/q", "old")
		time.Sleep(9 * time.Second)
		a.publish("$queue/q", "new")
		if got := a.browse("q"); got != "old new" {
			t.Fatalf("it has %q", got)
		}
		time.Sleep(time.Second)
		if got := a.browse("q"); got != "new" {
			t.Fatalf("it has %q", got)
		}
	})
}

// What waits behind one message of its key takes up the queue's position until that
// is full. Whoever leases then waits no longer than it asks to, what waits counts as
// that, and all goes on once the first one is settled.
func TestKeyFillsPosition(t *testing.T) {
	const most = 5
	runWith(t, core.Options{Limits: core.Limits{Outstanding: most}}, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.declare("q", core.QueueSettings{Ordered: true, Lease: time.Hour})
		p.keyed("q", "k", "1", "2", "3", "4", "5", "6", "7")
		p.keyed("q", "", "free")
		lease := func(wait time.Duration) (ls []core.Lease, took time.Duration) {
			t.Helper()
			began := time.Now()
			ls, err := p.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 10, Wait: wait})
			if err != nil {
				t.Fatal(err)
			}
			return ls, time.Since(began)
		}
		first, took := lease(time.Second)
		if len(first) != 1 || took > 0 {
			t.Fatalf("%d came, after %v", len(first), took)
		}
		if info, err := p.Queue("q"); err != nil || info.Held != 1 || info.Waiting != most-1 {
			t.Errorf("%+v, %v", info, err)
		}
		for _, wait := range []time.Duration{0, time.Second, 20 * time.Second} {
			if ls, took := lease(wait); len(ls) != 0 || took != wait {
				t.Errorf("%d came to who waits for %v, after %v", len(ls), wait, took)
			}
		}
		came := ""
		for len(first) > 0 {
			for _, l := range first {
				came += string(l.Payload) + " "
				if err := p.SettleLease(ctx, l.Token, core.Accepted, core.SettleOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			first, _ = lease(0)
		}
		if came != "1 2 3 4 free 5 6 7 " {
			t.Errorf("%q came", came)
		}
	})
}
