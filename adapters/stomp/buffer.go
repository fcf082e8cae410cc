package stomp

import (
	"fmt"
	"io"
	"sync"
)

const (
	// idleBytes is the buffer of a connection that is silent, busyBytes that
	// of one whose peer sends faster than that is filled.
	idleBytes = 2 << 10
	busyBytes = 64 << 10
)

// busyBuffers lends busy connections their buffer, so that ten thousand that
// take turns do not keep one each.
var busyBuffers = sync.Pool{New: func() any { return new([busyBytes]byte) }}

// more waits for more of a frame, of which need bytes are known to be missing.
func (r *reader) more(need int) error {
	if r.preAuth && r.end-r.start+need > r.limits.PreAuthBytes {
		return r.frameTooLarge()
	}
	return midFrame(r.fill())
}

func (r *reader) frameTooLarge() error {
	return refuse("frame_too_large", "frame too large",
		fmt.Sprintf("Before CONNECTED a frame may have %d bytes.", r.limits.PreAuthBytes))
}

// midFrame is what an end of the stream is within a frame.
func midFrame(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fill reads once. Whatever r.start leads to may move.
func (r *reader) fill() error {
	switch {
	case r.start == r.end:
		r.start, r.end = 0, 0
		if !r.full {
			r.rest()
		} else if r.lent == nil && !r.preAuth {
			r.borrow()
		}
	case r.end == len(r.buf) && len(r.buf) < busyBytes && !r.preAuth:
		r.borrow()
	case r.end == len(r.buf) && r.start >= len(r.buf)/2:
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	case r.end == len(r.buf):
		r.grow()
	}
	room := r.buf[r.end:]
	n, err := r.src.Read(room)
	r.end += n
	r.full = n == len(room)
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// rest goes back to the small buffer; there is nothing in the large one.
func (r *reader) rest() {
	if r.lent != nil {
		busyBuffers.Put(r.lent)
		r.lent = nil
	}
	r.buf = r.idle
}

// borrow goes over to a busy connection's buffer.
func (r *reader) borrow() {
	r.lent = busyBuffers.Get().(*[busyBytes]byte)
	r.end = copy(r.lent[:], r.buf[r.start:r.end])
	r.start, r.buf = 0, r.lent[:]
}

// grow doubles the buffer for the one frame that is in it.
func (r *reader) grow() {
	larger := make([]byte, 2*len(r.buf))
	r.end = copy(larger, r.buf[r.start:r.end])
	r.start = 0
	if r.lent != nil {
		busyBuffers.Put(r.lent)
		r.lent = nil
	}
	r.buf = larger
}
