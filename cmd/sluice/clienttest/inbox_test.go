package clienttest

import (
	"fmt"
	"sync"
	"time"
)

// An inbox is what one receiver got so far.
type inbox struct {
	mu      sync.Mutex // guards what follows
	changed chan struct{}
	got     []message
	err     error

	// end stops the receiver: it leaves in the protocol's own words.
	end func() error
	// drop cuts its connection.
	drop func() error
}

func newInbox() *inbox {
	nothing := func() error { return nil }
	return &inbox{changed: make(chan struct{}), end: nothing, drop: nothing}
}

func (in *inbox) add(m message) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.got = append(in.got, m)
	in.wake()
}

// fail notes why nothing more will come. The first reason stays.
func (in *inbox) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err == nil {
		in.err = err
	}
	in.wake()
}

func (in *inbox) wake() {
	close(in.changed)
	in.changed = make(chan struct{})
}

// messages are those that came so far.
func (in *inbox) messages() []message {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.got[:len(in.got):len(in.got)]
}

// wait waits until n messages have come, and returns what came.
func (in *inbox) wait(n int, within time.Duration) ([]message, error) {
	deadline := time.After(within)
	for {
		in.mu.Lock()
		got, err, changed := in.got[:len(in.got):len(in.got)], in.err, in.changed
		in.mu.Unlock()
		if len(got) >= n {
			return got, nil
		}
		if err != nil {
			return got, fmt.Errorf("after %d of %d messages: %w", len(got), n, err)
		}
		select {
		case <-changed:
		case <-deadline:
			return got, fmt.Errorf("%d of %d messages came within %v", len(got), n, within)
		}
	}
}

// onceFunc makes a function that may be called again and answers the same.
func onceFunc(f func() error) func() error { return sync.OnceValue(f) }

// firstOf is the first error that is one.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// pour gives all that comes to another inbox too.
func (in *inbox) pour(into *inbox) {
	go func() {
		for n := 0; ; n++ {
			got, err := in.wait(n+1, time.Hour)
			if err != nil {
				into.fail(err)
				return
			}
			into.add(got[n])
		}
	}()
}
