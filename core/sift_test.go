package core_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A group goes back to an offset, to a time and to the last n, and forward, as
// often as a dry run said, also across a restart; what is held stays so.
func TestRewind(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		for i := range 4 {
			p.publish("t", fmt.Sprint(i))
		}
		time.Sleep(time.Hour)
		middle := time.Now()
		group := core.GroupQueue("g", "t")
		s := core.DefaultGroupSettings()
		k, err := p.Consume(ctx, core.Consumption{Queue: group, Create: true, Settings: &s, Bindings: []core.Binding{{Filter: "t"}}, Settlement: core.SettleAlways}, p)
		if err != nil {
			t.Fatal(err)
		}
		k.Grant(plenty)
		for i := 4; i < 8; i++ {
			p.publish("t", fmt.Sprint(i))
			p.publish("other", "x")
		}
		ds := p.deliveries()
		if len(ds) != 4 {
			t.Fatalf("%v", ds)
		}
		for _, d := range ds[1:] {
			if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		rewind := func(to core.From, again, skipped int64) {
			t.Helper()
			for _, dry := range []bool{true, false} {
				got, err := p.Rewind(ctx, group, to, dry)
				if err != nil || got.Again != again || got.Skipped != skipped {
					t.Fatalf("%+v, %v", got, err)
				}
				if dry {
					p.want()
				}
			}
		}
		rewind(core.FromOffset(3), 5, 0) // 2 3 and 5 6 7; 4 is held
		p.want("2", "3", "5", "6", "7")
		k.Close()
		rewind(core.FromTime(middle), 0, 2) // 2 and 3 were held a moment ago
		w.restart()
		p = w.peer("p")
		if got := p.browse(group); got != "4 5 6 7" {
			t.Fatal(got)
		}
		rewind(core.FromLast(2), 0, 2)
		rewind(core.Earliest, 6, 0)
		info, err := p.Queue(group)
		if err != nil || info.Lag != 6 || info.Oldest.After(middle) {
			t.Fatalf("%+v, %v", info, err)
		}
		rewind(core.Latest, 0, 8)
		if _, err := p.Rewind(ctx, group, core.FromOffset(1000), true); err == nil {
			t.Fatal("it went ahead of the log")
		}
		p.publish("t", "8")
		if got := p.browse(group); got != "8" {
			t.Fatal(got)
		}
	})
}

func TestPurgeMoveCopy(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		fill := func(n int) {
			for i := range n {
				p.send(colored("q", []string{"red", "blue"}[i%2], fmt.Sprint(i)))
			}
		}
		fill(6)
		k := p.consumeWhere("q", "", core.Credit{Messages: 1, Bytes: 1 << 20})
		held := p.deliveries()
		check := func(got core.Sifted, err error, n int64, queues ...string) {
			t.Helper()
			synctest.Wait()
			if err != nil || got.Messages != n {
				t.Fatalf("%+v, %v", got, err)
			}
			for i := 0; i < len(queues); i += 2 {
				if got := p.browse(queues[i]); got != queues[i+1] {
					t.Fatalf("%s: %s, want %s", queues[i], got, queues[i+1])
				}
			}
		}
		p.declare("to", core.QueueSettings{MaxLength: 4})
		red := core.Selection{Where: "color = 'red'"}
		to := core.QueueTopic("to")
		got, err := p.Copy(ctx, "q", core.Transfer{Selection: red, To: to})
		check(got, err, 2, "q", "0 1 2 3 4 5", "to", "2 4")
		got, err = p.Purge(ctx, "q", red, true)
		check(got, err, 2, "q", "0 1 2 3 4 5")
		got, err = p.Purge(ctx, "q", core.Selection{Where: red.Where, Limit: 1}, false)
		check(got, err, 1, "q", "0 1 3 4 5")
		got, err = p.Move(ctx, "q", core.Transfer{Selection: core.Selection{Offsets: []core.Offset{held[0].Offset + 3, 999}}, To: to, Dry: true})
		check(got, err, 1, "q", "0 1 3 4 5", "to", "2 4")
		got, err = p.Move(ctx, "q", core.Transfer{Selection: core.Selection{Offsets: []core.Offset{held[0].Offset + 3}}, To: to})
		check(got, err, 1, "q", "0 1 4 5", "to", "2 4 3")
		got, err = p.Move(ctx, "q", core.Transfer{To: to}) // which has room for one
		if !errors.Is(err, core.ErrQueueFull) || got.Messages != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		w.kill()
		p = w.peer("p")
		check(core.Sifted{}, nil, 0, "q", "0 4 5", "to", "2 4 3 1")
		got, err = p.Purge(ctx, "q", core.Selection{}, false)
		check(got, err, 3, "q", "")
		_ = k
		for _, to := range []string{"", "a/#", core.QueueTopic("q")} {
			if _, err := p.Move(ctx, "q", core.Transfer{To: to}); !errors.Is(err, core.ErrInvalidTopic) && !errors.Is(err, core.ErrInvalid) {
				t.Fatalf("%q: %v", to, err)
			}
		}
	})
}

func TestRequeue(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		for i := range 30 {
			p.send(colored("q", []string{"red", "blue"}[i%2], fmt.Sprint(i)))
		}
		k := p.consumeWhere("q", "", plenty)
		for _, d := range p.deliveries() {
			if err := k.Settle(d.Offset, core.Rejected, core.SettleOptions{Reason: "no"}); err != nil {
				t.Fatal(err)
			}
		}
		k.Close()
		synctest.Wait()
		p.publish(core.QueueTopic("q.dead"), "mine")
		got, err := p.Requeue(ctx, "q.dead", core.Transfer{Selection: core.Selection{Where: "color = 'red'", Limit: 2}})
		if err != nil || got.Messages != 2 || p.browse("q") != "0 2" {
			t.Fatalf("%+v, %v, %s", got, err, p.browse("q"))
		}
		start := time.Now()
		got, err = p.Requeue(ctx, "q.dead", core.Transfer{Rate: 10})
		if err != nil || got.Messages != 28 {
			t.Fatalf("%+v, %v", got, err)
		}
		if took := time.Since(start); took < 2600*time.Millisecond || took > 3*time.Second {
			t.Fatalf("28 at 10 a second took %v", took)
		}
		synctest.Wait()
		if p.browse("q.dead") != "mine" {
			t.Fatal(p.browse("q.dead"))
		}
		p.consumeWhere("q", "", plenty)
		ds := p.deliveries()
		if len(ds) != 30 {
			t.Fatalf("%d messages", len(ds))
		}
		for _, d := range ds {
			if len(d.Headers) != 1 || d.Attempt != 1 {
				t.Fatalf("%+v", d)
			}
		}
	})
}

// A message tells of its last death alone, whatever it was published with; and
// what says that it came from where nothing can come from stays.
func TestDeadLettersTellOfOneDeath(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.send(core.Envelope{Topic: core.QueueTopic("q"), Payload: []byte("one"), Headers: []core.Header{
			{Name: core.HeaderDeadQueue, Value: "other"}, {Name: "color", Value: "red"}, {Name: core.HeaderDeadReason, Value: "made up"},
		}})
		k := p.consumeWhere("q", "", plenty)
		for _, d := range p.deliveries() {
			if err := k.Settle(d.Offset, core.Rejected, core.SettleOptions{Reason: "no"}); err != nil {
				t.Fatal(err)
			}
		}
		k.Close()
		synctest.Wait()
		page, err := p.Browse(ctx, "q.dead", core.ReadRequest{})
		if err != nil || len(page.Messages) != 1 {
			t.Fatalf("%v, %v", page, err)
		}
		d := page.Messages[0]
		from, _ := d.Header(core.HeaderDeadQueue)
		reason, _ := d.Header(core.HeaderDeadReason)
		if from != "q" || reason != "no" || len(d.Headers) != 7 {
			t.Errorf("%v", d.Headers)
		}

		for _, h := range [][]core.Header{
			{{Name: core.HeaderDeadQueue, Value: "a/#"}},
			{{Name: core.HeaderDeadQueue, Value: core.SessionQueue("s")}},
			{{Name: core.HeaderDeadQueue, Value: core.SessionQueue("s")}, {Name: core.HeaderDeadTopic, Value: "a/+"}},
		} {
			p.send(core.Envelope{Topic: core.QueueTopic("q.dead"), Payload: []byte("forged"), Headers: h})
		}
		got, err := p.Requeue(ctx, "q.dead", core.Transfer{})
		if err != nil || got.Messages != 1 || p.browse("q") != "one" || p.browse("q.dead") != "forged forged forged" {
			t.Errorf("%+v, %v, %q, %q", got, err, p.browse("q"), p.browse("q.dead"))
		}
	})
}
