package clienttest

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// pageReceivers and pagePublishers run in a page in Chromium, whose origin is
// not the broker's.
var (
	pageReceivers = []receiver{
		{"MQTT.js in Chromium", pageMQTTJS.receive},
		{"STOMP.js in Chromium", pageStompJS.receive},
		{"WebSocket in Chromium", pageWebSocket.receive},
		{"EventSource in Chromium", pageEventSource},
		{"sluice.js in Chromium", pageSluice},
	}
	pagePublishers = []publisher{
		{"MQTT.js in Chromium", pageMQTTJS.publish},
		{"STOMP.js in Chromium", pageStompJS.publish},
		{"WebSocket in Chromium", pageWebSocket.publish},
		{"fetch in Chromium", pageFetch},
		{"sluice.js in Chromium", pageSluicePub},
	}
)

// allowing is the configuration that lets a page of that origin in.
func allowing(origin string) string { return fmt.Sprintf("http:\n  origins: [%q]\n", origin) }

// TestBrowser receives what curl publishes in five clients of a page, and
// publishes from each client, of the page and outside of it, to all the others.
func TestBrowser(t *testing.T) {
	page := browserDriver(t)
	b := startBroker(t, allowing(page.origin))
	outside := []receiver{{"mosquitto_sub", mosquittoSub}, {"stomp.py", stompPy.receive}, {"SSE", curlSSE}}
	open := func(t *testing.T, topic string) map[string]*inbox {
		inboxes := make(map[string]*inbox)
		for _, r := range append(outside, pageReceivers...) {
			in, err := r.open(t, b, selection{from: []address{topicAddress(topic)}})
			if err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
			t.Cleanup(func() { in.end() })
			inboxes[r.name] = in
		}
		return inboxes
	}

	t.Run("curl -d 'it works'", func(t *testing.T) {
		inboxes := open(t, "hello")
		curl := exec.Command(tool(t, "curl", "curl"), "-sS", "--fail-with-body", "-d", "it works", b.HTTP+"/t/hello")
		if out, err := curl.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for name, in := range inboxes {
			if err := received(in, []message{{Topic: "hello", Payload: []byte("it works")}}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})

	for i, p := range append(slices.Clone(publishers), pagePublishers...) {
		t.Run(strings.ReplaceAll("from "+p.name, " ", "_"), func(t *testing.T) {
			cell := fmt.Sprintf("page%d", i)
			inboxes := open(t, cell+"/#")
			publish, err := opened(t, b, p)
			if err != nil {
				t.Fatal(err)
			}
			sent, err := publishAll(publish, cell, samples[:5], false, topicAddress)
			if err != nil {
				t.Fatal(err)
			}
			for name, in := range inboxes {
				if err := received(in, sent); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}

	// What a page sets in a header the browser asks the broker about first.
	t.Run("fields by fetch", func(t *testing.T) {
		in, err := pageWebSocket.receive(t, b, selection{from: []address{topicAddress("fields")}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.end() })
		publish, err := opened(t, b, publisher{"fetch in Chromium", pageFetch})
		if err != nil {
			t.Fatal(err)
		}
		want := fidelityMessages()[0]
		if err := publish(topicAddress("fields"), want); err != nil {
			t.Fatal(err)
		}
		got, err := in.wait(1, arrive)
		if err != nil {
			t.Fatal(err)
		}
		if err := compareFields(1, want, got[0]); err != nil {
			t.Error(err)
		}
	})
}

// TestForeignOriginIsRefused: a page whose origin is not listed gets in through
// none of the doors that a browser knows.
func TestForeignOriginIsRefused(t *testing.T) {
	for name, config := range map[string][]string{
		"unconfigured": nil, "another is listed": {allowing("http://console.example")},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBroker(t, config...)
			for _, r := range pageReceivers {
				if in, err := r.open(t, b, selection{from: []address{topicAddress("secret")}}); err == nil {
					t.Errorf("%s was let in", r.name)
					in.end()
				}
			}
			for _, p := range pagePublishers {
				publish, err := p.open(t, b)
				if err != nil {
					continue
				}
				if err := publish(topicAddress("secret"), message{Payload: []byte("forged"), ContentType: "text/plain"}); err == nil {
					t.Errorf("%s has published", p.name)
				}
			}
			// Nor did anything reach the log that the page was not told of.
			left, err := curlRead(t, b, topicAddress("secret"), "earliest")
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range left {
				t.Errorf("a foreign page has published %s", brief(m.Payload))
			}
		})
	}
}

// pageEventSource receives in a page by EventSource.
func pageEventSource(t testing.TB, b *broker, s selection) (*inbox, error) {
	in := newInbox()
	var conns []*conn
	for _, a := range s.from {
		c, _, err := browserDriver(t).connect("sse.open", map[string]any{"url": "http://" + b.HTTP + ssePath(a, s)}, func(e event) {
			switch e.Event {
			case "sse":
				var got struct{ Type, Data, ID string }
				err := json.Unmarshal(e.Raw, &got)
				if err == nil && got.Type != "message" {
					err = fmt.Errorf("event %s: %s", got.Type, got.Data)
				}
				var m message
				if err == nil {
					m, err = jsonMessage([]byte(got.Data))
				}
				if err != nil {
					in.fail(err)
					return
				}
				in.add(m)
			case "closed":
				in.fail(errClosed)
			}
		})
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
	}
	in.end = onceFunc(func() (err error) {
		for _, c := range conns {
			err = firstOf(err, c.close())
		}
		return err
	})
	return in, nil
}

// pageSluice receives in a page by sluice.js.
func pageSluice(t testing.TB, b *broker, s selection) (*inbox, error) {
	in := newInbox()
	c, _, err := browserDriver(t).connect("sluice.connect", map[string]any{"url": "http://" + b.HTTP}, func(e event) {
		var got struct {
			Topic, Offset string
			Payload       []byte
		}
		if err := json.Unmarshal(e.Raw, &got); err != nil {
			in.fail(err)
			return
		}
		in.add(message{Topic: got.Topic, Payload: got.Payload, Offset: got.Offset})
	})
	if err != nil {
		return nil, err
	}
	for _, a := range s.from {
		if _, err := c.call("sluice.subscribe", map[string]any{"filter": a.topic}); err != nil {
			return nil, err
		}
	}
	in.end = onceFunc(c.close)
	return in, nil
}

// pageSluicePub publishes from a page by sluice.js.
func pageSluicePub(t testing.TB, b *broker) (publishFunc, error) {
	c, _, err := browserDriver(t).connect("sluice.connect", map[string]any{"url": "http://" + b.HTTP}, func(event) {})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.close() })
	return func(to address, m message) error {
		payload := m.Payload
		if payload == nil {
			payload = []byte{}
		}
		_, err := c.call("sluice.publish", map[string]any{"topic": to.topic, "payload": payload})
		return err
	}, nil
}

// pageFetch publishes from a page by fetch.
func pageFetch(t testing.TB, b *broker) (publishFunc, error) {
	page := browserDriver(t)
	return func(to address, m message) error {
		body := m.Payload
		if body == nil {
			body = []byte{}
		}
		var headers [][2]string
		for _, h := range httpHeaders(m) {
			headers = append(headers, [2]string{h.Name, h.Value})
		}
		ok, err := page.call("fetch", map[string]any{
			"url": "http://" + b.HTTP + publishPath(to, m), "method": "POST", "headers": headers, "body": body,
		})
		if err != nil {
			return err
		}
		var res struct {
			Status int
			Body   []byte
		}
		if err := json.Unmarshal(ok, &res); err != nil {
			return err
		}
		if res.Status != 201 {
			return fmt.Errorf("%d: %s", res.Status, res.Body)
		}
		return nil
	}, nil
}

// TestEventSourceOverRestart: a page's EventSource that is there while the
// broker is ended and started again gets every message once and in order, as it
// names the last one when it comes back.
func TestEventSourceOverRestart(t *testing.T) {
	page := browserDriver(t)
	for _, restart := range restarts {
		t.Run(restart.name, func(t *testing.T) {
			b := startBroker(t, allowing(page.origin))
			in, err := pageEventSource(t, b, selection{from: []address{topicAddress("ticker/#")}})
			if err != nil {
				t.Fatal(err)
			}
			defer in.end()
			var want []message
			send := func(n int) {
				publish, err := opened(t, b, publisher{"Paho", paho.publish})
				if err != nil {
					t.Fatal(err)
				}
				for range n {
					m := message{Topic: "ticker/a", Payload: fmt.Appendf(nil, "%d", len(want))}
					if err := publish(topicAddress(m.Topic), m); err != nil {
						t.Fatal(err)
					}
					want = append(want, m)
				}
			}
			for range 2 {
				send(20)
				if _, err := in.wait(len(want), arrive); err != nil {
					t.Fatal(err)
				}
				send(5) // some of these may be on their way when it ends
				restart.end(b)
				b.start()
				send(20)
				// It comes back when its reconnection time is over.
				if _, err := in.wait(len(want), arrive); err != nil {
					t.Fatal(err)
				}
			}
			if err := receivedInOrder(in, want); err != nil {
				t.Error(err)
			}
			for i, m := range in.messages() {
				if strings.TrimSpace(m.Offset) == "" {
					t.Errorf("message %d has no offset", i)
				}
			}
		})
	}
}
