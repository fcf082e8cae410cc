package http_test

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/core"
)

func TestEntityTags(t *testing.T) {
	d := open(t)
	const one, other = `{"settings":{"max_attempts":5}}`, `{"settings":{"max_attempts":6}}`
	d.refused(412, "precondition-failed", "PUT", "/v1/queues/q", one, `If-Match: "x"`)
	d.refused(412, "precondition-failed", "PUT", "/v1/queues/q", one, "If-Match: *")
	tag := d.want(201, "PUT", "/v1/queues/q", one, "If-None-Match: *").Header.Get("ETag")
	if !strings.HasPrefix(tag, `"`) {
		t.Fatalf("the tag is %s", tag)
	}
	d.refused(412, "precondition-failed", "PUT", "/v1/queues/q", one, "If-None-Match: *")
	d.want(201, "POST", "/q/q", "what waits is not the definition")
	if a := d.want(200, "GET", "/v1/queues/q", "", "If-None-Match: "+tag); a.Header.Get("ETag") != tag {
		t.Errorf("the tag became %s", a.Header.Get("ETag"))
	}
	d.want(200, "PUT", "/v1/queues/q", one, "If-Match: "+tag)
	d.refused(412, "precondition-failed", "DELETE", "/v1/queues/q", "", "If-Match: W/"+tag)
	d.want(204, "DELETE", "/v1/queues/q", "", `If-Match: "x", `+tag)
	changed := d.want(201, "PUT", "/v1/queues/q", other).Header.Get("ETag")
	if changed == tag {
		t.Error("other settings have the same tag")
	}
	d.refused(412, "precondition-failed", "DELETE", "/v1/queues/q", "", "If-Match: "+tag)
	d.want(204, "DELETE", "/v1/queues/q", "")
	d.refused(404, "not-found", "DELETE", "/v1/queues/q", "", "If-Match: *")

	x := d.want(201, "PUT", "/v1/exchanges/x", `{"kind":"topic"}`).Header.Get("ETag")
	d.want(304, "GET", "/v1/exchanges/x", "", "If-None-Match: "+x)
	d.want(200, "GET", "/v1/exchanges/x", "", "If-Match: "+x)
	d.refused(412, "precondition-failed", "GET", "/v1/exchanges/x", "", "If-Match: \"other\"")
	d.refused(412, "precondition-failed", "DELETE", "/v1/exchanges/x", "", `If-Match: "x"`)
	list := d.want(200, "GET", "/v1/exchanges", "").Header.Get("ETag")
	if a := d.want(304, "HEAD", "/v1/exchanges", "", "If-None-Match: W/"+list); a.body != "" {
		t.Errorf("304 with a body: %s", a.body)
	}
	d.want(204, "DELETE", "/v1/exchanges/x", "", "If-Match: "+x)
	d.want(200, "GET", "/v1/exchanges", "", "If-None-Match: "+list)
}

func TestListsSort(t *testing.T) {
	d := open(t)
	for _, q := range []string{"a", "b", "c"} {
		d.want(201, "PUT", "/v1/queues/"+q, "")
	}
	d.want(201, "POST", "/q/b", "x")
	d.want(200, "POST", "/q/b/lease", "")
	a := d.want(200, "GET", "/v1/queues?sort=-held&limit=1", "")
	if !strings.Contains(a.body, `"name":"b"`) || !strings.Contains(a.body, `"total":3`) {
		t.Errorf("%s", a.body)
	}
	d.refused(400, "bad-request", "GET", "/v1/queues?sort=colour", "")
}

func TestAdminViews(t *testing.T) {
	d := open(t, func(_ *http.Options, o *core.Options) {
		o.Policies = []core.Policy{{Name: "short", Filters: []core.Filter{"s/#"}, Age: time.Hour}, {Name: "rest", Filters: []core.Filter{"#"}, Bytes: 1 << 30}}
	})
	for _, topic := range []string{"b", "a/1", "a/2"} {
		d.want(201, "POST", "/t/"+topic+"?retain", "value of "+topic, "Content-Type: text/plain")
	}
	a := d.want(200, "GET", "/v1/retained?filter=a/%23&limit=1", "")
	if !strings.Contains(a.body, `"topic":"a/1"`) || !strings.Contains(a.body, `"next":"a/1"`) || !strings.Contains(a.body, `"bytes":12,"type":"text/plain"`) {
		t.Errorf("%s", a.body)
	}
	if a = d.want(200, "GET", "/v1/retained?after=a/1", ""); strings.Contains(a.body, "a/1") || strings.Contains(a.body, "next") || strings.Count(a.body, `"topic"`) != 2 {
		t.Errorf("%s", a.body)
	}
	if a = d.want(200, "GET", "/last/%23?limit=2", ""); a.Header.Get("Link") != `</last/%23?after=a%2F2&limit=2>; rel="next"` {
		t.Errorf("%v", a.Header)
	}
	if a = d.want(200, "GET", "/last/%23?after=a%2F2&limit=2", ""); len(a.messages(t)) != 1 || a.messages(t)[0].T != "b" {
		t.Errorf("%s", a.body)
	}

	d.want(200, "GET", "/t/w/%23?group=g", "")
	d.want(200, "GET", "/t/w/+?group=h", "")
	if a = d.want(200, "GET", "/v1/groups?sort=-name", ""); !strings.Contains(a.body, `{"group":"h","filter":"w/+","queue":"$share/h/w/+","position":`) || strings.Index(a.body, `"h"`) > strings.Index(a.body, `"g"`) {
		t.Errorf("%s", a.body)
	}
	if a = d.want(200, "GET", "/v1/groups?prefix=g", ""); !strings.Contains(a.body, `"total":1}`) {
		t.Errorf("%s", a.body)
	}

	if a = d.want(200, "GET", "/v1/policies", ""); a.body != `{"items":[{"name":"short","filters":["s/#"],"age":"1h0m0s"},{"name":"rest","filters":["#"],"bytes":1073741824}],"total":2}`+"\n" {
		t.Errorf("%s", a.body)
	}
	if a = d.want(200, "GET", "/v1/policies?topic=s/x", ""); !strings.Contains(a.body, `"short"`) || strings.Contains(a.body, `"rest"`) {
		t.Errorf("%s", a.body)
	}
	d.refused(404, "not-found", "GET", "/v1/policies?topic=$own", "")
	d.refused(400, "invalid-topic", "GET", "/v1/policies?topic=s/%23", "")
	d.refused(400, "invalid-topic", "GET", "/v1/retained?filter=a%23", "")
}

// Clients of every kind are listed and can be ended; a stream is told why.
func TestClients(t *testing.T) {
	d := open(t)
	s := d.stream("/sse/x")
	w := d.dial()
	w.say(plain("a", "x"))
	w.hear(201)
	other, err := d.broker.Connect(t.Context(), core.Credentials{Protocol: "mqtt", Client: "sensor/1", User: "ann", Remote: w.LocalAddr()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	told := make(chan error, 1)
	other.WhenExpired(func(why error) { told <- why })
	a := d.want(200, "GET", "/v1/clients?sort=-since&user=ann", "")
	if !strings.HasPrefix(a.body, `{"items":[{"protocol":"mqtt","client":"sensor/1","user":"ann","remote":"`+w.LocalAddr().String()+`","since":`) || !strings.Contains(a.body, `"consumers":0}],"total":1}`) {
		t.Errorf("%s", a.body)
	}
	d.want(204, "DELETE", "/v1/clients/mqtt/sensor%2F1", "")
	if why := <-told; !errors.Is(why, core.ErrDisconnected) {
		t.Errorf("%v", why)
	}
	d.refused(404, "not-found", "DELETE", "/v1/clients/mqtt/sensor%2F1", "")
	var list struct {
		Items []struct {
			Client    string
			Consumers int
		}
	}
	if err := json.Unmarshal([]byte(d.want(200, "GET", "/v1/clients?protocol=http&sort=consumers", "").body), &list); err != nil || len(list.Items) != 3 {
		t.Fatalf("%v %+v", err, list) // the stream, the lane, and who asks
	}
	for _, c := range list.Items {
		if a := d.do("DELETE", "/v1/clients/http/"+c.Client, ""); a.StatusCode != 204 && a.StatusCode != 404 {
			t.Errorf("%s: %s", c.Client, a.Status)
		}
	}
	if got := s.event(); !strings.HasPrefix(got, "event: error|data: ") || !strings.Contains(got, "an operator ended the connection") {
		t.Errorf("the stream was told %s", got)
	}
	if _, err := w.r.ReadByte(); err == nil {
		t.Error("the connection goes on")
	}
}

// Clients that have the same name are all on some page, once.
func TestClientsOfOneNameArePaged(t *testing.T) {
	d := open(t)
	for range 5 {
		c, err := d.broker.Connect(t.Context(), core.Credentials{Protocol: "stomp", Client: "same"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for _, sort := range []string{"", "name", "-name", "since", "-since", "consumers", "-consumers"} {
		n, after := 0, ""
		for range 5 {
			var page struct {
				Items []struct{ Client string }
				Next  string
				Total int
			}
			total := 5
			if sort == "" || sort == "since" { // nobody goes through all of them
				total = 0
			}
			a := d.want(200, "GET", "/v1/clients?protocol=stomp&limit=2&sort="+sort+after, "")
			if err := json.Unmarshal([]byte(a.body), &page); err != nil || page.Total != total {
				t.Fatalf("%v %s", err, a.body)
			}
			if n += len(page.Items); page.Next == "" {
				break
			}
			after = "&after=" + url.QueryEscape(page.Next)
		}
		if n != 5 {
			t.Errorf("by %s: %d of 5 clients on the pages", sort, n)
		}
	}
}
