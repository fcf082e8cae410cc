package core_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// Whatever happens to a queue, its position and the steps that follow it are
// where it stands.
func TestStepsLeadToThePosition(t *testing.T) {
	for name, s := range map[string]core.QueueSettings{
		"plain": {}, "priority": {Priority: true}, "ordered": {Ordered: true}, "metered": {MaxLength: 40, Overflow: core.OverflowDropOldest},
	} {
		t.Run(name, func(t *testing.T) {
			runWith(t, core.Options{StepsFrom: 1}, func(w *world) {
				t := w.t
				rnd := rand.New(rand.NewPCG(1, 2))
				a, most := w.follow(s, rnd)
				for range 3 {
					w.kill()
					var steps int
					a, steps = w.follow(s, rnd)
					most = max(most, steps)
				}
				if most < 10 {
					t.Errorf("at most %d steps", most)
				}
				if err := a.DeleteQueue(t.Context(), "q"); err != nil {
					t.Fatal(err)
				}
				for s, err := range w.engine.State("s/", "") {
					t.Errorf("the state still has %q, %v", s.Key, err)
				}
			})
		})
	}
}

// follow does much to the queue q and compares its position with the state's.
func (w *world) follow(s core.QueueSettings, rnd *rand.Rand) (a *peer, most int) {
	t, ctx := w.t, context.Background()
	a = w.peer("a")
	a.declare("q", s)
	var leases []core.Lease
	var ks []*core.Consumer
	for i := range 150 {
		switch rnd.IntN(9) {
		case 0, 1, 2:
			for range rnd.IntN(8) {
				e := core.Envelope{Topic: core.QueueTopic("q"), Payload: []byte("x"), Key: []string{"a", "b", ""}[rnd.IntN(3)], Guarantee: core.AtLeastOnce}
				e.Priority = core.PriorityOf(rnd.IntN(10))
				a.send(e)
			}
		case 3, 4:
			got, err := a.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 1 + rnd.IntN(5), For: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			leases = append(leases, got...)
		case 5, 6:
			if len(leases) == 0 {
				continue
			}
			n := rnd.IntN(len(leases))
			o := []core.Outcome{core.Accepted, core.Released, core.Rejected}[rnd.IntN(3)]
			_ = a.SettleLease(ctx, leases[n].Token, o, core.SettleOptions{Delay: time.Duration(rnd.IntN(5)) * time.Second}) // it may be over
			leases = append(leases[:n], leases[n+1:]...)
		case 7:
			where := []string{"", "key = 'a'", "JMSPriority > 5"}[rnd.IntN(3)]
			k, err := a.Consume(ctx, core.Consumption{Queue: "q", Where: where, Settlement: core.SettleAlways}, a)
			if err != nil {
				t.Fatal(err)
			}
			k.Grant(core.Credit{Messages: rnd.IntN(6), Bytes: 1 << 20})
			if ks = append(ks, k); len(ks) > 2 {
				ks[0].Close()
				ks = ks[1:]
			}
		case 8:
			if i%4 == 0 {
				if _, err := a.Rewind(ctx, "q", core.FromLast(rnd.IntN(20)), false); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, d := range a.deliveries() {
			if n := len(ks); n > 0 && rnd.IntN(2) == 0 {
				_ = ks[rnd.IntN(n)].Settle(d.Offset, core.Accepted, core.SettleOptions{Through: rnd.IntN(3) == 0}) // it may be another's
			}
		}
		time.Sleep(time.Duration(rnd.IntN(3)) * time.Second)
		for steps := -1; steps < 0; {
			time.Sleep(50 * time.Millisecond) // positions are journaled every 20
			synctest.Wait()
			var err error
			if steps, err = w.broker.Journaled("q"); err != nil {
				t.Fatalf("after %d: %v", i, err)
			}
			most = max(most, steps)
		}
	}
	for _, k := range ks {
		k.Close()
	}
	return a, most
}
