package adapters

import (
	"net"
	"syscall"
)

// The kernel asks a peer that has been silent for so many seconds whether it is
// still there, so often, and ends the connection after so many questions
// without an answer: as Go does by itself.
const (
	probeIdle     = 15
	probeInterval = 15
	probeCount    = 9
)

// inheritOptions has connections take over TCP's keep-alive, and that they send at
// once, from the socket on which they are accepted, where it is set once: five
// system calls less for each of them.
func inheritOptions(lc *net.ListenConfig) {
	lc.KeepAlive = -1
	lc.Control = func(_, _ string, c syscall.RawConn) (err error) {
		if failed := c.Control(func(fd uintptr) {
			for _, o := range [...]struct{ level, name, value int }{
				{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
				{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, probeIdle},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, probeInterval},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, probeCount},
			} {
				if err == nil {
					err = syscall.SetsockoptInt(int(fd), o.level, o.name, o.value)
				}
			}
		}); failed != nil {
			return failed
		}
		return err
	}
}
