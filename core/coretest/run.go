package coretest

import (
	"fmt"
	"sync"

	"github.com/sluicemq/sluice/core"
)

// A Run records what publishers were told and what consumers got, and checks
// it: nothing confirmed is lost, nothing comes twice to who settled it, each
// publisher's messages come in order, and a message has one holder at a time.
// All methods may be called from several goroutines.
type Run struct {
	mu        sync.Mutex // guards what follows
	confirmed map[string]bool
	views     map[string]*view
	faults    []string
}

// A view is what one reader, or all consumers of one queue, got.
type view struct {
	exact   bool // a reader: nothing comes twice
	seen    map[string]int
	last    map[string]int // by publisher
	holder  map[core.Offset]string
	settled map[string]bool
	leaving map[string]bool
}

// NewRun makes an empty record.
func NewRun() *Run {
	return &Run{confirmed: make(map[string]bool), views: make(map[string]*view)}
}

// Message names the n-th message of a publisher, from 1.
func Message(publisher string, n int) string { return fmt.Sprintf("%s:%d", publisher, n) }

func (r *Run) view(name string, exact bool) *view {
	v := r.views[name]
	if v == nil {
		v = &view{exact: exact, seen: make(map[string]int), last: make(map[string]int), holder: make(map[core.Offset]string), settled: make(map[string]bool), leaving: make(map[string]bool)}
		r.views[name] = v
	}
	return v
}

func (r *Run) fault(format string, args ...any) {
	if len(r.faults) < 20 {
		r.faults = append(r.faults, fmt.Sprintf(format, args...))
	}
}

// Confirmed records that a message was confirmed.
func (r *Run) Confirmed(message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.confirmed[message] {
		r.fault("%s was confirmed twice", message)
	}
	r.confirmed[message] = true
}

// Read records what a reader of topics got.
func (r *Run) Read(reader, publisher string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.view(reader, true)
	m := Message(publisher, n)
	if v.seen[m]++; v.seen[m] > 1 {
		r.fault("%s came to %s %d times", m, reader, v.seen[m])
	}
	if n <= v.last[publisher] {
		r.fault("%s came to %s after %d", m, reader, v.last[publisher])
	}
	v.last[publisher] = n
}

// Got records that a consumer of a queue was given a message.
func (r *Run) Got(queue, consumer, publisher string, n int, at core.Offset, attempt uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.view(queue, false)
	m := Message(publisher, n)
	if h := v.holder[at]; h != "" && !v.leaving[h] {
		r.fault("%s of %s came to %s while %s held it", m, queue, consumer, h)
	}
	if v.settled[m] {
		r.fault("%s of %s came to %s after it was accepted", m, queue, consumer)
	}
	if v.seen[m]++; v.seen[m] != int(attempt) {
		r.fault("%s of %s came for the %d. time as attempt %d", m, queue, v.seen[m], attempt)
	}
	v.holder[at] = consumer
}

// Released records that a consumer gave a message back.
func (r *Run) Released(queue, consumer string, at core.Offset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.view(queue, false)
	if v.holder[at] == consumer {
		delete(v.holder, at)
	}
}

// Leaves records that a consumer is about to leave: what it holds may come to
// others from now on.
func (r *Run) Leaves(queue, consumer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view(queue, false).leaving[consumer] = true
}

// Accepted records that a consumer accepted a message.
func (r *Run) Accepted(queue, consumer, publisher string, n int, at core.Offset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.view(queue, false)
	delete(v.holder, at)
	v.settled[Message(publisher, n)] = true
}

// Missing counts the confirmed messages that a view does not have yet: those
// that a reader has not seen, or that no consumer of a queue has accepted.
func (r *Run) Missing(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.views[name]
	if v == nil {
		return len(r.confirmed)
	}
	n := 0
	for m := range r.confirmed {
		if v.exact && v.seen[m] == 0 || !v.exact && !v.settled[m] {
			n++
		}
	}
	return n
}

// Confirms counts the confirmed messages.
func (r *Run) Confirms() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.confirmed)
}

// Faults are what was wrong, the first twenty.
func (r *Run) Faults() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.faults...)
}
