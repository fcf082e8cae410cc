package core_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A leaver has another consumer leave at its first delivery, when that one has
// been assigned what it is not yet given.
type leaver struct {
	*peer
	other *core.Consumer
}

func (l *leaver) Deliver(ds []core.Delivery) {
	l.peer.Deliver(ds)
	if l.other != nil {
		l.other.Close()
		l.other = nil
	}
}

// What a consumer was assigned as it left comes to another one as if nothing had
// been: with its attempt, or at all, where nobody was to settle it.
func TestAssignedToWhoLeaves(t *testing.T) {
	for _, settlement := range []core.Settlement{core.SettleNever, core.SettleAlways} {
		for _, live := range []bool{false, true} {
			t.Run(fmt.Sprint(settlement, live), func(t *testing.T) {
				run(t, func(w *world) {
					ctx := context.Background()
					p := w.peer("p")
					p.declare("q", core.QueueSettings{MaxAttempts: 1, MaxLength: 2, Ordered: settlement == core.SettleNever})
					publish := func() {
						tx := core.Transaction{}
						for i := range 2 {
							tx.Publish = append(tx.Publish, &core.Envelope{Topic: core.QueueTopic("q"), Key: "k", Payload: []byte(fmt.Sprint(i)), Guarantee: core.AtLeastOnce})
						}
						if err := p.Commit(ctx, tx, 0); err != nil {
							t.Fatal(err)
						}
						synctest.Wait()
					}
					if !live {
						publish()
					}
					l := &leaver{peer: p}
					cn := core.Consumption{Queue: "q", Settlement: settlement}
					k, err := p.Consume(ctx, cn, l)
					if err != nil {
						t.Fatal(err)
					}
					l.other, err = w.peer("other").Consume(ctx, cn, silent{})
					if err != nil {
						t.Fatal(err)
					}
					// Nothing is given away before both have credit.
					both := make(chan struct{})
					w.engine.Hold = func() { <-both }
					k.Grant(plenty)
					l.other.Grant(plenty)
					close(both)
					if live {
						synctest.Wait()
						publish()
					}
					if got := p.attempts(); got != "0:1 1:1" {
						t.Fatalf("got %s", got)
					}
					if settlement == core.SettleNever {
						publish() // there is room again, and the key is nobody's
						if got := p.attempts(); got != "0:1 1:1" {
							t.Fatalf("then %s", got)
						}
					}
				})
			})
		}
	}
}

// What is to be delivered while the log has no room, so that its attempt cannot
// be written down, comes once there is: also to who settles nothing, and without
// costing credit in vain.
func TestDeliveredOnceThereIsRoom(t *testing.T) {
	for _, again := range []bool{false, true} {
		for _, settlement := range []core.Settlement{core.SettleNever, core.SettleAlways} {
			t.Run(fmt.Sprint(again, settlement), func(t *testing.T) {
				run(t, func(w *world) {
					ctx := context.Background()
					p := w.peer("p")
					p.declare("q", core.QueueSettings{Ordered: true})
					e := core.Envelope{Topic: core.QueueTopic("q"), Key: "k", Payload: []byte("m")}
					p.send(e)
					if again {
						k := p.consumeWhere("q", "", plenty)
						p.want("m")
						k.Close()
						time.Sleep(time.Second)
					}
					k, err := p.Consume(ctx, core.Consumption{Queue: "q", Settlement: settlement}, p)
					if err != nil {
						t.Fatal(err)
					}
					w.engine.Fail(core.ErrStorageFull)
					k.Grant(core.Credit{Messages: 1, Bytes: 1 << 20})
					p.want()
					w.engine.Fail(nil)
					time.Sleep(5 * time.Second)
					p.want("m")
				})
			})
		}
	}
}

// A queue that is rewound while its messages are being moved loses none of them.
func TestRewoundWhileMoved(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.declare("to", core.QueueSettings{})
		p.declare("q", core.QueueSettings{})
		for i := range 5 {
			p.publish(core.QueueTopic("q"), fmt.Sprint(i))
		}
		k := p.consumeWhere("q", "", core.Credit{Messages: 2, Bytes: 1 << 20})
		if got := p.acceptAll(k); len(got) != 2 {
			t.Fatal(got)
		}
		k.Close()
		moved := make(chan error, 1)
		go func() {
			_, err := p.Move(ctx, "q", core.Transfer{To: core.QueueTopic("to"), Rate: 1})
			moved <- err
		}()
		time.Sleep(1500 * time.Millisecond) // two are moved
		if _, err := p.Rewind(ctx, "q", core.Earliest, false); err != nil {
			t.Fatal(err)
		}
		if err := <-moved; err != nil {
			t.Fatal(err)
		}
		there := make(map[string]bool)
		for _, queue := range []string{"q", "to"} {
			c := w.peer("c")
			c.consumeWhere(queue, "", plenty)
			for _, m := range c.take() {
				there[m] = true
			}
		}
		if len(there) != 5 {
			t.Errorf("of five, there are %v", there)
		}
	})
}

// A reluctant engine's reads fail for a while.
type reluctant struct {
	*coretest.Engine
	fails atomic.Int32
}

func (g *reluctant) Read(ctx context.Context, from, limit core.Offset, filters *core.FilterSet, buf *core.ReadBuffer) (core.Offset, error) {
	if g.fails.Add(-1) >= 0 {
		return from, errors.New("not now")
	}
	return g.Engine.Read(ctx, from, limit, filters, buf)
}

// A queue that is ordered by key delivers nothing before it could read which
// keys wait.
func TestKeysReadLate(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.declare("q", core.QueueSettings{Ordered: true, Lease: core.Unlimited})
		publish := func(payload string) {
			p.send(core.Envelope{Topic: core.QueueTopic("q"), Key: "k", Payload: []byte(payload)})
		}
		publish("1")
		publish("2")
		k := p.consumeWhere("q", "", plenty)
		p.want("1")
		if err := k.Settle(1, core.Released, core.SettleOptions{Delay: time.Hour}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.close()
		g := &reluctant{Engine: w.engine}
		w.o.Engine = g
		w.open()
		p = w.peer("p")
		publish("3")
		g.fails.Store(1)
		k = p.consumeWhere("q", "", plenty)
		p.want()
		time.Sleep(2 * time.Hour)
		for _, want := range []string{"1", "2", "3"} {
			if got := p.acceptAll(k); len(got) != 1 || got[0] != want {
				t.Fatalf("got %v, want %s", got, want)
			}
		}
	})
}
