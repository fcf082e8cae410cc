package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// ramp opens n MQTT connections and leaves them open. At most so many at a time
// are between connect and CONNACK. It returns those that are open also where it
// fails.
//
// It is one thread that makes six system calls a connection. When all that may
// be under way are, it waits for the older half of them, the last one first: so
// it is woken once for many answers, and the server has the other half to work on.
func (d *dialer) ramp(ctx context.Context, addr string, n, atATime int, hello func(i int) mqttHello) (fds []int, err error) {
	to, err := loopbackAddress(addr)
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var packet []byte
	for answered := 0; answered < n; {
		for len(fds) < min(n, answered+atATime) {
			fd, err := d.socket(unix.SOCK_NONBLOCK)
			if err != nil {
				return fds, err
			}
			fds = append(fds, fd)
			if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
				return fds, fmt.Errorf("connect to %s: %w", addr, err)
			}
			packet = hello(len(fds) - 1).append(packet[:0])
			if err := sayAll(fd, packet); err != nil {
				return fds, fmt.Errorf("MQTT CONNECT to %s: %w", addr, err)
			}
		}
		older := answered + (len(fds)-answered+1)/2
		for i := older - 1; i >= answered; i-- {
			if err := hearConnack(fds[i]); err != nil {
				return fds, fmt.Errorf("MQTT CONNECT to %s: %w", addr, err)
			}
		}
		answered = older
		if err := ctx.Err(); err != nil {
			return fds, err
		}
	}
	return fds, nil
}

// sayAll writes to a socket that does not block, and that may be connecting yet:
// mostly, a connection on loopback stands when connect returns.
func sayAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, errno := write(fd, b)
		switch errno {
		case 0:
			b = b[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			if err := await(fd, unix.POLLOUT, handshakeTimeout); err != nil {
				return fmt.Errorf("connect: %w", err)
			}
		default:
			return errno
		}
	}
	return nil
}

// hearConnack waits for the answer to a CONNECT of level 4 on a socket that does
// not block.
func hearConnack(fd int) error {
	var answer [8]byte
	for {
		n, errno := read(fd, answer[:])
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			if err := await(fd, unix.POLLIN, handshakeTimeout); err != nil {
				return fmt.Errorf("no answer: %w", err)
			}
		case errno != 0:
			return errno
		case n != 4 || answer[0] != mqttConnack || answer[3] != 0:
			return fmt.Errorf("answered % x", answer[:n])
		default:
			return nil
		}
	}
}
