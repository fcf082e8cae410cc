package http_test

import (
	"strings"
	"testing"
)

// where chooses messages by a selector, wherever messages are read.
func TestWhere(t *testing.T) {
	d := open(t)
	const cheap = "where=price%20%3C%20100"
	live := d.stream("/sse/o/%23?" + cheap)
	grouped := d.stream("/sse/o/%23?group=s&" + cheap)
	d.want(200, "GET", "/t/o/%23?group=g&"+cheap, "")
	for _, o := range []struct{ body, price string }{{"a", "250"}, {"b", "90"}, {"c", "500"}, {"d", "10"}} {
		d.want(201, "POST", "/t/o/1", o.body, "X-H-Price: "+o.price)
		d.want(201, "POST", "/q/o", o.body, "X-H-Price: "+o.price)
	}
	for _, s := range []*stream{live, grouped} {
		for _, want := range []string{"b", "d"} {
			if e := s.event(); !strings.HasSuffix(e, "|data: "+want) {
				t.Errorf("%s, want %s", e, want)
			}
		}
	}
	for _, path := range []string{"/t/o/1?from=earliest&", "/q/o?", "/t/o/%23?group=g&settle=auto&"} {
		if got := texts(d.want(200, "GET", path+cheap, "").messages(t)); got != "b d" {
			t.Errorf("%s: %s", path, got)
		}
	}
	if got := texts(d.want(200, "POST", "/q/o/lease?max=10&settle=auto&"+cheap, "").messages(t)); got != "b d" {
		t.Errorf("leased %s", got)
	}
	if got := texts(d.want(200, "GET", "/q/o", "").messages(t)); got != "a c" {
		t.Errorf("left %s", got)
	}
	for _, path := range []string{"/t/o?", "/sse/o?", "/q/o?", "/t/o?group=g&"} {
		if a := d.refused(400, "bad-request", "GET", path+"where=price%20%3C", ""); !strings.Contains(a.body, "at byte 7") {
			t.Errorf("%s", a.body)
		}
	}
}

func TestMandatory(t *testing.T) {
	d := open(t)
	d.refused(503, "no-responders", "POST", "/t/m?mandatory", "x")
	d.refused(503, "no-responders", "POST", "/t/m?reply=1m", "x")
	d.refused(504, "no-reply", "POST", "/t/m?reply=1ms&mandatory=false", "x")
	if a := d.want(200, "POST", "/t/m", `{"mandatory":true}`+"\n{}\n", "Content-Type: application/x-ndjson"); !strings.Contains(a.body, "#no-responders") || strings.Count(a.body, `"o":`) != 1 {
		t.Errorf("%s", a.body)
	}
	d.stream("/sse/m")
	d.want(201, "POST", "/t/m?mandatory", "x")
	if ms := d.want(200, "GET", "/t/m", "").messages(t); len(ms) != 3 {
		t.Errorf("%+v", ms)
	}
}
