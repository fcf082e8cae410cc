package core

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// The marks of the log's age stay few over years, and near enough to each other
// that whatever age is asked for is told within a few hundredths of it.
func TestMarksStayFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAging(&Broker{log: slog.New(slog.DiscardHandler)}, nil, false)
		const day = 24 * time.Hour
		state := make(map[string]bool)
		for step := range 40_000 {
			// A busy day, and then years.
			if step < 5000 {
				time.Sleep(markEvery)
			} else {
				time.Sleep(idleMark)
			}
			c := new(commit)
			a.put(c, time.Now().UnixMilli(), 0, time.Hour)
			for _, change := range c.Changes {
				if state[change.Key] = change.Value != nil; change.Value == nil {
					delete(state, change.Key)
				}
			}
			if step%97 != 0 {
				continue
			}
			for _, age := range []time.Duration{time.Minute, 10 * time.Minute, time.Hour, day, 30 * day, 365 * day, 1000 * day} {
				if a.age() < age+markEvery {
					continue
				}
				stamp, ok := a.before(age)
				if is := time.Since(time.UnixMilli(stamp)); !ok || is < age || is > age+age/16+idleMark {
					t.Fatalf("step %d: what is older than %s is said to be %s old (%v), with %d marks", step, age, is, ok, len(a.marks))
				}
			}
			if len(a.marks) > 1000 || len(state) != len(a.marks) {
				t.Fatalf("step %d: there are %d marks, %d in the state", step, len(a.marks), len(state))
			}
		}
	})
}
