package http_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestReadForms(t *testing.T) {
	d := open(t)
	for i := range 30 {
		d.want(201, "POST", fmt.Sprintf("/t/r/%d", i%2), fmt.Sprint(i))
	}
	if ms := d.want(200, "GET", "/t/r/+", "").messages(t); len(ms) != 20 || ms[0].text() != "10" {
		t.Errorf("the last %d from %s", len(ms), ms[0].text())
	}
	a := d.want(200, "GET", "/t/r/%23?from=earliest&limit=4", "")
	if texts(a.messages(t)) != "0 1 2 3" || a.Header.Get("X-More") != "true" || a.Header.Get("X-Next") != "5" {
		t.Errorf("%s %v", a.body, a.Header)
	}
	link, _, _ := strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">")
	if got := texts(d.want(200, "GET", link, "").messages(t)); got != "4 5 6 7" {
		t.Errorf("%s leads to %s", link, got)
	}
	if got := texts(d.want(200, "GET", "/t/r/0?from=3&until=8", "").messages(t)); got != "2 4 6" {
		t.Errorf("until: %s", got)
	}
	a = d.want(200, "GET", "/t/r/0?from=1&limit=1", "", "Accept: text/html;q=0.1, application/json")
	if !strings.HasPrefix(a.body, `{"messages":[{"t":"r/0","o":1,`) || !strings.Contains(a.body, `"next":2,"more":true,"gaps":[]`) {
		t.Errorf("JSON %s", a.body)
	}
	if a := d.want(200, "GET", "/t/r/0", "", "Accept: application/octet-stream"); a.body != "28" || a.Header.Get("X-Next") != "30" {
		t.Errorf("raw %s %v", a.body, a.Header)
	}
	if a := d.want(204, "GET", "/t/none?format=raw", ""); a.Header.Get("X-Next") == "" {
		t.Errorf("%v", a.Header)
	}
	d.refused(406, "not-acceptable", "GET", "/t/r", "", "Accept: text/html")
	d.refused(416, "offset-ahead", "GET", "/t/r?from=1000", "")
}

func TestLongPoll(t *testing.T) {
	d := open(t)
	d.want(201, "POST", "/t/p", "old")
	got := make(chan answer, 1)
	go func() { got <- d.do("GET", "/t/p?wait=1m", "") }()
	var a answer
	d.eventually(func() bool { // it may not have begun to wait
		d.want(201, "POST", "/t/p", "new")
		select {
		case a = <-got:
			return true
		default:
			return false
		}
	})
	ms := a.messages(t)
	// More of them may have come before the answer went.
	if len(ms) == 0 || strings.Trim(texts(ms), "new ") != "" || a.Header.Get("X-Next") != fmt.Sprint(ms[len(ms)-1].O+1) {
		t.Errorf("%s %v", a.body, a.Header)
	}
	end := d.want(200, "GET", "/t/p?from=latest", "").Header.Get("X-Next")
	start := time.Now()
	a = d.want(200, "GET", "/t/p?wait=100ms&from="+end, "")
	if a.body != "" || a.Header.Get("X-Next") != end || time.Since(start) < 100*time.Millisecond {
		t.Errorf("%q %v after %v", a.body, a.Header, time.Since(start))
	}
	if got := texts(d.want(200, "GET", "/t/p?from=1&wait=1m&limit=2", "").messages(t)); got != "old new" {
		t.Errorf("what is there: %s", got)
	}
}

func TestRetained(t *testing.T) {
	d := open(t)
	d.refused(404, "not-found", "GET", "/last/v/1", "")
	d.want(201, "POST", "/t/v/1?retain", "<script>", "Content-Type: text/html")
	d.want(201, "POST", "/t/v/2?retain=true", "two")
	a := d.want(200, "GET", "/last/v/1", "")
	if a.body != "<script>" || a.Header.Get("Content-Type") != "text/html" || a.Header.Get("X-Content-Type-Options") != "nosniff" ||
		!strings.Contains(a.Header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("%s %v", a.body, a.Header)
	}
	if got := texts(d.want(200, "GET", "/last/v/+", "").messages(t)); got != "<script> two" {
		t.Errorf("both: %s", got)
	}
	if got := d.want(200, "GET", "/last/v/2?format=json", "").body; !strings.Contains(got, `"d":"two"`) {
		t.Errorf("%s", got)
	}
	d.want(204, "DELETE", "/last/v/1", "")
	d.refused(404, "not-found", "GET", "/last/v/1", "")
	if got := d.want(200, "GET", "/last/none/+", "").body; got != "" {
		t.Errorf("none: %s", got)
	}
	d.refused(400, "invalid-topic", "DELETE", "/last/v/+", "")
}

// A retained value has a tag, by which it is not sent twice, and removed only
// where it is the one that was seen.
func TestRetainedTags(t *testing.T) {
	d := open(t)
	d.want(201, "POST", "/t/v/1?retain", strings.Repeat("one ", 1000), "Content-Type: text/plain")
	tag := d.want(200, "GET", "/last/v/1", "").Header.Get("ETag")
	zipped := d.want(200, "GET", "/last/v/1", "", "Accept-Encoding: gzip").Header.Get("ETag")
	if tag == "" || zipped == tag {
		t.Fatalf("tags %s and %s", tag, zipped)
	}
	for _, known := range []string{tag, zipped, "W/" + tag, `"x", ` + tag, "*"} {
		if a := d.want(304, "GET", "/last/v/1", "", "If-None-Match: "+known); a.body != "" || a.Header.Get("ETag") != tag || a.Header.Get("Vary") == "" {
			t.Errorf("%q %v", a.body, a.Header)
		}
	}
	d.want(304, "HEAD", "/last/v/1", "", "If-None-Match: "+tag)
	d.want(200, "GET", "/last/v/1", "", "If-None-Match: \"x\"")
	d.refused(412, "precondition-failed", "GET", "/last/v/1", "", "If-Match: \"x\"")
	d.refused(412, "precondition-failed", "DELETE", "/last/v/1", "", "If-Match: \"x\"")
	d.refused(412, "precondition-failed", "DELETE", "/last/v/1", "", "If-Match: W/"+tag)
	d.refused(412, "precondition-failed", "DELETE", "/last/v/2", "", "If-Match: *")
	d.want(201, "POST", "/t/v/1?retain", "two")
	d.want(200, "GET", "/last/v/1", "", "If-None-Match: "+tag)
	d.refused(412, "precondition-failed", "DELETE", "/last/v/1", "", "If-Match: "+tag)
	tag = d.want(200, "GET", "/last/v/1", "").Header.Get("ETag")
	d.want(204, "DELETE", "/last/v/1", "", "If-Match: "+tag)
	d.refused(404, "not-found", "GET", "/last/v/1", "")
}

func TestPages(t *testing.T) {
	d := open(t)
	if a := d.want(200, "GET", "/", ""); !strings.Contains(a.body, "curl -d 'it works' "+d.addr+"/t/hello") {
		t.Errorf("%s", a.body)
	}
	d.want(200, "GET", "/healthz", "")
	d.want(200, "GET", "/readyz", "")
}
