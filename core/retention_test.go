package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// While the disk or the memory is short, publishes wait or are refused, and
// reads go on.
func TestResources(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		old, fresh := w.peer("old"), w.peer("fresh")
		old.subscribe(core.Latest, "x").Grant(plenty)
		old.publish("x", "before")
		publish := func(p *peer) (took time.Duration, err error) {
			start := time.Now()
			err = p.Publish(ctx, &core.Envelope{Topic: "x", Payload: []byte("m")}, 0)
			return time.Since(start), err
		}
		const gib = 1 << 30
		for _, c := range []struct {
			r          core.Resources
			old, fresh error
			waits      bool
		}{
			{core.Resources{DiskFree: 3 * gib, DiskTotal: 100 * gib}, nil, nil, true},
			{core.Resources{DiskFree: gib, DiskTotal: 100 * gib}, core.ErrStorageFull, core.ErrStorageFull, false},
			{core.Resources{DiskFree: gib, DiskTotal: 2 * gib}, nil, nil, false},
			{core.Resources{DiskFree: 40 * gib, DiskTotal: 1000 * gib}, nil, nil, false},
			{core.Resources{MemoryUsed: 80, MemoryTotal: 100}, nil, core.ErrLimit, false},
			{core.Resources{MemoryUsed: 80_000, MemoryTotal: 100_000}, nil, core.ErrLimit, false},
			{core.Resources{MemoryUsed: 86_000, MemoryTotal: 100_000}, core.ErrLimit, core.ErrLimit, false},
			{core.Resources{}, nil, nil, false},
		} {
			w.broker.SetResources(c.r)
			took, err := publish(old)
			if !errors.Is(err, c.old) || (took > 0) != c.waits {
				t.Errorf("%+v: %v after %s", c.r, err, took)
			}
			fresh.Close()
			fresh = w.peer("fresh")
			if _, err := publish(fresh); !errors.Is(err, c.fresh) {
				t.Errorf("%+v: a new publisher: %v", c.r, err)
			}
			page, err := fresh.Read(ctx, core.ReadRequest{Filters: []core.Filter{"x"}, From: core.Earliest, Limit: 1})
			if err != nil || len(page.Messages) != 1 {
				t.Errorf("%+v: reading: %v", c.r, err)
			}
		}
	})
}

// A reader that retention overtakes is told what it misses.
func TestRetentionOvertakesAReader(t *testing.T) {
	o := core.Options{Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Hour}}}
	runWith(t, o, func(w *world) {
		a, slow := w.peer("a"), w.peer("slow")
		s := core.Subscription{Bindings: []core.Binding{{Filter: "x", Settlement: core.SettleAlways}}}
		k, err := slow.Subscribe(context.Background(), s, slow)
		if err != nil {
			t.Fatal(err)
		}
		k.Grant(core.Credit{Messages: 1, Bytes: 1 << 20})
		a.publish("x", "1", "2", "3")
		slow.want("1")
		time.Sleep(2 * time.Hour)
		a.publish("x", "4")
		k.Grant(plenty)
		slow.want("4")
		if !slices.Contains(slow.notices, core.Notice{Kind: core.NoticeGap, From: 2, To: 4}) {
			t.Fatalf("told of %+v", slow.notices)
		}
	})
}

// The oldest messages of a queue that is too long make room, and a message that
// is too old for its queue is not delivered.
func TestQueueOverflowAndTTL(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		declare := func(name string, s core.QueueSettings) {
			t.Helper()
			if err := a.DeclareQueue(ctx, core.QueueDefinition{Name: name, Settings: s, Bindings: []core.Binding{{Filter: "x/+"}}}); err != nil {
				t.Fatal(err)
			}
		}
		declare("length", core.QueueSettings{MaxLength: 2, Overflow: core.OverflowDropOldest})
		declare("bytes", core.QueueSettings{MaxBytes: 450, Overflow: core.OverflowDropOldest})
		declare("ttl", core.QueueSettings{TTL: time.Minute})
		for i := range 5 {
			a.publish("x/1", string(rune('0'+i))+strings.Repeat("-", 99))
			a.publish("y", "no")
		}
		want := func(queue, digits string) {
			t.Helper()
			p := w.peer(queue)
			p.consume(queue).Grant(plenty)
			got := ""
			for _, s := range p.take() {
				got += s[:1]
			}
			if got != digits {
				t.Errorf("%s: got %s, want %s", queue, got, digits)
			}
		}
		want("length", "34")
		time.Sleep(59 * time.Second)
		a.publish("x/1", "5"+strings.Repeat("-", 99))
		// Its own expiry does not lengthen what the queue allows, and may
		// shorten it.
		a.send(core.Envelope{Topic: "$queue/ttl", Payload: []byte("6"), Expires: time.Now().Add(time.Second)})
		a.send(core.Envelope{Topic: "$queue/long", Payload: []byte("7")})
		a.declare("brief", core.QueueSettings{TTL: time.Second})
		a.send(core.Envelope{Topic: "$queue/brief", Payload: []byte("8"), Expires: time.Now().Add(time.Hour)})
		time.Sleep(2 * time.Second)
		want("long", "7")
		want("brief", "")
		want("bytes", "345")
		want("ttl", "5")
		for _, s := range []core.QueueSettings{{Priority: true, Ordered: true}, {MaxLength: -1}, {Overflow: "x"}, {TTL: -1}} {
			if err := a.DeclareQueue(ctx, core.QueueDefinition{Name: "bad", Settings: s}); !errors.Is(err, core.ErrInvalid) {
				t.Errorf("%+v: %v", s, err)
			}
		}
	})
}

// What a policy lets go is gone for readers, who are told; what a queue has not
// settled, a retained value and a delayed message stay.
func TestRetentionKeepsWhatIsNeeded(t *testing.T) {
	o := core.Options{Policies: []core.Policy{{Filters: []core.Filter{"#", "$queue/#", "$delayed/#"}, Age: time.Hour}}}
	runWith(t, o, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		if err := a.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Bindings: []core.Binding{{Filter: "needed/+"}}, Settings: core.QueueSettings{Lease: core.Unlimited}}); err != nil {
			t.Fatal(err)
		}
		a.publish("plain", "gone")
		a.publish("needed/1", "kept")
		a.publish("$queue/q", "kept too")
		if err := a.Publish(ctx, &core.Envelope{Topic: "r", Payload: []byte("old"), Retain: true}, 0); err != nil {
			t.Fatal(err)
		}
		if err := a.Publish(ctx, &core.Envelope{Topic: "r", Payload: []byte("new"), Retain: true}, 0); err != nil {
			t.Fatal(err)
		}
		if err := a.Publish(ctx, &core.Envelope{Topic: "late", Payload: []byte("late"), DeliverAt: time.Now().Add(3 * time.Hour)}, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()

		b := w.peer("b")
		_, err := b.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "plain"}}, From: core.FromOffset(1)}, b)
		var removed *core.OffsetRemovedError
		if !errors.As(err, &removed) || removed.Earliest != 2 {
			t.Fatalf("a removed offset: %v", err)
		}
		page, err := b.Read(ctx, core.ReadRequest{Filters: []core.Filter{"#"}, From: core.Earliest})
		if err != nil || len(page.Messages) != 2 || len(page.Gaps) != 0 {
			t.Fatalf("%+v %v", page, err)
		}
		all := w.peer("all")
		all.subscribe(core.Earliest, "#").Grant(plenty)
		all.want("kept", "new")
		if len(all.notices) != 1 || all.notices[0].Kind != core.NoticeCaughtUp {
			t.Fatalf("told of %+v", all.notices)
		}
		k := b.consume("q")
		k.Grant(plenty)
		got := b.deliveries()
		if len(got) != 2 || string(got[0].Payload) != "kept" || string(got[1].Payload) != "kept too" {
			t.Fatalf("%+v", got)
		}
		for v, err := range b.Retained(ctx, "r", "") {
			if err != nil || string(v.Payload) != "new" {
				t.Fatalf("%v %v", v, err)
			}
		}
		late := w.peer("late")
		late.subscribe(core.Latest, "late").Grant(plenty)
		time.Sleep(2 * time.Hour)
		late.want("late")

		for _, d := range got {
			if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Hour)
		page, err = b.Read(ctx, core.ReadRequest{Filters: []core.Filter{"#"}, From: core.Earliest})
		if err != nil || len(page.Messages) != 1 || page.Messages[0].Topic != "r" {
			t.Fatalf("%+v %v", page, err)
		}
	})
}

// freedEarly reports whether a record is freed that a queue has settled, but
// not durably: after a crash the queue would want it again.
func freedEarly(t *testing.T) (early bool) {
	o := core.Options{Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Hour}}}
	runWith(t, o, func(w *world) {
		a := w.peer("a")
		s := core.QueueSettings{Lease: core.Unlimited}
		if err := a.DeclareQueue(context.Background(), core.QueueDefinition{Name: "q", Bindings: []core.Binding{{Filter: "x"}}, Settings: s}); err != nil {
			t.Fatal(err)
		}
		k := a.consume("q")
		k.Grant(plenty)
		a.publish("x", "m")
		at := a.deliveries()[0].Offset
		a.publish("$queue/other", "behind it")
		time.Sleep(2*time.Hour + time.Second) // not while it reclaims
		if first, _ := w.engine.Bounds(); first > at {
			t.Fatal("freed while it was held")
		}
		slow := make(chan struct{})
		w.engine.Hold = func() { <-slow }
		if err := k.Settle(at, core.Accepted, core.SettleOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		first, _ := w.engine.Bounds()
		early = first > at
		close(slow)
		time.Sleep(5 * time.Minute)
		if first, _ := w.engine.Bounds(); first <= at {
			t.Error("not freed when that was durable")
		}
	})
	return early
}

// What was settled is freed only once that is durable.
func TestFreedOnceSettledDurably(t *testing.T) {
	if freedEarly(t) {
		t.Error("freed before it was durable that it is settled")
	}
}

// However what waits for a session comes, a bit now and a lot later, it is cut to
// what the session is allowed, and never to less.
func TestSessionsAreCutToTheirBounds(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		settings := map[string]core.QueueSettings{
			"length": {MaxLength: 20}, "bytes": {MaxBytes: 20 * 116}, "both": {MaxLength: 20, MaxBytes: 1 << 20}, "neither": {},
		}
		for name, s := range settings {
			s.Kind, s.Overflow = core.KindSession, core.OverflowDropOldest
			k, err := a.Consume(ctx, core.Consumption{Queue: core.SessionQueue(name), Create: true, Settings: &s, Bindings: []core.Binding{{Filter: "x/+", Settlement: core.SettleAlways}}}, a)
			if err != nil {
				t.Fatal(err)
			}
			k.Close()
		}
		n := 0
		for _, more := range []int{1, 3, 0, 15, 1, 1, 1, 40, 2, 19, 20, 21} {
			for range more {
				a.publish("x/1", fmt.Sprintf("%04d%s", n, strings.Repeat("-", 96)))
				a.publish("other/topic", strings.Repeat("-", 500))
				n++
			}
			time.Sleep(time.Minute)
			for name := range settings {
				page, err := a.Browse(ctx, core.SessionQueue(name), core.ReadRequest{Limit: 1000})
				if err != nil {
					t.Fatal(err)
				}
				want := min(n, 20)
				if name == "neither" {
					want = n
				}
				got := page.Messages
				if len(got) != want || want > 0 && string(got[want-1].Payload[:4]) != fmt.Sprintf("%04d", n-1) {
					t.Fatalf("%s: %d of %d messages wait, want the newest %d", name, len(got), n, want)
				}
			}
		}
	})
}
