package bench

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A loop drives all of a load's sockets from one thread.
type loop struct {
	epoll  int
	events []unix.EpollEvent
	peers  map[int32]*peer
	in     []byte // what one read brought, behind what the peer's last one left
	// now is the time of this turn, in nanoseconds since the generator's epoch.
	now int64
	// A turn that found fewer than batch messages makes the pause before the
	// next one longer, up to longest, and one that found more makes it
	// shorter: so a turn finds a batch of work instead of a message, as with a
	// network card's coalesced interrupts. batch is a small part of what may be
	// under way, so the server always has the rest to work on.
	batch   int
	longest time.Duration
	pause   time.Duration
	handled int  // messages of this turn; protocols count them
	more    bool // a read of this turn has left some
	reads, writes,
	turns int64
}

// A peer is one socket of the loop, with the protocol that is spoken on it.
type peer struct {
	fd    int
	proto protocol
	rest  []byte // the beginning of something incomplete
	out   []byte // waits for the socket
	sent  int    // of out
	armed bool   // waits for the socket to become writable
	loop  *loop
}

// A protocol is what a load does with a peer's bytes.
type protocol interface {
	// received takes all that is complete in b, says how much that was, and
	// may append to the peer's out. The loop flushes it.
	received(p *peer, b []byte) (taken int, err error)
}

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &loop{
		epoll:  epoll,
		events: make([]unix.EpollEvent, 1024),
		peers:  map[int32]*peer{},
		in:     make([]byte, 2*readBytes),
	}, nil
}

// add takes over a connected socket.
func (l *loop) add(fd int, proto protocol) (*peer, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	p := &peer{fd: fd, proto: proto, loop: l}
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l.peers[int32(fd)] = p
	return p, nil
}

// tick makes the loop turn at least once every d.
func (l *loop) tick(d time.Duration) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("timer: %w", err)
	}
	every := unix.ItimerSpec{Interval: unix.NsecToTimespec(int64(d)), Value: unix.NsecToTimespec(int64(d))}
	if err := unix.TimerfdSettime(fd, 0, &every, nil); err != nil {
		unix.Close(fd)
		return fmt.Errorf("timer: %w", err)
	}
	_, err = l.add(fd, ticks{})
	return err
}

// ticks is the protocol of a timer.
type ticks struct{}

func (ticks) received(_ *peer, b []byte) (int, error) { return len(b), nil }

// close closes the loop and its sockets.
func (l *loop) close() {
	for _, p := range l.peers {
		unix.Close(p.fd)
	}
	clear(l.peers)
	unix.Close(l.epoll)
}

// run turns until step says that it is done. step comes after the received
// bytes of each turn, at least every 10 ms. It may write to peers and returns
// true to end; what it leaves unsent waits for the next run.
func (l *loop) run(step func() (done bool, err error)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	for {
		l.turns++
		n, errno := epollWait(l.epoll, l.events, 10)
		if errno != 0 && errno != unix.EINTR {
			return fmt.Errorf("epoll: %w", errno)
		}
		l.now, l.handled, l.more = now(), 0, false
		for _, e := range l.events[:n] {
			p := l.peers[e.Fd]
			if e.Events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
				if err := p.read(); err != nil {
					return err
				}
			}
			if err := p.flush(); err != nil {
				return err
			}
		}
		if done, err := step(); done || err != nil {
			return err
		}
		l.rest()
	}
}

// rest pauses between turns, unless there is more to do already.
func (l *loop) rest() {
	if l.longest == 0 || l.more {
		return
	}
	if l.handled < l.batch {
		l.pause = min(l.longest, l.pause+l.pause/4+10*time.Microsecond)
	} else {
		l.pause /= 2
	}
	nap(l.pause)
}

// read reads once: epoll is level-triggered, so what is left comes next turn,
// when the other peers have had theirs.
func (p *peer) read() error {
	l := p.loop
	l.reads++
	kept := copy(l.in, p.rest)
	n, errno := read(p.fd, l.in[kept:kept+readBytes])
	switch {
	case errno == unix.EAGAIN, errno == unix.EINTR:
		return nil
	case errno != 0:
		return fmt.Errorf("read: %w", errno)
	case n == 0:
		return fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
	}
	l.more = l.more || n == readBytes
	b := l.in[:kept+n]
	taken, err := p.proto.received(p, b)
	if err != nil {
		return err
	}
	if len(b)-taken > readBytes {
		return errors.New("the server sent a packet larger than the generator reads")
	}
	p.rest = append(p.rest[:0], b[taken:]...)
	return nil
}

// idle says that all of the peer's out has gone to the socket.
func (p *peer) idle() bool { return len(p.out) == 0 }

// flush writes what the socket takes, and has the loop write the rest.
func (p *peer) flush() error {
	for p.sent < len(p.out) {
		p.loop.writes++
		n, errno := write(p.fd, p.out[p.sent:])
		p.sent += n
		switch errno {
		case 0, unix.EINTR:
		case unix.EAGAIN:
			return p.arm(true)
		default:
			return fmt.Errorf("write: %w", errno)
		}
	}
	p.out, p.sent = p.out[:0], 0
	return p.arm(false)
}

// arm asks epoll for writability, or no longer.
func (p *peer) arm(on bool) error {
	if p.armed == on {
		return nil
	}
	p.armed = on
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(p.fd)}
	if on {
		e.Events |= unix.EPOLLOUT
	}
	return unix.EpollCtl(p.loop.epoll, unix.EPOLL_CTL_MOD, p.fd, &e)
}

var epoch = time.Now()

// now is the time in nanoseconds since the generator started, on the monotonic
// clock.
func now() int64 { return int64(time.Since(epoch)) }
