//go:build unix

package adapters

import "syscall"

// writeSome writes as much as a socket takes at once and says how much that
// was. An error is left to who goes on.
func writeSome(socket syscall.Conn, b []byte) (n int) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Write(func(fd uintptr) bool {
		written, err := syscall.Write(int(fd), b)
		for err == syscall.EINTR {
			written, err = syscall.Write(int(fd), b)
		}
		n = max(written, 0)
		return true
	})
	return n
}
