package stomp_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/adapters/stomp"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// bubble runs a test with a clock of its own, on a broker that keeps its log in
// memory: what is to happen in time happens at once and exactly then, and what
// does not happen is known not to.
func bubble(t *testing.T, test func(g *gateway), options ...func(*stomp.Options, *core.Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.NewTextHandler(io.Discard, nil))
		registry := prometheus.NewRegistry()
		so := stomp.Options{Limits: adapters.DefaultLimits(), Metrics: adapters.NewMetrics(registry), Logger: log}
		co := core.Options{Engine: coretest.NewEngine(), Logger: log}
		for _, option := range options {
			option(&so, &co)
		}
		so.Gate = adapters.NewGate(so.Limits)
		co.Limits = so.Limits.Limits
		broker, err := core.Open(context.Background(), co)
		if err != nil {
			t.Fatal(err)
		}
		s := stomp.New(broker, so)
		ctx, cancel := context.WithCancel(context.Background())
		var serving sync.WaitGroup
		g := &gateway{t: t, broker: broker, registry: registry}
		g.bare = func() net.Conn {
			client, server := net.Pipe()
			serving.Go(func() { s.ServeConn(ctx, server) })
			t.Cleanup(func() { client.Close() })
			return client
		}
		g.pipe = func() net.Conn { return newLine(g.bare()) }
		// Cleanups run in the reverse order: connections, sockets, broker.
		t.Cleanup(func() {
			cancel()
			serving.Wait()
			if err := broker.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		test(g)
	})
}

// A line is a connection in a bubble. Like a socket, and unlike net.Pipe's, it
// takes what the broker sends without waiting for its reader.
type line struct {
	net.Conn
	mu   sync.Mutex // guards what follows
	more sync.Cond
	got  []byte
	err  error
	wait time.Time // the deadline of reads
	held bool      // takes nothing
}

// hold has the line take nothing more, or take again.
func (l *line) hold(held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = held
	l.more.Broadcast()
}

func newLine(c net.Conn) *line {
	l := &line{Conn: c}
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

func (l *line) Read(b []byte) (int, error) {
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

func (l *line) SetDeadline(t time.Time) error { return l.SetReadDeadline(t) }

func (l *line) SetReadDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait = t
	return nil
}

// eternity bounds what is waited for in a bubble, where waiting takes no time.
const eternity = 1000 * time.Hour

// calm is how long nothing has to come in a bubble, where nothing is to come.
const calm = 10 * time.Second

// longAgo is a deadline by which only what has come is read.
var longAgo = time.Unix(1, 0)

// errLate is a read's end at its deadline.
var errLate error = lateError{}

type lateError struct{}

func (lateError) Error() string   { return "nothing came in time" }
func (lateError) Timeout() bool   { return true }
func (lateError) Temporary() bool { return true }

// quiet checks that nothing comes within a time, in a bubble.
func (p *peer) quiet(within time.Duration) {
	p.t.Helper()
	if len(p.back) > 0 {
		p.t.Fatalf("want nothing, not\n%s", p.back[0])
	}
	p.skipEnds()
	p.conn.SetReadDeadline(time.Now().Add(within))
	defer func() { p.conn.SetReadDeadline(time.Now().Add(eternity)) }()
	if _, err := p.in.ReadByte(); err == nil {
		p.in.UnreadByte()
		p.t.Fatalf("want nothing, not\n%s", p.read())
	} else if e, ok := err.(net.Error); !ok || !e.Timeout() {
		p.t.Fatalf("want nothing, not the end: %v", err)
	}
}

// between reads a byte that must come between two times from now, in a bubble.
func (p *peer) between(least, most time.Duration) byte {
	p.t.Helper()
	begin := time.Now()
	p.conn.SetReadDeadline(begin.Add(most))
	defer func() { p.conn.SetReadDeadline(time.Now().Add(eternity)) }()
	b, err := p.in.ReadByte()
	if took := time.Since(begin); err != nil || took < least {
		p.t.Fatalf("%q, %v after %v: want it between %v and %v", b, err, took, least, most)
	}
	return b
}

// skipEnds takes the line ends that have come behind a frame, in a bubble.
func (p *peer) skipEnds() {
	synctest.Wait()
	p.conn.SetReadDeadline(time.Now())
	defer func() { p.conn.SetReadDeadline(time.Now().Add(eternity)) }()
	for {
		if b, err := p.in.Peek(1); err != nil || b[0] != '\n' {
			return
		}
		p.in.Discard(1)
	}
}
