package core

import (
	"sync"
	"time"

	"github.com/sluicemq/sluice/core/pause"
)

// A flusher journals the positions that have changed, all of them every 20 ms,
// so that settling costs neither a record nor a sync. A position lost in a
// crash means a redelivery, never a loss.
type flusher struct {
	b *Broker
	// flushing is held until all that was noted before stands in the journal.
	flushing sync.Mutex

	mu   sync.Mutex // guards what follows; the last mutex to be taken
	list []*queue
	// exchanges are those whose definition the log had no room for, ended says
	// that it had none for the end of something.
	exchanges []string
	ended     bool

	wake    chan struct{}
	stop    chan struct{}
	stopped sync.WaitGroup
}

const (
	flushEvery = 20 * time.Millisecond
	// flushRound is how many positions are journaled in one go.
	flushRound = 256
)

func newFlusher(b *Broker) *flusher {
	return &flusher{b: b, wake: make(chan struct{}, 1), stop: make(chan struct{})}
}

func (f *flusher) add(q *queue) {
	f.note(func() { f.list = append(f.list, q) })
}

func (f *flusher) addExchange(name string) {
	f.note(func() { f.exchanges = append(f.exchanges, name) })
}

func (f *flusher) addEnded() {
	f.note(func() { f.ended = true })
}

func (f *flusher) note(add func()) {
	f.mu.Lock()
	first := len(f.list)+len(f.exchanges) == 0 && !f.ended
	add()
	f.mu.Unlock()
	if first {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

func (f *flusher) start() {
	f.stopped.Go(func() {
		for {
			select {
			case <-f.stop:
				f.flush()
				return
			case <-f.wake:
			}
			wait := flushEvery
			if f.b.refusals.full.Load() {
				wait = refusedRetry
			}
			select {
			case <-f.stop:
			case <-time.After(wait):
			}
			f.flush()
		}
	})
}

// flush journals what has changed until now.
func (f *flusher) flush() {
	f.flushing.Lock()
	defer f.flushing.Unlock()
	f.mu.Lock()
	list, exchanges, ended := f.list, f.exchanges, f.ended
	f.list, f.exchanges, f.ended = nil, nil, false
	f.mu.Unlock()
	pause.At("flushing")
	if ended {
		if p, err := f.b.journal.enterUnbounded(); err == nil {
			f.b.journal.putEnded(p)
			f.b.journal.leave()
		}
	}
	for _, name := range exchanges {
		f.b.putExchange(name)
	}
	for len(list) > 0 {
		n := min(len(list), flushRound)
		p, err := f.b.journal.enterUnbounded()
		if err != nil {
			return
		}
		for _, q := range list[:n] {
			q.putPosition(p)
		}
		f.b.journal.leave()
		list = list[n:]
	}
}

func (f *flusher) close() {
	<-f.b.tellCounted(true)
	close(f.stop)
	f.stopped.Wait()
}
