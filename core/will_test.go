package core_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

// session makes a session that nobody is attached to.
func (p *peer) session(name string, expires time.Duration) {
	p.t.Helper()
	s := core.QueueSettings{Kind: core.KindSession, Expires: expires}
	k, err := p.Consume(context.Background(), core.Consumption{Queue: core.SessionQueue(name), Create: true, Settings: &s}, p)
	if err != nil {
		p.t.Fatal(err)
	}
	k.Close()
}

// A will waits no longer than its session, whichever way that ends, also where it
// ended just before the will was left, or while it was: it is published once.
func TestWillOfSession(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		how string
		end func(p *peer, session string) error
	}{
		{"ended", func(p *peer, s string) error { return p.EndSession(ctx, s) }},
		{"deleted", func(p *peer, s string) error { return p.DeleteQueue(ctx, core.SessionQueue(s)) }},
		{"expired", func(p *peer, s string) error { time.Sleep(time.Minute); return nil }},
	} {
		t.Run(c.how, func(t *testing.T) {
			run(t, func(w *world) {
				p := w.peer("p")
				p.subscribe(core.Latest, "left").Grant(plenty)
				will := core.Will{Envelope: &core.Envelope{Topic: "left", Payload: []byte("x")}, Delay: time.Hour}
				leave := func(session string) {
					if err := p.LeaveWill(ctx, session, will); err != nil {
						t.Error(err)
					}
				}
				end := func(session string) {
					if err := c.end(p, session); err != nil {
						t.Error(err)
					}
				}
				for i, order := range [][]func(string){{leave, end}, {end, leave}} {
					s := fmt.Sprint(i)
					p.session(s, time.Minute)
					order[0](s)
					if i == 0 {
						p.want()
					}
					order[1](s)
					p.want("x")
				}
				for i := range 50 {
					s := fmt.Sprint("both", i)
					p.session(s, time.Minute)
					var both sync.WaitGroup
					both.Go(func() { leave(s) })
					both.Go(func() { end(s) })
					both.Wait()
					p.want("x")
				}
				time.Sleep(2 * time.Hour)
				p.want()
			})
		})
	}
}

// What is asked to be delivered later than the will is published is a delayed
// message from then on: neither the session nor the client that comes back has to
// do with it any more.
func TestWillLater(t *testing.T) {
	ctx := context.Background()
	run(t, func(w *world) {
		p := w.peer("p")
		p.session("s", 2*time.Hour)
		e := &core.Envelope{Topic: "left", Payload: []byte("x")}
		will := core.Will{Envelope: e, Delay: time.Minute, Later: time.Hour, Expires: true, Life: 3 * time.Hour}
		for _, err := range []error{p.KeepWill(ctx, "s", will), p.LeaveWill(ctx, "s", will)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		w.restart()
		p = w.peer("p")
		if got := p.listed(core.Selection{}, 10); got != "" {
			t.Fatalf("%q is listed before it is published", got)
		}
		time.Sleep(time.Minute + time.Second)
		if got := p.listed(core.Selection{}, 10); got != "x" {
			t.Fatalf("%q is listed", got)
		}
		if err := p.TakeWill(ctx, "s", true); err != nil {
			t.Fatal(err)
		}
		if err := p.EndSession(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		p.subscribe(core.Latest, "left").Grant(plenty)
		time.Sleep(time.Hour - 2*time.Second)
		p.want()
		time.Sleep(2 * time.Second)
		got := p.deliveries()
		if len(got) != 1 {
			t.Fatalf("%d came", len(got))
		}
		if left := time.Until(got[0].Expires); left < 2*time.Hour-2*time.Second || left > 2*time.Hour {
			t.Errorf("it expires in %v", left)
		}
	})
}

// Older versions named a will by the client's id as it is, had its life in one
// word, in which 0 was for ever, and what its topic asked for in its delay.
func TestOldWills(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		for _, s := range []string{"a/b", "c+c", "d"} {
			p.session(core.SessionName(s), 24*time.Hour)
		}
		w.close()
		// Whoever is not there any more has no session.
		b := &core.Batch{Time: time.Now().UnixMilli()}
		record := func(topic string) int {
			b.Buf = core.AppendRecord(b.Buf, &core.Envelope{Topic: core.DelayedPrefix + topic})
			b.Ends = append(b.Ends, uint32(len(b.Buf)))
			return len(b.Ends)
		}
		word := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
		waits := func(name string, after, life time.Duration) {
			due := uint64(time.Now().Add(after).UnixMilli())
			key := slices.Concat(word(due), word(1), word(uint64(len(b.Ends))), word(uint64(life.Milliseconds())), []byte(name))
			b.Changes = append(b.Changes,
				core.Change{Key: "t/" + string(key), Value: []byte{}, OffsetOf: record(name)},
				core.Change{Key: "w/" + name, Value: key})
		}
		connected := func(name string, delay, life time.Duration) {
			b.Changes = append(b.Changes, core.Change{
				Key: "w/" + name, Value: append(word(uint64(delay.Milliseconds())), word(uint64(life.Milliseconds()))...), OffsetOf: record(name),
			})
		}
		waits("a/b", time.Hour, time.Minute)
		waits("d", time.Hour, 0)
		waits("gone/e", time.Hour, time.Minute)
		connected("c+c", time.Hour, time.Minute)
		connected("gone/f", time.Hour, time.Minute) // by its topic
		connected("gone/g", 0, 0)
		done := make(chan error)
		w.engine.Append(b, func(_ *core.Batch, _ core.Offset, err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		w.open()
		p = w.peer("p")
		p.subscribe(core.Earliest, "#").Grant(plenty)
		lives := func() (all []string) {
			for _, d := range p.deliveries() {
				life := "for ever"
				if !d.Expires.IsZero() {
					life = time.Until(d.Expires).String()
				}
				all = append(all, d.Topic+" "+life)
			}
			return all
		}
		check := func(want ...string) {
			t.Helper()
			if got := lives(); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		check("gone/g for ever")
		if err := p.TakeWill(context.Background(), core.SessionName("a/b"), false); err != nil {
			t.Fatal(err)
		}
		check("a/b 1m0s")
		w.restart() // nothing of it is as the older version left it
		p = w.peer("p")
		p.subscribe(core.Latest, "#").Grant(plenty)
		if err := p.EndSession(context.Background(), core.SessionName("c+c")); err != nil {
			t.Fatal(err)
		}
		check("c+c 1m0s")
		time.Sleep(time.Hour - time.Millisecond)
		check()
		time.Sleep(time.Millisecond)
		check("d for ever", "gone/e 1m0s")
	})
}
