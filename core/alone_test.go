package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/sluicemq/sluice/core"
)

// alone publishes for somebody who waits, and says how many confirmations were
// there when it returned.
func (p *peer) alone(payload string, r core.Receipt) (confirmed int) {
	p.t.Helper()
	e := core.Envelope{Topic: "t", Payload: []byte(payload), Guarantee: core.AtLeastOnce}
	if err := p.PublishAlone(context.Background(), &e, r); err != nil {
		p.t.Error(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.confirms)
}

// receipts are what was confirmed, in order, and how.
func (p *peer) receipts() (all []string) {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.confirms {
		switch {
		case c.Err != nil:
			all = append(all, fmt.Sprint(c.Receipt, " refused"))
		default:
			all = append(all, fmt.Sprint(c.Receipt, " at ", c.Offset))
		}
	}
	return all
}

func (p *peer) wantReceipts(want ...string) {
	p.t.Helper()
	if got := p.receipts(); !slices.Equal(got, want) {
		p.t.Errorf("confirmed %q, want %q", got, want)
	}
}

// Who publishes alone has delivered and is confirmed on return.
func TestPublishAlone(t *testing.T) {
	run(t, func(w *world) {
		p, s := w.peer("p"), w.peer("s")
		k := s.subscribe(core.Latest, "t")
		k.Grant(plenty)
		synctest.Wait()
		for i := range 3 {
			if n := p.alone(fmt.Sprint(i), core.Receipt(i+1)); n != i+1 {
				t.Errorf("%d confirmations when message %d was published", n, i)
			}
			s.mu.Lock()
			if len(s.got) != i+1 {
				t.Errorf("%d deliveries when message %d was published", len(s.got), i)
			}
			s.mu.Unlock()
		}
		s.want("0", "1", "2")
		p.wantReceipts("1 at 1", "2 at 2", "3 at 3")
	})
}

// Who publishes alone while others do is behind them, and holds nobody up.
func TestPublishAloneBehindOthers(t *testing.T) {
	run(t, func(w *world) {
		p, q, s := w.peer("p"), w.peer("q"), w.peer("s")
		s.subscribe(core.Latest, "t").Grant(plenty)
		synctest.Wait()
		turn := make(chan bool)
		w.engine.Hold = func() { <-turn }
		q.publish("t", "first")
		if n := p.alone("second", 1); n != 0 {
			t.Errorf("%d confirmations while another commit is outstanding", n)
		}
		q.publish("t", "third")
		turn <- true
		s.want("first")
		turn <- true
		s.want("second", "third")
		p.wantReceipts("1 at 2")

		// What comes while it is made durable is the next commit, which goes on
		// without whoever was alone.
		over := make(chan struct{})
		go func() { p.alone("fourth", 2); close(over) }()
		synctest.Wait()
		q.publish("t", "fifth")
		turn <- true
		<-over
		s.want("fourth")
		turn <- true
		s.want("fifth")
		close(turn)
		p.wantReceipts("1 at 2", "2 at 4")
	})
}

// A message that there is no room for is refused, also where it was published
// alone, and the next one goes on.
func TestPublishAloneRefused(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		w.noRoomFor(1000)
		p.alone(string(make([]byte, 2000)), 1)
		p.wantReceipts("1 refused")
		p.alone("small", 2)
		p.wantReceipts("1 refused", "2 at 1")
		w.engine.Refuse = nil
		w.engine.Fail(errors.New("the disk is gone"))
		p.alone("lost", 3)
		p.alone("lost too", 4)
		p.wantReceipts("1 refused", "2 at 1", "3 refused", "4 refused")
		w.engine.Fail(nil)
	})
}

// Who subscribes waits for what it has published itself, and for what nobody is
// told of, but not for what others are still to be told of.
func TestCatchUpOwn(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p, q := w.peer("p"), w.peer("q")
		turn := make(chan bool)
		w.engine.Hold = func() { <-turn }
		caughtUp := func(c *peer) <-chan error {
			over := make(chan error, 1)
			go func() { over <- c.CatchUpOwn(ctx) }()
			synctest.Wait()
			return over
		}
		publish := func(payload string, g core.Guarantee, r core.Receipt) {
			t.Helper()
			if err := q.Publish(ctx, &core.Envelope{Topic: "t", Payload: []byte(payload), Guarantee: g}, r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		publish("asked", core.AtLeastOnce, 1)
		own, others := caughtUp(q), caughtUp(p)
		if len(own) != 0 || len(others) != 1 {
			t.Errorf("%d of the publisher's and %d of another client's are over", len(own), len(others))
		}
		turn <- true
		if synctest.Wait(); len(own) != 1 {
			t.Error("what was published is dispatched, and its publisher still waits")
		}
		publish("unasked", core.AtMostOnce, 0)
		others = caughtUp(p)
		if len(others) != 0 {
			t.Error("nobody waits for what nobody is told of")
		}
		close(turn)
		if synctest.Wait(); len(others) != 1 {
			t.Error("somebody waits for what is dispatched")
		}
	})
}
