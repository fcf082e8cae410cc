package main

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core"
)

// measureEvery is how often the broker is told what is left of the machine.
const measureEvery = time.Second

// A watch tells the broker, now and then, what is left of the machine.
type watch struct {
	stop    chan struct{}
	stopped sync.WaitGroup
}

// startWatch measures once, so that the first publish already knows, and goes
// on until close.
func startWatch(b *core.Broker, data string) *watch {
	w := &watch{stop: make(chan struct{})}
	b.SetResources(measure(data))
	w.stopped.Go(func() {
		t := time.NewTicker(measureEvery)
		defer t.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-t.C:
				b.SetResources(measure(data))
			}
		}
	})
	return w
}

func (w *watch) close() {
	close(w.stop)
	w.stopped.Wait()
}

// measure looks at the log's disk and at the process's memory. The total of
// the memory is the limit that the process was given; where it has none, it is
// not known.
func measure(data string) core.Resources {
	var r core.Resources
	r.DiskFree, r.DiskTotal = diskSpace(data)
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
		metrics.Read(sample)
		// What the heap has free is the runtime's to use again or to give back.
		r.MemoryUsed = sample[0].Value.Uint64() - sample[1].Value.Uint64() - sample[2].Value.Uint64()
		r.MemoryTotal = uint64(limit)
	}
	return r
}
