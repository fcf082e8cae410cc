package main

import (
	"os"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestGrowth(t *testing.T) {
	const mib = 1 << 20
	for live, want := range map[uint64]int{0: 400, 2 * mib: 400, 12 * mib: 400, 16 * mib: 300, 20 * mib: 220, 30 * mib: 113, 32 * mib: 100, 64 * mib: 100, 1 << 40: 100} {
		if got := growth(live); got != want {
			t.Errorf("%d bytes in use: %d%%, want %d%%", live, got, want)
		}
	}
}

// Each collection is noticed, and the heap's growth goes by what it left.
func TestHeapPacer(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Skip("GOGC is set")
	}
	value := func(name string) uint64 {
		sample := []metrics.Sample{{Name: name}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	percent := func() int { return int(value("/gc/gogc:percent")) }
	p := startHeapPacer()
	defer p.close()
	follow := func() {
		t.Helper()
		begin := time.Now()
		for runtime.GC(); percent() != growth(value("/gc/heap/live:bytes")); runtime.GC() {
			if time.Since(begin) > time.Minute {
				t.Fatalf("%d%% for %d bytes in use", percent(), value("/gc/heap/live:bytes"))
			}
		}
	}
	follow()
	kept := make([]byte, heapRoom)
	follow()
	if percent() != 100 {
		t.Errorf("%d%% for more than %d bytes", percent(), heapRoom)
	}
	runtime.KeepAlive(kept)
	kept = nil
	follow()
	p.close()
	if percent() != 100 {
		t.Errorf("%d%% after the end", percent())
	}
}
