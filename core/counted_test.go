package core_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// What a bounded queue holds is known when the broker is opened without the log
// being read for it, but for the parts where it stands and where something is
// outstanding, and the log's end; be it closed or killed before.
func TestBoundedQueueIsNotReadAtAStart(t *testing.T) {
	run(t, func(w *world) {
		const part = 1 << 10
		publish := func(p *peer, n int) {
			t.Helper()
			for i := range n {
				topic := "t"
				if i%3 == 2 {
					topic = "other"
				}
				if err := p.Publish(context.Background(), &core.Envelope{Topic: topic, Payload: fmt.Append(nil, i)}, 0); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		again := func(what string, kill bool, length int64, most int) *peer {
			t.Helper()
			left := w.engine.Clone()
			if w.close(); !kill {
				left = w.engine.Clone()
			}
			r := &coretest.Reads{Engine: left}
			w.engine, w.o.Engine = left, r
			w.open()
			read := r.Records
			synctest.Wait()
			if counted, holds := w.broker.Metered("q"); counted != holds || holds.Length != length {
				t.Errorf("%s: %+v are counted, %+v are there, want %d", what, counted, holds, length)
			}
			if read > most {
				t.Errorf("%s: %d records are read at a start, want at most %d", what, read, most)
			}
			return w.peer("p")
		}
		p := w.peer("p")
		p.declare("q", core.QueueSettings{MaxLength: 1 << 30, Lease: core.Unlimited}, core.Binding{Filter: "t"})
		synctest.Wait() // it was counted
		publish(p, 30*part)
		const all = 20 * part
		p = again("closed, with all of it left", false, all, 2*part)
		k := p.consumeWhere("q", "", core.Credit{Messages: 3000, Bytes: 1 << 20})
		synctest.Wait()
		ds := p.deliveries()
		if len(ds) != 3000 {
			t.Fatalf("%d messages came", len(ds))
		}
		for i, d := range ds {
			if i%1000 == 7 {
				continue // it stays with the consumer
			}
			if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second) // that is in the log
		const left = all - 3000 + 3
		p = again("killed, with some of it settled", true, left, 5*part)
		publish(p, 300)
		p = again("closed once more", false, left+200, 5*part)
		publish(p, 300)
		// A minute later the state knows of what came.
		time.Sleep(time.Minute)
		publish(p, 30)
		p = again("killed a minute later", true, left+420, 5*part)
		if _, err := p.Purge(context.Background(), "q", core.Selection{}, false); err != nil {
			t.Fatal(err)
		}
		publish(p, 3)
		again("closed, emptied", false, 2, 2*part)
	})
}

// The counting goes on where a queue is moved back, though retention has removed
// part of what it had settled, is bound anew, and is deleted and made again.
func TestCountedAnew(t *testing.T) {
	runWith(t, core.Options{StepsFrom: 1, Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Minute}}}, func(w *world) {
		ctx := context.Background()
		check := func(what string, length int64) {
			t.Helper()
			for _, kill := range []bool{false, true} {
				synctest.Wait()
				if kill {
					time.Sleep(time.Second)
					w.kill()
				} else {
					w.restart()
				}
				synctest.Wait()
				if counted, holds := w.broker.Metered("q"); counted != holds || holds.Length != length {
					t.Errorf("%s, killed %v: %+v are counted, %+v are there, want %d", what, kill, counted, holds, length)
				}
			}
		}
		settings := core.QueueSettings{MaxBytes: 1 << 30, Lease: core.Unlimited}
		p := w.peer("p")
		p.declare("q", settings, core.Binding{Filter: "t"})
		for i := range 100 {
			p.publish([]string{"t", "u"}[i%2], fmt.Sprint(i))
		}
		check("published", 50)
		p = w.peer("p")
		k := p.consumeWhere("q", "", core.Credit{Messages: 50, Bytes: 1 << 20})
		synctest.Wait()
		for i, d := range p.deliveries() {
			if i%10 != 3 {
				if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Second)
		check("settled", 5)
		time.Sleep(2 * time.Minute) // what was settled is removed
		p = w.peer("p")
		if _, err := p.Rewind(ctx, "q", core.Earliest, false); err != nil {
			t.Fatal(err)
		}
		check("moved back", 5)
		p = w.peer("p")
		if err := p.BindQueue(ctx, "q", core.Binding{Filter: "u"}, core.Latest); err != nil {
			t.Fatal(err)
		}
		p.publish("u", "a", "b")
		check("bound to more", 7)
		p = w.peer("p")
		if err := p.DeleteQueue(ctx, "q"); err != nil {
			t.Fatal(err)
		}
		p.declare("q", settings, core.Binding{Filter: "t"})
		p.publish("t", "c")
		p.publish("u", "d")
		check("made again", 1)
	})
}

// A queue for which nothing is kept does not count what retention has removed: it
// takes as many messages as at first.
func TestUnpinnedQueueIsCountedAgain(t *testing.T) {
	runWith(t, core.Options{Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Minute}}}, func(w *world) {
		p := w.peer("p")
		p.declare("q", core.QueueSettings{MaxLength: 5, Unpinned: true, Lease: core.Unlimited}, core.Binding{Filter: "t"})
		k := p.consumeWhere("q", "", core.Credit{Messages: 2, Bytes: 1 << 20})
		for round := range 3 {
			p.publish("t", "a", "b", "c", "d", "e")
			err := p.Publish(context.Background(), &core.Envelope{Topic: "t"}, 0)
			if !errors.Is(err, core.ErrQueueFull) {
				t.Errorf("round %d: with five in it: %v", round, err)
			}
			if round == 0 { // what was given to somebody, and comes back, is not there either
				synctest.Wait()
				for _, d := range p.deliveries() {
					if err := k.Settle(d.Offset, core.Released, core.SettleOptions{Delay: time.Hour}); err != nil {
						t.Fatal(err)
					}
				}
				k.Close()
			}
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if counted, holds := w.broker.Metered("q"); counted != holds || holds.Length != 0 {
				t.Errorf("round %d: %+v are counted, %+v are there", round, counted, holds)
			}
		}
	})
}
