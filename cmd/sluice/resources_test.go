package main

import (
	"runtime/debug"
	"testing"
)

func TestMeasure(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1 << 40))
	r := measure(t.TempDir())
	if r.DiskTotal == 0 || r.DiskFree > r.DiskTotal || r.MemoryTotal != 1<<40 || r.MemoryUsed == 0 || r.MemoryUsed > 1<<36 {
		t.Fatalf("%+v", r)
	}
}
