package clienttest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A fetched answer is what a page saw of one.
type fetched struct {
	Status  int
	Headers [][2]string
	Body    []byte
}

func (f *fetched) header(name string) string {
	for _, h := range f.Headers {
		if h[0] == name {
			return h[1]
		}
	}
	return ""
}

// fetch has the page fetch something; the error is the browser's, where it does
// not let the page.
func fetch(t testing.TB, method, url, body string, headers ...[2]string) (*fetched, error) {
	args := map[string]any{"url": url, "method": method, "headers": headers}
	if body != "" {
		args["body"] = []byte(body)
	}
	out, err := browserDriver(t).call("fetch", args)
	if err != nil {
		return nil, err
	}
	f := new(fetched)
	return f, json.Unmarshal(out, f)
}

// TestFetchAdministers does what /v1/ is for from a page of another origin, in
// Chromium: what a page sends there is asked for first (CORS), and what it is
// told it may read, headers included.
func TestFetchAdministers(t *testing.T) {
	page := browserDriver(t)
	hook := httptest.NewServer(http.NotFoundHandler())
	defer hook.Close()
	b := startBroker(t, allowing(page.origin)+"  webhooks:\n    allow: [127.0.0.0/8]\npolicies:\n  - {name: short, filters: [short/#], age: 1h}\n")
	etag := ""
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string // in the body
	}{
		{"PUT", "/v1/queues/jobs", `{"settings":{"max_attempts":2,"backoff":"10ms"},"bindings":[{"filter":"jobs/#"}]}`, 201, `"max_attempts":2`},
		{"POST", "/t/jobs/1", "do it", 201, `"o":1`},
		{"GET", "/v1/queues?prefix=jo", "", 200, `"name":"jobs"`},
		{"GET", "/v1/queues/jobs", "", 200, `"lag":1`},
		{"POST", "/v1/queues/jobs/bindings", `{"filter":"more/#"}`, 201, `more/#`},
		{"DELETE", "/v1/queues/jobs/bindings?filter=more/%23", "", 204, ""},
		{"POST", "/v1/queues/jobs/purge", `{"dry_run":true}`, 200, `"messages":1`},
		{"PUT", "/v1/queues/jobs/webhook", `{"url":"` + hook.URL + `"}`, 201, `"secret":"whsec_`},
		{"GET", "/v1/webhooks", "", 200, `"queue":"jobs"`},
		{"DELETE", "/v1/queues/jobs/webhook", "", 204, ""},
		{"PUT", "/v1/exchanges/shop", `{"kind":"topic"}`, 201, `"kind":"topic"`},
		{"POST", "/x/shop/eu.new", "x", 201, `"o":`},
		{"DELETE", "/v1/exchanges/shop", "", 204, ""},
		{"GET", "/t/jobs/%2B?group=crew", "", 200, ""},
		{"GET", "/v1/groups", "", 200, `"group":"crew"`},
		{"GET", "/v1/policies?topic=short/x", "", 200, `"short"`},
		{"POST", "/t/lamp?retain", "on", 201, `"o":`},
		{"GET", "/v1/retained", "", 200, `"topic":"lamp"`},
		{"GET", "/last/lamp", "", 200, "on"},
		{"DELETE", "/last/lamp", "", 204, ""},
		{"GET", "/v1/topics?filter=jobs/%23", "", 200, `"topic":"jobs/1"`},
		{"GET", "/v1/clients?protocol=http", "", 200, `"protocol":"http"`},
		{"DELETE", "/v1/clients/mqtt/nobody", "", 404, "docs/http.md#not-found"},
		{"DELETE", "/v1/queues/jobs", "", 204, ""},
	} {
		got, err := fetch(t, c.method, "http://"+b.HTTP+c.path, c.body, [2]string{"content-type", map[bool]string{true: "application/json", false: "text/plain"}[strings.HasPrefix(c.body, "{")]})
		if err != nil {
			t.Fatalf("%s %s: %v", c.method, c.path, err)
		}
		if got.Status != c.status || !strings.Contains(string(got.Body), c.want) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, got.Status, got.Body, c.status, c.want)
		}
		if c.path == "/v1/topics?filter=jobs/%23" {
			etag = got.header("etag")
		}
	}
	if etag == "" {
		t.Error("a page cannot read the ETag")
	}

	// A stream is read as it comes.
	text := make(chan string, 1)
	if _, err := fetch(t, "POST", "http://"+b.HTTP+"/t/live", "early"); err != nil {
		t.Fatal(err)
	}
	go func() {
		out, err := page.call("fetch.stream", map[string]any{"url": "http://" + b.HTTP + "/sse/live?from=earliest&format=json", "until": "late"})
		text <- fmt.Sprintf("%s %v", out, err)
	}()
	if _, err := fetch(t, "POST", "http://"+b.HTTP+"/t/live", "late"); err != nil {
		t.Fatal(err)
	}
	if got := <-text; !strings.Contains(got, "early") || !strings.Contains(got, "late") {
		t.Errorf("the stream gave %s", got)
	}
}

// TestFetchFromElsewhere: a page of an origin that is not listed reads nothing
// and changes nothing, also by what a browser sends without asking first.
func TestFetchFromElsewhere(t *testing.T) {
	b := startBroker(t, "queues:\n  - name: jobs\n")
	for _, c := range [][3]string{
		{"GET", "/v1/queues", ""}, {"GET", "/v1/clients", ""}, {"GET", "/v1/topics", ""}, {"GET", "/t/a", ""}, {"GET", "/sse/a", ""}, {"GET", "/last/a", ""}, {"GET", "/metrics", ""},
		{"POST", "/t/a", "forged"}, {"POST", "/q/jobs", "forged"}, {"POST", "/q/jobs/lease", ""}, {"POST", "/v1/queues/jobs/purge", "{}"}, {"POST", "/v1/bindings", "{}"}, {"POST", "/v1/backup", ""},
		{"PUT", "/v1/queues/forged", "{}"}, {"DELETE", "/v1/queues/jobs", ""}, {"PUT", "/v1/queues/jobs/webhook", `{"url":"https://evil.example"}`}, {"DELETE", "/v1/clients/mqtt/x", ""},
	} {
		if got, err := fetch(t, c[0], "http://"+b.HTTP+c[1], c[2], [2]string{"content-type", "text/plain"}); err == nil {
			t.Errorf("%s %s: the page was told %d %s", c[0], c[1], got.Status, got.Body)
		}
	}
	for path, want := range map[string]string{"/t/%23?from=1": "", "/v1/queues": `"total":1`, "/v1/queues/jobs": `"lag":0`} {
		resp, err := http.Get("http://" + b.HTTP + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), want) || want == "" && len(body) > 0 {
			t.Errorf("%s: %s, %v", path, body, err)
		}
	}
}
