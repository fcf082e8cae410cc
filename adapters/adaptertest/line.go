// Package adaptertest is what the tests of several doors share: connections in a
// bubble of testing/synctest, where no socket can be (what is to happen in time
// happens at once and exactly then, however long the machine stands still), and
// certificates.
package adaptertest

import (
	"net"
	"sync"
	"time"
)

// A Line is a connection that reads ahead: like a socket, and unlike net.Pipe's,
// it takes what the broker sends without waiting for its reader.
type Line struct {
	net.Conn
	mu   sync.Mutex // guards what follows
	more sync.Cond
	got  []byte
	err  error
	wait time.Time // the deadline of reads
	held bool      // takes nothing
}

// Hold has the line take nothing more, or take again.
func (l *Line) Hold(held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = held
	l.more.Broadcast()
}

// NewLine makes a line of the client's end of a net.Pipe, and reads it until it
// ends.
func NewLine(c net.Conn) *Line {
	l := &Line{Conn: c}
	l.more.L = &l.mu
	go func() {
		buf := make([]byte, 4<<10)
		for {
			l.mu.Lock()
			for l.held {
				l.more.Wait()
			}
			l.mu.Unlock()
			n, err := c.Read(buf)
			l.mu.Lock()
			l.got, l.err = append(l.got, buf[:n]...), err
			l.mu.Unlock()
			l.more.Broadcast()
			if err != nil {
				return
			}
		}
	}()
	return l
}

func (l *Line) Read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.wait.IsZero() {
		late := time.AfterFunc(time.Until(l.wait), l.more.Broadcast)
		defer late.Stop()
	}
	for len(l.got) == 0 && l.err == nil && (l.wait.IsZero() || time.Now().Before(l.wait)) {
		l.more.Wait()
	}
	switch {
	case len(l.got) > 0:
		n := copy(b, l.got)
		l.got = l.got[n:]
		return n, nil
	case l.err != nil:
		return 0, l.err
	}
	return 0, errLate
}

func (l *Line) SetDeadline(t time.Time) error { return l.SetReadDeadline(t) }

func (l *Line) SetReadDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait = t
	return nil
}

// errLate is a read's end at its deadline.
var errLate error = lateError{}

type lateError struct{}

func (lateError) Error() string   { return "nothing came in time" }
func (lateError) Timeout() bool   { return true }
func (lateError) Temporary() bool { return true }
