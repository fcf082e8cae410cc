package core_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// willOf is the will of the tests' session.
func willOf(payload string, delay time.Duration) core.Will {
	return core.Will{Envelope: &core.Envelope{Topic: "left", Payload: []byte(payload), Guarantee: core.AtLeastOnce}, Delay: delay}
}

// keep keeps the will of the session s.
func (p *peer) keep(payload string, delay time.Duration) {
	p.t.Helper()
	if err := p.KeepWill(context.Background(), "s", willOf(payload, delay)); err != nil {
		p.t.Fatal(err)
	}
}

// refused checks that there was no room for something.
func (p *peer) refused(err error) {
	p.t.Helper()
	if !errors.Is(err, core.ErrStorageFull) {
		p.t.Fatalf("there is no room: %v", err)
	}
}

// leftIn is what is published of a broker's wills, in the end, when it is opened
// on what an engine has.
func (w *world) leftIn(e *coretest.Engine) string {
	w.t.Helper()
	b, err := core.Open(context.Background(), core.Options{Engine: e})
	if err != nil {
		w.t.Fatal(err)
	}
	other := &world{t: w.t, engine: e, broker: b}
	defer other.close()
	time.Sleep(3 * time.Hour)
	p := other.peer("after")
	p.subscribe(core.Earliest, "left").Grant(plenty)
	return strings.Join(p.take(), " ")
}

// named lists the wills that the state names.
func (w *world) named() (keys []string) {
	for _, prefix := range []string{"w/", "t/"} {
		for s, err := range w.engine.Clone().State(prefix, "") {
			if err != nil {
				w.t.Fatal(err)
			}
			keys = append(keys, s.Key)
		}
	}
	return keys
}

// A will that the log has no room for is published once there is, as it would
// have been: once, whenever the broker is killed, and not where it was withdrawn.
func TestWillWaitsForRoom(t *testing.T) {
	ctx := context.Background()
	type step = func(w *world, p *peer)
	full := func(w *world, p *peer) { w.engine.Fail(core.ErrStorageFull) }
	room := func(w *world, p *peer) { w.engine.Fail(nil) }
	wait := func(d time.Duration) step { return func(*world, *peer) { time.Sleep(d) } }
	keep := func(payload string, delay time.Duration) step {
		return func(w *world, p *peer) { p.keep(payload, delay) }
	}
	leave := func(delay time.Duration) step {
		return func(w *world, p *peer) {
			if err := p.LeaveWill(ctx, "s", willOf("x", delay)); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	leaveInVain := func(delay time.Duration) step {
		return func(w *world, p *peer) { p.refused(p.LeaveWill(ctx, "s", willOf("x", delay))) }
	}
	take := func(withdraw bool) step {
		return func(w *world, p *peer) {
			if err := p.TakeWill(ctx, "s", withdraw); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	takeInVain := func(withdraw bool) step {
		return func(w *world, p *peer) { p.refused(p.TakeWill(ctx, "s", withdraw)) }
	}
	drop := func(w *world, p *peer) {
		if err := p.DropWill("s"); err != nil {
			p.t.Fatal(err)
		}
	}
	want := func(payloads ...string) step { return func(w *world, p *peer) { p.t.Helper(); p.want(payloads...) } }
	soon := wait(2 * time.Second)
	for _, c := range []struct {
		how   string
		steps []step
		// killed is what is published, in the end, where the broker is killed
		// when there is still no room, and left where it is at the end.
		killed, left string
	}{
		{"at once", []step{keep("x", 0), full, leaveInVain(0), wait(time.Minute), want(), room, soon, want("x")}, "x", "x"},
		{"later", []step{keep("x", time.Hour), full, leaveInVain(time.Hour), soon, room, soon, want(), wait(time.Hour - 5*time.Second), want(), soon, want("x")}, "x", "x"},
		{"when its delay is over already", []step{keep("x", time.Minute), full, leaveInVain(time.Minute), wait(time.Hour), room, soon, want("x")}, "x", "x"},
		{"with a shorter delay than was kept", []step{keep("x", 3*time.Hour), full, leaveInVain(time.Minute), room, soon, want(), wait(time.Minute), want("x")}, "x", "x"},
		{"as the session ended", []step{keep("x", time.Hour), full, leaveInVain(time.Hour), func(w *world, p *peer) { p.refused(p.EndSession(ctx, "s")) }, room, soon, want("x")}, "x", "x"},
		{"as the session ends with room", []step{keep("x", time.Hour), full, leaveInVain(time.Hour), room, func(w *world, p *peer) {
			if err := p.EndSession(ctx, "s"); err != nil {
				p.t.Fatal(err)
			}
		}, soon, want("x")}, "x", "x"},
		{"as the session of one that waits ended", []step{keep("x", time.Hour), leave(time.Hour), full, func(w *world, p *peer) { p.refused(p.EndSession(ctx, "s")) }, room, soon, want("x")}, "x", "x"},
		{"as its delay was ended", []step{keep("x", time.Hour), full, leaveInVain(time.Hour), takeInVain(false), room, soon, want("x")}, "x", "x"},
		{"as the delay of one that waits was ended", []step{keep("x", time.Hour), leave(time.Hour), full, takeInVain(false), room, soon, want("x")}, "x", "x"},
		{"to a client that comes back at once", []step{keep("x", 0), full, leaveInVain(0), soon, room, take(true), want("x")}, "x", "x"},
		{"to a client that comes back too late", []step{keep("x", time.Minute), full, leaveInVain(time.Minute), wait(time.Hour), takeInVain(true), room, soon, want("x")}, "x", "x"},
		{"when it was due, to a client that comes back then", []step{keep("x", time.Minute), leave(time.Minute), full, wait(time.Hour), takeInVain(true), room, soon, want("x")}, "x", "x"},
		{"not at all: the client comes back in time", []step{keep("x", time.Hour), full, leaveInVain(time.Hour), takeInVain(true), room, soon, wait(2 * time.Hour), want()}, "x", ""},
		{"not at all: the client comes back as there is room", []step{keep("x", time.Hour), full, leaveInVain(time.Hour), room, take(true), wait(2 * time.Hour), want()}, "x", ""},
		{"not at all: the client comes back to one that waits", []step{keep("x", time.Hour), leave(time.Hour), full, takeInVain(true), wait(2 * time.Hour), room, soon, want()}, "x", ""},
		{"not at all: the client took its leave", []step{keep("x", 0), full, drop, soon, room, soon, want()}, "x", ""},
		{"before the client's next one is kept", []step{keep("x", 0), full, leaveInVain(0), func(w *world, p *peer) { p.refused(p.KeepWill(ctx, "s", willOf("y", 0))) }, room, keep("y", 0), want("x")}, "x", "x y"},
		{"and the next one is kept behind it", []step{keep("x", 0), full, leaveInVain(0), room, soon, want("x"), keep("y", 0)}, "x", "x y"},
		{"not at all: the client has another one", []step{keep("x", time.Hour), full, leaveInVain(time.Hour), takeInVain(true), room, keep("y", time.Hour), soon, want()}, "x", "y"},
		{"not at all: the client has another one than that which waits", []step{keep("x", time.Hour), leave(time.Hour), full, takeInVain(true), room, keep("y", time.Hour), wait(2 * time.Hour), want()}, "x", "y"},
		{"not at all: the client took its leave, and has another one", []step{keep("x", 0), full, drop, room, keep("y", 0), soon, want()}, "x", "y"},
	} {
		t.Run(c.how, func(t *testing.T) {
			run(t, func(w *world) {
				p := w.peer("p")
				p.session("s", 24*time.Hour)
				p.subscribe(core.Latest, "left").Grant(plenty)
				var images []*coretest.Engine
				kept := false
				for _, s := range c.steps {
					if kept {
						images = append(images, w.engine.Clone())
					}
					kept = true
					s(w, p)
				}
				soon(w, p)
				images = append(images, w.engine.Clone())
				for i, e := range images {
					got := w.leftIn(e)
					if last := i == len(images)-1; last && got != c.left || !last && got != c.killed && got != c.left {
						t.Errorf("killed before step %d of %d: %q", i+2, len(c.steps), got)
					}
				}
				if keys := w.named(); len(keys) > strings.Count(c.left, "y") {
					t.Errorf("the state still has %q", keys)
				}
			})
		})
	}
}

// The wills of the last run for which a start finds no room are left by the same
// run once there is.
func TestStartHasNoRoomForWills(t *testing.T) {
	ctx := context.Background()
	run(t, func(w *world) {
		p := w.peer("p")
		p.session("s", 24*time.Hour)
		p.keep("x", time.Minute)
		if err := p.KeepWill(ctx, "nobody", willOf("n", time.Hour)); err != nil {
			t.Fatal(err)
		}
		killed := w.engine.Kill()
		w.broker.Close(ctx)
		killed.Fail(core.ErrStorageFull)
		w.engine, w.o.Engine = killed, killed
		w.open()
		p = w.peer("p")
		p.subscribe(core.Latest, "left").Grant(plenty)
		time.Sleep(10 * time.Second)
		p.want()
		w.engine.Fail(nil)
		time.Sleep(2 * time.Second)
		p.want("n") // its session is not there
		time.Sleep(time.Minute)
		p.want("x")
		if keys := w.named(); len(keys) > 0 {
			t.Errorf("the state still has %q", keys)
		}
	})
}

// However many wills find no room, they are tried again no more often than once
// in a while.
func TestRetryOfWillsIsPaced(t *testing.T) {
	ctx := context.Background()
	run(t, func(w *world) {
		p := w.peer("p")
		p.subscribe(core.Latest, "left").Grant(plenty)
		const n = 3000
		sessions := make([]string, n)
		for i := range sessions {
			sessions[i] = strings.Repeat("s", i%7) + string(rune('A'+i))
			if err := p.KeepWill(ctx, sessions[i], willOf("x", 0)); err != nil {
				t.Fatal(err)
			}
		}
		w.engine.Fail(core.ErrStorageFull)
		before := w.broker.Stats().StorageFailures.Load()
		for _, s := range sessions {
			p.refused(p.LeaveWill(ctx, s, willOf("x", 0)))
		}
		time.Sleep(10 * time.Second)
		if tried := w.broker.Stats().StorageFailures.Load() - before - n; tried > 12 {
			t.Errorf("%d attempts in 10 s", tried)
		}
		w.engine.Fail(nil)
		time.Sleep(2 * time.Second)
		if got := len(p.take()); got != n {
			t.Errorf("%d of %d wills came", got, n)
		}
		if keys := w.named(); len(keys) > 0 {
			t.Errorf("the state still has %d", len(keys))
		}
	})
}

// A will whose record cannot be read any more is given up, and holds up no other.
func TestUnreadableWill(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.publish("other", "no will") // at 1
		w.close()
		word := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
		due := bytes.Join([][]byte{word(1 << 60), word(1), word(1), word(1 << 63), word(0), []byte("gone")}, nil)
		done := make(chan error)
		w.engine.Append(&core.Batch{Changes: []core.Change{
			{Key: "t/" + string(due), Value: word(1)},
			{Key: "w/gone", Value: due},
		}}, func(_ *core.Batch, _ core.Offset, err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		w.o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		w.open()
		time.Sleep(time.Minute)
		if n := w.broker.Stats().Unreadable.Load(); n != 1 {
			t.Errorf("%d are unreadable", n)
		}
		if keys := w.named(); len(keys) > 0 {
			t.Errorf("the state still has %q", keys)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
			t.Errorf("the log has %d errors:\n%s", n, log.String())
		}
	})
}
