package adapters

import (
	"net"
	"syscall"
	"testing"
)

// A connection that is accepted has the keep-alive that Go would give it.
func TestAcceptedConnectionsAreKeptAlive(t *testing.T) {
	limits := DefaultLimits()
	l, err := Listen(t.Context(), Endpoint{Address: "127.0.0.1:0"}, NewGate(limits))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	options := func(c net.Conn) (values [5]int) {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			for i, o := range [...]struct{ level, name int }{
				{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE}, {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL}, {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT},
				{syscall.IPPROTO_TCP, syscall.TCP_NODELAY},
			} {
				if values[i], err = syscall.GetsockoptInt(int(fd), o.level, o.name); err != nil {
					t.Fatal(err)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		return values
	}
	if got, want := options(server), options(client); got != want {
		t.Errorf("options %v, want those of a connection that Go has set up, %v", got, want)
	}
}
