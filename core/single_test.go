package core_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// consumeWith attaches a consumer to a queue with so much credit.
func (w *world) consumeWith(name, queue string, n int) (*peer, *core.Consumer) {
	w.t.Helper()
	p := w.peer(name)
	return p, p.consumeWhere(queue, "", core.Credit{Messages: n, Bytes: 1 << 20})
}

// Of the consumers of a single_active queue the first works. When it goes, or
// lets a lease run out, the next one takes over with all that it held, in order;
// who stalled comes last, and cannot settle any more what was taken from it.
func TestSingleActive(t *testing.T) {
	run(t, func(w *world) {
		pub := w.peer("pub")
		pub.declare("q", core.QueueSettings{SingleActive: true, Lease: time.Minute, MaxAttempts: 4})
		a, ka := w.consumeWith("a", "q", 3)
		b, kb := w.consumeWith("b", "q", 3)
		c, kc := w.consumeWith("c", "q", 100)
		pub.publish("$queue/q", "1", "2", "3", "4")
		b.want()
		c.want()
		first := a.deliveries()
		if len(first) != 3 {
			t.Fatalf("a has %d", len(first))
		}
		if err := ka.Settle(first[0].Offset, core.Accepted, core.SettleOptions{}); err != nil {
			t.Fatal(err)
		}
		a.Close()
		b.want("2", "3", "4")
		time.Sleep(50 * time.Second)
		c.want()
		time.Sleep(11 * time.Second) // b stalls
		ds := c.deliveries()
		if len(ds) != 3 || string(ds[0].Payload) != "2" || string(ds[2].Payload) != "4" || ds[0].Attempt != 3 || ds[2].Attempt != 2 {
			t.Fatalf("c got %v", ds)
		}
		if err := kb.Settle(ds[0].Offset, core.Accepted, core.SettleOptions{Credit: plenty}); !errors.Is(err, core.ErrNotHeld) {
			t.Errorf("what was taken from b it settles: %v", err)
		}
		pub.publish("$queue/q", "5")
		c.want("5")
		kb.Grant(core.Credit{Messages: 3})
		for _, d := range ds {
			if err := kc.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		kc.Close()
		b.want("5")
		pub.publish("$queue/q", "6")
		b.want("6")
		time.Sleep(61 * time.Second) // nobody else is there
		b.want("5")
	})
}

// Who leases from a single_active queue works until all that it has leased is
// settled or its time is over.
func TestSingleActiveByLease(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.declare("q", core.QueueSettings{SingleActive: true, Lease: time.Minute})
		p.publish("$queue/q", "1", "2", "3", "4")
		lease := func(n int, wait time.Duration) []core.Lease {
			t.Helper()
			began := time.Now()
			ls, err := p.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: n, Wait: wait})
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > wait {
				t.Errorf("it waited %s", took)
			}
			return ls
		}
		settle := func(l core.Lease, o core.Outcome) {
			t.Helper()
			if err := p.SettleLease(ctx, l.Token, o, core.SettleOptions{Delay: core.NoDelay}); err != nil {
				t.Fatal(err)
			}
		}
		two := lease(2, 0)
		if len(two) != 2 || len(lease(2, 0)) != 0 || len(lease(2, time.Second)) != 0 {
			t.Fatal("two lease at once")
		}
		b, kb := w.consumeWith("b", "q", 1)
		settle(two[0], core.Accepted)
		b.want()
		settle(two[1], core.Released)
		b.want("2")
		if n := len(lease(1, 0)); n != 0 {
			t.Fatal("leased beside a consumer that works")
		}
		var late []core.Lease
		got := make(chan struct{})
		go func() {
			defer close(got)
			late = lease(3, time.Minute)
		}()
		time.Sleep(time.Second)
		kb.Close()
		<-got
		// It does not wait for more than what comes first.
		if len(late) == 0 || string(late[0].Payload) != "2" || late[0].Attempt != 3 {
			t.Errorf("after it had gone %d came", len(late))
		}
		time.Sleep(30 * time.Second)
		if n := len(lease(3, 0)); n != 0 {
			t.Fatal("leased twice")
		}
		time.Sleep(31 * time.Second)
		if n := len(lease(3, 0)); n != 3 {
			t.Fatalf("%d come when the lease is over", n)
		}
		w.kill()
		p = w.peer("p")
		if n := len(lease(3, 0)); n != 3 {
			t.Fatalf("%d come after a kill", n)
		}
	})
}

// A queue that is deleted with its last consumer waits five minutes for one after
// its broker has been killed, and without end where there never was one.
func TestAutoDeleteAfterKill(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		for _, name := range []string{"gone", "back", "left", "new"} {
			p.declare(name, core.QueueSettings{AutoDelete: true})
		}
		for _, name := range []string{"gone", "back", "left"} {
			p.consumeWhere(name, "", plenty)
		}
		p.publish(core.QueueTopic("gone"), "1")
		p.want("1")
		time.Sleep(time.Second) // for the positions to be written
		w.kill()
		p = w.peer("p")
		time.Sleep(4 * time.Minute)
		p.consumeWhere("back", "", plenty)
		p.consumeWhere("left", "", plenty)
		w.kill()
		p = w.peer("p")
		p.consumeWhere("back", "", plenty)
		time.Sleep(4 * time.Minute)
		left := p.consumeWhere("left", "", plenty)
		is := func(want string) {
			t.Helper()
			got := ""
			for _, name := range []string{"gone", "back", "left", "new"} {
				if p.HasQueue(name) {
					got += name + " "
				}
			}
			if got != want {
				t.Errorf("there are %sand not %s", got, want)
			}
		}
		is("gone back left new ")
		left.Close()
		time.Sleep(time.Second)
		is("gone back new ")
		time.Sleep(time.Minute)
		is("back new ")
		time.Sleep(time.Hour)
		is("back new ")
	})
}

// A queue that is deleted with its last consumer stays while something of it is
// leased, and no longer.
func TestAutoDeleteAfterLeases(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.declare("q", core.QueueSettings{AutoDelete: true, Lease: time.Minute})
		for _, end := range []func(core.Lease) error{
			func(l core.Lease) error { return p.SettleLease(ctx, l.Token, core.Accepted, core.SettleOptions{}) },
			func(core.Lease) error { time.Sleep(61 * time.Second); return nil },
		} {
			p.declare("q", core.QueueSettings{AutoDelete: true, Lease: time.Minute})
			p.publish("$queue/q", "1")
			ls, err := p.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 1})
			if err != nil || len(ls) != 1 || !p.HasQueue("q") {
				t.Fatalf("%d leased, %v, %t", len(ls), err, p.HasQueue("q"))
			}
			time.Sleep(30 * time.Second)
			if err := end(ls[0]); err != nil {
				t.Fatal(err)
			}
			if synctest.Wait(); p.HasQueue("q") {
				t.Error("it stays")
			}
		}
	})
}

// A queue that is deleted with its last consumer outlives a restart for which its
// consumers were sent away, with what is in it.
func TestAutoDeleteAfterStop(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.declare("q", core.QueueSettings{AutoDelete: true})
		k := p.consumeWhere("q", "", core.Credit{})
		p.publish("$queue/q", "1")
		w.broker.Stopping()
		k.Close()
		time.Sleep(time.Second)
		w.restart()
		p = w.peer("p")
		time.Sleep(4 * time.Minute)
		if got := w.drain("q"); got != "1" {
			t.Errorf("there is %q", got)
		}
		time.Sleep(time.Second)
		if p.HasQueue("q") {
			t.Error("it stays behind its last consumer")
		}
		p.declare("q", core.QueueSettings{AutoDelete: true})
		p.consumeWhere("q", "", core.Credit{})
		w.broker.Stopping()
		w.restart()
		if p = w.peer("p"); !p.HasQueue("q") {
			t.Error("it did not wait")
		}
		time.Sleep(5*time.Minute + time.Second)
		if p.HasQueue("q") {
			t.Error("it waits without end")
		}
	})
}

// A queue that somebody comes back to as it is about to be deleted stays for as long
// as from then on: no clock of before ends it while something of it is leased.
func TestAutoDeleteNotByOldClock(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.declare("q", core.QueueSettings{AutoDelete: true, Expires: 10 * time.Minute, Lease: time.Hour})
		p.publish("$queue/q", "1")
		p.publish("$queue/q", "2")
		lease := func() {
			t.Helper()
			ls, err := p.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 1})
			if err != nil || len(ls) != 1 {
				t.Fatalf("%d leased, %v", len(ls), err)
			}
		}
		p.consumeWhere("q", "", core.Credit{}).Close()
		lease()
		time.Sleep(9 * time.Minute)
		lease()
		time.Sleep(9 * time.Minute)
		if !p.HasQueue("q") {
			t.Error("it has gone nine minutes after the last lease")
		}
		time.Sleep(2 * time.Minute)
		if p.HasQueue("q") {
			t.Error("it stays")
		}
	})
}
