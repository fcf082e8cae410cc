package core_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// kill opens the broker anew from what is durable now, as after SIGKILL.
func (w *world) kill() {
	w.t.Helper()
	left := w.engine.Clone()
	w.close()
	w.engine, w.o.Engine = left, left
	w.open()
}

// attempts are what comes now, each with its attempt.
func (p *peer) attempts() string {
	p.t.Helper()
	var got []string
	for _, d := range p.deliveries() {
		got = append(got, fmt.Sprintf("%s:%d", d.Payload, d.Attempt))
	}
	return strings.Join(got, " ")
}

// What was delivered when the broker was killed has had its attempt, whatever
// moment that was; what was not delivered has not.
func TestAttemptsAcrossKills(t *testing.T) {
	run(t, func(w *world) {
		queue := core.QueueTopic("q")
		p := w.peer("p")
		for i := range 10 {
			p.publish(queue, fmt.Sprint(i))
		}
		one := core.Credit{Messages: 1, Bytes: 1 << 20}
		want := func(want string) {
			t.Helper()
			if got := p.attempts(); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
		p.consumeWhere("q", "", one)
		want("0:1")
		for n := 2; n <= 4; n++ { // at once, with no time for anything else
			w.kill()
			p = w.peer("p")
			p.consumeWhere("q", "", one)
			want(fmt.Sprintf("0:%d", n))
		}
		w.kill()
		p = w.peer("p")
		k := p.consumeWhere("q", "", core.Credit{Messages: 3, Bytes: 1 << 20})
		want("0:5 1:1 2:1")
		k.Close()
		w.restart()
		p = w.peer("p")
		p.consumeWhere("q", "", plenty)
		want("0:6 1:2 2:2 3:1 4:1 5:1 6:1 7:1 8:1 9:1")
		p.publish(queue, "live")
		want("live:1")
		w.kill()
		p = w.peer("p")
		p.consumeWhere("q", "", plenty)
		want("0:7 1:3 2:3 3:2 4:2 5:2 6:2 7:2 8:2 9:2 live:2")
		p.publish(queue, "more")
		want("more:1")
	})
}

// The same for what waits behind an earlier message of its key.
func TestAttemptsOfKeysAcrossKills(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		if err := p.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Settings: core.QueueSettings{Ordered: true}}); err != nil {
			t.Fatal(err)
		}
		one := core.Credit{Messages: 1, Bytes: 1 << 20}
		k := p.consumeWhere("q", "", plenty)
		for _, payload := range []string{"a", "b"} {
			e := core.Envelope{Topic: core.QueueTopic("q"), Key: payload, Payload: []byte(payload)}
			if err := p.Publish(ctx, &e, 0); err != nil {
				t.Fatal(err)
			}
		}
		if got := p.attempts(); got != "a:1 b:1" {
			t.Fatal(got)
		}
		// Two more are delivered as those before them are done, just before the kill.
		for i, d := range []string{"a", "b"} {
			e := core.Envelope{Topic: core.QueueTopic("q"), Key: d, Payload: []byte(d + "2")}
			if err := p.Publish(ctx, &e, 0); err != nil {
				t.Fatal(err)
			}
			if err := k.Settle(core.Offset(i+1), core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if got := p.attempts(); got != "a2:1 b2:1" {
			t.Fatal(got)
		}
		w.kill()
		p = w.peer("p")
		k = p.consumeWhere("q", "", one)
		seen := map[string]uint16{"a": 1, "b": 1, "a2": 1, "b2": 1}
		for {
			ds := p.deliveries()
			if len(ds) == 0 {
				break
			}
			for _, d := range ds {
				if d.Attempt <= seen[string(d.Payload)] {
					t.Errorf("%s came with attempt %d again", d.Payload, d.Attempt)
				}
				if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{Credit: one}); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
	})
}

// The same for what a queue has passed over.
func TestAttemptsOfWhatWasPassedOver(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.declare("q", core.QueueSettings{Priority: true, MaxAttempts: 3})
		for i := range 4 {
			p.send(core.Envelope{Topic: core.QueueTopic("q"), Priority: core.PriorityOf(i), Payload: fmt.Append(nil, i)})
		}
		for n := 1; n <= 3; n++ {
			p.consumeWhere("q", "", core.Credit{Messages: 1, Bytes: 1 << 20})
			if got, want := p.attempts(), fmt.Sprintf("3:%d", n); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
			w.kill()
			p = w.peer("p")
		}
		p.consumeWhere("q", "priority = 1", plenty)
		if got := p.attempts(); got != "1:1" {
			t.Fatal(got)
		}
	})
}

// A message that was rejected, and confirmed as such, is a dead letter once,
// whenever the broker is killed.
func TestRejectedAcrossKills(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.publish(core.QueueTopic("q"), "a", "b", "c")
		k := p.consumeWhere("q", "", plenty)
		ds := p.deliveries()
		for _, d := range ds[:2] {
			if err := k.Settle(d.Offset, core.Rejected, core.SettleOptions{Reason: "bad", Receipt: core.Receipt(d.Offset)}); err != nil {
				t.Fatal(err)
			}
		}
		for confirmed := false; !confirmed; {
			time.Sleep(time.Millisecond)
			p.mu.Lock()
			confirmed = len(p.confirms) == 2
			p.mu.Unlock()
		}
		w.kill()
		synctest.Wait()
		p = w.peer("p")
		if got := p.browse("q.dead"); got != "a b" {
			t.Fatal(got)
		}
		leases, err := p.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 5})
		if err != nil || len(leases) != 1 || leases[0].Attempt != 2 {
			t.Fatalf("%v %v", leases, err)
		}
		if err := p.SettleLease(ctx, leases[0].Token, core.Rejected, core.SettleOptions{}); err != nil {
			t.Fatal(err)
		}
		w.kill()
		synctest.Wait()
		p = w.peer("p")
		if got := p.browse("q.dead"); got != "a b c" {
			t.Fatal(got)
		}
	})
}

// What is published after a kill was not delivered before it, though there was a
// consumer then, and there is a second kill.
func TestAttemptsOfWhatIsNewAfterAKill(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.publish(core.QueueTopic("q"), "old")
		p.consumeWhere("q", "", plenty)
		if got := p.attempts(); got != "old:1" {
			t.Fatalf("got %s", got)
		}
		w.kill()
		w.peer("p").publish(core.QueueTopic("q"), "new")
		w.kill()
		p = w.peer("p")
		p.consumeWhere("q", "", plenty)
		if got := p.attempts(); got != "old:2 new:1" {
			t.Errorf("got %s, want old:2 new:1", got)
		}
	})
}
