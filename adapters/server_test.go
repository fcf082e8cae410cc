package adapters

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// An echo serves connections until its peer, or the server, ends them.
type echo struct{ goodbye string }

func (e echo) OpenConn(c net.Conn) Conn {
	ctx, stop := context.WithCancel(context.Background())
	return conn{func() error { return e.serve(ctx, c) }, stop}
}

// A conn is a Conn that never rests.
type conn struct {
	serve func() error
	stop  func()
}

func (c conn) Serve() (rests bool, err error) { return false, c.serve() }
func (c conn) Stop()                          { c.stop() }

func (e echo) serve(ctx context.Context, c net.Conn) error {
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := io.Copy(c, c)
	if ctx.Err() != nil {
		io.WriteString(c, e.goodbye)
	}
	c.Close()
	return err
}

func startServer(t *testing.T, limits Limits, serve ConnServer) *Server {
	t.Helper()
	s := NewServer("test", []Endpoint{{Address: "127.0.0.1:0"}, {Address: "127.0.0.1:0"}}, NewGate(limits), serve, slog.New(slog.DiscardHandler))
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestServerServesAndSaysGoodbye(t *testing.T) {
	s := startServer(t, DefaultLimits(), echo{"bye"})
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	var conns []net.Conn
	for _, a := range s.Addrs() {
		c, err := net.Dial("tcp", a.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		io.WriteString(c, "hello")
		b := make([]byte, 5)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
			t.Fatalf("got %q, %v", b, err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range conns {
		if b, err := io.ReadAll(c); err != nil || string(b) != "bye" {
			t.Errorf("got %q, %v", b, err)
		}
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", s.Addrs()[0].String()); err == nil {
		t.Error("it accepts after Close")
	}
}

// What does not end by itself is cut when the context of Close ends.
func TestServerCutsWhatStays(t *testing.T) {
	s := startServer(t, DefaultLimits(), deaf{})
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	c, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "x")
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err == nil {
		t.Error("Close says that all ended")
	}
	<-served
}

// deaf does not look at its context.
type deaf struct{}

func (deaf) OpenConn(c net.Conn) Conn {
	return conn{func() error {
		_, err := io.Copy(c, c)
		return err
	}, func() {}}
}

func TestStartFailsWhole(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for range 5 { // somebody else may take the port when it is free
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := free.Addr().String()
		free.Close()
		s := NewServer("test", []Endpoint{{Address: addr}, {Address: taken.Addr().String()}}, NewGate(DefaultLimits()), deaf{}, slog.New(slog.DiscardHandler))
		if err := s.Start(t.Context()); err == nil {
			t.Fatal("a taken address is no error")
		}
		if again, err := net.Listen("tcp", addr); err == nil {
			again.Close()
			return
		}
	}
	t.Fatal("the first address is still held")
}

func TestGateBoundsAnAddress(t *testing.T) {
	limits := DefaultLimits()
	limits.ConnsPerAddress, limits.ConnRatePerAddress, limits.LoginFailuresPerAddress = 3, 1000, 2
	g := NewGate(limits)
	far := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}
	other := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2)}
	near := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
	for i := range 3 {
		if !g.enter(far) {
			t.Fatalf("connection %d is refused", i+1)
		}
	}
	if g.enter(far) {
		t.Error("a fourth connection is taken")
	}
	if !g.enter(other) {
		t.Error("another address is refused")
	}
	g.leave(far)
	if !g.enter(far) {
		t.Error("refused after one has left")
	}
	for range 10 {
		if !g.enter(near) {
			t.Fatal("a loopback connection is refused")
		}
	}
	for i := range 2 {
		if !g.MayLogin(far) {
			t.Fatalf("login %d is refused", i+1)
		}
		g.LoginFailed(far)
	}
	if g.MayLogin(far) {
		t.Error("a third login after two failures is taken")
	}
	if !g.MayLogin(other) {
		t.Error("another address may not log in")
	}
}

// The addresses of one network of 64 bits are one host's to choose from, and
// count as one; those of IPv4 do not.
func TestGateKnowsNetworks(t *testing.T) {
	limits := DefaultLimits()
	limits.LoginFailuresPerAddress = 1
	g := NewGate(limits)
	at := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	g.LoginFailed(at("[2001:db8:0:1::1]:5"))
	g.LoginFailed(at("192.0.2.1:5"))
	g.LoginFailed(at("[::ffff:198.51.100.1]:5"))
	for addr, may := range map[string]bool{
		"[2001:db8:0:1::1]:6": false, "[2001:db8:0:1:ffff::2]:5": false, "[2001:db8:0:2::1]:5": true,
		"192.0.2.1:6": false, "192.0.2.2:5": true, "198.51.100.1:5": false, "[::1]:5": true, "127.0.0.1:5": true,
	} {
		if g.MayLogin(at(addr)) != may {
			t.Errorf("%s may log in: %v", addr, !may)
		}
	}
}

// together is an Authorizer that answers nobody before so many have asked, and
// those who are wrong before those who are right.
type together struct {
	core.AllowAll
	all, wrong sync.WaitGroup
}

func (a *together) Authenticate(_ context.Context, c core.Credentials) (*core.Principal, error) {
	a.all.Done()
	a.all.Wait()
	if string(c.Password) == "wrong" {
		return nil, core.ErrUnauthenticated
	}
	a.wrong.Wait()
	return &core.Principal{Name: c.User}, nil
}

// Who guesses many passwords at once has no more guesses than one by one: a
// right one among too many wrong ones is refused like they are.
func TestGateOfLoginsAtOnce(t *testing.T) {
	for failures, want := range map[int]error{1: nil, 2: ErrLogins} {
		limits := DefaultLimits()
		limits.LoginFailuresPerAddress = 2
		g, a := NewGate(limits), new(together)
		b, err := core.Open(t.Context(), core.Options{Engine: coretest.NewEngine(), Authorizer: a})
		if err != nil {
			t.Fatal(err)
		}
		far := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}
		a.all.Add(failures + 1)
		for range failures {
			a.wrong.Go(func() {
				_, err := g.Login(t.Context(), b, core.Credentials{User: "u", Password: []byte("wrong"), Remote: far}, nil)
				if !errors.Is(err, core.ErrUnauthenticated) {
					t.Errorf("a wrong one: %v", err)
				}
			})
		}
		c, err := g.Login(t.Context(), b, core.Credentials{User: "u", Password: []byte("right"), Remote: far}, nil)
		if !errors.Is(err, want) || (c == nil) != (want != nil) {
			t.Errorf("the right one after %d wrong ones: %v, %v", failures, c, err)
		}
		a.all.Add(1)
		if _, err := g.Login(t.Context(), b, core.Credentials{Remote: far}, nil); err != nil {
			t.Errorf("nobody guesses who shows nothing: %v", err)
		}
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestGateBoundsTheRate(t *testing.T) {
	limits := DefaultLimits()
	limits.ConnRatePerAddress = 2
	g := NewGate(limits)
	far := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}
	n := 0
	for range 100 {
		if g.enter(far) {
			n++
		}
	}
	if n < 2 || n > 12 {
		t.Errorf("%d of 100 connections at once", n)
	}
}

// The gate forgets addresses that are gone.
func TestGateForgets(t *testing.T) {
	g := NewGate(DefaultLimits())
	for i := range gateAddresses {
		g.LoginFailed(&net.TCPAddr{IP: net.IPv4(10, byte(i>>16), byte(i>>8), byte(i))})
	}
	for _, e := range g.addrs {
		e.seen = time.Now().Add(-2 * time.Minute)
	}
	held := netip.MustParseAddr("10.0.0.1")
	g.addrs[held].conns = 1
	g.enter(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)})
	if len(g.addrs) != 2 || g.addrs[held] == nil {
		t.Errorf("%d addresses are remembered", len(g.addrs))
	}
}

// A connection leaves the gate once, however often it is closed, and gives its
// socket to who can use it.
func TestGatedConn(t *testing.T) {
	limits := DefaultLimits()
	l, err := Listen(t.Context(), Endpoint{Address: "127.0.0.1:0"}, NewGate(limits))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := got.(syscall.Conn); !ok {
		t.Error("no socket")
	} else if _, err := s.SyscallConn(); err != nil {
		t.Error(err)
	}
	got.Close()
	if err := got.Close(); err == nil {
		t.Error("a second Close is no error")
	}
	if _, err := (&gatedConn{Conn: discardConn{}}).SyscallConn(); err == nil {
		t.Error("a socket where there is none")
	}
}

// A meeting opens a connection once as many have come as it waits for, and serves
// it until as many are served.
type meeting struct{ opening, served *sync.WaitGroup }

func (m meeting) OpenConn(c net.Conn) Conn {
	return conn{func() error {
		Waits(c)
		m.opening.Done()
		m.opening.Wait()
		m.served.Done()
		m.served.Wait()
		return nil
	}, func() {}}
}

// One connection that is being opened, or served, keeps no other from it.
func TestServerServesManyAtOnce(t *testing.T) {
	var opening, all sync.WaitGroup
	opening.Add(20)
	all.Add(20)
	s := startServer(t, DefaultLimits(), meeting{&opening, &all})
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	for i := range 20 {
		c, err := net.Dial("tcp", s.Addrs()[i%2].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	all.Wait()
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// While nothing can be accepted the log is told now and then, not at each try.
func TestAcceptFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		g, log := NewGate(DefaultLimits()), slog.New(slog.NewTextHandler(&said, nil))
		for range 25 * time.Second / acceptPause {
			g.AcceptFailed(log, syscall.EMFILE)
			time.Sleep(acceptPause)
		}
		if n := strings.Count(said.String(), "too many open files"); n != 3 {
			t.Errorf("in 25 s the log was told %d times, want 3\n%s", n, said.String())
		}
	})
}
