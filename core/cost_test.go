package core_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A queue with a consumer costs little memory, its bindings and what the
// consumer needs included, connections not.
func TestWhatAQueueCosts(t *testing.T) {
	const queues, most = 10_000, 4 << 10
	ctx := context.Background()
	c := alone(t, core.Credentials{})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var r silent
	for i := range queues {
		k, err := c.Consume(ctx, core.Consumption{Queue: fmt.Sprint("q", i), Create: true, Settlement: core.SettleAlways}, r)
		if err != nil {
			t.Fatal(err)
		}
		k.Grant(core.Credit{Messages: 32, Bytes: 1 << 20})
	}
	each := (heap() - before) / queues
	t.Logf("%d bytes each", each)
	if each > most {
		t.Errorf("a queue with a consumer takes %d bytes, at most %d are wanted", each, most)
	}
}

type silent struct{}

func (silent) Deliver([]core.Delivery) {}
func (silent) Notice(core.Notice)      {}

// Clients and sessions are counted without making anything for each of them: it
// is done all the time.
func TestCountingCostsNothing(t *testing.T) {
	const sessions, most = 1000, 100
	ctx := context.Background()
	b, err := core.Open(ctx, core.Options{Engine: coretest.NewEngine()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(ctx)
	c, err := b.Connect(ctx, core.Credentials{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range sessions {
		s := core.QueueSettings{Kind: core.KindSession}
		id := fmt.Sprint("device-", i)
		k, err := c.Consume(ctx, core.Consumption{
			Queue: core.SessionQueue(id), Create: true, Settings: &s, Bindings: []core.Binding{{Filter: "a/+"}, {Filter: core.Filter(id)}},
		}, silent{})
		if err != nil {
			t.Fatal(err)
		}
		k.Close()
	}
	var there core.Attendance
	// What the broker does besides is counted, too: the least is what counting needs.
	least := testing.AllocsPerRun(1, func() { there = b.Attendance() })
	for i := 0; i < 100 && least > most; i++ {
		least = min(least, testing.AllocsPerRun(1, func() { b.Attendance() }))
	}
	if least > most {
		t.Errorf("%v allocations to count %d sessions", least, sessions)
	}
	if want := (core.Attendance{Clients: 1, Away: sessions, Subscriptions: 2 * sessions}); there != want {
		t.Errorf("there are %+v, want %+v", there, want)
	}
}

// To settle a message as part of a commit costs the same however many of its key
// are behind it: the journal is entered meanwhile, and nobody publishes.
func TestSettlingCostsTheSameBehindAHotKey(t *testing.T) {
	const behind, most = 50_000, time.Millisecond
	ctx := context.Background()
	c := alone(t, core.Credentials{})
	if err := c.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Settings: core.QueueSettings{Ordered: true}}); err != nil {
		t.Fatal(err)
	}
	for range behind {
		if err := c.Publish(ctx, &core.Envelope{Topic: core.QueueTopic("q"), Key: "k"}, 0); err != nil {
			t.Fatal(err)
		}
	}
	came := make(chan core.Offset, 1)
	k, err := c.Consume(ctx, core.Consumption{Queue: "q", Settlement: core.SettleAlways}, offsets(came))
	if err != nil {
		t.Fatal(err)
	}
	k.Grant(core.Credit{Messages: 100, Bytes: 1 << 20})
	at := <-came
	for outstanding := 0; outstanding < behind; runtime.Gosched() {
		for info := range c.Queues("q") {
			outstanding = info.Held + info.Waiting
		}
	}
	// What else runs on the machine is counted, too: the least is what it needs.
	least := time.Hour
	for range 20 {
		began := time.Now()
		if err := k.Settle(at, core.Accepted, core.SettleOptions{Receipt: 1}); err != nil {
			t.Fatal(err)
		}
		least = min(least, time.Since(began))
		at = <-came
	}
	if least > most {
		t.Errorf("a settlement takes %v with %d messages of its key behind it", least, behind)
	}
}

// offsets are sent those of what is delivered.
type offsets chan core.Offset

func (o offsets) Deliver(ds []core.Delivery) {
	for i := range ds {
		o <- ds[i].Offset
	}
}
func (offsets) Notice(core.Notice) {}
