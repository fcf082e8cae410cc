package http_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/core"
)

func (s *stream) expect(want string) {
	s.Helper()
	if got := s.event(); got != want {
		s.Errorf("event %q, want %q", got, want)
	}
}

func TestStream(t *testing.T) {
	d := open(t)
	s := d.stream("/sse/hello")
	d.want(201, "POST", "/t/hello", "it works")
	s.expect("id: 1|data: it works")
	d.want(201, "POST", "/t/hello", "two\nlines\n")
	s.expect("id: 2|data: two|data: lines|data: ")
	d.want(201, "POST", "/t/hello", "")
	s.expect("id: 3|data: ")
	d.want(201, "POST", "/t/hello", "\x00\xff")
	s.expect("id: 4|event: binary|data: " + base64.StdEncoding.EncodeToString([]byte("\x00\xff")))
	if got := s.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
}

// Neither a payload nor a topic can write an event of its own.
func TestStreamCannotBeForged(t *testing.T) {
	d := open(t)
	s := d.stream("/sse/f/%23")
	j := d.stream("/sse/f/%23?format=json")
	d.want(201, "POST", "/t/f/x", "a\n\nid: 99\nevent: error\ndata: b")
	s.expect("id: 1|topic: f/x|data: a|data: |data: id: 99|data: event: error|data: data: b")
	d.want(201, "POST", "/t/f/x", "a\rid: 99")
	s.expect("id: 2|topic: f/x|event: binary|data: " + base64.StdEncoding.EncodeToString([]byte("a\rid: 99")))
	d.want(201, "POST", "/t/f/a%0A%0Aid:%209", "t")
	s.expect("id: 3|topic: f/a%0A%0Aid:%209|data: t")
	for range 3 {
		if got := j.event(); strings.Count(got, "|") != 1 || !strings.HasPrefix(got, "id: ") {
			t.Errorf("as JSON %q", got)
		}
	}
}

// TestStreamsAreReadAsWritten reads streams as the HTML standard says, 9.2.6, and
// wants of each message one event with its offset and its payload, whatever
// stands in payload, topic, headers and key.
func TestStreamsAreReadAsWritten(t *testing.T) {
	d := open(t)
	nasty := []string{"\n", "\r", "\r\n", "\x00", "\ufeff", "\u2028", "\u0085", "id: 9", "data: x", "event: error", ":", " ", "\n\n", "\xff", "retry: 1", "{\"o\":9}"}
	var payloads []string
	for _, a := range nasty {
		payloads = append(payloads, a)
		for _, b := range nasty {
			payloads = append(payloads, a+b, "x"+a+b+"y")
		}
	}
	for i, p := range payloads {
		line, _ := json.Marshal(map[string]any{"t": "n/" + nasty[i%3], "b": []byte(p), "h": [][2]string{{"a\nid: 9", "b\r\ndata: z"}}, "key": "k\n\nid: 9"})
		if ms := d.want(200, "POST", "/t", string(line)+"\n", "Content-Type: application/x-ndjson").messages(t); len(ms) != 1 || ms[0].O == 0 {
			t.Fatalf("%q: %+v", line, ms)
		}
	}
	for _, format := range []string{"text", "json"} {
		w := d.dial()
		w.say("GET /sse/n/%23?from=earliest&format=" + format + " HTTP/1.0\r\nHost: localhost\r\n\r\n")
		resp, err := nethttp.ReadResponse(w.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		for i, p := range payloads {
			var id, data, name string
			has := false
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatalf("%s: event %d: %v", format, i, err)
				}
				if line == "\n" && has {
					break
				}
				field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
				value = strings.TrimPrefix(value, " ")
				if strings.Contains(line, "\r") {
					t.Fatalf("%s: a line of %q has a CR", format, p)
				}
				switch field {
				case "id":
					id = value
				case "event":
					name = value
				case "data":
					if has {
						data += "\n"
					}
					data, has = data+value, true
				}
			}
			got := data
			switch {
			case format == "json":
				var m message
				if err := json.Unmarshal([]byte(data), &m); err != nil {
					t.Fatalf("%q: %v", data, err)
				}
				if got = string(m.B); m.D != nil {
					var text string
					if json.Unmarshal(m.D, &text) != nil {
						text = string(m.D)
					}
					got = text
				}
			case name == "binary":
				b, err := base64.StdEncoding.DecodeString(data)
				if err != nil {
					t.Fatal(err)
				}
				got = string(b)
			}
			if got != p || id != fmt.Sprint(i+1) {
				t.Errorf("%s: %q came as event %s %q with %q", format, p, id, name, got)
			}
		}
	}
}

func TestStreamResumes(t *testing.T) {
	d := open(t)
	for i := range 5 {
		d.want(201, "POST", "/t/r", fmt.Sprint(i))
	}
	d.stream("/sse/r?from=earliest").expect("id: 1|data: 0")
	d.stream("/sse/r?from=earliest", "Last-Event-ID: 3").expect("id: 4|data: 3")
	d.stream("/sse/r?from=-1").expect("id: 5|data: 4")
	d.stream("/t/r?from=5", "Accept: text/event-stream").expect("id: 5|data: 4")
	d.refused(416, "offset-ahead", "GET", "/sse/r?from=100", "")
	d.refused(400, "bad-request", "GET", "/sse/r", "", "Last-Event-Id: 1", "Last-Event-Id: 2")
	d.refused(416, "offset-ahead", "GET", "/sse/r", "", "Last-Event-Id: 100")
	d.refused(416, "offset-ahead", "GET", "/sse/r", "", "Last-Event-Id: 9223372036854775807")
	for _, last := range []string{"x", "-1", "+1", "1.0", "1e3", "0x1", "1 2", "9223372036854775808", "99999999999999999999", "\xef\xbb\xbf1", "١", "earliest", "@2h"} {
		d.refused(400, "invalid-from", "GET", "/sse/r", "", "Last-Event-Id: "+last)
	}
	d.refused(400, "invalid-from", "GET", "/sse/r?from=x", "")
	d.refused(400, "bad-request", "GET", "/sse/r?limit=1", "")
}

func TestStreamRetained(t *testing.T) {
	d := open(t)
	d.want(201, "POST", "/t/v/1?retain", "old")
	d.want(201, "POST", "/t/v/2", "x")
	s := d.stream("/sse/v/1?retained")
	// No id: the reader must not go back to it.
	s.expect("data: old")
	d.want(201, "POST", "/t/v/1", "new")
	s.expect("id: 3|data: new")
}

func TestStreamGroup(t *testing.T) {
	d := open(t)
	s := d.stream("/sse/w?group=g")
	for i := range 3 {
		d.want(201, "POST", "/t/w", fmt.Sprint(i))
	}
	for i := range 3 {
		s.expect(fmt.Sprintf("id: %d|data: %d", i+1, i))
	}
	// What was written is settled; the next one comes where the group is.
	s.Body.Close()
	d.eventually(func() bool {
		d.want(201, "POST", "/t/w", "next")
		return texts(d.want(200, "GET", "/t/w?group=g&wait=1s&settle=auto", "").messages(t)) != ""
	})
}

// eventually asks until it holds.
func (d *door) eventually(holds func() bool) {
	d.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if holds() {
			return
		}
	}
	d.Fatal("it did not come true in time")
}

// An announcer allows everything and tells when a filter was asked for.
type announcer struct {
	core.AllowAll
	filter string
	asked  chan struct{}
}

func (a announcer) Authorize(_ *core.Principal, _ core.Action, resource string) error {
	if resource == a.filter {
		select {
		case a.asked <- struct{}{}:
		default:
		}
	}
	return nil
}

// Close ends streams and long polls properly, at once.
func TestCloseEndsStreams(t *testing.T) {
	asked := make(chan struct{}, 1)
	d := open(t, func(_ *http.Options, o *core.Options) { o.Authorizer = announcer{filter: "polled", asked: asked} })
	s := d.stream("/sse/x")
	polled := make(chan answer, 1)
	go func() { polled <- d.do("GET", "/t/polled?wait=1m", "") }()
	<-asked
	fresh, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience/2)
	defer cancel()
	if err := d.server.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if got := s.event(); got != "ended <nil>" {
		t.Errorf("the stream's end: %q", got)
	}
	if a := <-polled; a.StatusCode != 200 || a.Header.Get("X-Next") != "1" {
		t.Errorf("the poll's end: %s %v %s", a.Status, a.Header, a.body)
	}
}

// A peer that does not read is closed, and grows nothing meanwhile.
func TestStreamThatIsNotRead(t *testing.T) {
	d := open(t, func(o *http.Options, _ *core.Options) { o.Limits.Stall = 200 * time.Millisecond })
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.(*net.TCPConn).SetReadBuffer(4 << 10)
	io.WriteString(c, "GET /sse/big HTTP/1.1\r\nHost: localhost\r\n\r\n")
	begun := make([]byte, 100)
	if _, err := io.ReadFull(c, begun); err != nil {
		t.Fatal(err)
	}
	body := strings.Repeat("x", 1<<20)
	d.eventually(func() bool {
		d.want(201, "POST", "/t/big", body)
		return d.metric("sluice_connections") == 1 // the publisher's
	})
}

// A stream without an event shows now and then that it lives, in comments, and
// is a chunked answer to HTTP/1.1 and a plain one to HTTP/1.0.
func TestStreamLives(t *testing.T) {
	d := open(t, func(o *http.Options, _ *core.Options) { o.Limits.KeepAlive = 20 * time.Millisecond })
	for _, version := range []string{"1.0", "1.1"} {
		w := d.dial()
		w.say("GET /sse/a HTTP/" + version + "\r\nHost: localhost\r\n\r\n")
		resp, err := nethttp.ReadResponse(w.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if chunked := resp.TransferEncoding != nil; chunked != (version == "1.1") || !resp.Close || resp.Header.Get("X-Accel-Buffering") != "no" {
			t.Errorf("HTTP/%s: %v %v", version, resp.TransferEncoding, resp.Header)
		}
		got := make([]byte, len("retry: 2000\nid: 0\n\n:\n\n:\n\n"))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != "retry: 2000\nid: 0\n\n:\n\n:\n\n" {
			t.Errorf("HTTP/%s: %q, %v", version, got, err)
		}
	}
	d.want(200, "HEAD", "/sse/a", "")
}

// One that many read is encoded once, and each form by itself.
func TestStreamsOfOneTopic(t *testing.T) {
	d := open(t)
	var ss []*stream
	for i := range 9 {
		ss = append(ss, d.stream([]string{"/sse/m/a", "/sse/m/+", "/sse/m/a?format=json"}[i%3]))
	}
	for i := range 5 {
		d.want(201, "POST", "/t/m/a", fmt.Sprint("payload ", i))
	}
	for i := range 5 {
		for j, s := range ss {
			want := []string{"id: %d|data: payload %d", "id: %d|topic: m/a|data: payload %d", `id: %d|data: {"t":"m/a","o":`}[j%3]
			if j%3 == 2 {
				if got := s.event(); !strings.HasPrefix(got, fmt.Sprintf(want, i+1)) || !strings.Contains(got, fmt.Sprintf(`"d":"payload %d"`, i)) {
					t.Errorf("%s", got)
				}
				continue
			}
			s.expect(fmt.Sprintf(want, i+1, i))
		}
	}
}

// A lateWriter tells of a written event only some time after its peer has left,
// as a writer that was made to wait does.
type lateWriter struct {
	net.Conn
	left chan struct{} // closed once the server has closed the connection
	once sync.Once
}

func (c *lateWriter) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if bytes.Contains(b, []byte("data: ")) {
		<-c.left
		time.Sleep(50 * time.Millisecond)
	}
	return n, err
}

func (c *lateWriter) Close() error {
	c.once.Do(func() { close(c.left) })
	return c.Conn.Close()
}

// What was written is settled, also where the peer leaves before the server
// comes to say so.
func TestStreamGroupIsLeftAtOnce(t *testing.T) {
	d := open(t)
	o := d.options
	o.Metrics = adapters.NewMetrics(prometheus.NewRegistry())
	late := *d
	late.server = http.New(d.broker, o)
	if err := late.server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := make(chan struct{})
	late.server.Wrap(func(c net.Conn) net.Conn { return &lateWriter{Conn: c, left: left} })
	late.addr = late.server.Addrs()[0].String()
	served := make(chan error, 1)
	go func() { served <- late.server.Serve() }()

	s := late.stream("/sse/w?group=g")
	d.want(201, "POST", "/t/w", "0")
	s.expect("id: 1|data: 0") // its writer waits now
	d.want(201, "POST", "/t/w", "1")
	d.want(201, "POST", "/t/w", "2")
	s.Body.Close()
	<-left
	if err := late.server.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if got, want := texts(d.want(200, "GET", "/t/w?group=g&wait=1s&settle=auto", "").messages(t)), "1 2"; got != want {
		t.Errorf("then %q, want %q", got, want)
	}
}
