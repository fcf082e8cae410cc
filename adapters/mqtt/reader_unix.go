//go:build unix

package mqtt

import (
	"syscall"

	"github.com/sluicemq/sluice/adapters"
)

// openRaw makes the reader wait on the socket itself, if the connection is one.
func (r *reader) openRaw() bool {
	s, ok := r.conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	r.raw, r.step = raw, r.readFD
	return true
}

// readFD is called when the socket may be readable, and says whether it was.
func (r *reader) readFD(fd uintptr) bool {
	buf := r.buf
	if buf == nil {
		r.borrow()
		buf = (*r.chunk)[len(r.kept):]
	}
	for {
		n, err := adapters.ReadNow(int(fd), buf)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if r.buf == nil {
				chunks.Put(r.chunk)
				r.chunk = nil
			}
			return false
		case err != nil:
			r.err = err
			return true
		}
		r.n = n
		return true
	}
}
