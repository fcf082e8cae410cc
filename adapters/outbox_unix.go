//go:build unix

package adapters

import "syscall"

// A nowWriter writes as much as a socket takes at once. One goroutine at a time
// uses it.
type nowWriter struct {
	raw   syscall.RawConn
	step  func(fd uintptr) bool
	bytes []byte
	n     int
}

// newNowWriter is nil where the socket cannot be had.
func newNowWriter(socket syscall.Conn) *nowWriter {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	w := &nowWriter{raw: raw}
	w.step = w.writeFD
	return w
}

// write says how much was written. An error is left to who goes on.
func (w *nowWriter) write(b []byte) int {
	w.bytes, w.n = b, 0
	_ = w.raw.Write(w.step)
	w.bytes = nil
	return w.n
}

func (w *nowWriter) writeFD(fd uintptr) (done bool) {
	n, err := writeNow(int(fd), w.bytes)
	for err == syscall.EINTR {
		n, err = writeNow(int(fd), w.bytes)
	}
	w.n = max(n, 0)
	return true
}
