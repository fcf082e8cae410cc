package adapters

import (
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A socket is a TCP connection that costs little while nothing comes. It makes
// itself known to Go's network poller when a goroutine first has to wait in it; a
// client that connects and then falls silent never has it do so. And who serves
// it may park it, and needs no goroutine until something comes. It is a net.Conn
// and a syscall.Conn.
type socket struct {
	poller *poller
	fd     int
	remote net.Addr

	open   atomic.Pointer[openSocket] // once somebody had to wait; it has fd then
	holder atomic.Pointer[holder]     // of the poller's turn, who serves it

	mu       sync.Mutex // guards what follows, what changes the above, and fd while there is no open
	closed   bool
	deadline time.Time // of reads; zero is none
	watched  bool      // the poller knows it
	parked   *served   // who is to go on when something comes
	timer    *time.Timer
	rings    time.Time // when the timer does; zero while it does not
}

// An openSocket is one that Go's poller knows.
type openSocket struct {
	*os.File
	raw syscall.RawConn
}

// opened makes it known to Go's poller.
func (s *socket) opened() (*openSocket, error) {
	if o := s.open.Load(); o != nil {
		return o, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.open.Load(); o != nil {
		return o, nil
	}
	if s.closed {
		return nil, net.ErrClosed
	}
	o := &openSocket{File: os.NewFile(uintptr(s.fd), "tcp")}
	var err error
	if o.raw, err = o.SyscallConn(); err != nil {
		return nil, err
	}
	if !s.deadline.IsZero() {
		o.SetReadDeadline(s.deadline)
	}
	s.open.Store(o)
	return o, nil
}

// try calls f with the file descriptor, under a lock, unless Go's poller knows
// the socket, and reports whether f is done.
func (s *socket) try(f func(fd uintptr) (done bool)) bool {
	if s.open.Load() != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open.Load() == nil && !s.closed && f(uintptr(s.fd))
}

func (s *socket) Read(b []byte) (int, error) {
	s.waits()
	o, err := s.opened()
	if err != nil {
		return 0, err
	}
	n, err := o.Read(b)
	return n, s.ended(err)
}

func (s *socket) Write(b []byte) (int, error) {
	o, err := s.opened()
	if err != nil {
		return 0, err
	}
	n, err := o.Write(b)
	return n, s.ended(err)
}

// A rawSocket is a socket for who reads and writes by system calls that do not
// block. What it is given may be called under the socket's lock, and must not use
// the socket.
type rawSocket struct{ *socket }

// SyscallConn is the socket itself, and costs nothing. Where who serves the
// connection holds up others, and nothing has come, its Read is ErrRest.
func (s *socket) SyscallConn() (syscall.RawConn, error) { return rawSocket{s}, nil }

func (r rawSocket) Read(f func(fd uintptr) (done bool)) error {
	if o := r.open.Load(); o != nil && r.holder.Load() == nil {
		return r.ended(o.raw.Read(f))
	}
	if r.try(f) {
		return nil
	}
	if rest := r.rest(); rest != nil {
		if o := r.open.Load(); o != nil {
			done := false
			if err := o.raw.Control(func(fd uintptr) { done = f(fd) }); err != nil || done {
				return r.ended(err)
			}
		}
		return rest
	}
	o, err := r.opened()
	if err != nil {
		return err
	}
	return r.ended(o.raw.Read(f))
}

func (r rawSocket) Write(f func(fd uintptr) (done bool)) error {
	if r.try(f) {
		return nil
	}
	o, err := r.opened()
	if err != nil {
		return err
	}
	return r.ended(o.raw.Write(f))
}

func (r rawSocket) Control(f func(fd uintptr)) error {
	if r.try(func(fd uintptr) bool { f(fd); return true }) {
		return nil
	}
	o, err := r.opened()
	if err != nil {
		return err
	}
	return r.ended(o.raw.Control(f))
}

// ended is the error as a net.Conn has it where it was closed.
func (s *socket) ended(err error) error {
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	return err
}

// CloseWrite ends what is sent, so that the peer reads it to its end.
func (s *socket) CloseWrite() (err error) {
	if failed := (rawSocket{s}).Control(func(fd uintptr) { err = syscall.Shutdown(int(fd), syscall.SHUT_WR) }); failed != nil {
		return failed
	}
	return err
}

// Close closes the connection. Who is to go on with it does.
func (s *socket) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.closed = true
	by := s.unpark()
	s.unwatch()
	if s.timer != nil {
		s.timer.Stop()
	}
	if o := s.open.Load(); o != nil {
		o.Close()
	} else {
		syscall.Close(s.fd)
	}
	s.mu.Unlock()
	s.poller.server.gate.leave(s.remote)
	by.goOn()
	return nil
}

func (s *socket) RemoteAddr() net.Addr { return s.remote }

func (s *socket) LocalAddr() net.Addr {
	a := net.Addr(&net.TCPAddr{})
	_ = rawSocket{s}.Control(func(fd uintptr) {
		if local, err := syscall.Getsockname(int(fd)); err == nil {
			a = tcpAddr(local)
		}
	})
	return a
}

func tcpAddr(a syscall.Sockaddr) net.Addr {
	switch a := a.(type) {
	case *syscall.SockaddrInet4:
		return &net.TCPAddr{IP: a.Addr[:], Port: a.Port}
	case *syscall.SockaddrInet6:
		t := &net.TCPAddr{IP: a.Addr[:], Port: a.Port}
		if a.ZoneId != 0 {
			t.Zone = strconv.Itoa(int(a.ZoneId)) // its name would have to be asked for
		}
		return t
	}
	return &net.TCPAddr{}
}

// SetReadDeadline has who is to go on with a parked socket look for himself.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	s.deadline = t
	by := s.unpark()
	if by != nil {
		s.unwatch()
	}
	o := s.open.Load()
	s.mu.Unlock()
	by.goOn()
	if o == nil {
		return nil
	}
	return o.SetReadDeadline(t)
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	o, err := s.opened()
	if err != nil {
		return err
	}
	return o.SetWriteDeadline(t)
}

func (s *socket) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// A holder is a goroutine that may have the poller's turn. While it serves a
// connection it holds up others, until somebody says that it waits.
type holder struct {
	has bool // the turn; guarded by the mutex of the socket that it serves
}

// heldBy says that a holder, who has the turn, serves the connection.
func (s *socket) heldBy(h *holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holder.Store(h)
}

// leftBy says that he does not any more, and reports whether he has the turn still.
// Meanwhile another holder may serve the connection.
func (s *socket) leftBy(h *holder) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holder.CompareAndSwap(h, nil)
	return h.has
}

// rest is why who serves the connection is not to wait for what comes: he holds up
// others, and is to rest, or it is too late. It is nil where he may wait.
func (s *socket) rest() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return net.ErrClosed
	case s.holder.Load() == nil:
		return nil
	case s.late():
		return os.ErrDeadlineExceeded
	}
	return ErrRest
}

func (s *socket) late() bool { return !s.deadline.IsZero() && !time.Now().Before(s.deadline) }

// waits lets those go on whom who serves the connection holds up, if he does: he
// is about to wait.
func (s *socket) waits() {
	if s.holder.Load() == nil {
		return
	}
	s.mu.Lock()
	h := s.holder.Swap(nil)
	if h != nil {
		h.has = false
		s.unwatch()
	}
	s.mu.Unlock()
	if h != nil {
		s.poller.passOn()
	}
}

// park has who serves the connection go on once there is something to read, the
// deadline has come, or the socket is closed.
func (s *socket) park(by *served) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.late() || !s.watch() {
		s.unwatch()
		by.goOn()
		return
	}
	s.parked = by
	if s.deadline.IsZero() || !s.rings.IsZero() && !s.rings.After(s.deadline) {
		return
	}
	s.ring()
}

// ring sets the timer; mu is held.
func (s *socket) ring() {
	s.rings = s.deadline
	if left := time.Until(s.deadline); s.timer == nil {
		s.timer = time.AfterFunc(left, s.rang)
	} else {
		s.timer.Reset(left)
	}
}

// rang is called when the deadline may have come. That it has moved does not move
// the timer.
func (s *socket) rang() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rings = time.Time{}
	switch {
	case s.parked == nil || s.deadline.IsZero():
	case s.late():
		by := s.unpark()
		s.unwatch()
		by.goOn()
	default:
		s.ring()
	}
}

// unpark returns who is to go on, if the socket is parked; mu is held.
func (s *socket) unpark() *served {
	by := s.parked
	s.parked = nil
	return by
}

// watch has the poller say when something comes; mu is held. It fails where the
// kernel has no memory.
func (s *socket) watch() bool {
	s.watched = s.watched || s.poller.watch(s)
	return s.watched
}

func (s *socket) unwatch() {
	if s.watched {
		s.watched = false
		s.poller.forget(s)
	}
}
