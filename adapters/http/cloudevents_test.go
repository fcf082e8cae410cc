package http_test

import (
	"bytes"
	"fmt"
	nethttp "net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

// events are events of every kind of data and attribute.
func sampleEvents(t *testing.T) []event.Event {
	at := time.Date(2026, 11, 1, 8, 0, 0, 123e6, time.UTC)
	var all []event.Event
	add := func(contentType string, data any, change func(*event.Event)) {
		e := event.New()
		e.SetID(fmt.Sprintf("id-%d", len(all)))
		e.SetSource("/sensors/zażółć?a=1")
		e.SetType("com.example.thing")
		if data != nil {
			if err := e.SetData(contentType, data); err != nil {
				t.Fatal(err)
			}
		}
		if change != nil {
			change(&e)
		}
		all = append(all, e)
	}
	add("application/json", map[string]any{"celsius": 21.5, "names": []string{"ż", "\u2028"}}, nil)
	add("text/plain", []byte("Euro € and\nlines"), func(e *event.Event) {
		e.SetSubject(`100% "sure"`) // this SDK encodes and decodes nothing
		e.SetTime(at)
		e.SetDataSchema("https://example.com/schema")
		e.SetExtension("partitionkey", "k1")
		e.SetExtension("comexampleext", "value")
	})
	add("application/octet-stream", []byte{0, 1, 0xff, '\r', '\n'}, nil)
	add("application/xml", []byte("<a/>"), nil)
	add("", nil, nil)
	return all
}

// eventText is an event in one canonical form.
func eventText(t *testing.T, e event.Event) string {
	t.Helper()
	if err := e.Validate(); err != nil {
		t.Errorf("the event is not valid: %v", err)
	}
	var ext []string
	for name, v := range e.Extensions() {
		ext = append(ext, fmt.Sprintf("%s=%v", name, v))
	}
	slices.Sort(ext)
	data := e.Data()
	if e.DataContentType() == "application/json" {
		data = bytes.TrimSpace(data)
	}
	return fmt.Sprintf("%s %s %s %q %s %s %s %v %q", e.ID(), e.Source(), e.Type(), e.Subject(), e.Time(), e.DataContentType(), e.DataSchema(), ext, data)
}

// What the CloudEvents SDK sends in one mode it reads in every other.
func TestCloudEventsSDK(t *testing.T) {
	d := open(t)
	do := func(r *nethttp.Request, err error, status int) *nethttp.Response {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		resp, err := d.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if resp.StatusCode != status {
			t.Fatalf("%s %s: %s", r.Method, r.URL, resp.Status)
		}
		return resp
	}
	all := sampleEvents(t)
	for i, e := range all {
		for _, mode := range []string{"binary", "structured"} {
			url := fmt.Sprintf("http://%s/t/ce/%s/%d", d.addr, mode, i)
			r, err := nethttp.NewRequestWithContext(t.Context(), "POST", url+"?retain", nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx := binding.WithForceStructured(t.Context())
			if mode == "binary" {
				ctx = binding.WithForceBinary(t.Context())
			}
			err = cehttp.WriteRequest(ctx, binding.ToMessage(&e), r)
			do(r, err, 201)
			want := eventText(t, e)
			for _, accept := range []string{"application/octet-stream", "application/cloudevents+json"} {
				froms := []string{url, strings.Replace(url, "/t/", "/last/", 1)}
				if len(e.Data()) == 0 {
					froms = froms[:1] // it removed the retained value
				}
				for _, from := range froms {
					r, err := nethttp.NewRequestWithContext(t.Context(), "GET", from, nil)
					if err == nil {
						r.Header.Set("Accept", accept)
					}
					got, err := cehttp.NewEventFromHTTPResponse(do(r, err, 200))
					if err != nil {
						t.Fatalf("%s as %s: %v", from, accept, err)
					}
					if text := eventText(t, *got); text != want {
						t.Errorf("%s as %s is\n%s, want\n%s", from, accept, text, want)
					}
				}
			}
		}
	}
	r, err := cehttp.NewHTTPRequestFromEvents(t.Context(), "http://"+d.addr+"/t/ce/batch", all)
	do(r, err, 201)
	for from, n := range map[string]int{"/t/ce/batch?format=cloudevents": len(all), "/last/ce/structured/+?format=cloudevents": len(all) - 1} {
		r, err = nethttp.NewRequestWithContext(t.Context(), "GET", "http://"+d.addr+from, nil)
		got, err := cehttp.NewEventsFromHTTPResponse(do(r, err, 200))
		if err != nil || len(got) != n {
			t.Fatalf("%d events, %v", len(got), err)
		}
		for i := range got {
			if text, want := eventText(t, got[i]), eventText(t, all[i]); text != want {
				t.Errorf("in the batch %s is\n%s, want\n%s", from, text, want)
			}
		}
	}

	// A message that is no event becomes one.
	d.want(201, "POST", "/t/plain/m", "hello", "Content-Type: text/plain", "X-Key: k")
	r, err = nethttp.NewRequestWithContext(t.Context(), "GET", "http://"+d.addr+"/t/plain/m?format=cloudevent", nil)
	got, err := cehttp.NewEventFromHTTPResponse(do(r, err, 200))
	if err != nil {
		t.Fatal(err)
	}
	if got.Source() != "/t/plain/m" || got.Type() != "sluice.message" || string(got.Data()) != "hello" || got.Extensions()["partitionkey"] != "k" || got.Validate() != nil {
		t.Errorf("%v", got)
	}
}

// An attribute's header reads back as what it was, and one of a sender that
// encodes as the binding has it is decoded.
func TestAttributesInHeaders(t *testing.T) {
	d := open(t)
	for _, c := range []struct{ sent, is, comes string }{
		{"Euro %E2%82%AC %F0%9F%98%80", "Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"},
		{`100% "sure"`, `100% "sure"`, `100% "sure"`},
		{"a%2525b", "a%25b", "a%2525b"},
		{"%ff%", "%ff%", "%ff%"},
	} {
		d.want(201, "POST", "/t/h", "x", "Ce-Subject: "+c.sent, "Ce-Source: /a%20b")
		if m := d.want(200, "GET", "/t/h?from=-1", "").messages(t)[0]; string(m.H) != fmt.Sprintf(`{"ce-source":"/a%%20b","ce-subject":%q}`, c.is) {
			t.Errorf("%s is %s", c.sent, m.H)
		}
		if a := d.want(200, "GET", "/t/h?from=-1&format=raw", ""); a.Header.Get("Ce-Subject") != c.comes || a.Header.Get("Ce-Source") != "/a%20b" || a.Header.Get("X-Headers") != "" {
			t.Errorf("%s comes as %v", c.sent, a.Header)
		}
	}
}

func TestCloudEvents(t *testing.T) {
	d := open(t)
	const structured, batch = "Content-Type: application/cloudevents+json; charset=utf-8", "Content-Type: application/cloudevents-batch+json"
	const good = `{"specversion":"1.0","id":"1","source":"/s","type":"t","partitionkey":"k","n":-5,"flag":true,"none":null,"datacontenttype":"text/plain","data":"x\n"}`
	d.want(201, "POST", "/t/e", good, structured, "X-Priority: 3", "X-H-Other: o")
	m := d.want(200, "GET", "/t/e?format=raw", "")
	for name, want := range map[string]string{
		"Ce-Specversion": "1.0", "Ce-Id": "1", "Ce-Source": "/s", "Ce-Type": "t", "Ce-N": "-5", "Ce-Flag": "true", "Ce-None": "", "Ce-Data": "", "Content-Type": "text/plain",
		"X-Key": "k", "X-Priority": "3", "X-H-Other": "o", "X-Headers": "",
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if m.body != "x\n" {
		t.Errorf("%q", m.body)
	}
	d.refused(400, "bad-request", "POST", "/t/e", strings.Replace(good, `"text/plain","data"`, `"x","data_base64":"?","d"`, 1), structured)
	for _, bad := range []string{
		"", "[]", "{}", good + "{}", strings.Replace(good, "1.0", "0.3", 1), strings.Replace(good, `"id":"1",`, "", 1), strings.Replace(good, `"/s"`, `""`, 1),
		strings.Replace(good, `"flag"`, `"Flag"`, 1), strings.Replace(good, `true`, `{}`, 1), strings.Replace(good, `-5`, `1.5`, 1), strings.Replace(good, `-5`, `99999999999`, 1),
		strings.Replace(good, `"flag":true`, `"data_base64":""`, 1),
	} {
		d.refused(400, "bad-request", "POST", "/t/e", bad, structured)
		d.refused(400, "bad-request", "POST", "/t/e", "["+good+","+bad+"]", batch)
	}
	d.refused(400, "bad-request", "POST", "/t/e", "[]", batch)
	d.refused(400, "bad-request", "POST", "/t/e?retain", "["+good+"]", batch)
	d.refused(413, "too-large", "POST", "/t/e", "["+strings.Repeat(good+",", 1024)+good+"]", batch)
	d.refused(406, "not-acceptable", "POST", "/q/e/lease?format=cloudevent", "")
	d.refused(406, "not-acceptable", "GET", "/last/%23?format=cloudevent", "")
	d.refused(404, "not-found", "GET", "/last/none?format=cloudevents", "")
	d.want(204, "GET", "/t/none?format=cloudevent", "")
	if a := d.want(200, "GET", "/t/none", "", "Accept: application/cloudevents-batch+json"); a.body != "[]\n" || a.Header.Get("X-Next") == "" {
		t.Errorf("%s %v", a.body, a.Header)
	}
	if ms := d.want(200, "GET", "/t/%23", "").messages(t); len(ms) != 1 {
		t.Errorf("%d were published", len(ms))
	}
}
