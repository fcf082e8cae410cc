package core_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

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
