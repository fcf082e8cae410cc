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
	"github.com/sluicemq/sluice/adapters/adaptertest"
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
			serving.Go(func() { adapters.ServeConn(ctx, s, server) })
			t.Cleanup(func() { client.Close() })
			return client
		}
		g.pipe = func() net.Conn { return adaptertest.NewLine(g.bare()) }
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

// eternity bounds what is waited for in a bubble, where waiting takes no time.
const eternity = 1000 * time.Hour

// calm is how long nothing has to come in a bubble, where nothing is to come.
const calm = 10 * time.Second

// longAgo is a deadline by which only what has come is read.
var longAgo = time.Unix(1, 0)

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
