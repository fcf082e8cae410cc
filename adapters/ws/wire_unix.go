//go:build unix

package ws

import (
	"io"
	"syscall"

	"github.com/sluicemq/sluice/adapters"
)

// openRaw makes the wire wait on the socket itself, if the connection is one.
func (w *wire) openRaw() {
	s, ok := w.Conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := s.SyscallConn(); err == nil {
		w.raw, w.step = raw, w.readFD
	}
}

// readFD is called when the socket may be readable, and says whether it was.
func (w *wire) readFD(fd uintptr) bool {
	chunk := chunks.Get().(*[]byte)
	for {
		n, err := adapters.ReadNow(int(fd), *chunk)
		switch {
		case err == syscall.EINTR:
			continue
		case n > 0:
			w.chunk, w.have = chunk, (*chunk)[:n]
			return true
		}
		chunks.Put(chunk)
		if err == syscall.EAGAIN {
			return false
		}
		if w.err = err; err == nil {
			w.err = io.EOF
		}
		return true
	}
}
