package main

import (
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
)

func TestMeasure(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1 << 40))
	r := measure(t.TempDir())
	if r.DiskTotal == 0 || r.DiskFree > r.DiskTotal || r.MemoryTotal != 1<<40 || r.MemoryUsed == 0 || r.MemoryUsed > 1<<36 {
		t.Fatalf("%+v", r)
	}
}

// Garbage is not memory in use, what somebody has is.
func TestMeasureKnowsGarbage(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1 << 40))
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // only when it is told
	const mib = 1 << 20
	var kept [][]byte
	allocate := func() {
		for range 64 {
			kept = append(kept, make([]byte, mib))
		}
	}
	dir := t.TempDir()
	runtime.GC()
	before := measure(dir).MemoryUsed
	allocate()
	kept = nil
	if grown := int64(measure(dir).MemoryUsed - before); grown > 32*mib {
		t.Errorf("%d MiB of garbage count as %d MiB in use", 64, grown/mib)
	}
	allocate()
	runtime.GC()
	if grown := int64(measure(dir).MemoryUsed - before); grown < 48*mib {
		t.Errorf("%d MiB that are kept count as %d MiB in use", len(kept), grown/mib)
	}
	runtime.KeepAlive(kept)
}

// Memory is given back once in a spell, and only where there is much of it.
func TestMemoryIsGivenBackWhenIdle(t *testing.T) {
	const mib = 1 << 20
	given := func(held uint64, allocs ...uint64) (at []int) {
		var s spell
		ever := uint64(0)
		for i, n := range allocs {
			if ever += n; s.over(heapUse{ever: ever, now: 100 * mib, held: held}) {
				at = append(at, i)
			}
		}
		return at
	}
	for _, c := range []struct {
		held   uint64
		allocs []uint64
		want   []int
	}{
		{200 * mib, []uint64{50 * mib, 10, 10, 10, 10, 10, 10, 10}, []int{3}},
		{200 * mib, []uint64{50 * mib, 10, 10, 10, 2 * mib, 10, 10, 10}, []int{3, 7}},
		{200 * mib, []uint64{50 * mib, 10, 10, 2 * mib, 10, 10, 2 * mib}, nil},
		{120 * mib, []uint64{50 * mib, 10, 10, 10, 10, 10, 10}, nil},
	} {
		if got := given(c.held, c.allocs...); !slices.Equal(got, c.want) {
			t.Errorf("holding %d MiB, allocating %v: given back at %v, want %v", c.held/mib, c.allocs, got, c.want)
		}
	}
	if h := heapNow(); h.ever == 0 || h.held < h.ever/1000 || h.held == 0 {
		t.Errorf("the heap: %+v", h)
	}
}
