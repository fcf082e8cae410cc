package http_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

func TestPublishAndRead(t *testing.T) {
	d := open(t)
	a := d.want(201, "POST", "/t/greetings", "hello", "Content-Type: application/x-www-form-urlencoded")
	if got := a.Header.Get("X-Offset"); got != "1" || a.body != `{"t":"greetings","o":1}`+"\n" {
		t.Fatalf("offset %q, body %s", got, a.body)
	}
	ms := d.want(200, "GET", "/t/greetings", "").messages(t)
	if len(ms) != 1 || ms[0].text() != "hello" || ms[0].T != "greetings" || ms[0].O != 1 || ms[0].Type != "" {
		t.Fatalf("read %+v", ms)
	}
	a = d.want(200, "GET", "/t/greetings?format=raw", "")
	if a.body != "hello" || a.Header["Content-Type"] != nil || a.Header.Get("X-Topic") != "greetings" || a.Header.Get("X-Offset") != "1" {
		t.Fatalf("raw %q %v", a.body, a.Header)
	}
}

func TestPublishCarriesEveryField(t *testing.T) {
	d := open(t)
	d.want(201, "POST", "/t/all?retain", "\x00\x01\xff", "Content-Type: image/x; a=b", "X-H-B: 2", "X-H-A: 1", "X-H-B: 3",
		"X-Key: k", "X-TTL: 1h", "X-Priority: 4", "X-Reply-To: back/here", "X-Correlation-Id: c1", "Idempotency-Key: id1",
		"traceparent: 00-1-2-01", "ce-id: 7")
	a := d.want(200, "GET", "/last/all", "")
	h := a.Header
	for name, want := range map[string]string{
		"Content-Type": "image/x; a=b", "X-Key": "k", "X-Priority": "4", "X-Reply-To": "back/here", "X-Correlation-Id": "c1",
		"Idempotency-Key": "id1", "Traceparent": "00-1-2-01", "Ce-Id": "7", "X-H-A": "1", "X-Retained": "true", "X-Attempt": "1",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := h.Values("X-H-B"); strings.Join(got, ",") != "2,3" {
		t.Errorf("repeats: %q", got)
	}
	if a.body != "\x00\x01\xff" || h["X-Headers"] != nil {
		t.Errorf("payload %q, X-Headers %q", a.body, h["X-Headers"])
	}
	if ttl, err := time.ParseDuration(h.Get("X-Ttl")); err != nil || ttl < 50*time.Minute || ttl > time.Hour+time.Second {
		t.Errorf("X-TTL %q, %v", h.Get("X-Ttl"), err)
	}
	m := d.want(200, "GET", "/t/all", "").messages(t)[0]
	if string(m.B) != "\x00\x01\xff" || string(m.H) != `[["b","2"],["b","3"],["ce-id","7"],["traceparent","00-1-2-01"],["a","1"]]` && string(m.H) != `[["a","1"],["b","2"],["b","3"],["ce-id","7"],["traceparent","00-1-2-01"]]` {
		t.Errorf("as JSON %+v, headers %s", m, m.H)
	}
	if m.Prio == nil || *m.Prio != 4 || m.Key != "k" || m.Reply != "back/here" || m.Corr != "c1" || m.ID != "id1" || m.TTL < 3_000_000 || !m.Retain {
		t.Errorf("as JSON %+v", m)
	}
}

// Headers that header lines cannot give back as they were travel in X-Headers.
func TestHeadersAreLossless(t *testing.T) {
	d := open(t)
	for _, pairs := range []string{
		`[["z","1"],["a","2"]]`,
		`[["Upper","x"]]`,
		`[["a","1"],["b","2"],["a","3"]]`,
		`[["with space","v"],["colon:","w"]]`,
		`[["n","line\r\nX-Injected: yes"]]`,
		`[["n"," edges "]]`,
		`[["zażółć","gęślą 😀"]]`,
		`[["empty",""]]`,
	} {
		d.want(201, "POST", "/t/h", "x", "X-Headers: "+pairs)
		a := d.want(200, "GET", "/t/h?format=raw", "")
		if a.Header.Get("X-Injected") != "" {
			t.Fatal("a header of the envelope became one of the answer")
		}
		again := a.Header.Get("X-Headers")
		if again == "" && pairs != `[["empty",""]]` {
			t.Errorf("%s: no X-Headers but %v", pairs, a.Header)
			continue
		}
		if again != "" {
			var want, got [][2]string
			json.Unmarshal([]byte(pairs), &want)
			if err := json.Unmarshal([]byte(again), &got); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s came back as %s", pairs, again)
			}
			for i := range len(again) {
				if again[i] >= 0x7f {
					t.Errorf("X-Headers is not ASCII: %q", again)
					break
				}
			}
		}
	}
}

// What is not ASCII or has control characters comes in the form of RFC 8187,
// and is taken in it.
func TestExtendedValues(t *testing.T) {
	d := open(t)
	d.want(201, "POST", "/t/x", "x", "X-Key*: UTF-8''a%0D%0Ab%C5%BC", "X-Correlation-Id-Base64: AP8N")
	a := d.want(200, "GET", "/t/x?format=raw", "")
	if got := a.Header.Get("X-Key*"); got != "UTF-8''a%0D%0Ab%C5%BC" || a.Header.Get("X-Key") != "" {
		t.Errorf("X-Key* %q, X-Key %q", got, a.Header.Get("X-Key"))
	}
	if got := a.Header.Get("X-Correlation-Id-Base64"); got != "AP8N" {
		t.Errorf("correlation id %q", got)
	}
	d.want(201, "POST", "/t/y", "x", "X-Key: zażółć")
	a = d.want(200, "GET", "/t/y?format=raw", "")
	if a.Header.Get("X-Key") != "zażółć" || a.Header.Get("X-Key*") != "UTF-8''za%C5%BC%C3%B3%C5%82%C4%87" {
		t.Errorf("%v", a.Header)
	}
}

func TestPublishOptions(t *testing.T) {
	d := open(t)
	if a := d.refused(400, "bad-request", "POST", "/t/o", "", "X-TTL: soon"); !strings.Contains(a.body, `X-TTL: \"soon\"`) {
		t.Errorf("the header is named otherwise: %s", a.body)
	}
	a := d.want(202, "POST", "/t/o", "1", "Prefer: wait=1, respond-async")
	if a.Header.Get("Preference-Applied") != "respond-async" || a.Header.Get("X-Offset") != "" {
		t.Errorf("%v", a.Header)
	}
	d.want(202, "POST", "/t/o?durable=false", "2")
	d.want(201, "POST", "/t/o", "3", "Idempotency-Key: once")
	a = d.want(200, "POST", "/t/o", "3", "Idempotency-Key: once")
	if a.Header.Get("X-Duplicate") != "true" || !strings.Contains(a.body, `"dup":true`) {
		t.Errorf("a repetition: %v %s", a.Header, a.body)
	}
	if got := texts(d.want(200, "GET", "/t/o", "").messages(t)); got != "1 2 3" {
		t.Errorf("read %s", got)
	}
}

func TestBatch(t *testing.T) {
	d := open(t)
	const lines = `{"d":"one"}
{"t":"b/2","d":{"n":2},"h":[["x","1"],["x","2"]]}

not json
{"d":"a","b":"YQ=="}
{"t":"b/+","d":"wild"}
{"b":"AAH/","key":"k","prio":9,"ttl":60000,"durable":false}
{"t":"b/1","d":"last","o":99,"ts":1,"n":3,"pub":{"user":"x"}}`
	a := d.want(200, "POST", "/t/b/1", lines, "Content-Type: application/x-ndjson; charset=utf-8")
	var kinds []string
	for _, m := range a.messages(t) {
		if m.Err != nil {
			kinds = append(kinds, m.Err.Type[strings.IndexByte(m.Err.Type, '#')+1:])
		} else {
			kinds = append(kinds, fmt.Sprint(m.O))
		}
	}
	if got := strings.Join(kinds, " "); got != "1 2 bad-request bad-request invalid-topic 3 4" {
		t.Fatalf("results %s\n%s", got, a.body)
	}
	ms := d.want(200, "GET", "/t/b/%23", "").messages(t)
	if len(ms) != 4 || string(ms[1].D) != `{"n":2}` || ms[1].Type != "application/json" || string(ms[1].H) != `[["x","1"],["x","2"]]` || string(ms[2].B) != "\x00\x01\xff" || ms[3].O != 4 {
		t.Fatalf("read %+v", ms)
	}
	// What was read can be published again.
	read := d.want(200, "GET", "/t/b/%23", "")
	d.want(200, "POST", "/t", read.body, "Content-Type: application/x-ndjson")
	if got := len(d.want(200, "GET", "/t/b/%23", "").messages(t)); got != 8 {
		t.Errorf("%d messages", got)
	}
	d.want(201, "POST", "/t/b/raw?batch=false", "{}\n", "Content-Type: application/x-ndjson")
}

func TestAtomicBatch(t *testing.T) {
	d := open(t)
	a := d.want(201, "POST", "/t/a?atomic=true", `{"d":"1"}`+"\n"+`{"d":"2"}`+"\n", "Content-Type: application/x-ndjson")
	if a.body != "{\"o\":1}\n{\"o\":2}\n" {
		t.Errorf("%s", a.body)
	}
	a = d.refused(400, "bad-request", "POST", "/t/a?atomic=true", `{"d":"3"}`+"\nnonsense\n", "Content-Type: application/x-ndjson")
	if !strings.Contains(a.body, "line 2") {
		t.Errorf("%s", a.body)
	}
	d.refused(400, "invalid-topic", "POST", "/t/a?atomic=true", `{"d":"3"}`+"\n"+`{"t":"#"}`, "Content-Type: application/x-ndjson")
	if got := texts(d.want(200, "GET", "/t/a", "").messages(t)); got != "1 2" {
		t.Errorf("read %s", got)
	}
}

// A batch is not bounded in its lines, and its results not in memory.
func TestLongBatch(t *testing.T) {
	d := open(t)
	const n = 100_000
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"d":"%d"}`+"\n", i)
	}
	a := d.want(200, "POST", "/t/long", b.String(), "Content-Type: application/x-ndjson")
	if got := strings.Count(a.body, "\n"); got != n {
		t.Fatalf("%d results", got)
	}
	if ms := d.want(200, "GET", "/t/long?from=-1", "").messages(t); len(ms) != 1 || ms[0].text() != fmt.Sprint(n-1) {
		t.Fatalf("the last is %+v", ms)
	}
}

func TestRequestReply(t *testing.T) {
	d := open(t)
	s := d.stream("/sse/ask?format=json")
	type reply struct {
		a answer
	}
	got := make(chan reply, 1)
	go func() {
		a := d.do("POST", "/t/ask?reply=1m", "ping", "X-Correlation-Id: 7")
		got <- reply{a}
	}()
	_, data, _ := strings.Cut(s.event(), "data: ")
	var m message
	if err := json.Unmarshal([]byte(data), &m); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(m.Reply, core.InboxPrefix) {
		t.Fatalf("reply to %q", m.Reply)
	}
	d.want(201, "POST", "/t/"+m.Reply, "pong", "Content-Type: text/x", "X-Correlation-Id: "+m.Corr)
	if a := (<-got).a; a.StatusCode != 200 || a.body != "pong" || a.Header.Get("X-Correlation-Id") != "7" || a.Header.Get("Content-Type") != "text/x" {
		t.Errorf("%s %v %s", a.Status, a.Header, a.body)
	}
	d.refused(504, "no-reply", "POST", "/t/ask?reply=10ms", "ping")
	d.refused(400, "bad-request", "POST", "/t/ask?reply=1s", "ping", "X-Reply-To: x")
}

func TestPublishTopics(t *testing.T) {
	d := open(t)
	for _, c := range []struct{ path, topic string }{
		{"/t/a//b", "a//b"}, {"/t//", "/"}, {"/t/a/", "a/"}, {"/t/a/../b", "a/../b"}, {"/t/a%20b/%C5%BC", "a b/ż"},
		{"/t/a%252Fb", "a%2Fb"}, {"/t/a.b/c", "a.b/c"}, {"/t/%22q%22", `"q"`}, {"/t/a\"b", `a"b`}, {"/t/a%3Fb", "a?b"}, {"/t/a;b", "a;b"},
	} {
		a := d.want(201, "POST", c.path, c.topic)
		var m message
		if err := json.Unmarshal([]byte(a.body), &m); err != nil || m.T != c.topic {
			t.Errorf("%s is the topic %q, want %q", c.path, m.T, c.topic)
		}
		if got := texts(d.want(200, "GET", c.path, "").messages(t)); got != c.topic {
			t.Errorf("GET %s: %q", c.path, got)
		}
	}
	for _, c := range []string{"/t/", "/t/a%2Fb", "/t/a%2fb\"", "/t/%00", "/t/a%00b", "/t/%ff", "/t/a/+", "/t/a/%2B", "/t/%23", "/t/" + strings.Repeat("x/", 32), "/t/" + strings.Repeat("x", 1025)} {
		d.refused(400, "invalid-topic", "POST", c, "x")
	}
	d.refused(403, "forbidden", "POST", "/t/$SYS/x", "x")
}

func TestHeadAndOptions(t *testing.T) {
	d := open(t)
	// What a member of a group takes is gone for the others, and HEAD shows nothing.
	for _, group := range []string{"/t/a?group=g", "/sse/a?group=g", "/t/a?group=g&format=sse"} {
		if a := d.want(405, "HEAD", group, ""); a.Header.Get("Allow") != "GET" {
			t.Errorf("%s: Allow: %s", group, a.Header.Get("Allow"))
		}
	}
	if got := d.want(200, "GET", "/v1/groups", "").body; !strings.Contains(got, `"total":0`) {
		t.Errorf("HEAD made %s", got)
	}
	d.want(201, "POST", "/t/a", "x")
	if a := d.want(200, "HEAD", "/t/a", ""); a.body != "" || a.Header.Get("X-Next") != "2" {
		t.Errorf("HEAD: %v", a.Header)
	}
	for path, want := range map[string]string{
		"/t/a": "GET, HEAD, POST, OPTIONS", "/q/a": "GET, HEAD, POST, OPTIONS", "/q/a/lease": "POST, OPTIONS", "/sse/a": "GET, HEAD, OPTIONS",
		"/last/a": "GET, HEAD, DELETE, OPTIONS", "/v1/queues/a": "GET, HEAD, PUT, DELETE, OPTIONS", "/lease/x/accept": "POST, OPTIONS",
	} {
		if got := d.want(204, "OPTIONS", path, "").Header.Get("Allow"); got != want {
			t.Errorf("OPTIONS %s: %q, want %q", path, got, want)
		}
	}
	a := d.refused(405, "method-not-allowed", "PATCH", "/t/a", "")
	if got := a.Header.Get("Allow"); got != "GET, HEAD, POST, OPTIONS" {
		t.Errorf("Allow %q", got)
	}
}
