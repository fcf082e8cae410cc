package adapters

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A reciter echoes what comes, and rests. What begins with a capital letter is
// obeyed besides: W waits for go, B goes on by itself until R comes, D rests until
// a deadline that is short, L until one that is long.
type reciter struct {
	goOn   chan struct{}
	opened chan *recital // if not nil, takes each connection
	late   atomic.Int32
}

type recital struct {
	r    *reciter
	c    net.Conn
	raw  syscall.RawConn
	busy bool
	stop atomic.Bool
}

func (r *reciter) OpenConn(c net.Conn) Conn {
	raw, _ := c.(syscall.Conn).SyscallConn()
	k := &recital{r: r, c: c, raw: raw}
	if r.opened != nil {
		r.opened <- k
	}
	return k
}

func (k *recital) Stop() {
	k.stop.Store(true)
	k.c.SetReadDeadline(time.Unix(1, 0))
}

func (k *recital) read(b []byte) (n int, err error) {
	var failed error
	if err := k.raw.Read(func(fd uintptr) bool {
		n, failed = syscall.Read(int(fd), b)
		return failed != syscall.EAGAIN
	}); err != nil {
		return 0, err
	}
	if failed == nil && n == 0 {
		return 0, io.EOF
	}
	return n, failed
}

func (k *recital) Serve() (rests bool, err error) {
	var b [100]byte
	for {
		n, err := k.read(b[:])
		switch {
		case err == ErrRest:
			return true, nil
		case k.stop.Load():
			io.WriteString(k.c, "bye")
			k.c.Close()
			return false, nil
		case err != nil:
			if errors.Is(err, os.ErrDeadlineExceeded) {
				k.r.late.Add(1)
				io.WriteString(k.c, "late")
			}
			k.c.Close()
			return false, err
		}
		switch b[0] {
		case 'W':
			Waits(k.c)
			<-k.r.goOn
		case 'B':
			k.busy = true
			Waits(k.c)
		case 'R':
			k.busy = false
		case 'D':
			k.c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		case 'L':
			k.c.SetReadDeadline(time.Now().Add(time.Hour))
		}
		if said := newNowWriter(k.c.(syscall.Conn)).write(b[:n]); said < n {
			k.c.Write(b[said:n])
		}
		if !k.busy {
			return true, nil
		}
	}
}

// A stage is a server of reciters.
type stage struct {
	*Server
	*reciter
	t *testing.T
}

func recite(t *testing.T, r *reciter) *stage {
	t.Helper()
	g := &stage{startServer(t, DefaultLimits(), r), r, t}
	done := make(chan error, 1)
	go func() { done <- g.Serve() }()
	t.Cleanup(func() {
		if err := g.Close(t.Context()); err != nil && !errors.Is(err, t.Context().Err()) {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if g.first != nil {
			t.Error("a connection is left")
		}
	})
	return g
}

func (g *stage) dial() net.Conn {
	g.t.Helper()
	c, err := net.Dial("tcp", g.Addrs()[0].String())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}

// want reads what is to come.
func want(t *testing.T, c net.Conn, text string) {
	t.Helper()
	b := make([]byte, len(text))
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("got %q, %v, want %q", b, err, text)
	}
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	want(t, c, text)
}

// Connections that rest have no goroutines, and are not known to Go's poller
// unless somebody had to wait in them; what comes is served all the same, also by
// those that are.
func TestRestingConnections(t *testing.T) {
	g := recite(t, &reciter{opened: make(chan *recital, 300)})
	before := runtime.NumGoroutine()
	var conns []net.Conn
	for i := range 300 {
		c := g.dial()
		conns = append(conns, c)
		if i%3 == 0 {
			say(t, c, "B")
			say(t, c, "b")
			say(t, c, "R")
		}
		say(t, c, "x")
	}
	for n := 0; n <= keepWaiting; n++ { // those that have just been served may not be back yet
		runtime.Gosched()
	}
	patience := time.Now().Add(time.Minute)
	for runtime.NumGoroutine() > before+2*keepWaiting {
		if time.Now().After(patience) {
			t.Fatalf("%d goroutines for %d connections that rest", runtime.NumGoroutine()-before, len(conns))
		}
		time.Sleep(time.Millisecond)
	}
	for _, c := range conns {
		say(t, c, "y")
		say(t, c, "z")
	}
	known := 0
	for range conns {
		if k := <-g.opened; k.c.(*socket).open.Load() != nil {
			known++
		}
	}
	if known > 100 { // what had come already was not waited for
		t.Errorf("Go's poller knows %d, at most 100 were waited for", known)
	}
}

// One that waits holds up no other, and rests again afterwards.
func TestConnectionThatWaits(t *testing.T) {
	g := recite(t, &reciter{goOn: make(chan struct{})})
	var waiting []net.Conn
	for range 2 * keepWaiting {
		c := g.dial()
		io.WriteString(c, "W")
		waiting = append(waiting, c)
		say(t, g.dial(), "x")
	}
	for range waiting {
		g.goOn <- struct{}{}
	}
	for _, c := range waiting {
		want(t, c, "W")
		say(t, c, "again")
	}
}

// A deadline is met by a connection that rests, also where it was moved.
func TestRestingConnectionIsLate(t *testing.T) {
	g := recite(t, &reciter{})
	for _, said := range []string{"D", "LD", "xLxD"} {
		c := g.dial()
		for _, word := range said {
			say(t, c, string(word))
		}
		want(t, c, "late")
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: %v, want the end", said, err)
		}
	}
	if n := g.late.Load(); n != 3 {
		t.Errorf("%d were late", n)
	}
}

// Who stops them has those say goodbye that rest, those that wait, and those that
// have said nothing yet.
func TestGoodbyeToWhatRests(t *testing.T) {
	g := recite(t, &reciter{opened: make(chan *recital, 10)})
	rests, waits, silent := g.dial(), g.dial(), g.dial()
	say(t, rests, "x")
	say(t, waits, "B")
	for range 3 {
		<-g.opened
	}
	for _, v := range g.all() {
		v.by.Stop()
	}
	for _, c := range []net.Conn{rests, waits, silent} {
		want(t, c, "bye")
	}
}

// A connection that is closed while it rests ends; one that its peer closes, too.
func TestRestingConnectionIsClosed(t *testing.T) {
	g := recite(t, &reciter{opened: make(chan *recital, 2)})
	ours, theirs := g.dial(), g.dial()
	say(t, ours, "x")
	say(t, theirs, "x")
	theirs.Close()
	for range 2 {
		k := <-g.opened
		if k.c.RemoteAddr().String() != ours.LocalAddr().String() {
			continue
		}
		if local := k.c.LocalAddr().String(); local != ours.RemoteAddr().String() {
			t.Errorf("the local address is %s", local)
		}
		if err := k.c.Close(); err != nil {
			t.Error(err)
		}
		if err := k.c.Close(); err == nil {
			t.Error("closed twice")
		}
		if _, err := k.c.Write([]byte("x")); err == nil {
			t.Error("written to what is closed")
		}
		if _, err := k.read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("reading what is closed: %v", err)
		}
	}
	if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v, want the end", err)
	}
}

// Connections that come, say things of all kinds, are stopped and go, many at
// once, are all served to their end.
func TestRestlessConnections(t *testing.T) {
	g := recite(t, &reciter{goOn: make(chan struct{}), opened: make(chan *recital, 1000)})
	ended := make(chan struct{})
	go func() { // somebody who lets go, and stops some of them
		for n := 0; ; n++ {
			select {
			case g.goOn <- struct{}{}:
			case k := <-g.opened:
				if n%5 == 0 {
					k.Stop()
				}
			case <-ended:
				return
			}
		}
	}()
	var peers sync.WaitGroup
	for peer := range uint64(8) {
		peers.Go(func() {
			random := rand.New(rand.NewPCG(peer, 1))
			for range 60 {
				c, err := net.Dial("tcp", g.Addrs()[random.IntN(2)].String())
				if err != nil {
					t.Error(err)
					return
				}
				c.SetReadDeadline(time.Now().Add(time.Minute))
				for range random.IntN(12) {
					word := []string{"x", "W", "B", "R", "L", "several words"}[random.IntN(6)]
					b := make([]byte, len(word))
					if _, err := io.WriteString(c, word); err != nil {
						break
					}
					if random.IntN(10) == 0 {
						break
					}
					if _, err := io.ReadFull(c, b); err != nil {
						if e, is := err.(net.Error); is && e.Timeout() {
							t.Error("no answer to", word)
						}
						break
					}
				}
				c.Close()
			}
		})
	}
	peers.Wait()
	for patience := time.Now().Add(time.Minute); len(g.all()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(patience) {
			t.Fatalf("%d connections are left", len(g.all()))
		}
	}
	close(ended)
}

// What comes is served however long nothing came: as connections come, when that
// has just ended, and long after.
func TestConnectionsThatComeNowAndThen(t *testing.T) {
	g := recite(t, &reciter{})
	c := g.dial()
	say(t, c, "x")
	for pause := range 3 * eagerWait {
		time.Sleep(time.Duration(pause) * time.Millisecond)
		if pause%2 == 0 {
			c = g.dial()
		}
		say(t, c, "y")
		say(t, g.dial(), "z")
		for range eagerWaits + 1 {
			say(t, c, "y")
		}
		time.Sleep(2 * eagerWait * time.Millisecond)
		say(t, c, "z")
	}
}
