package http_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/seglog"
)

// A door is a server on a broker with a real log, and a client of it.
type door struct {
	testing.TB
	server   *http.Server
	broker   *core.Broker
	registry *prometheus.Registry
	options  http.Options
	addr     string
	client   *nethttp.Client
}

// patience bounds every wait of a test.
const patience = time.Minute

// open starts a server; change may change its options.
func open(t testing.TB, change ...func(*http.Options, *core.Options)) *door {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	engine, err := seglog.Open(t.Context(), seglog.Options{Dir: t.TempDir(), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	limits := adapters.DefaultLimits()
	limits.Handshake, limits.Stall = patience, patience // the machine may stand still
	d := &door{TB: t, registry: prometheus.NewRegistry()}
	o := http.Options{
		Limits: limits, Metrics: adapters.NewMetrics(d.registry), Logger: log,
		Endpoints: []adapters.Endpoint{{Address: "127.0.0.1:0"}},
	}
	co := core.Options{Engine: engine, Logger: log}
	for _, f := range change {
		f(&o, &co)
	}
	o.Gate = adapters.NewGate(o.Limits)
	co.Limits = o.Limits.Limits
	if d.broker, err = core.Open(t.Context(), co); err != nil {
		t.Fatal(err)
	}
	d.options = o
	d.server = http.New(d.broker, o)
	if err := d.server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- d.server.Serve() }()
	d.addr = d.server.Addrs()[0].String()
	transport := &nethttp.Transport{DisableCompression: true}
	d.client = &nethttp.Client{Transport: transport, Timeout: 5 * patience}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := d.server.Close(ctx); err != nil {
			t.Error("close:", err)
		}
		if err := <-served; err != nil {
			t.Error("serve:", err)
		}
		if err := d.broker.Close(ctx); err != nil {
			t.Error("broker:", err)
		}
	})
	return d
}

// An answer is an answer, read whole.
type answer struct {
	*nethttp.Response
	body string
}

// do sends a request; the path is sent as it is, and headers are lines.
func (d *door) do(method, path, body string, headers ...string) answer {
	d.Helper()
	r, err := nethttp.NewRequest(method, "http://"+d.addr, strings.NewReader(body))
	if err != nil {
		d.Fatal(err)
	}
	path, r.URL.RawQuery, _ = strings.Cut(path, "?")
	if r.URL.Opaque = path; strings.HasPrefix(path, "//") {
		r.URL.Opaque = "//" + d.addr + path
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header[name] = append(r.Header[name], value)
	}
	resp, err := d.client.Do(r)
	if err != nil {
		d.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp, string(b)}
}

// want is do with a status that must be.
func (d *door) want(status int, method, path, body string, headers ...string) answer {
	d.Helper()
	a := d.do(method, path, body, headers...)
	if a.StatusCode != status {
		d.Fatalf("%s %s: %s, want %d\n%s", method, path, a.Status, status, a.body)
	}
	return a
}

// refused is want of a problem of a kind.
func (d *door) refused(status int, kind, method, path, body string, headers ...string) answer {
	d.Helper()
	a := d.want(status, method, path, body, headers...)
	d.isProblem(a, status, kind)
	return a
}

func (d *door) isProblem(a answer, status int, kind string) {
	d.Helper()
	var p struct {
		Type, Title, Detail, Hint string
		Status                    int
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		d.Fatalf("not a problem: %v\n%s", err, a.body)
	}
	if got := a.Header.Get("Content-Type"); got != "application/problem+json" {
		d.Errorf("the problem's content type is %q", got)
	}
	if !strings.HasSuffix(p.Type, "#"+kind) || p.Status != status || p.Title == "" || p.Hint == "" {
		d.Errorf("problem %s, want kind %s, status %d and a hint", a.body, kind, status)
	}
}

// messages are the lines of an answer.
func (a answer) messages(t *testing.T) []message {
	t.Helper()
	var ms []message
	for l := range strings.Lines(a.body) {
		var m message
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		ms = append(ms, m)
	}
	return ms
}

type message struct {
	T      string          `json:"t"`
	O      uint64          `json:"o"`
	N      int             `json:"n"`
	D      json.RawMessage `json:"d"`
	B      []byte          `json:"b"`
	Type   string          `json:"type"`
	H      json.RawMessage `json:"h"`
	Key    string          `json:"key"`
	Reply  string          `json:"reply"`
	Corr   string          `json:"corr"`
	Prio   *int            `json:"prio"`
	TTL    int64           `json:"ttl"`
	ID     string          `json:"id"`
	Dup    bool            `json:"dup"`
	Lease  string          `json:"lease"`
	Until  int64           `json:"until"`
	Retain bool            `json:"retain"`
	Err    *struct {
		Type   string
		Detail string
	} `json:"err"`
}

func (m message) text() string {
	var s string
	if json.Unmarshal(m.D, &s) != nil {
		return string(m.D)
	}
	return s
}

func texts(ms []message) string {
	var all []string
	for _, m := range ms {
		all = append(all, m.text())
	}
	return strings.Join(all, " ")
}

// raw sends bytes over a connection of its own and returns all that comes.
func (d *door) raw(request string) string {
	d.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		d.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	var b bytes.Buffer
	io.Copy(&b, c)
	return b.String()
}

// A stream is an open stream of events.
type stream struct {
	*door
	*nethttp.Response
	lines *bufio.Scanner
}

// stream opens one and reads its beginning.
func (d *door) stream(path string, headers ...string) *stream {
	d.Helper()
	r, err := nethttp.NewRequestWithContext(d.Context(), "GET", "http://"+d.addr+path, nil)
	if err != nil {
		d.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	resp, err := (&nethttp.Client{Transport: &nethttp.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		d.Fatalf("%s: %s\n%s", path, resp.Status, b)
	}
	s := &stream{d, resp, bufio.NewScanner(resp.Body)}
	if first := s.event(); !strings.HasPrefix(first, "retry: ") {
		d.Fatalf("a stream begins with %q", first)
	}
	return s
}

// event is the next event with its lines joined by |, comments left out.
func (s *stream) event() string {
	s.Helper()
	var lines []string
	for s.lines.Scan() {
		switch l := s.lines.Text(); {
		case l == "" && len(lines) > 0:
			return strings.Join(lines, "|")
		case l == "" || l[0] == ':':
		default:
			lines = append(lines, l)
		}
	}
	return fmt.Sprint("ended ", s.lines.Err())
}

// refusals is the counter of refusals by reason.
func (d *door) refusals(reason string) float64 {
	d.Helper()
	families, err := d.registry.Gather()
	if err != nil {
		d.Fatal(err)
	}
	for _, f := range families {
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

// metric is a gauge of the door's.
func (d *door) metric(name string) float64 {
	d.Helper()
	families, err := d.registry.Gather()
	if err != nil {
		d.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return 0
}
