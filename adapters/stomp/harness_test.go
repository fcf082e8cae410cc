package stomp_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/adapters/stomp"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/seglog"
)

// patience bounds every wait of a test.
const patience = time.Minute

var noDeadline time.Time

// A gateway is a broker with its log and a STOMP listener on loopback.
type gateway struct {
	t        testing.TB
	address  string
	broker   *core.Broker
	server   *adapters.Server
	registry *prometheus.Registry
	dir      string
	stop     func()
	pipe     func() net.Conn // dials, in a bubble
	bare     func() net.Conn // likewise, and reads nothing by itself
}

// start starts one; options change its limits and authorizer.
func start(t testing.TB, options ...func(*adapters.Limits, *core.Options)) *gateway {
	t.Helper()
	return startIn(t, t.TempDir(), options...)
}

func startIn(t testing.TB, dir string, options ...func(*adapters.Limits, *core.Options)) *gateway {
	t.Helper()
	return startWith(t, dir, nil, options...)
}

func startWith(t testing.TB, dir string, secure *tls.Config, options ...func(*adapters.Limits, *core.Options)) *gateway {
	t.Helper()
	ctx := t.Context()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	limits := adapters.DefaultLimits()
	limits.Handshake, limits.Stall = patience, patience // the machine may stand still
	o := core.Options{Logger: log}
	for _, option := range options {
		option(&limits, &o)
	}
	o.Limits = limits.Limits
	engine, err := seglog.Open(ctx, seglog.Options{Dir: dir, SegmentBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	o.Engine = engine
	broker, err := core.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	gate := adapters.NewGate(limits)
	s := stomp.New(broker, stomp.Options{Limits: limits, Gate: gate, Metrics: adapters.NewMetrics(registry), Logger: log})
	server := adapters.NewServer("stomp", []adapters.Endpoint{{Address: "127.0.0.1:0", TLS: secure}}, gate, s, log)
	if err := server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); server.Serve() }()
	g := &gateway{t: t, address: server.Addrs()[0].String(), broker: broker, server: server, registry: registry, dir: dir}
	stopped := false
	g.stop = func() {
		if stopped {
			return
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.Close(ctx); err != nil {
			t.Errorf("closing the server: %v", err)
		}
		<-served
		if err := broker.Close(ctx); err != nil {
			t.Errorf("closing the broker: %v", err)
		}
	}
	t.Cleanup(g.stop)
	return g
}

// refused is how often something was refused for a reason.
func (g *gateway) refused(reason string) int {
	return g.counter("sluice_refused_total", "reason", reason)
}

func (g *gateway) counter(name, label, value string) int {
	g.t.Helper()
	families, err := g.registry.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == label && l.GetValue() == value {
					return int(m.GetCounter().GetValue())
				}
			}
		}
	}
	return 0
}

// A peer is a client that sends and reads plain text. In what it sends "^@"
// stands for NUL.
type peer struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
	back []reply // read, but not wanted yet
}

func (g *gateway) dial() *peer {
	g.t.Helper()
	if g.pipe != nil {
		c := g.pipe()
		c.SetDeadline(time.Now().Add(eternity))
		return &peer{t: g.t, conn: c, in: bufio.NewReader(c)}
	}
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * patience))
	return &peer{t: g.t, conn: c, in: bufio.NewReader(c)}
}

// connect dials and connects with a version.
func (g *gateway) connect(version string, headers ...string) *peer {
	g.t.Helper()
	p := g.dial()
	p.send("CONNECT", append([]string{"accept-version:" + version, "host:test"}, headers...)...)
	p.expect("CONNECTED\n")
	return p
}

// write sends text as it is.
func (p *peer) write(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, strings.ReplaceAll(text, "^@", "\x00")); err != nil {
		p.t.Fatal(err)
	}
}

// send sends a frame. A line that begins with a space is the body.
func (p *peer) send(command string, lines ...string) {
	p.t.Helper()
	body := ""
	var b strings.Builder
	b.WriteString(command + "\n")
	for _, l := range lines {
		if rest, ok := strings.CutPrefix(l, " "); ok {
			body = rest
			continue
		}
		b.WriteString(l + "\n")
	}
	p.write(b.String() + "\n" + body + "^@")
}

// A reply is one frame of the broker's.
type reply struct {
	command string
	headers [][2]string // not unescaped
	body    string
}

func (r reply) header(name string) string {
	for _, h := range r.headers {
		if h[0] == name {
			return h[1]
		}
	}
	return ""
}

func (r reply) String() string {
	var b strings.Builder
	b.WriteString(r.command + "\n")
	for _, h := range r.headers {
		b.WriteString(h[0] + ":" + h[1] + "\n")
	}
	return b.String() + "\n" + r.body + "^@"
}

// frame reads the next frame; io.EOF where the connection ends instead.
func (p *peer) frame() (reply, error) {
	var r reply
	if len(p.back) > 0 {
		r, p.back = p.back[0], p.back[1:]
		return r, nil
	}
	for r.command == "" {
		line, err := p.in.ReadString('\n')
		if err != nil {
			return r, err
		}
		r.command = strings.TrimSuffix(line, "\n")
	}
	length := -1
	for {
		line, err := p.in.ReadString('\n')
		if err != nil {
			return r, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		r.headers = append(r.headers, [2]string{name, value})
		if name == "content-length" && length < 0 {
			length = 0
			for _, c := range value {
				length = length*10 + int(c-'0')
			}
		}
	}
	if length < 0 {
		body, err := p.in.ReadString(0)
		r.body = strings.TrimSuffix(body, "\x00")
		return r, err
	}
	body := make([]byte, length+1)
	_, err := io.ReadFull(p.in, body)
	if err == nil && body[length] != 0 {
		p.t.Errorf("no NUL behind %d bytes", length)
	}
	r.body = string(body[:length])
	return r, err
}

// read reads a frame, which must come.
func (p *peer) read() reply {
	p.t.Helper()
	r, err := p.frame()
	if err != nil {
		p.t.Fatalf("no frame: %v", err)
	}
	return r
}

// expect reads a frame that must contain every text.
func (p *peer) expect(texts ...string) reply {
	p.t.Helper()
	r := p.read()
	for _, text := range texts {
		if !strings.Contains(r.String(), text) {
			p.t.Fatalf("want %q in\n%s", text, r)
		}
	}
	return r
}

// receipt reads a receipt. Messages before it wait to be read.
func (p *peer) receipt(id string) {
	p.t.Helper()
	var messages []reply
	for {
		r := p.read()
		if r.command != "MESSAGE" {
			if want := "RECEIPT\nreceipt-id:" + id + "\n"; !strings.HasPrefix(r.String(), want) {
				p.t.Fatalf("want %q, not\n%s", want, r)
			}
			break
		}
		messages = append(messages, r)
	}
	p.back = append(messages, p.back...)
}

// expectEnd reads that the connection ends.
func (p *peer) expectEnd() {
	p.t.Helper()
	if r, err := p.frame(); err == nil {
		p.t.Fatalf("want the connection's end, not\n%s", r)
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		p.t.Fatal("the connection does not end")
	}
}

// expectError reads an ERROR that contains every text, and the end.
func (p *peer) expectError(texts ...string) reply {
	p.t.Helper()
	r := p.expect(append([]string{"ERROR\n"}, texts...)...)
	p.expectEnd()
	return r
}
