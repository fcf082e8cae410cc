package core_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

func (p *peer) declare(name string, s core.QueueSettings, bs ...core.Binding) {
	p.t.Helper()
	if err := p.DeclareQueue(context.Background(), core.QueueDefinition{Name: name, Settings: s, Bindings: bs}); err != nil {
		p.t.Fatal(err)
	}
}

// browse is what a queue has not settled.
func (p *peer) browse(queue string) string {
	p.t.Helper()
	page, err := p.Browse(context.Background(), queue, core.ReadRequest{})
	if err != nil {
		p.t.Fatal(err)
	}
	var got []string
	for _, d := range page.Messages {
		got = append(got, string(d.Payload))
	}
	return strings.Join(got, " ")
}

// A full queue refuses the very message that is too much, in a transaction too,
// and takes the next one once there is room, also across a restart.
func TestOverflowReject(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.declare("q", core.QueueSettings{MaxLength: 3, Overflow: "reject"}, core.Binding{Filter: "a/#", Where: "key IS NULL"})
		p.declare("q", core.QueueSettings{MaxLength: 3}, core.Binding{Filter: "a/#", Where: "key IS NULL"})
		p.publish("a/b", "0")
		p.publish(core.QueueTopic("q"), "1", "2")
		try := func(es ...*core.Envelope) error {
			t.Helper()
			var err error
			if len(es) == 1 {
				err = p.Publish(ctx, es[0], 0)
			} else {
				err = p.Commit(ctx, core.Transaction{Publish: es}, 0)
			}
			synctest.Wait()
			return err
		}
		full := func(err error) {
			t.Helper()
			if !errors.Is(err, core.ErrQueueFull) || !strings.Contains(err.Error(), "3 of at most 3") {
				t.Fatal(err)
			}
		}
		full(try(&core.Envelope{Topic: "a/c"}))
		if err := try(&core.Envelope{Topic: "a/c", Key: "other"}); err != nil {
			t.Fatal(err)
		}
		w.restart()
		p = w.peer("p")
		full(try(&core.Envelope{Topic: core.QueueTopic("q")}))
		k := p.consumeWhere("q", "", core.Credit{Messages: 1, Bytes: 1 << 20})
		ds := p.deliveries()
		full(try(&core.Envelope{Topic: "a"})) // what is held counts
		if err := k.Settle(ds[0].Offset, core.Accepted, core.SettleOptions{}); err != nil {
			t.Fatal(err)
		}
		two := []*core.Envelope{{Topic: core.QueueTopic("q"), Payload: []byte("3")}, {Topic: "a", Payload: []byte("4")}}
		if err := try(two...); !errors.Is(err, core.ErrQueueFull) {
			t.Fatal(err)
		}
		if err := try(two[0]); err != nil {
			t.Fatal(err)
		}
		full(try(two[1]))
		k.Close()
		if got := w.drain("q"); got != "1 2 3" {
			t.Fatal(got)
		}
		if err := try(two...); err != nil {
			t.Fatal(err)
		}
		p.declare("b", core.QueueSettings{MaxBytes: 200})
		if err := try(&core.Envelope{Topic: core.QueueTopic("b"), Payload: make([]byte, 300)}); !errors.Is(err, core.ErrQueueFull) {
			t.Fatal(err)
		}
	})
}

// The bounds are exact where many publish at the same time: to the queue itself,
// to a topic that is bound to it, and in transactions, which are whole.
func TestOverflowTogether(t *testing.T) {
	const most, publishers, each = 37, 8, 30
	for _, c := range []struct {
		name     string
		settings core.QueueSettings
		fits     int // messages, of those that are let in
	}{
		{"messages", core.QueueSettings{MaxLength: most}, most},
		{"bytes", core.QueueSettings{MaxBytes: most * 100}, most},
		{"drop-oldest", core.QueueSettings{MaxLength: most, Overflow: core.OverflowDropOldest}, publishers * each * 2},
		{"drop-oldest by bytes", core.QueueSettings{MaxBytes: most * 100, Overflow: core.OverflowDropOldest}, publishers * each * 2},
	} {
		run(t, func(w *world) {
			w.peer("p").declare("q", c.settings, core.Binding{Filter: "a/+"})
			var taken atomic.Int64
			var group sync.WaitGroup
			for i := range publishers {
				p := w.peer(fmt.Sprint("p", i))
				group.Go(func() {
					for j := range each {
						// Each counts for 100 bytes.
						one := &core.Envelope{Topic: "a/1", Payload: make([]byte, 65), Guarantee: core.AtLeastOnce}
						two := &core.Envelope{Topic: core.QueueTopic("q"), Payload: make([]byte, 60), Guarantee: core.AtLeastOnce}
						if one.Size() != 100 || two.Size() != 100 {
							t.Errorf("the sizes are %d and %d", one.Size(), two.Size())
						}
						var errs [2]error
						switch j % 3 {
						case 0:
							errs[0] = p.Commit(context.Background(), core.Transaction{Publish: []*core.Envelope{one, two}}, 0)
							errs[1] = errs[0]
						case 1:
							errs = [2]error{p.Publish(context.Background(), one, 0), p.Publish(context.Background(), two, 0)}
						case 2:
							errs = [2]error{p.Publish(context.Background(), two, 0), p.Publish(context.Background(), one, 0)}
						}
						for _, err := range errs {
							if err == nil {
								taken.Add(1)
							} else if !errors.Is(err, core.ErrQueueFull) {
								t.Error(err)
							}
						}
					}
				})
			}
			group.Wait()
			synctest.Wait()
			if n := int(taken.Load()); n != c.fits {
				t.Errorf("%s: %d were taken, want %d", c.name, n, c.fits)
			}
			page, err := w.peer("look").Browse(context.Background(), "q", core.ReadRequest{Limit: 1000})
			if err != nil || len(page.Messages) != most {
				t.Errorf("%s: there are %d messages, want %d; %v", c.name, len(page.Messages), most, err)
			}
		})
	}
}

// A queue that drops its oldest keeps exactly its length, with and without
// consumers, and never drops what is held.
func TestDropOldestExactly(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.declare("q", core.QueueSettings{MaxLength: 3, Overflow: core.OverflowDropOldest})
		for i := range 5 {
			p.publish(core.QueueTopic("q"), fmt.Sprint(i))
		}
		if got := p.browse("q"); got != "2 3 4" {
			t.Fatal(got)
		}
		k := p.consumeWhere("q", "", core.Credit{Messages: 2, Bytes: 1 << 20})
		ds := p.deliveries()
		p.publish(core.QueueTopic("q"), "5")
		if got := p.browse("q"); got != "2 3 5" {
			t.Fatal(got)
		}
		if err := k.Settle(ds[0].Offset, core.Released, core.SettleOptions{Delay: time.Hour}); err != nil {
			t.Fatal(err)
		}
		p.publish(core.QueueTopic("q"), "6")
		if got := p.browse("q"); got != "3 5 6" {
			t.Fatal(got)
		}
		k.Close()
		w.restart()
		p = w.peer("p")
		p.publish(core.QueueTopic("q"), "7")
		if got := w.drain("q"); got != "5 6 7" {
			t.Fatal(got)
		}
	})
}

func TestExclusiveAndAutoDelete(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a, b := w.peer("a"), w.peer("b")
		a.declare("x", core.QueueSettings{Exclusive: true})
		if _, err := b.Consume(ctx, core.Consumption{Queue: "x"}, b); !errors.Is(err, core.ErrInUse) {
			t.Fatal(err)
		}
		if err := b.DeclareQueue(ctx, core.QueueDefinition{Name: "x", Settings: core.QueueSettings{Exclusive: true}}); !errors.Is(err, core.ErrInUse) {
			t.Fatal(err)
		}
		b.publish(core.QueueTopic("x"), "1")
		a.consumeWhere("x", "", plenty)
		a.want("1")
		a.Client.Close()
		if b.HasQueue("x") {
			t.Fatal("it outlived its client")
		}
		b.declare("y", core.QueueSettings{Exclusive: true})
		b.declare("auto", core.QueueSettings{AutoDelete: true})
		w.restart()
		b = w.peer("b")
		if b.HasQueue("y") || !b.HasQueue("auto") {
			t.Fatal("exclusive queues end with the broker, others do not")
		}
		k := b.consumeWhere("auto", "", plenty)
		b.publish(core.QueueTopic("auto"), "2")
		b.want("2")
		k.Close()
		time.Sleep(time.Second)
		if b.HasQueue("auto") {
			t.Fatal("it outlived its last consumer")
		}
	})
}

func TestDedupWindow(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.declare("q", core.QueueSettings{DedupWindow: time.Hour})
		p.declare("short", core.QueueSettings{DedupWindow: time.Minute})
		send := func() {
			for _, q := range []string{"q", "short", "default"} {
				p.send(core.Envelope{Topic: core.QueueTopic(q), ID: "1", Payload: []byte("x")})
			}
		}
		send()
		time.Sleep(5 * time.Minute)
		w.restart()
		p = w.peer("p")
		send()
		time.Sleep(40 * time.Minute)
		w.restart()
		p = w.peer("p")
		send()
		time.Sleep(30 * time.Minute)
		send()
		for q, want := range map[string]string{"q": "x x", "short": "x x x x", "default": "x x x"} {
			if got := w.drain(q); got != want {
				t.Errorf("%s: %s", q, got)
			}
		}
	})
}

// What expires goes to the dead letters by itself, from anywhere in the queue.
func TestExpiredToDeadLetters(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.declare("q", core.QueueSettings{TTL: time.Minute, DeadLetterExpired: true})
		p.declare("drop", core.QueueSettings{TTL: time.Minute})
		p.publish(core.QueueTopic("q"), "old")
		p.publish(core.QueueTopic("drop"), "old")
		p.send(core.Envelope{Topic: core.QueueTopic("q"), Payload: []byte("own"), Expires: time.Now().Add(10 * time.Second)})
		time.Sleep(12 * time.Second)
		if got := p.browse("q.dead"); got != "own" {
			t.Fatalf("dead: %q", got)
		}
		time.Sleep(40 * time.Second)
		w.restart()
		p = w.peer("p")
		p.publish(core.QueueTopic("q"), "new")
		time.Sleep(20 * time.Second)
		if got := p.browse("q.dead"); got != "own old" {
			t.Fatalf("dead: %q", got)
		}
		dead := w.peer("dead")
		dead.consumeWhere("q.dead", "", plenty)
		for _, d := range dead.deliveries() {
			if reason, _ := d.Header(core.HeaderDeadReason); reason != "expired" {
				t.Errorf("%s: %q", d.Payload, reason)
			}
		}
		if got := w.drain("q"); got != "new" {
			t.Fatal(got)
		}
		if got := w.drain("drop"); got != "" || p.HasQueue("drop.dead") {
			t.Fatal(got)
		}
	})
}
