package core

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"
	"unsafe"
)

// TestChunks takes commits of growing and shrinking size one after the other, as
// the journal does, and keeps their buffers, as the engine does.
func TestChunks(t *testing.T) {
	j := newJournal(nil, Limits{PendingBytes: 1 << 20}, time.Now, nil)
	var kept, copies [][]byte
	held, used := make(map[uintptr]int), 0
	for round := range 2000 {
		records := 1
		if round%500 > 400 {
			records = 200
		}
		for i := range records {
			j.pending.add(&Envelope{Topic: "chunk", Payload: fmt.Appendf(nil, "%d of round %d", i, round)})
		}
		c, _ := j.take()
		b := c.Buf
		if cap(b) != len(b) {
			t.Fatalf("round %d: room for %d bytes behind the batch's %d, which are the next one's", round, cap(b)-len(b), len(b))
		}
		kept, copies = append(kept, b), append(copies, bytes.Clone(b))
		used += len(b)
		if end := uintptr(unsafe.Pointer(unsafe.SliceData(b))); round > 0 && held[end] == 0 {
			held[end] = 1 // not where the last one ended: a new chunk
		}
		held[uintptr(unsafe.Pointer(unsafe.SliceData(b)))+uintptr(len(b))] = -1
		j.recycle(c)
	}
	for i := range kept {
		if !slices.Equal(kept[i], copies[i]) {
			t.Fatalf("batch %d was written over", i)
		}
	}
	chunks := 0
	for _, what := range held {
		if what == 1 {
			chunks++
		}
	}
	if most := 40 + used/(8<<10); chunks > most {
		t.Errorf("%d bytes in %d batches took %d chunks, at most %d are wanted", used, len(kept), chunks, most)
	}
}
