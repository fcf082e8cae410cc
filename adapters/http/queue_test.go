package http_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestQueue(t *testing.T) {
	d := open(t)
	for i := range 4 {
		d.want(201, "POST", "/q/orders", fmt.Sprint("job", i))
	}
	if got := texts(d.want(200, "GET", "/q/orders", "").messages(t)); got != "job0 job1 job2 job3" {
		t.Fatalf("browsed %s", got)
	}
	ms := d.want(200, "POST", "/q/orders/lease?max=2&for=1h", "").messages(t)
	if texts(ms) != "job0 job1" || ms[0].Lease == "" || ms[0].N != 1 || ms[0].Until < time.Now().Add(50*time.Minute).UnixMilli() {
		t.Fatalf("leased %+v", ms)
	}
	d.want(204, "POST", "/lease/"+ms[0].Lease+"/accept", "")
	d.refused(409, "lease-ended", "POST", "/lease/"+ms[0].Lease+"/accept", "")
	a := d.want(204, "POST", "/lease/"+ms[1].Lease+"/extend?for=2h", "")
	if until, err := time.Parse(time.RFC3339, a.Header.Get("X-Lease-Until")); err != nil || time.Until(until) < 100*time.Minute {
		t.Errorf("extended until %q", a.Header.Get("X-Lease-Until"))
	}
	d.want(204, "POST", "/lease/"+ms[1].Lease+"/release?delay=0", "")
	again := d.want(200, "POST", "/q/orders/lease?format=raw&wait=1m", "")
	if again.body != "job1" || again.Header.Get("X-Attempt") != "2" || again.Header.Get("X-Topic") != "$queue/orders" {
		t.Fatalf("again %q %v", again.body, again.Header)
	}
	d.want(204, "POST", "/lease/"+again.Header.Get("X-Lease")+"/reject?reason=bad%20job", "")
	dead := d.want(200, "POST", "/q/orders.dead/lease?wait=1m", "").messages(t)
	if texts(dead) != "job1" || !strings.Contains(string(dead[0].H), "bad job") {
		t.Fatalf("dead letters %+v", dead)
	}
	if got := texts(d.want(200, "GET", "/q/orders", "").messages(t)); got != "job2 job3" {
		t.Errorf("left %s", got)
	}
	if got := texts(d.want(200, "POST", "/q/orders/lease?max=10&settle=auto", "").messages(t)); got != "job2 job3" {
		t.Errorf("taken %s", got)
	}
	d.want(204, "POST", "/q/orders/lease", "", "Accept: application/octet-stream")
	if a := d.want(200, "POST", "/q/orders/lease?format=json", ""); a.body != "{\"messages\":[]}\n" {
		t.Errorf("none: %s", a.body)
	}
}

func TestLeaseWaits(t *testing.T) {
	d := open(t)
	got := make(chan answer, 1)
	go func() { got <- d.do("POST", "/q/later/lease?wait=1m", "") }()
	d.eventually(func() bool {
		return strings.Contains(d.want(200, "GET", "/v1/queues", "").body, `"consumers":1`)
	})
	d.want(201, "POST", "/q/later", "now")
	if ms := (<-got).messages(t); texts(ms) != "now" {
		t.Errorf("leased %+v", ms)
	}
}

func TestSettleLines(t *testing.T) {
	d := open(t)
	for i := range 4 {
		d.want(201, "POST", "/q/b", fmt.Sprint(i))
	}
	ms := d.want(200, "POST", "/q/b/lease?max=4", "").messages(t)
	lines := fmt.Sprintf(`{"lease":%q,"do":"accept"}
{"lease":%q,"do":"release","delay":3600000}
{"lease":%q,"do":"extend","for":60000}
{"lease":%q,"do":"reject","reason":"no"}
{"lease":"AAAA","do":"accept"}
{"lease":"x","do":"burn"}
nonsense
{"lease":%q,"do":"extend"}
`, ms[0].Lease, ms[1].Lease, ms[2].Lease, ms[3].Lease, ms[2].Lease)
	a := d.want(200, "POST", "/lease", lines, "Content-Type: application/x-ndjson")
	rs := a.messages(t)
	if len(rs) != 8 {
		t.Fatalf("%s", a.body)
	}
	for i, r := range rs {
		if failed := r.Err != nil; failed != (i >= 4) {
			t.Errorf("line %d: %s", i, a.body)
		}
	}
	if rs[2].Until == 0 {
		t.Errorf("no new end: %s", a.body)
	}
	d.refused(415, "unsupported-type", "POST", "/lease", lines)
	d.refused(400, "bad-request", "POST", "/lease", "", "Content-Type: application/x-ndjson")
	d.refused(413, "too-large", "POST", "/lease", strings.Repeat("{}\n", 1025), "Content-Type: application/x-ndjson")
}

func TestGroup(t *testing.T) {
	d := open(t)
	d.want(200, "GET", "/t/g/%23?group=workers", "")
	for i := range 5 {
		d.want(201, "POST", fmt.Sprintf("/t/g/%d", i), fmt.Sprint(i))
	}
	ms := d.want(200, "GET", "/t/g/%23?group=workers&limit=2", "").messages(t)
	if texts(ms) != "0 1" || ms[0].Lease == "" || ms[0].T != "g/0" {
		t.Fatalf("leased %+v", ms)
	}
	d.want(204, "POST", "/lease/"+ms[0].Lease+"/accept", "")
	d.want(204, "POST", "/lease/"+ms[1].Lease+"/release?delay=0", "")
	if got := texts(d.want(200, "GET", "/t/g/%23?group=workers&settle=auto", "").messages(t)); got != "1 2 3 4" && got != "2 3 4 1" {
		t.Errorf("then %s", got)
	}
	if got := texts(d.want(200, "GET", "/t/g/%23?group=others&from=earliest&settle=auto", "").messages(t)); got != "0 1 2 3 4" {
		t.Errorf("others %s", got)
	}
	d.want(405, "HEAD", "/t/g?group=workers", "")
	for _, q := range []string{"group=", "group=a%2Fb", "group=a%23", "group=%00", "group=a&until=3", "for=3s", "settle=auto"} {
		d.want(400, "GET", "/t/g?"+q, "")
	}
}

func TestAdmin(t *testing.T) {
	d := open(t)
	d.want(201, "PUT", "/v1/exchanges/ex", `{"kind":"topic"}`)
	d.want(200, "PUT", "/v1/exchanges/ex", `{"kind":"topic"}`)
	d.refused(409, "conflict", "PUT", "/v1/exchanges/ex", `{"kind":"direct"}`)
	d.refused(400, "bad-request", "PUT", "/v1/exchanges/ey", `{"kind":"odd"}`)
	if a := d.want(200, "GET", "/v1/exchanges?after=ew&limit=1", ""); !strings.Contains(a.body, `{"name":"ex","kind":"topic"}`) {
		t.Errorf("%s", a.body)
	}
	a := d.want(201, "PUT", "/v1/queues/in%2Fbox", `{"settings":{"lease":"90s","max_attempts":3,"expires":"7d"},"bindings":[{"exchange":"ex","key":"a.*"},{"filter":"raw/#"}]}`)
	for _, part := range []string{`"name":"in/box"`, `"lease":"1m30s"`, `"expires":"168h0m0s"`, `{"exchange":"ex","key":"a.*"}`, `{"filter":"raw/#"}`} {
		if !strings.Contains(a.body, part) {
			t.Errorf("no %s in %s", part, a.body)
		}
	}
	d.want(200, "PUT", "/v1/queues/in%2Fbox", `{"settings":{"lease":"90s","max_attempts":3,"expires":"168h"}}`)
	if a := d.refused(409, "conflict", "PUT", "/v1/queues/in%2Fbox", `{"settings":{"overflow":"drop-oldest"}}`); !strings.Contains(a.body, "has max_attempts=3 lease=1m30s expires=168h0m0s, not overflow=drop-oldest") {
		t.Error(a.body)
	}
	d.want(201, "POST", "/x/ex/a.b", "routed")
	d.want(201, "POST", "/x/ex/b.b", "not")
	d.want(201, "POST", "/t/raw/x", "bound")
	d.want(201, "POST", "/q/in%2Fbox", "direct")
	if got := texts(d.want(200, "GET", "/q/in%2Fbox", "").messages(t)); got != "routed bound direct" {
		t.Errorf("in the queue: %s", got)
	}
	d.want(201, "POST", "/v1/queues/in%2Fbox/bindings", `{"filter":"more/+","from":"earliest"}`)
	d.want(204, "DELETE", "/v1/queues/in%2Fbox/bindings?exchange=ex&key=a.*", "")
	d.refused(404, "not-found", "DELETE", "/v1/queues/in%2Fbox/bindings?filter=none", "")
	a = d.want(200, "GET", "/v1/queues/in%2Fbox/bindings", "")
	if strings.Contains(a.body, "ex") || !strings.Contains(a.body, "more/+") {
		t.Errorf("bindings %s", a.body)
	}
	for i := range 5 {
		d.want(201, "PUT", fmt.Sprintf("/v1/queues/p%d", i), "")
	}
	a = d.want(200, "GET", "/v1/queues?prefix=p&limit=2&after=p1", "")
	if !strings.Contains(a.body, `"name":"p2"`) || strings.Contains(a.body, `"name":"p4"`) || !strings.Contains(a.body, `"next":"p3"`) {
		t.Errorf("page %s", a.body)
	}
	d.want(204, "DELETE", "/v1/queues/p1", "")
	d.refused(404, "not-found", "GET", "/v1/queues/p1", "")
	d.refused(404, "not-found", "DELETE", "/v1/queues/p1", "")
	d.want(204, "DELETE", "/v1/exchanges/ex", "")
	d.refused(404, "not-found", "GET", "/v1/exchanges/ex", "")
	d.refused(404, "not-found", "POST", "/x/ex/k", "x")
}
