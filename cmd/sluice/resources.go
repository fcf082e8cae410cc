package main

import (
	"math"
	"runtime"
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
	high := b.Limits().MemoryHigh
	b.SetResources(measure(data))
	w.stopped.Go(func() {
		t := time.NewTicker(measureEvery)
		defer t.Stop()
		var idle spell
		var collected time.Time
		for {
			select {
			case <-w.stop:
				return
			case <-t.C:
			}
			if heldShare() > high && time.Since(collected) > collectEvery {
				runtime.GC()
				collected = time.Now()
			}
			b.SetResources(measure(data))
			if idle.over(heapNow()) {
				debug.FreeOSMemory()
			}
		}
	})
	return w
}

func (w *watch) close() {
	close(w.stop)
	w.stopped.Wait()
}

// collectEvery is how often garbage is collected at the most to find out how much
// of the memory is in use.
const collectEvery = 10 * time.Second

// measure looks at the log's disk and at the process's memory. The total of
// the memory is the limit that the process was given; where it has none, it is
// not known.
func measure(data string) core.Resources {
	var r core.Resources
	r.DiskFree, r.DiskTotal = diskSpace(data)
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		held, garbage := memoryNow()
		r.MemoryUsed, r.MemoryTotal = held-garbage, uint64(limit)
	}
	return r
}

// memoryNow is what the process holds of memory, and how much of that may be
// garbage: what has come onto the heap since the runtime last looked what of it is
// in use. The heap grows to twice that before it looks again, so what is held
// says little of what is needed.
func memoryNow() (held, garbage uint64) {
	sample := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
	}
	metrics.Read(sample)
	// What the heap has free is the runtime's to use again or to give back.
	held = sample[0].Value.Uint64() - sample[1].Value.Uint64() - sample[2].Value.Uint64()
	objects := sample[3].Value.Uint64()
	return held, objects - min(objects, sample[4].Value.Uint64())
}

// heldShare is what is held of the limit, in percent; 0 where there is none.
func heldShare() int {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return 0
	}
	held, _ := memoryNow()
	return int(float64(held) / float64(limit) * 100)
}

// A spell is a time in which little is allocated. The runtime lets the heap grow
// to twice what is on it before it collects, and keeps what is free of that: what
// a burst of connections or the reading of a large state has left would stay with
// an idle process for good. So it is given back once in each spell.
type spell struct {
	last  uint64 // bytes that had ever been allocated
	quiet int    // how many measurements in a row that has been little
}

const (
	// quietBytes between two measurements are little, quietFor measurements a
	// spell.
	quietBytes = 1 << 20
	quietFor   = 3
	// wasteBytes is what is not worth a collection.
	wasteBytes = 8 << 20
)

// A heapUse is what the runtime tells of the heap: bytes that have ever been
// allocated, that are on it now, and that the process holds for it.
type heapUse struct{ ever, now, held uint64 }

func heapNow() heapUse {
	sample := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(sample)
	return heapUse{sample[0].Value.Uint64(), sample[1].Value.Uint64(), sample[2].Value.Uint64() + sample[3].Value.Uint64() + sample[4].Value.Uint64()}
}

// over says that a spell has come to where memory is given back, if that is
// worth it.
func (s *spell) over(h heapUse) bool {
	little := h.ever-s.last < quietBytes
	s.last = h.ever
	if !little {
		s.quiet = 0
		return false
	}
	s.quiet++
	return s.quiet == quietFor && h.held > h.now+h.now/4+wasteBytes
}
