package core

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// progressEvery is how often a start that takes long says how far it is.
const progressEvery = time.Second

// A Progress is how far the start of a broker is, or of its engine. Its zero
// value has not begun. All methods may be called from any goroutine.
type Progress struct {
	step  atomic.Pointer[string]
	total atomic.Int64
	// Done is how much of the step has been done, in the unit of its total.
	Done atomic.Int64
}

// Begin says what is done now, and how much there is to do in a unit of the
// caller's; 0 is not known.
func (p *Progress) Begin(step string, total int64) {
	p.Done.Store(0)
	p.total.Store(total)
	p.step.Store(&step)
}

// Percent is how much of the step has been done, 0 where that is not known.
func (p *Progress) Percent() int64 {
	total := p.total.Load()
	if total == 0 {
		return 0
	}
	return min(100*p.Done.Load()/total, 100)
}

// Tell logs the progress every second, with a message, until the function that it
// returns is called.
func (p *Progress) Tell(log *slog.Logger, message string) (stop func()) {
	ended := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		t := time.NewTicker(progressEvery)
		defer t.Stop()
		for {
			select {
			case <-ended:
				return
			case <-t.C:
			}
			if step := p.step.Load(); step != nil {
				log.Info(message, "step", *step, "percent", p.Percent())
			}
		}
	})
	return func() {
		close(ended)
		telling.Wait()
	}
}
