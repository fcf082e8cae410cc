package ws

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// patience bounds every wait of a test: the machine may stand still.
const patience = time.Minute

// A rig is a broker with a WebSocket door in front of it.
type rig struct {
	t      testing.TB
	broker *core.Broker
	engine *coretest.Engine
	server *Server
	http   *httptest.Server
	counts *prometheus.Registry
	pipes  *pipes // in a bubble
	stop   func()
}

type rigOptions struct {
	Options
	authorizer core.Authorizer
	tls        bool
	bubble     bool
}

// pipes are what a rig listens on in a bubble of testing/synctest, where no
// socket can be.
type pipes struct {
	conns chan net.Conn
	ended chan struct{}
	once  sync.Once
}

func inBubble(o *rigOptions) { o.bubble = true }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.ended) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

// dial connects; the connection takes nothing that is not read from it.
func (p *pipes) dial(_, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func newRig(t testing.TB, change ...func(*rigOptions)) *rig {
	t.Helper()
	r := &rig{t: t, engine: coretest.NewEngine(), counts: prometheus.NewRegistry()}
	o := rigOptions{Options: Options{
		Limits: adapters.DefaultLimits(), Metrics: adapters.NewMetrics(r.counts), Logger: slog.New(slog.DiscardHandler),
	}}
	o.Limits.Handshake, o.Limits.Stall = patience, patience
	for _, f := range change {
		f(&o)
	}
	o.Gate = adapters.NewGate(o.Limits)
	var err error
	r.broker, err = core.Open(t.Context(), core.Options{Engine: r.engine, Authorizer: o.authorizer, Limits: o.Limits.Limits, Logger: o.Logger})
	if err != nil {
		t.Fatal(err)
	}
	r.server = New(r.broker, o.Options)
	r.http = httptest.NewUnstartedServer(r.server)
	r.http.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	if o.bubble {
		r.http.Listener.Close()
		r.pipes = &pipes{conns: make(chan net.Conn), ended: make(chan struct{})}
		r.http.Listener = r.pipes
	}
	if o.tls {
		r.http.StartTLS()
	} else {
		r.http.Start()
	}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.server.Close(ctx); err != nil {
			t.Errorf("closing the server: %v", err)
		}
		r.http.Close()
		if err := r.broker.Close(ctx); err != nil {
			t.Errorf("closing the broker: %v", err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

// refused is how often something was refused for a reason.
func (r *rig) refused(reason string) float64 {
	all, err := r.counts.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() != "sluice_refused_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" && l.GetValue() == reason {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	return 0
}

func (r *rig) wantRefused(reason string) {
	r.t.Helper()
	eventually(r.t, "counted as "+reason, func() bool { return r.refused(reason) > 0 })
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s in time", what)
		}
	}
}

func (r *rig) url(path string) string { return "ws" + strings.TrimPrefix(r.http.URL, "http") + path }

// dial connects; the answer is what the handshake was refused with.
func (r *rig) dial(path string, header http.Header, subprotocols ...string) (*client, *http.Response) {
	r.t.Helper()
	d := websocket.Dialer{Subprotocols: subprotocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if r.pipes != nil {
		d.NetDial = r.pipes.dial
	}
	ws, answer, err := d.Dial(r.url(path), header)
	if err != nil {
		if answer == nil {
			r.t.Fatal(err)
		}
		return nil, answer
	}
	c := &client{t: r.t, ws: ws}
	r.t.Cleanup(func() { ws.Close() })
	return c, answer
}

// native connects by the native protocol and takes the welcome.
func (r *rig) native() *client {
	r.t.Helper()
	c, answer := r.dial("/ws", nil)
	if c == nil {
		r.t.Fatalf("refused: %s", answer.Status)
	}
	if got := c.next(); !strings.HasPrefix(got, `{"op":"welcome"`) {
		r.t.Fatalf("got %s for a welcome", got)
	}
	return c
}

// A client is a WebSocket client of the library's.
type client struct {
	t      testing.TB
	ws     *websocket.Conn
	coding coding // CBOR: what is sent and comes is JSON here all the same
}

func (c *client) send(text string) {
	c.t.Helper()
	kind, message := websocket.TextMessage, []byte(text)
	if c.coding == codingCBOR {
		kind, message = websocket.BinaryMessage, toCBOR(c.t, text)
	}
	if err := c.ws.WriteMessage(kind, message); err != nil {
		c.t.Fatal(err)
	}
}

// next is the next message, or "close <code> <text>".
func (c *client) next() string {
	c.t.Helper()
	return c.nextWithin(patience)
}

func (c *client) nextWithin(d time.Duration) string {
	c.t.Helper()
	c.ws.SetReadDeadline(time.Now().Add(d))
	kind, b, err := c.ws.ReadMessage()
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		return strings.TrimSpace("close " + strconv.Itoa(closed.Code) + " " + closed.Text)
	}
	if err != nil {
		c.t.Fatalf("reading: %v", err)
	}
	if c.coding == codingCBOR && kind != websocket.BinaryMessage {
		c.t.Fatalf("got a message of kind %d: %q", kind, b)
	}
	if c.coding == codingCBOR {
		return fromCBOR(c.t, b)
	}
	return string(b)
}

func (c *client) want(text string) {
	c.t.Helper()
	if got := c.next(); got != text {
		c.t.Fatalf("got  %s\nwant %s", got, text)
	}
}

// quiet fails if something comes before the answer to a ping of its own.
func (c *client) quiet() {
	c.t.Helper()
	c.send(`{"op":"ping","req":"quiet"}`)
	if got := c.next(); !strings.HasPrefix(got, `{"op":"pong","req":"quiet"`) {
		c.t.Fatalf("got %s where nothing was to come", got)
	}
}

// raw connects without a library, says the handshake and returns the socket.
func (r *rig) raw(path, subprotocol string) net.Conn {
	r.t.Helper()
	dial := net.Dial
	if r.pipes != nil {
		dial = r.pipes.dial
	}
	conn, err := dial("tcp", strings.TrimPrefix(r.http.URL, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	request := "GET " + path + " HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	if subprotocol != "" {
		request += "Sec-WebSocket-Protocol: " + subprotocol + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		r.t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	var answer []byte
	for !strings.HasSuffix(string(answer), "\r\n\r\n") {
		var b [1]byte
		if _, err := conn.Read(b[:]); err != nil {
			r.t.Fatalf("handshake: %q, %v", answer, err)
		}
		answer = append(answer, b[0])
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 101 ") || !strings.Contains(string(answer), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
		r.t.Fatalf("handshake: %q", answer)
	}
	return conn
}

// masked is a client's frame.
func masked(first byte, payload string) []byte {
	frame := appendHeader(nil, first, len(payload))
	frame[1] |= 0x80
	mask := [4]byte{1, 2, 3, 4}
	frame = append(frame, mask[:]...)
	for i := range len(payload) {
		frame = append(frame, payload[i]^mask[i%4])
	}
	return frame
}

// readFrame reads a server's frame.
func readFrame(t testing.TB, conn net.Conn) (first byte, payload string) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	var h [2]byte
	if _, err := io.ReadFull(conn, h[:]); err != nil {
		t.Fatalf("reading a frame: %v", err)
	}
	n := int(h[1])
	if n == 126 {
		var l [2]byte
		io.ReadFull(conn, l[:])
		n = int(l[0])<<8 | int(l[1])
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatalf("reading a frame: %v", err)
	}
	return h[0], string(b)
}
