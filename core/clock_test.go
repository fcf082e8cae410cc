package core

import (
	"testing"
	"testing/synctest"
	"time"
)

// A message is due when its publisher said, not up to a millisecond before that:
// what is due one after the other comes in that order.
func TestDelayedToTheNanosecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		for range 10 {
			time.Sleep(999_700 * time.Nanosecond)
			if due := time.Now().Add(time.Hour); !c.when(due).Equal(due) {
				t.Fatalf("what is due at %v comes at %v", due, c.when(due))
			}
		}
	})
}
