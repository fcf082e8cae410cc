package http_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// One of each class of bad input for each route.
func TestBadInput(t *testing.T) {
	d := open(t)
	const lines = "Content-Type: application/x-ndjson"
	for _, c := range []struct {
		status         int
		kind           string
		method, target string
		body           string
		headers        []string
	}{
		{404, "not-found", "GET", "/nothing", "", nil},
		{404, "not-found", "GET", "//t/a", "", nil},
		{404, "not-found", "GET", "/%74/a", "", nil},
		{404, "not-found", "GET", "/q/a/b", "", nil},
		{404, "not-found", "GET", "/q/", "", nil},
		{404, "not-found", "OPTIONS", "/nothing", "", nil},
		{405, "method-not-allowed", "DELETE", "/t/a", "", nil},
		{405, "method-not-allowed", "GET", "/t", "", nil},
		{405, "method-not-allowed", "POST", "/sse/a", "", nil},
		{405, "method-not-allowed", "PUT", "/last/a", "", nil},
		{405, "method-not-allowed", "GET", "/q/a/lease", "", nil},
		{405, "method-not-allowed", "GET", "/lease/t/accept", "", nil},
		{405, "method-not-allowed", "GET", "/x/e/k", "", nil},
		{405, "method-not-allowed", "POST", "/v1/queues/a", "", nil},
		{405, "method-not-allowed", "POST", "/v1/exchanges", "", nil},
		{405, "method-not-allowed", "BREW", "/", "", nil},

		{400, "invalid-topic", "GET", "/t/a%2Fb", "", nil},
		{400, "invalid-topic", "GET", "/t/%00", "", nil},
		{400, "invalid-topic", "GET", "/t/%C3", "", nil},
		{400, "invalid-topic", "GET", "/t/a%23", "", nil},
		{400, "invalid-topic", "GET", "/t/%23/a", "", nil},
		{400, "invalid-topic", "GET", "/sse/a%2Fb", "", nil},
		{400, "invalid-topic", "GET", "/sse/%00", "", nil},
		{400, "invalid-topic", "GET", "/sse/", "", nil},
		{400, "invalid-topic", "GET", "/last/%FF", "", nil},
		{400, "invalid-topic", "GET", "/last/", "", nil},
		{400, "invalid-topic", "POST", "/q/%00", "x", nil},
		{400, "invalid-topic", "POST", "/q/$share%2Fg%2Ff", "x", nil},
		{400, "invalid-topic", "POST", "/q/%23", "x", nil},
		{400, "invalid-topic", "POST", "/q/%FF/lease", "", nil},
		{400, "invalid-topic", "POST", "/x/e%2Ff/k", "x", nil},
		{400, "invalid-topic", "POST", "/x/%00/k", "x", nil},
		{400, "invalid-topic", "POST", "/x/e/%FF", "x", nil},
		{400, "invalid-topic", "PUT", "/v1/queues/%00", "", nil},
		{400, "invalid-topic", "PUT", "/v1/exchanges/a%2Fb", `{"kind":"topic"}`, nil},

		{400, "bad-request", "POST", "/t/a?retian", "x", nil},
		{400, "bad-request", "POST", "/t/a?retain=maybe", "x", nil},
		{400, "bad-request", "POST", "/t/a?retain&retain", "x", nil},
		{400, "bad-request", "POST", "/t/a?atomic", "x", nil},
		{400, "bad-request", "POST", "/t/a?reply=soon", "x", nil},
		{400, "bad-request", "POST", "/t/a?reply=9h", "x", nil},
		{400, "bad-request", "POST", "/t/a?x=%zz", "x", nil},
		{400, "bad-request", "GET", "/t/a?limit=0", "", nil},
		{400, "bad-request", "GET", "/t/a?limit=99999999999999999999", "", nil},
		{400, "bad-request", "GET", "/t/a?until=-1", "", nil},
		{400, "bad-request", "GET", "/t/a?until=18446744073709551616", "", nil},
		{400, "bad-request", "GET", "/t/a?wait=-1s", "", nil},
		{400, "bad-request", "GET", "/t/a?wait=1e9h", "", nil},
		{400, "bad-request", "GET", "/t/a?format=xml", "", nil},
		{400, "invalid-from", "GET", "/t/a?from=-0", "", nil},
		{400, "invalid-from", "GET", "/t/a?from=99999999999999999999", "", nil},
		{400, "invalid-from", "GET", "/t/a?from=@yesterday", "", nil},
		{400, "invalid-from", "GET", "/q/a?from=-5", "", nil},
		{400, "bad-request", "GET", "/q/a?wait=1s", "", nil},
		{404, "not-found", "GET", "/q/none", "", nil},
		{400, "bad-request", "POST", "/q/a/lease?max=0", "", nil},
		{400, "bad-request", "POST", "/q/a/lease?max=1025", "", nil},
		{400, "bad-request", "POST", "/q/a/lease?for=13h", "", nil},
		{400, "bad-request", "POST", "/q/a/lease?settle=never", "", nil},
		{406, "not-acceptable", "POST", "/q/a/lease?format=sse", "", nil},
		{406, "not-acceptable", "GET", "/q/a?format=sse", "", nil},
		{400, "bad-request", "POST", "/lease/!!/accept", "", nil},
		{404, "not-found", "POST", "/lease/AAAA/burn", "", nil},
		{400, "bad-request", "POST", "/lease/AAAA/extend", "", nil},
		{400, "bad-request", "POST", "/lease/AAAA/accept?delay=1s", "", nil},
		{400, "bad-request", "POST", "/lease/AAAA/release?delay=x", "", nil},

		{400, "bad-request", "POST", "/t/a", "x", []string{"X-TTL: 0"}},
		{400, "bad-request", "POST", "/t/a", "x", []string{"X-Ttl: -5s"}},
		{400, "bad-request", "DELETE", "/v1/queues/a?force", "", nil},
		{400, "bad-request", "POST", "/v1/queues/a/purge?dry_run=true", "", nil},
		{400, "bad-request", "POST", "/t/a", "x", []string{"X-Delay: soon"}},
		{400, "bad-request", "POST", "/t/a", "x", []string{"X-Priority: 10"}},
		{400, "bad-request", "POST", "/t/a", "x", []string{"X-Key: a", "X-Key: b"}},
		{400, "bad-request", "POST", "/t/a", "x", []string{"X-Key: \xff"}},
		{400, "bad-request", "POST", "/t/a", "x", []string{"X-Key*: latin1''x"}},
		{400, "bad-request", "POST", "/t/a", "x", []string{"X-H-A: \xff"}},
		{400, "bad-request", "POST", "/t/a", "x", []string{"X-Headers: {"}},
		{400, "bad-request", "POST", "/t/a", "x", []string{`X-Headers: [["a"]]`}},
		{400, "bad-request", "POST", "/t/a", "x", []string{`X-Headers: {"a":1}`}},
		{400, "bad-request", "POST", "/t/a", "x", []string{"X-Correlation-Id-Base64: ?"}},
		{413, "too-large", "POST", "/t/a", "x", []string{"X-Headers: [" + strings.Repeat(`["a","b"],`, 64) + `["a","b"]]`}},
		{415, "unsupported-type", "POST", "/t/a", "x", []string{"Content-Encoding: gzip"}},
		{415, "unsupported-type", "POST", "/t", "x", nil},
		{400, "bad-request", "POST", "/t/a", "", []string{lines}},
		{400, "bad-request", "POST", "/t/a?retain", "{}", []string{lines}},
		{400, "bad-request", "POST", "/t/a?reply=1s", "{}", []string{lines}},
		{400, "bad-request", "POST", "/t/a", "{}", []string{lines, "Idempotency-Key: x"}},
		{400, "bad-request", "POST", "/t/a", "{}", []string{lines, "X-H-A: x"}},
		{413, "too-large", "POST", "/t/a", strings.Repeat("x", 3<<20), []string{lines}},
		{413, "too-large", "POST", "/t/a?atomic", strings.Repeat("{}\n", 1025), []string{lines}},

		{400, "bad-request", "PUT", "/v1/queues/a", "{", nil},
		{400, "bad-request", "PUT", "/v1/queues/a", `{"unknown":1}`, nil},
		{400, "bad-request", "PUT", "/v1/queues/a", `{} {}`, nil},
		{400, "bad-request", "PUT", "/v1/queues/a", `{"settings":{"lease":5}}`, nil},
		{400, "bad-request", "PUT", "/v1/queues/a", `{"bindings":[{}]}`, nil},
		{400, "invalid-topic", "PUT", "/v1/queues/a", `{"bindings":[{"filter":"a#"}]}`, nil},
		{400, "invalid-from", "PUT", "/v1/queues/a", `{"from":"x"}`, nil},
		{413, "too-large", "PUT", "/v1/queues/a", strings.Repeat(" ", 65<<10), nil},
		{415, "unsupported-type", "PUT", "/v1/queues/a", "{}", []string{"Content-Type: text/xml"}},
		{404, "not-found", "POST", "/v1/queues/none/bindings", `{"filter":"a"}`, nil},
		{400, "bad-request", "DELETE", "/v1/queues/a/bindings", "", nil},
		{400, "bad-request", "GET", "/v1/queues?kind=odd", "", nil},
		{400, "bad-request", "GET", "/v1/exchanges?limit=x", "", nil},
		{400, "bad-request", "GET", "/v1/clients?sort=colour", "", nil},
		{400, "bad-request", "GET", "/v1/clients?after=mqtt", "", nil},
		{400, "bad-request", "GET", "/v1/clients?after=-1", "", nil},
		{400, "bad-request", "GET", "/v1/clients?sort=name&limit=0", "", nil},
		{400, "bad-request", "GET", "/v1/clients?protocol=http&protocol=ws", "", nil},
		{405, "method-not-allowed", "POST", "/v1/clients", "", nil},
		{404, "not-found", "DELETE", "/v1/clients/mqtt/none", "", nil},
		{400, "invalid-topic", "DELETE", "/v1/clients/mqtt/%00", "", nil},
		{400, "bad-request", "GET", "/v1/groups?limit=99999999999999999999", "", nil},
		{405, "method-not-allowed", "DELETE", "/v1/groups", "", nil},
		{400, "invalid-topic", "GET", "/v1/policies?topic=%00", "", nil},
		{400, "invalid-topic", "GET", "/v1/retained?filter=a%23", "", nil},
		{400, "invalid-topic", "GET", "/v1/topics?filter=a%23", "", nil},
		{400, "bad-request", "GET", "/v1/topics?prefix=a", "", nil},
		{400, "bad-request", "GET", "/v1/webhooks?after=x&after=y", "", nil},
		{400, "invalid-topic", "PUT", "/v1/queues/%FF/webhook", `{"url":"https://example.com"}`, nil},
		{400, "bad-request", "PUT", "/v1/queues/a/webhook", `{"url":"gopher://example.com"}`, nil},
		{400, "bad-request", "PUT", "/v1/queues/a/webhook", `{"url":"https://example.com\r\nHost: x"}`, nil},
		{404, "not-found", "DELETE", "/v1/queues/none/webhook", "", nil},
		{405, "method-not-allowed", "PUT", "/asyncapi.json", "", nil},
		{400, "bad-request", "POST", "/t/a?mandatory=maybe", "x", nil},
		{400, "bad-request", "GET", "/t/a?where=%00", "", nil},
	} {
		before := d.refusals(strings.ReplaceAll(c.kind, "-", "_"))
		d.refused(c.status, c.kind, c.method, c.target, c.body, c.headers...)
		if d.refusals(strings.ReplaceAll(c.kind, "-", "_")) != before+1 {
			t.Errorf("%s %s was not counted", c.method, c.target)
		}
	}
	if ms := d.want(200, "GET", "/t/%23", "").messages(t); len(ms) != 0 {
		t.Errorf("something was published: %+v", ms)
	}
	d.want(201, "POST", "/t/a", "still here")
}

func TestTooLarge(t *testing.T) {
	d := open(t)
	d.want(201, "POST", "/t/a", strings.Repeat("x", 1<<20))
	d.refused(413, "too-large", "POST", "/t/a", strings.Repeat("x", 1<<20+1))
	// Likewise where the length is not announced; and where it is, before the
	// body has come.
	if got := d.raw("POST /t/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 413 ") {
		t.Errorf("%s", got)
	}
	r, _ := nethttp.NewRequest("POST", "http://"+d.addr+"/t/a", io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20+1))))
	resp, err := d.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Errorf("chunked: %s", resp.Status)
	}
	// A batch goes on until the line that is too long.
	a := d.want(200, "POST", "/t/b", `{"d":"1"}`+"\n"+strings.Repeat("x", 3<<20), "Content-Type: application/x-ndjson")
	if ms := a.messages(t); len(ms) != 2 || ms[0].O == 0 || !strings.HasSuffix(ms[1].Err.Type, "#too-large") {
		t.Errorf("%s", a.body)
	}
}

// What is not HTTP is refused by net/http, before it reaches a handler.
func TestNotHTTP(t *testing.T) {
	d := open(t)
	for _, request := range []string{
		"GET /t/a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /t/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /t/a HTTP/1.1\r\n\r\n",
		"POST /t/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"POST /t/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
		"POST /t/a HTTP/1.1\r\nHost: localhost\r\nX-Key: a\x00b\r\n\r\n",
		"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00\r\n\r\n",
	} {
		if got := d.raw(request); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%q: %q", request, got)
		}
	}
	if got := d.raw("POST /t/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 501 ") {
		t.Errorf("%q", got)
	}
	if got := d.raw("GET /t/a HTTP/1.1\r\nHost: localhost\r\nX-H-A: " + strings.Repeat("x", 64<<10) + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 431 ") {
		t.Errorf("%q", got)
	}
}

// dribble sends the beginning of a request and returns the answer.
func (d *door) dribble(request string) (got string) {
	d.Helper()
	d.inTime(func() error {
		w := d.dial()
		if err := w.tell(request); err != nil {
			return err
		}
		resp, err := nethttp.ReadResponse(w.r, nil)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(resp.Body)
		got = resp.Status + " " + string(b)
		return err
	})
	return got
}

func TestSlowPeers(t *testing.T) {
	d := open(t, func(o *http.Options, _ *core.Options) {
		o.Limits.Handshake, o.Limits.Stall = 100*time.Millisecond, 100*time.Millisecond
	})
	if got := d.dribble("POST /t/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhal"); !strings.HasPrefix(got, "408 ") || !strings.Contains(got, "#slow-body") {
		t.Errorf("a slow body: %s", got)
	}
	if got := d.dribble("POST /t/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"d\":"); !strings.HasPrefix(got, "408 ") {
		t.Errorf("a slow line: %s", got)
	}
	// What had come whole is published, and told.
	if got := d.dribble("POST /t/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n"); !strings.HasPrefix(got, "200 ") || !strings.Contains(got, `{"o":`) || !strings.Contains(got, "#slow-body") {
		t.Errorf("a slow batch: %s", got)
	}
	// A header that does not come is not answered.
	d.inTime(func() error {
		if err := d.dial().tell("GET / HTTP/1.1\r\nHost: lo"); err != io.EOF {
			return cmp.Or(err, errors.New("it is answered"))
		}
		return nil
	})
	// The deadline of one body is not the next request's.
	d.inTime(func() error {
		for i, path := range []string{"/t/a", "/t/a", "/t/a", "/t/none?wait=300ms", "/t/a"} {
			method, status := "POST", 201
			if i == 3 {
				method, status = "GET", 200
			}
			r, err := nethttp.NewRequestWithContext(t.Context(), method, "http://"+d.addr+path, strings.NewReader("x"[:len(method)-3]))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := d.client.Do(r)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != status {
				return fmt.Errorf("%s %s: %s", method, path, resp.Status)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// A storage failure is told as one, and nothing is confirmed.
func TestStorageFailure(t *testing.T) {
	engine := coretest.NewEngine()
	d := open(t, func(_ *http.Options, o *core.Options) { o.Engine = engine })
	d.want(201, "POST", "/t/a", "x")
	engine.Fail(errors.New("the disk is on fire"))
	a := d.refused(503, "storage-failed", "POST", "/t/a", "x")
	if a.Header.Get("Retry-After") == "" || a.Header.Get("X-Offset") != "" {
		t.Errorf("%v", a.Header)
	}
	if ms := d.want(200, "POST", "/t/a", "{}\n{}\n", "Content-Type: application/x-ndjson").messages(t); len(ms) != 2 || ms[0].Err == nil {
		t.Errorf("%+v", ms)
	}
}
