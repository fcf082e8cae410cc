package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// A dialer connects plain sockets, each from an address of its own in
// 127.0.0.0/8: a port range serves a few tens of thousands of connections of
// one address, and a server may bound the connections and the connection rate
// of one address, which a fleet of devices would not share either.
type dialer struct{ next uint32 }

// handshakeTimeout bounds each wait of a connection being set up.
const handshakeTimeout = 30 * time.Second

// dial connects a blocking socket with bounded reads and writes.
func (d *dialer) dial(addr string) (fd int, err error) {
	to, err := loopbackAddress(addr)
	if err != nil {
		return 0, err
	}
	fd, err = d.socket(0)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	wait := unix.NsecToTimeval(int64(handshakeTimeout))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	err = unix.Connect(fd, to)
	if errors.Is(err, unix.EINTR) {
		err = connected(fd)
	}
	if err != nil {
		return 0, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return fd, nil
}

// loopbackAddress is an IPv4 loopback address and port.
func loopbackAddress(addr string) (*unix.SockaddrInet4, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil || !to.Addr().Is4() || !to.Addr().IsLoopback() {
		return nil, fmt.Errorf("%q: not an IPv4 loopback address and port", addr)
	}
	return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}, nil
}

// socket is a new one with the next address; flags are more for its type.
func (d *dialer) socket(flags int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	d.next++
	from := unix.SockaddrInet4{Addr: [4]byte{127, 1 + byte(d.next/(250*250)%200), 1 + byte(d.next/250%250), 1 + byte(d.next%250)}}
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err := unix.Bind(fd, &from); err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("bind: %w", err)
	}
	return fd, nil
}

// connected waits for a connect that a signal interrupted: it goes on by itself.
func connected(fd int) error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(handshakeTimeout.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		return err
	}
}

// say writes all of b to a blocking socket.
func say(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue // these sockets have timeouts, so the kernel does not begin again by itself
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		b = b[n:]
	}
	return nil
}

// hear reads from a blocking socket until whole says how long the answer at the
// beginning is; it reads no further than that.
func hear(fd int, whole func(b []byte) int) ([]byte, error) {
	var answer []byte
	b := make([]byte, 1)
	for {
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return answer, fmt.Errorf("no answer: %w", err)
		}
		if n == 0 {
			return answer, fmt.Errorf("the server closed the connection")
		}
		answer = append(answer, b[:n]...)
		if whole(answer) > 0 {
			return answer, nil
		}
	}
}
