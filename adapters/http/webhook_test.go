package http_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/core"
)

const hookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// A post is what a receiver of webhooks got.
type post struct {
	header nethttp.Header
	body   string
}

// A receiver is a server that webhooks post to.
type receiver struct {
	*httptest.Server
	posts chan post

	mu     sync.Mutex
	answer func(n int) (status int, header map[string]string) // of the nth post
	n      int
}

func receive(t *testing.T, answer func(n int) (int, map[string]string)) *receiver {
	r := &receiver{posts: make(chan post, 1000), answer: answer}
	r.Server = httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, q *nethttp.Request) {
		b, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		r.n++
		status, header := 204, map[string]string(nil)
		if r.answer != nil {
			status, header = r.answer(r.n)
		}
		r.mu.Unlock()
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(status)
		r.posts <- post{q.Header, string(b)}
	}))
	t.Cleanup(r.Server.Close)
	return r
}

func allowLoopback(o *http.Options, _ *core.Options) { o.Allow = loopback }

func (d *door) hook(queue, body string) answer {
	d.Helper()
	return d.want(201, "PUT", "/v1/queues/"+queue+"/webhook", body)
}

// Each message of a queue is posted, with all that it carries, and signed so
// that the library of Standard Webhooks finds it genuine.
func TestWebhook(t *testing.T) {
	d := open(t, allowLoopback)
	r := receive(t, nil)
	d.want(201, "PUT", "/v1/queues/h", `{"bindings":[{"filter":"orders/#"}]}`)
	told := d.hook("h", `{"url":"`+r.URL+`/in","timeout":"1m","in_flight":1}`)
	var info struct{ Secret string }
	if err := json.Unmarshal([]byte(told.body), &info); err != nil || !strings.HasPrefix(info.Secret, "whsec_") {
		t.Fatalf("%v %s", err, told.body)
	}
	verify, err := standardwebhooks.NewWebhook(info.Secret)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		d.want(201, "POST", "/t/orders/za%C5%BC", fmt.Sprint("order ", i), "Content-Type: text/plain", "X-Key: k", "X-H-Colour: red", "Ce-Id: 7")
	}
	ids := make(map[string]bool)
	for i := range 10 {
		p := <-r.posts
		if err := verify.Verify([]byte(p.body), p.header); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		if err := verify.Verify([]byte(p.body+"!"), p.header); err == nil {
			t.Error("another body is as good")
		}
		ids[p.header.Get("Webhook-Id")] = true
		for name, want := range map[string]string{
			"Content-Type": "text/plain", "X-Topic*": "UTF-8''orders%2Fza%C5%BC", "X-Key": "k", "X-H-Colour": "red", "Ce-Id": "7", "X-Queue": "h", "X-Attempt": "1", "User-Agent": "Sluice-Webhook",
		} {
			if got := strings.Join(p.header[nethttp.CanonicalHeaderKey(name)], ","); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if p.body != fmt.Sprint("order ", i) {
			t.Errorf("%d came as %q", i, p.body)
		}
	}
	if len(ids) != 10 {
		t.Errorf("%d ids", len(ids))
	}
	d.eventually(func() bool {
		return strings.Contains(d.want(200, "GET", "/v1/queues/h/webhook", "").body, `"delivered":10,"failed":0}`)
	})
	a := d.want(200, "GET", "/v1/webhooks?sort=-delivered", "")
	if !strings.Contains(a.body, `{"queue":"h","url":"`+r.URL+`/in","secrets":1,"timeout":"1m0s","in_flight":1,"configured":false,"delivered":10`) || strings.Contains(a.body, "whsec") {
		t.Errorf("%s", a.body)
	}
	// Without one, what comes stays in the queue.
	d.refused(412, "precondition-failed", "DELETE", "/v1/queues/h/webhook", "", `If-Match: "x"`)
	d.want(204, "DELETE", "/v1/queues/h/webhook", "")
	d.refused(404, "not-found", "GET", "/v1/queues/h/webhook", "")
	d.want(201, "POST", "/q/h", "later")
	if got := texts(d.want(200, "POST", "/q/h/lease?wait=1m", "").messages(t)); got != "later" {
		t.Errorf("leased %q", got)
	}
}

// What HTTP headers cannot hold of a queue's name and of what a message says
// stands there in the form that can, and writes no header of its own.
func TestWebhookOfHostileNames(t *testing.T) {
	d := open(t, allowLoopback)
	r := receive(t, nil)
	const queue = "q%0D%0AEvil:%201"
	d.want(201, "PUT", "/v1/queues/"+queue, `{"bindings":[{"filter":"#"}]}`)
	d.hook(queue, `{"url":"`+r.URL+`"}`)
	d.want(201, "POST", "/t/a%0D%0AEvil:%202", "x", `X-Headers: [["a\r\nEvil","3"],["b","c\r\nEvil: 4"],["content-length","5"],["host","6"]]`, "X-Key*: UTF-8''k%0D%0AEvil:%207")
	p := <-r.posts
	if p.body != "x" || p.header.Get("Evil") != "" || p.header.Get("X-H-Host") != "6" || p.header.Get("Content-Length") != "1" {
		t.Errorf("%q %v", p.body, p.header)
	}
	for name, want := range map[string]string{"X-Queue*": "UTF-8''q%0D%0AEvil%3A%201", "X-Topic*": "UTF-8''a%0D%0AEvil%3A%202", "X-Key*": "UTF-8''k%0D%0AEvil%3A%207"} {
		if got := p.header.Get(name); got != want || p.header.Get(strings.TrimSuffix(name, "*")) != "" {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// What a receiver does not take comes again as the queue's settings say, and
// then it is a dead letter; redirects are not followed.
func TestWebhookRetries(t *testing.T) {
	d := open(t, allowLoopback)
	elsewhere := receive(t, nil)
	r := receive(t, func(n int) (int, map[string]string) {
		switch n {
		case 1:
			return 500, nil
		case 2:
			return 307, map[string]string{"Location": elsewhere.URL}
		case 3:
			return 429, map[string]string{"Retry-After": "1"}
		case 4:
			return 201, nil
		}
		return 410, nil
	})
	d.want(201, "PUT", "/v1/queues/h", `{"settings":{"max_attempts":4,"backoff":"1ms","backoff_max":"5ms"}}`)
	d.hook("h", `{"url":"`+r.URL+`","timeout":"1m"}`)
	d.want(201, "POST", "/q/h", "one")
	id := ""
	for i := range 4 {
		p := <-r.posts
		if id == "" {
			id = p.header.Get("Webhook-Id")
		}
		if got := p.header.Get("X-Attempt"); got != fmt.Sprint(i+1) || p.header.Get("Webhook-Id") != id || p.body != "one" {
			t.Errorf("attempt %d: %s %v", i+1, p.body, p.header)
		}
	}
	d.want(201, "POST", "/q/h", "two")
	dead := d.want(200, "POST", "/q/h.dead/lease?wait=1m", "").messages(t)
	if texts(dead) != "two" {
		t.Fatalf("dead: %+v", dead)
	}
	if len(elsewhere.posts) != 0 {
		t.Error("a redirect was followed")
	}
	d.eventually(func() bool { // it is told behind what is settled
		return strings.Contains(d.want(200, "GET", "/v1/queues/h/webhook", "").body, `"delivered":1,"failed":7,"error":"the receiver answered 410"`)
	})
}

// Private addresses are refused when the connection is made, whatever a name
// leads to.
func TestWebhookRefusesPrivateAddresses(t *testing.T) {
	d := open(t)
	r := receive(t, nil)
	for i, url := range []string{r.URL, strings.Replace(r.URL, "127.0.0.1", "localhost", 1), strings.Replace(r.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1)} {
		q := fmt.Sprint("h", i)
		d.want(201, "PUT", "/v1/queues/"+q, `{"settings":{"max_attempts":1}}`)
		d.hook(q, `{"url":"`+url+`"}`)
		d.want(201, "POST", "/q/"+q, "x")
		if got := texts(d.want(200, "POST", "/q/"+q+".dead/lease?wait=1m", "").messages(t)); got != "x" {
			t.Errorf("dead: %q", got)
		}
		if a := d.want(200, "GET", "/v1/queues/"+q+"/webhook", ""); !strings.Contains(a.body, "not public") {
			t.Errorf("%s", a.body)
		}
	}
	if len(r.posts) != 0 {
		t.Error("a private address was called")
	}
}

// A webhook is kept with its queue, and one of the configuration is not changed
// from outside.
func TestWebhookIsKept(t *testing.T) {
	d := open(t, allowLoopback, func(o *http.Options, _ *core.Options) {
		o.Webhooks = map[string]adapters.Webhook{"c": {URL: "http://127.0.0.1:1/", Secrets: []string{hookSecret}}}
	})
	r := receive(t, nil)
	d.want(201, "PUT", "/v1/queues/h", `{"settings":{"max_attempts":3}}`)
	d.hook("h", `{"url":"`+r.URL+`","secrets":["`+hookSecret+`"]}`)
	d.want(200, "PUT", "/v1/queues/h", `{"settings":{"max_attempts":3}}`) // as it was
	d.refused(409, "conflict", "PUT", "/v1/queues/c/webhook", `{"url":"`+r.URL+`"}`)
	d.refused(409, "conflict", "DELETE", "/v1/queues/c/webhook", "")
	d.refused(404, "not-found", "PUT", "/v1/queues/none/webhook", `{"url":"`+r.URL+`"}`)
	d.refused(400, "bad-request", "PUT", "/v1/queues/h/webhook", `{"url":"file:///etc/passwd"}`)
	d.refused(400, "bad-request", "PUT", "/v1/queues/h/webhook", `{"url":"`+r.URL+`","secrets":["x"]}`)
	// Another server on the same broker begins with what is kept.
	o := d.options
	o.Endpoints, o.Webhooks = nil, nil
	if err := d.server.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := http.New(d.broker, o)
	if err := again.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, err := d.broker.Connect(t.Context(), core.Credentials{Protocol: "test"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Publish(t.Context(), &core.Envelope{Topic: core.QueueTopic("h"), Payload: []byte("kept"), Guarantee: core.AtLeastOnce}, 0); err != nil {
		t.Fatal(err)
	}
	p := <-r.posts
	verify, err := standardwebhooks.NewWebhook(hookSecret)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify.Verify([]byte(p.body), p.header); err != nil || p.body != "kept" {
		t.Errorf("%v %q", err, p.body)
	}
	client.Close()
	if err := again.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}
