package adapters

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A poller waits for the connections that come to TCP listeners, and for those of
// them that are parked, and serves one after the other, on the one of its
// goroutines that has the turn. That one passes the turn on when it comes to wait
// itself: then it goes on with that one connection. So a handshake that takes its
// time holds up nobody, and those that take none, which are most, and pings, cost
// no change of goroutines.
type poller struct {
	server *Server

	fd int // of the epoll of all that is watched
	// rest is another epoll, of nothing but that one, and known to Go's own poller.
	rest *os.File
	raw  syscall.RawConn // of rest

	turn    chan struct{} // holds the turn while nobody has it; closed with the poller
	running sync.WaitGroup
	// waiting is how many goroutines wait for the turn, or are about to. Only who
	// has the turn makes it less.
	waiting atomic.Int32

	// Of who has the turn: what was said to be ready, and is yet to be looked at;
	// whether connections come, how often more is waited for them, and whether the
	// last wait was short; and when somebody else was let run.
	events      [64]unix.EpollEvent
	at, n, came int
	eager       bool
	patience    int
	brief       bool
	yielded     time.Time

	listeners []*socketListener

	mu      sync.Mutex // guards sockets
	sockets []*socket  // those that are watched, by their file descriptors
}

const hasPoller = true

// keepWaiting is how many goroutines a poller keeps to have the turn next, with
// the stacks that they have grown.
const keepWaiting = 4

// acceptBurst is how many connections are accepted before others are looked after.
const acceptBurst = 64

// listenerMark distinguishes a listener among what is ready, by its number.
const listenerMark = 1

// newPoller makes the poller of a server.
func newPoller(s *Server) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	p := &poller{server: s, fd: fd, turn: make(chan struct{}, 1)}
	if err := p.openRest(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return p, nil
}

func (p *poller) openRest() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	// An epoll is readable while it has something to say.
	if err = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, p.fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	p.rest = os.NewFile(uintptr(fd), "epoll")
	if p.raw, err = p.rest.SyscallConn(); err != nil {
		p.rest.Close()
	}
	return err
}

// listen takes over a TCP listener, for when the poller is started, and returns
// what closes it.
func (p *poller) listen(l net.Listener) (net.Listener, error) {
	k := &socketListener{poller: p, addr: l.Addr(), number: len(p.listeners), ended: make(chan struct{})}
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return nil, err
	}
	if failed := raw.Control(func(fd uintptr) { k.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	l.Close()
	p.listeners = append(p.listeners, k)
	return k, nil
}

// start has the poller serve what comes.
func (p *poller) start() {
	for _, l := range p.listeners {
		l.watch()
	}
	p.another()
	p.turn <- struct{}{}
}

// another starts a goroutine that waits for the turn.
func (p *poller) another() {
	p.waiting.Add(1)
	p.running.Go(p.run)
}

func (p *poller) run() {
	h := new(holder)
	for {
		if _, open := <-p.turn; !open {
			return
		}
		p.waiting.Add(-1)
		for h.has = true; ; {
			v := p.next()
			if v == nil {
				close(p.turn)
				return
			}
			v.socket.heldBy(h)
			v.serve()
			if !v.socket.leftBy(h) {
				break
			}
		}
		if !p.stay() {
			return
		}
	}
}

// passOn gives the turn to another goroutine. Only who has it calls it.
func (p *poller) passOn() {
	if p.waiting.Load() == 0 {
		p.another()
	}
	p.turn <- struct{}{}
}

// stay counts a goroutine as waiting again, unless enough are. It never counts
// one that then leaves: who has the turn would rely on it.
func (p *poller) stay() bool {
	for {
		n := p.waiting.Load()
		if n >= keepWaiting {
			return false
		}
		if p.waiting.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// next waits for a connection that is to be served; nil is the poller's end. Only
// who has the turn calls it.
func (p *poller) next() *served {
	for {
		for p.at < p.n {
			e := &p.events[p.at]
			if e.Pad != listenerMark {
				p.at++
				if v := p.take(int(e.Fd)); v != nil {
					return v
				}
				continue
			}
			if p.came < acceptBurst {
				if s, came := p.listeners[e.Fd].accept(); s != nil {
					p.came++
					if p.patience = eagerWaits; !p.eager {
						p.setEager(true)
					}
					return p.server.open(s, s)
				} else if came {
					p.came++
					continue
				}
			}
			p.at, p.came = p.at+1, 0
		}
		if !p.wait() {
			return nil
		}
		p.at, p.came = 0, 0
	}
}

// Connections are said to come until nothing has for eagerWait, in milliseconds, or
// something else eagerWaits times.
const (
	eagerWait  = 10
	eagerWaits = 4
)

const (
	// briefly is for how long it is better to look again than to sleep, if the last
	// wait was no longer: to be woken costs the peer time, too, and often begins with
	// waiting for the processor on which it runs.
	briefly = 20 * time.Microsecond
	// yieldEvery is less than the 10 ms after which Go's scheduler takes a
	// processor from who has it all the time, and looks every 20 us if it can.
	yieldEvery = 6 * time.Millisecond
)

// wait returns when something is ready; false is the poller's end. While
// connections come, it waits in the system call itself: what comes next finds the
// thread and its processor as it left them. Otherwise Go's own poller waits, which
// costs several changes of threads each time, and nothing meanwhile.
func (p *poller) wait() (goOn bool) {
	if p.eager {
		if p.patience > 0 && p.waitEagerly() {
			return true
		}
		p.setEager(false)
	}
	return p.raw.Read(func(uintptr) bool { return p.look(0) }) == nil
}

// look asks epoll what is ready, or will be within so many milliseconds.
func (p *poller) look(wait int) bool {
	if wait == 0 {
		p.n = epollNow(p.fd, p.events[:])
	} else {
		p.n, _ = unix.EpollWait(p.fd, p.events[:], wait)
	}
	return p.n > 0
}

// epollNow is epoll_wait(2) that does not wait, of which Go's scheduler need not know.
func epollNow(fd int, events []unix.EpollEvent) int {
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}

func (p *poller) waitEagerly() bool {
	p.patience--
	now := time.Now()
	if now.Sub(p.yielded) > yieldEvery {
		p.yielded = now
		runtime.Gosched()
	}
	if p.brief {
		for time.Since(now) < briefly {
			if p.look(0) {
				return true
			}
		}
		now = time.Now()
	}
	ready := p.look(eagerWait)
	p.brief = ready && time.Since(now) < 2*briefly // of which waking is about half
	return ready
}

// setEager says whether connections come. While they do, Go's own poller is not
// told of what is ready, so that it does not wake for nothing.
func (p *poller) setEager(eager bool) {
	p.eager = eager
	watch := uint32(unix.EPOLLIN)
	if eager {
		watch = 0
	}
	_ = p.raw.Control(func(fd uintptr) {
		_ = unix.EpollCtl(int(fd), unix.EPOLL_CTL_MOD, p.fd, &unix.EpollEvent{Events: watch})
	})
}

// take unparks the socket that is watched under a file descriptor. It may be
// another one than that of which was said that it has something: who serves it
// finds that out.
func (p *poller) take(fd int) *served {
	p.mu.Lock()
	s := p.sockets[fd]
	p.mu.Unlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unpark()
}

func (p *poller) watch(s *socket) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.sockets) <= s.fd {
		p.sockets = append(p.sockets, make([]*socket, len(p.sockets)+64)...)
	}
	if unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.fd)}) != nil {
		return false
	}
	p.sockets[s.fd] = s
	return true
}

func (p *poller) forget(s *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, s.fd, nil)
	p.sockets[s.fd] = nil
}

// close ends the poller, of which no connection is left.
func (p *poller) close() {
	p.rest.Close()
	p.running.Wait()
	unix.Close(p.fd)
}

// A socketListener is a listener whose connections a poller opens.
type socketListener struct {
	poller *poller
	addr   net.Addr
	number int           // among the poller's
	ended  chan struct{} // closed with it

	mu     sync.Mutex // guards what follows
	fd     int
	closed bool
}

func (l *socketListener) Addr() net.Addr { return l.addr }

// Accept waits until the listener is closed: the poller has what comes.
func (l *socketListener) Accept() (net.Conn, error) {
	<-l.ended
	return nil, net.ErrClosed
}

// Close returns when nothing more is accepted.
func (l *socketListener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.closed = true
	close(l.ended)
	return unix.Close(l.fd)
}

func (l *socketListener) watch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.control(unix.EPOLL_CTL_ADD)
	}
}

func (l *socketListener) control(op int) {
	if err := unix.EpollCtl(l.poller.fd, op, l.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(l.number), Pad: listenerMark}); err != nil {
		l.poller.server.log.Error("a listener is not listened to", "addr", l.addr.String(), "err", err)
		if op == unix.EPOLL_CTL_ADD {
			time.AfterFunc(acceptPause, l.watch)
		}
	}
}

// accept takes a connection, if one has come, and counts it as being served. It is
// nil where the gate refused it.
func (l *socketListener) accept() (s *socket, came bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed {
		fd, from, err := syscall.Accept4(l.fd, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		switch err {
		case nil:
			s := &socket{poller: l.poller, fd: fd, remote: tcpAddr(from)}
			if !l.poller.server.gate.enter(s.remote) {
				syscall.Close(fd)
				return nil, true
			}
			l.poller.server.serving.Add(1)
			return s, true
		case syscall.EAGAIN:
			return nil, false
		case syscall.EINTR, syscall.ECONNABORTED:
		default:
			l.poller.server.gate.AcceptFailed(l.poller.server.log, err)
			l.control(unix.EPOLL_CTL_DEL)
			time.AfterFunc(acceptPause, l.watch)
			return nil, false
		}
	}
	return nil, false
}
