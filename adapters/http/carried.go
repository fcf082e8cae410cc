package http

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// A carried connection is one that a lane hands over to net/http, with what was
// read of the next request.
type carried struct {
	net.Conn
	peer *peer

	mu    sync.Mutex // guards what follows
	head  []byte     // to be read first
	until time.Time  // bounds the first deadline for reading; zero is none
}

func (c *carried) Read(b []byte) (int, error) {
	n, err := c.read(b)
	if !c.peer.taken.Load() {
		c.peer.follower.follow(b[:n])
	}
	return n, err
}

func (c *carried) read(b []byte) (int, error) {
	c.mu.Lock()
	if len(c.head) > 0 {
		defer c.mu.Unlock()
		n := copy(b, c.head)
		if c.head = c.head[n:]; len(c.head) == 0 {
			c.head = nil
		}
		return n, nil
	}
	c.mu.Unlock()
	return c.Conn.Read(b)
}

// SetReadDeadline lets the first header have no more time than it had with the
// lane.
func (c *carried) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	if !c.until.IsZero() && t.After(c.until) {
		t = c.until
	}
	c.until = time.Time{}
	c.mu.Unlock()
	return c.Conn.SetReadDeadline(t)
}

// CloseWrite ends what is sent, so that the peer reads it to its end.
func (c *carried) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// SyscallConn is the socket's, once there is nothing to be read before it.
func (c *carried) SyscallConn() (syscall.RawConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.Conn.(syscall.Conn)
	if !ok || len(c.head) > 0 {
		return nil, errors.ErrUnsupported
	}
	return s.SyscallConn()
}

// A secured connection is a carried one with TLS.
type secured struct {
	*carried
	tls *tls.Conn
}

// ConnectionState tells net/http, which tells the handlers.
func (c *secured) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// A handover is the listener that net/http accepts from: HTTP/2 once TLS is
// there, other connections when a lane is through with them.
type handover struct {
	net.Listener // of the sockets
	conns        chan net.Conn
	once         sync.Once
	closed       chan struct{}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close closes the sockets' listener too.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return h.Listener.Close()
}

// give hands a connection over; after Close it closes it.
func (h *handover) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.closed:
		return false
	}
}
