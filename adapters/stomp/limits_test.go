package stomp_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/adapters/stomp"
	"github.com/sluicemq/sluice/core"
)

func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	bubble(t, func(g *gateway) {
		silent, slow := g.dial(), g.dial()
		begin := time.Now()
		written := make(chan struct{})
		go func() {
			defer close(written)
			// A byte now and then does not buy time.
			for _, c := range "CONNECT\naccept-version:1.2\n" {
				if _, err := slow.conn.Write([]byte(string(c))); err != nil {
					return
				}
				time.Sleep(500 * time.Millisecond)
			}
		}()
		silent.expectError("no CONNECT in time")
		slow.expectError("no CONNECT in time")
		<-written
		if d := time.Since(begin); d < 5*time.Second || d > 6*time.Second {
			t.Errorf("after %v", d)
		}
		if n := g.refused("handshake_timeout"); n != 2 {
			t.Errorf("counted %d", n)
		}
	})
}

// TestLimits breaks each limit; the reader's own are in TestReaderLimits.
func TestLimits(t *testing.T) {
	t.Parallel()
	g := start(t, func(l *adapters.Limits, _ *core.Options) {
		l.PreAuthBytes, l.ClientIDBytes, l.Subscriptions, l.MessageBytes, l.StompTransactionsBytes, l.PublishInFlight, l.StompTransactions = 1000, 10, 3, 10_000, 30_000, 2, 2
	})
	x := func(n int) string { return strings.Repeat("x", n) }
	connected := func(do func(p *peer)) func() *peer {
		return func() *peer {
			p := g.connect("1.2")
			do(p)
			return p
		}
	}
	for _, test := range []struct {
		reason, want string
		do           func() *peer
	}{
		{"frame_too_large", "Before CONNECTED", func() *peer {
			p := g.dial()
			p.write("CONNECT\naccept-version:1.2\nx:" + x(2000))
			return p
		}},
		{"client_id_too_long", "10 bytes", func() *peer {
			p := g.dial()
			p.send("CONNECT", "accept-version:1.2", "client-id:"+x(11))
			return p
		}},
		{"message_too_large", "10000 bytes", connected(func(p *peer) { p.write("SEND\ndestination:/topic/a\ncontent-length:10001\n\n") })},
		{"message_too_large", "4 destinations", connected(func(p *peer) {
			p.send("SEND", "destination:/queue/a,/queue/b,/topic/c,/topic/d", " "+x(9000))
		})},
		{"headers_too_many", "64 headers", connected(func(p *peer) { p.write("SEND\n" + strings.Repeat("a:b\n", 65) + "\n^@") })},
		{"header_too_long", "8192 bytes", connected(func(p *peer) { p.write("SEND\na:" + x(9000)) })},
		{"headers_too_long", "65536 bytes", connected(func(p *peer) { p.write("SEND\n" + strings.Repeat("a:"+x(8000)+"\n", 9)) })},
		{"subscriptions_too_many", "may have 3", connected(func(p *peer) {
			for i := range 4 {
				p.send("SUBSCRIBE", fmt.Sprint("id:", i), "destination:/topic/a")
			}
		})},
		{"subscriptions_too_many", "may have 3", connected(func(p *peer) {
			p.subscribe("0", "/topic/a,/topic/b")
			p.subscribe("1", "/topic/a")
			p.send("UNSUBSCRIBE", "id:0")
			p.subscribe("0", "/topic/a,/topic/b")
			p.send("SUBSCRIBE", "id:2", "destination:/topic/a")
		})},
		{"transactions_too_many", "2 open", connected(func(p *peer) {
			for i := range 3 {
				p.send("BEGIN", fmt.Sprint("transaction:", i))
			}
		})},
		{"transaction_too_large", "30000 bytes", connected(func(p *peer) {
			p.send("BEGIN", "transaction:t")
			for range 4 {
				p.send("SEND", "destination:/topic/a", "transaction:t", " "+x(9000))
			}
		})},
		{"transaction_too_large", "20 frames", connected(func(p *peer) {
			p.send("BEGIN", "transaction:t")
			for range 21 {
				p.send("SEND", "destination:/topic/a", "transaction:t", " x")
			}
		})},
		{"invalid_destination", "1024", connected(func(p *peer) { p.send("SEND", "destination:/topic/"+x(1025)) })},
	} {
		t.Run(test.reason, func(t *testing.T) {
			before := g.refused(test.reason)
			test.do().expectError(test.want)
			if n := g.refused(test.reason) - before; n != 1 {
				t.Errorf("counted %d", n)
			}
		})
	}
}

// Credit bounds what waits to be acknowledged: the default, what is asked, and
// at most the limit.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	g := start(t, func(l *adapters.Limits, _ *core.Options) { l.InFlight, l.MaxInFlight = 3, 5 })
	pub := g.connect("1.2")
	for i := range 10 {
		pub.publish("/queue/q", fmt.Sprint(i))
	}
	for header, want := range map[string]int{"x:none": 3, "prefetch-count:2": 2, "prefetch-count:0": 1, "activemq.prefetchSize:4": 4, "prefetch-count:1000": 5} {
		p := g.connect("1.2")
		p.subscribe("0", "/queue/q", header, "ack:client-individual")
		for range want {
			p.expect("MESSAGE\n")
		}
		p.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if r, err := p.frame(); err == nil {
			t.Errorf("%s: one too many:\n%s", header, r)
		}
		p.conn.Close()
		waitFor(t, func() bool { i, err := g.admin().Queue("q"); return err == nil && i.Consumers == 0 })
	}
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !what(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited too long")
		}
	}
}

// A client that reads nothing is sent no more than its credit, and closed once
// it stalls; the others do not notice.
func TestStalledReaders(t *testing.T) {
	t.Parallel()
	bubble(t, func(g *gateway) {
		c := g.bare()
		stalled := &peer{t: t, conn: c, in: bufio.NewReader(c)}
		stalled.send("CONNECT", "accept-version:1.2", "host:test")
		stalled.expect("CONNECTED\n")
		stalled.subscribe("0", "/topic/a")
		reader := g.connect("1.2")
		reader.subscribe("0", "/topic/a")
		pub := g.connect("1.2")
		begin := time.Now()
		body := strings.Repeat("x", 100_000)
		for range 200 {
			pub.publish("/topic/a", body)
			reader.expect("MESSAGE\n")
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the others waited for %v", took)
		}
		// A line end that nobody takes any more is written to who is closed.
		for time.Since(begin) < time.Minute {
			if _, err := stalled.conn.Write([]byte("\n")); err != nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(begin); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("closed after %v", took)
		}
	}, func(o *stomp.Options, _ *core.Options) { o.Limits.Stall, o.Limits.OutputBytes = 2*time.Second, 256<<10 })
}

// A client that asks without reading the answers is not read from.
func TestAnswersThatNobodyReads(t *testing.T) {
	t.Parallel()
	g := start(t, func(l *adapters.Limits, _ *core.Options) { l.Stall, l.OutputBytes = 500*time.Millisecond, 64<<10 })
	p := g.connect("1.2")
	id := strings.Repeat("r", 8000)
	p.conn.SetWriteDeadline(time.Now().Add(patience))
	for range 20_000 {
		if _, err := io.WriteString(p.conn, "BEGIN\ntransaction:t\nreceipt:"+id+"\n\n\x00ABORT\ntransaction:t\nreceipt:"+id+"\n\n\x00"); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Fatal("neither closed nor read from")
			}
			return
		}
	}
	t.Fatal("320 MB of receipts that nobody reads")
}
