package http_test

import (
	"bufio"
	"fmt"
	"net"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/core"
)

// A stream whose reader does not read while the memory is short ends with an
// event that says so and when to come again; who comes again behind its last
// event misses nothing.
func TestSlowStreamIsShed(t *testing.T) {
	d := open(t, func(o *http.Options, _ *core.Options) { o.Limits.Stall = time.Hour })
	ask := func(header string) net.Conn {
		c, err := net.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "GET /sse/big?from=earliest HTTP/1.1\r\nHost: localhost\r\n%s\r\n", header)
		return c
	}
	read := func(c net.Conn) *stream {
		resp, err := nethttp.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		s := &stream{d, resp, bufio.NewScanner(resp.Body)}
		s.lines.Buffer(nil, 1<<20)
		s.event() // its beginning
		return s
	}
	c := ask("")
	// More than the sockets take.
	const messages = 64
	for i := range messages {
		d.want(201, "POST", "/t/big", fmt.Sprintf("%02d%s", i, strings.Repeat("x", 256<<10)))
	}
	for end := time.Now().Add(time.Minute); d.broker.Stats().Shed.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if d.broker.SetResources(core.Resources{MemoryUsed: 90 << 20, MemoryTotal: 100 << 20}); time.Now().After(end) {
			t.Fatal("the stream was not shed")
		}
	}
	d.broker.SetResources(core.Resources{})
	s := read(c)
	last, got := "", 0
	event := s.event()
	for ; strings.HasPrefix(event, "id: "); event = s.event() {
		if id, data, _ := strings.Cut(event, "|"); !strings.HasPrefix(data, fmt.Sprintf("data: %02dx", got)) {
			t.Fatalf("event %d is %.40s", got, event)
		} else {
			last = strings.TrimPrefix(id, "id: ")
		}
		got++
	}
	if !strings.HasPrefix(event, "event: error|data: ") || !strings.Contains(event, "#too-slow") || !strings.HasSuffix(event, "|retry: 5000") || got >= messages {
		t.Errorf("%d events, and then %s", got, event)
	}
	if event := s.event(); event != "ended <nil>" {
		t.Errorf("and then %s", event)
	}
	s = read(ask("Last-Event-ID: " + last + "\r\n"))
	for ; got < messages; got++ {
		if event := s.event(); !strings.Contains(event, fmt.Sprintf("|data: %02dx", got)) {
			t.Fatalf("event %d is %.40s", got, event)
		}
	}
}
