package core_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A waiting is a buffer of so many bytes.
type waiting int

func (w *waiting) Buffered() int { return int(*w) }

// While the memory is short, the clients with the most in their buffers are
// ended, as many as hold what is too much, and not for a moment's burst; what
// they were given and did not settle goes to others.
func TestSlowClientsAreShed(t *testing.T) {
	run(t, func(w *world) {
		var ended []string
		client := func(name string, bytes int) (*peer, *waiting) {
			p, held := w.peer(name), new(waiting)
			*held = waiting(bytes)
			p.Buffers(held)
			p.WhenExpired(func(why error) {
				if !errors.Is(why, core.ErrShed) || !errors.Is(why, core.ErrLimit) {
					t.Errorf("%s was ended: %v", name, why)
				}
				ended = append(ended, name)
			})
			return p, held
		}
		const kib = 1 << 10
		look := func(used uint64, want ...string) {
			t.Helper()
			ended = nil
			w.broker.SetResources(core.Resources{MemoryUsed: used, MemoryTotal: 10_000 * kib})
			synctest.Wait()
			if !slices.Equal(ended, want) {
				t.Fatalf("with %d KiB of 10,000 in use %q were ended, want %q", used/kib, ended, want)
			}
		}
		slow, _ := client("slow", 300*kib)
		client("slower", 400*kib)
		client("slowest", 500*kib)
		client("quick", 15*kib)
		_, burst := client("burst", 10)
		w.peer("without a buffer")
		if err := slow.DeclareQueue(context.Background(), core.QueueDefinition{Name: "q"}); err != nil {
			t.Fatal(err)
		}
		slow.publish(core.QueueTopic("q"), "1", "2")
		slow.consume("q").Grant(plenty)
		slow.want("1", "2")

		look(8000 * kib)
		look(8600 * kib) // who is slow shows only at the second look
		*burst = 600 * kib
		look(8600*kib, "slowest", "slower") // 600 KiB are too much
		*burst = 10
		look(9000 * kib) // what was freed has yet to show
		time.Sleep(15 * time.Second)
		look(9000*kib, "slow")
		time.Sleep(time.Hour)
		look(9900 * kib) // nobody is slow any more
		if n := w.broker.Stats().Shed.Load(); n != 3 {
			t.Errorf("%d counted", n)
		}
		slow.Close()
		again := w.peer("again")
		again.consume("q").Grant(plenty)
		if got := again.deliveries(); len(got) != 2 || string(got[0].Payload) != "1" || got[0].Attempt != 2 {
			t.Errorf("the queue has %v", got)
		}
	})
}

// A limit of memory, once reached, holds until there is some room below it.
func TestMemoryLimitsDoNotFlap(t *testing.T) {
	run(t, func(w *world) {
		old := w.peer("old")
		old.publish("x", "before")
		for i, c := range []struct {
			used       uint64
			old, fresh error
		}{
			{74, nil, nil},
			{76, nil, core.ErrLimit},
			{71, nil, core.ErrLimit},
			{86, core.ErrLimit, core.ErrLimit},
			{81, core.ErrLimit, core.ErrLimit},
			{80, nil, core.ErrLimit},
			{84, nil, core.ErrLimit},
			{70, nil, nil},
			{74, nil, nil},
		} {
			w.broker.SetResources(core.Resources{MemoryUsed: c.used, MemoryTotal: 100})
			publish := func(p *peer) error {
				return p.Publish(context.Background(), &core.Envelope{Topic: "x"}, 0)
			}
			fresh := w.peer("fresh")
			if err := publish(old); !errors.Is(err, c.old) {
				t.Errorf("%d: with %d%% in use: %v", i, c.used, err)
			}
			if err := publish(fresh); !errors.Is(err, c.fresh) {
				t.Errorf("%d: with %d%% in use, a new publisher: %v", i, c.used, err)
			}
			fresh.Close()
		}
	})
}
