package core_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// comeBack attaches a peer to the session "s", which is made if there is none.
func (p *peer) comeBack() *core.Consumer {
	p.t.Helper()
	s := core.QueueSettings{Kind: core.KindSession, MaxAttempts: core.Unlimited, Lease: core.Unlimited, DeadLetter: core.NoDeadLetter}
	k, err := p.Consume(context.Background(), core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &s, Exclusive: true}, p)
	if err != nil {
		p.t.Fatal(err)
	}
	return k
}

// retain publishes retained values, r/00 and so on.
func (p *peer) retain(n int) {
	p.t.Helper()
	for i := range n {
		topic := fmt.Sprintf("r/%02d", i)
		if err := p.Publish(context.Background(), &core.Envelope{Topic: topic, Payload: []byte(topic), Guarantee: core.AtLeastOnce, Retain: true}, 0); err != nil {
			p.t.Fatal(err)
		}
	}
	synctest.Wait()
}

// snapshots is what the state has of the session's.
func snapshots(t *testing.T, e *coretest.Engine) string {
	t.Helper()
	value, err := e.Get("v/" + core.SessionQueue("s"))
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}

var everyRetained = core.Binding{Filter: "r/+", Settlement: core.SettleGuaranteed, Tag: 7}

// However often a session binds a filter, there is one snapshot for it, which
// ends with the binding; what the state has of it goes with it.
func TestOneSnapshotForABinding(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		a.retain(10)
		k := a.comeBack()
		for i := range 20 {
			b := everyRetained
			b.Tag = uint64(i / 5)
			if err := k.Bind(ctx, b, core.BindOptions{Retained: true}); err != nil {
				t.Fatal(err)
			}
		}
		if got := snapshots(t, w.engine); strings.Count(got, `"from"`) != 1 {
			t.Fatalf("the state has %s", got)
		}
		k.Grant(core.Credit{Messages: 3, Bytes: 1 << 20})
		a.want("r/00", "r/01", "r/02")
		if err := k.Unbind(ctx, everyRetained); err != nil {
			t.Fatal(err)
		}
		if err := k.Bind(ctx, everyRetained, core.BindOptions{}); err != nil {
			t.Fatal(err)
		}
		k.Grant(plenty)
		a.want()
		for at := range core.Offset(3) {
			if err := k.Settle(at+1, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := snapshots(t, w.engine); got != "" {
			t.Errorf("the state still has %s", got)
		}
	})
}

// A snapshot goes on where it was over as many restarts as there are, each value
// comes once, and those that are outstanding come again as what they were.
func TestSnapshotGoesOn(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.retain(10)
		k := a.comeBack()
		if err := k.Bind(context.Background(), everyRetained, core.BindOptions{Retained: true}); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			k.Grant(core.Credit{Messages: 2, Bytes: 1 << 20})
			got := a.deliveries()
			want := fmt.Sprintf("r/%02d 1", i)
			if i > 0 {
				want = fmt.Sprintf("r/%02d 2", i)
			}
			if n := min(2, 10-i); len(got) != n || fmt.Sprint(got[0].Topic, " ", got[0].Attempt) != want {
				t.Fatalf("round %d: %+v", i, got)
			}
			for _, d := range got {
				if !d.Retained || len(d.Tags) != 1 || d.Tags[0] != 7 {
					t.Fatalf("%+v", d)
				}
			}
			if err := k.Settle(got[0].Offset, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
			w.restart()
			a = w.peer("a")
			k = a.comeBack()
		}
		k.Grant(plenty)
		a.want()
		if got := snapshots(t, w.engine); got != "" {
			t.Errorf("the state still has %s", got)
		}
	})
}

// A retained value that a session was given stays in the log until it is
// settled, although another one has replaced it and nothing binds it any more.
func TestGivenRetainedValueStays(t *testing.T) {
	o := core.Options{Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Hour}}}
	runWith(t, o, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		a.retain(1)
		k := a.comeBack()
		if err := k.Bind(ctx, everyRetained, core.BindOptions{Retained: true}); err != nil {
			t.Fatal(err)
		}
		k.Grant(plenty)
		got := a.deliveries()
		if len(got) != 1 {
			t.Fatalf("%+v", got)
		}
		if err := k.Unbind(ctx, everyRetained); err != nil {
			t.Fatal(err)
		}
		k.Close()
		a.retain(2)
		time.Sleep(3 * time.Hour)
		if first, _ := w.engine.Bounds(); first != got[0].Offset {
			t.Fatalf("the log begins at %d, the value is at %d", first, got[0].Offset)
		}
		w.restart()
		a = w.peer("a")
		k = a.comeBack()
		k.Grant(plenty)
		if again := a.deliveries(); len(again) != 1 || again[0].Offset != got[0].Offset || !again[0].Retained || again[0].Attempt != 2 {
			t.Fatalf("%+v", again)
		}
		if err := k.Settle(got[0].Offset, core.Accepted, core.SettleOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		if first, _ := w.engine.Bounds(); first == got[0].Offset {
			t.Error("it stays for ever")
		}
	})
}

// What the state has of a session's snapshots goes with the session, also where
// that was refused, and where the commit was that said that they have ended.
func TestRefusedEndOfSnapshots(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		a.retain(2)
		k := a.comeBack()
		bind := func() {
			t.Helper()
			if err := k.Bind(ctx, everyRetained, core.BindOptions{Retained: true}); err != nil {
				t.Fatal(err)
			}
			if snapshots(t, w.engine) == "" {
				t.Fatal("the state has nothing")
			}
		}
		bind()
		k.Grant(plenty)
		got := a.deliveries()
		w.engine.Fail(core.ErrStorageFull)
		for _, d := range got {
			if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		w.engine.Fail(nil)
		time.Sleep(time.Second)
		if got := snapshots(t, w.engine); got != "" {
			t.Fatalf("the state still has %s", got)
		}
		bind()
		k.Close()
		w.engine.Fail(core.ErrStorageFull)
		_ = a.EndSession(ctx, "s")
		w.engine.Fail(nil)
		time.Sleep(time.Second)
		if got := snapshots(t, w.engine); got != "" {
			t.Errorf("of a session that has ended the state has %s", got)
		}
	})
}

// A settler settles what it is given, and calls meanwhile with the first of it.
type settler struct {
	*peer
	k         *core.Consumer
	meanwhile func()
}

func (s *settler) Deliver(ds []core.Delivery) {
	s.peer.Deliver(ds)
	for _, d := range ds {
		if err := s.k.Settle(d.Offset, core.Accepted, core.SettleOptions{Credit: core.Credit{Messages: 1}}); err != nil {
			s.t.Error(err)
		}
	}
	if f := s.meanwhile; f != nil {
		s.meanwhile = nil
		f()
	}
}

// attach is comeBack for a settler.
func (s *settler) attach() {
	s.t.Helper()
	s.comeBack().Close()
	k, err := s.Consume(context.Background(), core.Consumption{Queue: core.SessionQueue("s"), Exclusive: true, Settings: &core.QueueSettings{Kind: core.KindSession}}, s)
	if err != nil {
		s.t.Fatal(err)
	}
	s.k = k
}

// What happens to a binding while values are delivered holds from the next value
// on; and what was settled by then is not given again, wherever the broker dies.
func TestSnapshotMeanwhile(t *testing.T) {
	ctx := context.Background()
	other := everyRetained
	other.Tag = 8
	one := everyRetained
	one.Filter = "r/00"
	var image *coretest.Engine
	for name, c := range map[string]struct {
		binding   core.Binding
		meanwhile func(w *world, k *core.Consumer) error
		want      string
	}{
		"the binding ends": {everyRetained, func(_ *world, k *core.Consumer) error {
			return k.Unbind(ctx, everyRetained)
		}, "r/00 7"},
		"it is bound again": {everyRetained, func(_ *world, k *core.Consumer) error {
			return k.Bind(ctx, everyRetained, core.BindOptions{Retained: true})
		}, "r/00 7, r/00 7, r/01 7, r/02 7"},
		"it is replaced": {everyRetained, func(_ *world, k *core.Consumer) error {
			return k.Bind(ctx, other, core.BindOptions{})
		}, "r/00 7, r/01 8, r/02 8"},
		"the broker dies": {everyRetained, func(w *world, k *core.Consumer) error {
			err := k.Save(ctx)
			image = w.engine.Clone()
			return err
		}, "r/00 7, r/01 7, r/02 7, again, r/01 7, r/02 7"},
		"the broker dies, of one topic": {one, func(w *world, k *core.Consumer) error {
			err := k.Save(ctx)
			image = w.engine.Clone()
			return err
		}, "r/00 7, again"},
	} {
		t.Run(name, func(t *testing.T) {
			image = nil
			run(t, func(w *world) {
				a := &settler{peer: w.peer("a")}
				a.retain(3)
				a.attach()
				a.meanwhile = func() {
					if err := c.meanwhile(w, a.k); err != nil {
						t.Error(err)
					}
				}
				if err := a.k.Bind(ctx, c.binding, core.BindOptions{Retained: true}); err != nil {
					t.Fatal(err)
				}
				a.k.Grant(core.Credit{Messages: 1, Bytes: 1 << 20}) // as many are put off at a time
				got := a.deliveries()
				list := make([]string, 0, len(got))
				for _, d := range got {
					list = append(list, fmt.Sprint(d.Topic, " ", d.Tags[0]))
				}
				if image != nil {
					w.close()
					w.engine, w.o.Engine = image, image
					w.open()
					a = &settler{peer: w.peer("a")}
					a.attach()
					a.k.Grant(plenty)
					list = append(list, "again")
					for _, d := range a.deliveries() {
						list = append(list, fmt.Sprint(d.Topic, " ", d.Tags[0]))
					}
				}
				if got := strings.Join(list, ", "); got != c.want {
					t.Errorf("got %s\nwant %s", got, c.want)
				}
			})
		})
	}
}

// What a refused commit had settled of retained values is again what it was given
// as, although nothing binds it any more.
func TestRefusedSettlementOfRetained(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		a.retain(1)
		k := a.comeBack()
		if err := k.Bind(ctx, everyRetained, core.BindOptions{Retained: true}); err != nil {
			t.Fatal(err)
		}
		k.Grant(plenty)
		got := a.deliveries()
		if err := k.Unbind(ctx, everyRetained); err != nil {
			t.Fatal(err)
		}
		w.engine.Fail(core.ErrStorageFull)
		if err := k.Settle(got[0].Offset, core.Accepted, core.SettleOptions{Receipt: 99}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.engine.Fail(nil)
		time.Sleep(time.Second)
		w.restart()
		a = w.peer("a")
		k = a.comeBack()
		k.Grant(plenty)
		again := a.deliveries()
		if len(again) != 1 || !again[0].Retained || again[0].Settled || len(again[0].Tags) != 1 || again[0].Tags[0] != 7 {
			t.Errorf("%+v", again)
		}
	})
}

// However much credit a session has, no more than so many retained values are
// outstanding at once; the others come as these are settled.
func TestRetainedValuesAtOnce(t *testing.T) {
	runWith(t, core.Options{Limits: core.Limits{MaxInFlight: 65535}}, func(w *world) {
		const n, most = 2500, 1024
		a := w.peer("a")
		a.retain(n)
		k := a.comeBack()
		if err := k.Bind(context.Background(), everyRetained, core.BindOptions{Retained: true}); err != nil {
			t.Fatal(err)
		}
		k.Grant(core.Credit{Messages: 65535, Bytes: 1 << 20})
		seen := make(map[string]bool)
		for n > len(seen) {
			got := a.deliveries()
			if len(got) != min(most, n-len(seen)) {
				t.Fatalf("%d values came behind %d", len(got), len(seen))
			}
			for _, d := range got {
				seen[d.Topic] = true
				if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		a.want()
	})
}

// A closing is an engine of a broker that closes: nothing is read any more.
type closing struct {
	core.Engine
	began atomic.Bool
}

func (c *closing) Read(ctx context.Context, from, limit core.Offset, filters *core.FilterSet, buf *core.ReadBuffer) (core.Offset, error) {
	if c.began.Load() {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return c.Engine.Read(ctx, from, limit, filters, buf)
}

// A retained value that could not be read, as the broker was closing, comes from
// the next one.
func TestSnapshotOfAClosingBroker(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.retain(3)
		k := a.comeBack()
		if err := k.Bind(context.Background(), everyRetained, core.BindOptions{Retained: true}); err != nil {
			t.Fatal(err)
		}
		w.close()
		c := &closing{Engine: w.engine}
		w.o.Engine = c
		w.open()
		a = w.peer("a")
		k = a.comeBack()
		c.began.Store(true)
		k.Grant(plenty)
		a.want()
		w.close()
		w.o.Engine = w.engine
		w.open()
		a = w.peer("a")
		a.comeBack().Grant(plenty)
		a.want("r/00", "r/01", "r/02")
	})
}

// Where there is no room to make durable that a session has a value, the value
// waits for room, and nothing else happens meanwhile.
func TestNoRoomForRetained(t *testing.T) {
	run(t, func(w *world) {
		var full atomic.Bool
		var tried atomic.Int32
		w.engine.Refuse = func(*core.Batch) error {
			if !full.Load() {
				return nil
			}
			tried.Add(1)
			return core.ErrStorageFull
		}
		a := w.peer("a")
		a.retain(5)
		k := a.comeBack()
		if err := k.Bind(context.Background(), everyRetained, core.BindOptions{Retained: true}); err != nil {
			t.Fatal(err)
		}
		full.Store(true)
		k.Grant(core.Credit{Messages: 2, Bytes: 1 << 20})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		a.want()
		if n := tried.Load(); n > 200 {
			t.Errorf("it was tried %d times", n)
		}
		full.Store(false)
		time.Sleep(5 * time.Second)
		a.want("r/00", "r/01")
		k.Grant(plenty)
		a.want("r/02", "r/03", "r/04")
	})
}
