package mqtt

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A reader reads a connection in large pieces without holding a large buffer
// while nothing comes.
//
// On a plain TCP socket it waits without any buffer at all and borrows one of
// chunkBytes once there is something to read. On anything else, where waiting
// and reading are one call, it reads into a small buffer of its own and borrows
// a large one for the next read when that was filled.
//
// What is left of an incomplete packet is kept in a buffer that grows as its
// bytes arrive, never by a length that a packet claims.
type reader struct {
	conn  net.Conn
	raw   syscall.RawConn // nil where the connection is not a socket
	step  func(fd uintptr) bool
	small []byte // of a connection that is not a socket

	kept   []byte  // the beginning of an incomplete packet
	chunk  *[]byte // borrowed
	filled bool    // the last read filled the small buffer
	last   bool    // only what has come already is read

	n   int // what step read
	err error
	buf []byte // where step reads to; nil borrows a chunk
}

const (
	chunkBytes = 64 << 10
	smallBytes = 1 << 10
)

// chunks holds the buffers that readers borrow.
var chunks = sync.Pool{New: func() any { b := make([]byte, chunkBytes); return &b }}

// lastTime is how long what has come already may take to be read where a read
// cannot be asked not to wait.
const lastTime = 50 * time.Millisecond

// lastDeadline is the read deadline of a connection of which only what has come
// already is to be read: it has who waits for more look. Any goroutine may call it.
func (r *reader) lastDeadline() time.Time {
	if r.raw != nil {
		return time.Unix(1, 0) // what has come is read all the same
	}
	return time.Now().Add(lastTime)
}

// open begins to read a connection.
func (r *reader) open(conn net.Conn) {
	r.conn = conn
	if !r.openRaw() {
		r.small = make([]byte, smallBytes)
	}
}

// fill reads more and returns all that has not been consumed. It is valid until
// keep is called, which must be called before the next fill.
func (r *reader) fill() ([]byte, error) {
	kept := len(r.kept)
	if kept >= chunkBytes/2 {
		// A large packet is gathered in its own buffer.
		if cap(r.kept)-kept < chunkBytes/4 {
			grown := make([]byte, kept, 2*cap(r.kept))
			copy(grown, r.kept)
			r.kept = grown
		}
		n, err := r.read(r.kept[kept:cap(r.kept)])
		r.kept = r.kept[:kept+n]
		return r.kept, err
	}
	if r.raw == nil && !r.filled && kept == 0 {
		n, err := r.read(r.small)
		r.filled = n == len(r.small)
		return r.small[:n], err
	}
	if r.raw == nil {
		r.borrow()
	}
	n, err := r.read(nil)
	if r.chunk == nil {
		return r.kept, err
	}
	// step has left room for what was kept.
	copy(*r.chunk, r.kept)
	r.filled = n >= smallBytes
	return (*r.chunk)[:kept+n], err
}

// keep says what of the bytes that fill returned was not consumed: the
// beginning of an incomplete packet, or nothing.
func (r *reader) keep(rest []byte) {
	switch {
	case len(rest) == 0:
		r.kept = nil
	case len(r.kept) >= chunkBytes/2 && len(rest) >= chunkBytes/2:
		r.kept = append(r.kept[:0], rest...) // rest lies in kept
	case len(r.kept) >= chunkBytes/2:
		r.kept = append([]byte(nil), rest...)
	default:
		kept := r.kept[:0]
		if cap(kept) < len(rest) {
			kept = make([]byte, 0, len(rest))
		}
		r.kept = append(kept, rest...)
	}
	if r.chunk != nil {
		chunks.Put(r.chunk)
		r.chunk = nil
	}
}

func (r *reader) borrow() {
	if r.chunk == nil {
		r.chunk = chunks.Get().(*[]byte)
	}
}

// read reads into buf, or behind the room for what was kept in a borrowed chunk
// where buf is nil. n is 0 where there was an error.
func (r *reader) read(buf []byte) (n int, err error) {
	if r.raw == nil {
		if buf == nil {
			buf = (*r.chunk)[len(r.kept):]
		}
		if r.last {
			r.conn.SetReadDeadline(r.lastDeadline())
		}
		n, err = r.conn.Read(buf)
		if n > 0 {
			return n, nil
		}
		if err == nil {
			err = io.ErrNoProgress
		}
		return 0, err
	}
	r.buf, r.n, r.err = buf, 0, nil
	if r.last {
		err = r.readNow()
	} else {
		err = r.raw.Read(r.step)
	}
	r.buf = nil
	switch {
	case err != nil:
		return 0, err
	case r.err != nil:
		return 0, r.err
	case r.n == 0:
		return 0, io.EOF
	}
	return r.n, nil
}

// readNow reads without waiting, and whatever the deadline.
func (r *reader) readNow() error {
	came := false
	err := r.raw.Control(func(fd uintptr) { came = r.step(fd) })
	if err == nil && !came {
		return os.ErrDeadlineExceeded
	}
	return err
}
