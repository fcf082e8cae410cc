package core

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestGather has a journal wait for those whom a commit has confirmed, and for
// nobody else.
func TestGather(t *testing.T) {
	const (
		step = 5 * time.Microsecond
		many = gatherMin
	)
	synctest.Test(t, func(t *testing.T) {
		j := newJournal(nil, Limits{}, time.Now, nil)
		g := &j.gathering
		// after begins anew with so many waiting, has others come some at each
		// step, and says how long was waited.
		after := func(confirmed, waiting, coming int, sync time.Duration) time.Duration {
			t.Helper()
			j.pending.entries = make([]entry, waiting)
			g.sync = sync
			g.yield = func() {
				time.Sleep(step)
				if n := min(coming, many/20); n > 0 {
					coming -= n
					j.pending.entries = append(j.pending.entries, make([]entry, n)...)
				}
			}
			began := time.Now()
			j.gather(confirmed)
			return time.Since(began)
		}
		for _, c := range []struct {
			what                       string
			confirmed, waiting, coming int
			sync, waited               time.Duration
			rest                       int
		}{
			{"all come again", many, many, many, time.Second, 22 * step, 0},
			{"nobody waits yet", many, 0, many, time.Second, 22 * step, 0},
			{"few were confirmed", gatherMin - 1, 0, gatherMin, time.Second, 0, 0},
			{"more wait than are waited for", many, many + 1, many, time.Second, 0, 0},
			{"a sync is as quick", many, many, many, 2 * step, 2 * step, 1},
			{"one does not come", many, many, many - 1, time.Second, gatherMax + step, 1},
		} {
			g.rest, g.vain = 0, 0
			if waited := after(c.confirmed, c.waiting, c.coming, c.sync); waited != c.waited || g.rest != c.rest {
				t.Errorf("%s: waited %v, then rests for %d; want %v and %d", c.what, waited, g.rest, c.waited, c.rest)
			}
		}

		// In vain, it waits ever more seldom, but does not give up.
		g.rest, g.vain = 0, 0
		var tries []int
		for i := range 4 * gatherRest {
			if after(many, 0, 0, time.Second) > 0 {
				tries = append(tries, i)
			}
		}
		for i, at := range tries[:10] {
			if want := 1<<i + i - 1; at != want {
				t.Errorf("try %d at commit %d, want %d", i, at, want)
			}
		}
		if n := len(tries); tries[n-1]-tries[n-2] != gatherRest+1 {
			t.Errorf("the last tries at %v", tries[n-2:])
		}
		g.rest = 0
		after(many, 0, many, time.Second)
		if g.vain != 0 {
			t.Error("after all came again it still rests")
		}

		// Where clocks stand still it ends all the same.
		g.rest, g.yield = 0, func() {}
		j.gather(many)
		if g.rest == 0 {
			t.Error("nobody came, and it does not rest")
		}
	})
}
