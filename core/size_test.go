package core

import (
	"testing"
	"unsafe"
)

// There may be a million queues: what each of them takes is a size that Go
// allocates, but for the eight bytes that it puts before it.
func TestQueueFits(t *testing.T) {
	const most = 896 - 8
	if n := unsafe.Sizeof(queue{}); n > most {
		t.Errorf("a queue has %d bytes; with more than %d it takes 1,024", n, most)
	}
}
