package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// heapRoom is to what the heap may grow before it is collected, however
	// little of it is in use.
	heapRoom = 64 << 20
	// mostGrowth bounds by how much it may grow, in percent of what is in use:
	// what is told to the runtime after one collection holds for the next one
	// only if the first has been noticed by then.
	mostGrowth = 400
)

// growth is by how many percent the heap may grow over what is in use of it
// before it is collected.
func growth(live uint64) int {
	return int(min(max(100, 100*(heapRoom-min(live, heapRoom))/max(live, 1)), mostGrowth))
}

// A heapPacer keeps a small heap from being collected again and again. The
// runtime collects when a heap has doubled: one that grows from a few MiB, as
// thousands of clients connect, would be gone through at each of 8, 16, 32 and
// 64 MiB, with the stacks of all the connections. After each collection it tells
// the runtime how far the heap may grow until the next one.
type heapPacer struct {
	mu   sync.Mutex // guards what follows
	told int        // to the runtime
	over bool
}

// startHeapPacer begins with now, as if after a collection. GOGC, where it is
// set, wins.
func startHeapPacer() *heapPacer {
	p := &heapPacer{told: 100, over: os.Getenv("GOGC") != ""}
	p.collected(struct{}{})
	return p
}

// collected is called after each collection: nobody has what it leaves to be
// found by the next one.
func (p *heapPacer) collected(struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if g := growth(live[0].Value.Uint64()); g != p.told {
		p.told = g
		debug.SetGCPercent(g)
	}
	type nobodys struct{ _ *byte }
	runtime.AddCleanup(&nobodys{}, p.collected, struct{}{})
}

// close leaves the heap to the runtime again.
func (p *heapPacer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.over = true
		debug.SetGCPercent(100)
	}
}
