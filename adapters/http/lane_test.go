package http_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A wire is a connection that says what it is told and reads answers.
type wire struct {
	*door
	net.Conn
	r *bufio.Reader
}

func (d *door) dial() *wire {
	d.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * patience))
	return &wire{d, c, bufio.NewReader(c)}
}

func (w *wire) say(s string) {
	w.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		w.Fatal(err)
	}
}

// hear reads an answer that must have a status.
func (w *wire) hear(status int) answer {
	w.Helper()
	resp, err := nethttp.ReadResponse(w.r, nil)
	if err != nil {
		w.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	if resp.StatusCode != status {
		w.Fatalf("%s, want %d\n%s", resp.Status, status, b)
	}
	return answer{resp, string(b)}
}

func plain(topic, body string) string {
	return fmt.Sprintf("POST /t/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", topic, len(body), body)
}

// Requests that came together are answered in their order, whichever way they
// take.
func TestPipelining(t *testing.T) {
	d := open(t)
	w := d.dial()
	w.say(plain("a", "1") + plain("a/b", "2") + plain("$SYS/no", "x") + plain("a", "3") +
		"GET /t/a?limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n" + plain("a", "4") + "GET /last/none HTTP/1.1\r\nHost: localhost\r\n\r\n")
	for i, topic := range []string{"a", "a/b", "", "a"} {
		if topic == "" {
			d.isProblem(w.hear(403), 403, "forbidden")
			continue
		}
		a := w.hear(201)
		if want := fmt.Sprintf(`{"t":"%s","o":%s}`+"\n", topic, a.Header.Get("X-Offset")); a.body != want || a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%d: %s %v, want %s", i, a.body, a.Header, want)
		}
		if at, err := nethttp.ParseTime(a.Header.Get("Date")); err != nil || time.Since(at).Abs() > time.Minute {
			t.Errorf("%v", a.Header)
		}
	}
	if a := w.hear(200); !strings.Contains(a.body, `"d":"3"`) {
		t.Errorf("%s", a.body)
	}
	w.hear(201)
	d.isProblem(w.hear(404), 404, "not-found")
}

// A lane and net/http give the same answer, but for the message's offset.
func TestLanesAnswerAlike(t *testing.T) {
	d := open(t)
	w := d.dial()
	w.say(plain("a", "x"))
	lane := w.hear(201)
	w.say("POST /t/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nX-Key: k\r\n\r\nx")
	other := w.hear(201)
	for _, a := range []answer{lane, other} {
		a.Header.Del("Date")
	}
	if lane.body != `{"t":"a","o":1}`+"\n" || other.body != `{"t":"a","o":2}`+"\n" {
		t.Errorf("%s %s", lane.body, other.body)
	}
	lane.Header.Set("X-Offset", "2")
	if fmt.Sprint(lane.Header) != fmt.Sprint(other.Header) || lane.ContentLength != other.ContentLength {
		t.Errorf("%v, %v", lane.Header, other.Header)
	}
	for _, m := range d.want(200, "GET", "/t/a", "").messages(t) {
		if m.Type != "" {
			t.Errorf("%+v", m)
		}
	}
	w = d.dial()
	w.say(strings.Replace(plain("a", "x"), "Host", "Content-Type: application/x-www-form-urlencoded\r\nHost", 1))
	w.hear(201)
	w.say(strings.Replace(plain("a", "x"), "Host", "Content-Type: image/png\r\nHost", 1))
	w.hear(201)
	ms := d.want(200, "GET", "/t/a?from=-2", "").messages(t)
	if ms[0].Type != "" || ms[1].Type != "image/png" {
		t.Errorf("%+v", ms)
	}
}

// A request that comes in pieces, each in a packet of its own, is the same.
func TestPieces(t *testing.T) {
	d := open(t)
	w := d.dial()
	request := plain("a", "hello")
	for i := range request {
		w.say(request[i : i+1])
	}
	w.hear(201)
	w.say(request + request[:20])
	w.hear(201)
	w.say(request[20:])
	w.hear(201)
	// As long as a lane takes, and longer.
	for _, size := range []int{3000, 64 << 10, 64<<10 + 1, 1 << 20} {
		w.say(plain("a", strings.Repeat("y", size)))
		w.hear(201)
	}
	w.say(plain("a", strings.Repeat("y", 1<<20+1)))
	d.isProblem(w.hear(413), 413, "too-large")
}

func TestLanesOfTheSlow(t *testing.T) {
	d := open(t, func(o *http.Options, _ *core.Options) { o.Limits.Handshake = 200 * time.Millisecond })
	var w *wire
	d.inTime(func() error { w = d.dial(); return w.tell(plain("a", "x")) })
	w.hear(201)
	request := plain("a", "hello")
	w.say(request[:len(request)-2])
	d.isProblem(w.hear(408), 408, "slow-body")
	if _, err := w.r.ReadByte(); err != io.EOF {
		t.Errorf("behind a slow body: %v", err)
	}
	d.inTime(func() error {
		w := d.dial()
		if _, err := io.WriteString(w, request[:30]); err != nil {
			return err
		}
		b, err := io.ReadAll(w.r)
		if len(b) > 0 {
			t.Errorf("a slow header: %q", b)
		}
		return err
	})
	var ms []message
	d.inTime(func() error {
		resp, err := d.client.Get("http://" + d.addr + "/t/a")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		ms = answer{resp, string(b)}.messages(t)
		return err
	})
	for _, m := range ms {
		if m.text() != "x" {
			t.Errorf("published is %q", m.text())
		}
	}
	if len(ms) == 0 {
		t.Error("nothing is published")
	}
}

// inTime tries until there is no error: on a machine that stands still, the
// milliseconds that a connection has may be over before its first byte is said.
func (d *door) inTime(try func() error) {
	d.Helper()
	d.eventually(func() bool { return try() == nil })
}

// tell says something and waits for the first byte of the answer.
func (w *wire) tell(s string) error {
	if _, err := io.WriteString(w, s); err != nil {
		return err
	}
	_, err := w.r.Peek(1)
	return err
}

func TestLanesRefuse(t *testing.T) {
	engine := coretest.NewEngine()
	d := open(t, func(_ *http.Options, o *core.Options) { o.Engine = engine })
	w := d.dial()
	w.say(strings.Replace(plain("a", "x"), "localhost", "rebound.example", 1))
	d.isProblem(w.hear(421), 421, "foreign-host")
	w = d.dial()
	w.say(plain("a", "x"))
	w.hear(201)
	w.say(strings.Replace(plain("a", "x"), "localhost", "rebound.example", 1))
	d.isProblem(w.hear(421), 421, "foreign-host")
	w = d.dial()
	w.say(plain("a", "x"))
	w.hear(201)
	engine.Fail(errors.New("the disk is on fire"))
	w.say(plain("a", "x") + plain("a", "x"))
	for range 2 {
		a := w.hear(503)
		d.isProblem(a, 503, "storage-failed")
		if a.Header.Get("Retry-After") == "" {
			t.Errorf("%v", a.Header)
		}
	}
}

// nobody lets nobody in who shows nothing.
type nobody struct{ core.AllowAll }

func (nobody) Authenticate(_ context.Context, c core.Credentials) (*core.Principal, error) {
	if c.User == "" {
		return nil, core.ErrUnauthenticated
	}
	return &core.Principal{Name: c.User}, nil
}

func TestLanesNeedCredentials(t *testing.T) {
	d := open(t, func(_ *http.Options, o *core.Options) { o.Authorizer = nobody{} })
	w := d.dial()
	w.say(plain("a", "x"))
	d.isProblem(w.hear(401), 401, "unauthenticated")
	w.say(strings.Replace(plain("a", "x"), "Host", "Authorization: Basic dTpw\r\nHost", 1))
	w.hear(201)
}

// Answers that are due are given before the server closes, and idle peers do
// not hold it up.
func TestLanesEnd(t *testing.T) {
	d := open(t)
	idle, busy := d.dial(), d.dial()
	idle.say(plain("a", "x"))
	idle.hear(201)
	busy.say(strings.Repeat(plain("a", "x"), 100))
	busy.hear(201)
	d.server.Close(t.Context())
	for range 99 {
		// What had not been read is not answered, and may end the connection
		// by a reset.
		if _, err := busy.r.Peek(1); err == io.EOF || errors.Is(err, syscall.ECONNRESET) {
			break
		}
		busy.hear(201)
	}
	for _, w := range []*wire{idle, busy} {
		if _, err := w.r.ReadByte(); err == nil {
			t.Error("something follows")
		}
	}
}

// A peer that asks and does not read stops being read from.
func TestLanesPushBack(t *testing.T) {
	d := open(t, func(o *http.Options, _ *core.Options) {
		o.Limits.OutputBytes, o.Limits.Stall = 4<<10, 300*time.Millisecond
	})
	w := d.dial()
	w.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	many := strings.Repeat(plain("a", "x"), 1000)
	for { // until it is cut
		if _, err := io.WriteString(w, many); err != nil {
			break
		}
	}
	d.want(201, "POST", "/t/a", "others go on")
}

// Publishing one message allocates what its answer's writer does, and no more.
func TestLanesDoNotAllocate(t *testing.T) {
	d := open(t)
	w := d.dial()
	request := []byte(plain("a/b/c", strings.Repeat("x", 100)))
	answer := make([]byte, 4096)
	got := testing.AllocsPerRun(500, func() {
		w.Write(request)
		if n, err := w.Read(answer); err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 201") {
			t.Fatal(err, string(answer[:n]))
		}
	})
	if got > 6 { // the log's batch, the broker's and the outbox's goroutines
		t.Errorf("%v allocations a publish", got)
	}
}
