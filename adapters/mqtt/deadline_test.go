package mqtt

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancel(t.Context())
		defer cancel()
		start := time.Now()
		newDeadline := func() *deadline { return &deadline{Context: parent, until: start.Add(5 * time.Second)} }

		waits, stopped := newDeadline(), newDeadline()
		if until, ok := waits.Deadline(); !ok || until != start.Add(5*time.Second) || waits.Err() != nil {
			t.Errorf("%v %v, %v", until, ok, waits.Err())
		}
		ended := stopped.Done()
		stopped.stop()
		<-ended
		if took := time.Since(start); took != 0 {
			t.Errorf("stop took %v", took)
		}

		<-waits.Done()
		if took := time.Since(start); took != 5*time.Second || waits.Err() != context.DeadlineExceeded {
			t.Errorf("it ended after %v, %v", took, waits.Err())
		}
		// Who asks late is told at once.
		late := newDeadline()
		<-late.Done()
		if took := time.Since(start); took != 5*time.Second || late.Err() != context.DeadlineExceeded {
			t.Errorf("it ended after %v, %v", took, late.Err())
		}
		waits.stop()
		late.stop()

		child := &deadline{Context: parent, until: time.Now().Add(time.Hour)}
		cancel()
		<-child.Done()
		if child.Err() != context.Canceled {
			t.Error(child.Err())
		}
		newDeadline().stop() // where nobody has asked
	})
}
