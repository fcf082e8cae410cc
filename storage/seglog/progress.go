package seglog

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// progressEvery is how often a recovery that takes long says how far it is.
const progressEvery = time.Second

// A progress is how far a recovery is. Its fields may be read and written by any
// goroutine.
type progress struct {
	step        atomic.Value // a string: what is being done
	total, done atomic.Int64 // bytes of the step
}

// begin says what is done now, and how many bytes have to be read for it.
func (p *progress) begin(step string, total int64) {
	p.step.Store(step)
	p.total.Store(total)
	p.done.Store(0)
}

// percent is how much of the step has been done.
func (p *progress) percent() int64 {
	total := p.total.Load()
	if total == 0 {
		return 0
	}
	return min(100*p.done.Load()/total, 100)
}

// tell logs the progress until stop is closed.
func (p *progress) tell(log *slog.Logger, stop <-chan struct{}) {
	t := time.NewTicker(progressEvery)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		if step, ok := p.step.Load().(string); ok {
			log.Info("log is being recovered", "step", step, "percent", p.percent())
		}
	}
}
