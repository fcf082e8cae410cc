package core_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A counted engine knows how many records were read from it.
type counted struct {
	*coretest.Engine
	read atomic.Int64
}

func (c *counted) Read(ctx context.Context, from, to core.Offset, filters *core.FilterSet, buf *core.ReadBuffer) (core.Offset, error) {
	before := len(buf.Records)
	after, err := c.Engine.Read(ctx, from, to, filters, buf)
	c.read.Add(int64(len(buf.Records) - before))
	return after, err
}

// What expires second after second is not looked for in all that does not.
func TestSweepingLooksWhereSomethingEnds(t *testing.T) {
	run(t, func(w *world) {
		w.close()
		engine := &counted{Engine: w.engine}
		w.o.Engine = engine
		w.open()
		const seconds, each = 200, 50
		p := w.peer("a")
		p.declare("q", core.QueueSettings{DeadLetterExpired: true})
		now := time.Now()
		for i := range seconds * each {
			e := core.Envelope{Topic: "$queue/q", Payload: fmt.Append(nil, i), Expires: now.Add(10*time.Second + time.Duration(i/each)*time.Second)}
			if i%each == 0 {
				e.Expires = now.Add(24 * time.Hour)
			}
			if err := p.Publish(t.Context(), &e, 0); err != nil {
				t.Fatal(err)
			}
			if i%5000 == 0 {
				synctest.Wait()
			}
		}
		time.Sleep((seconds + 15) * time.Second)
		synctest.Wait()
		// All of them once, and once more as they are buried, and those of a span
		// or two in each second.
		if n := engine.read.Load(); n > 20*seconds*each {
			t.Errorf("%d records were read of %d", n, seconds*each)
		}
		if dead, err := p.Queue("q.dead"); err != nil || dead.Lag != seconds*(each-1) {
			t.Errorf("%d dead letters, want %d, %v", dead.Lag, seconds*(each-1), err)
		}
		if q, err := p.Queue("q"); err != nil || q.Lag != seconds {
			t.Errorf("%d messages are left, want %d, %v", q.Lag, seconds, err)
		}
	})
}
