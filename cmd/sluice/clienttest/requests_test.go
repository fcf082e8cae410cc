package clienttest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// An asker sends requests over one protocol. ask sends one and returns what
// answered it; nobody sends one where nobody is and returns the refusal.
type asker struct {
	name string
	open func(testing.TB, *broker) (ask func(topic string, m message) (message, error), nobody func(topic string) error, err error)
}

var askers = []asker{
	{"curl", func(t testing.TB, b *broker) (func(string, message) (message, error), func(string) error, error) {
		ask := func(topic string, m message) (message, error) {
			a, err := curl(context.Background(), t, b, "/t/"+topic+"?reply=20s", m.Payload, "--data-binary", "@-", "-H", "X-Correlation-Id: "+string(m.Correlation))
			if err != nil {
				return message{}, err
			}
			return rawMessage(a.header, a.body)
		}
		return ask, func(topic string) error { _, err := ask(topic, message{}); return err }, nil
	}},
	{"WebSocket", func(t testing.TB, b *broker) (func(string, message) (message, error), func(string) error, error) {
		w, err := nodeWebSocket.dial(t, b, func(*jsonObject) {}, func(error) {})
		if err != nil {
			return nil, nil, err
		}
		t.Cleanup(func() { w.close() })
		ask := func(topic string, m message) (message, error) {
			r, err := w.request(map[string]any{"op": "request", "topic": topic, "d": string(m.Payload), "corr": string(m.Correlation), "timeout": 15000})
			if err != nil {
				return message{}, err
			}
			return r.message()
		}
		return ask, func(topic string) error { _, err := ask(topic, message{}); return err }, nil
	}},
	{"stomp.py", func(t testing.TB, b *broker) (func(string, message) (message, error), func(string) error, error) {
		in := newInbox()
		c, err := stompPy.dial(t, b, func(e event) {
			if e.Event == "message" {
				m, _, err := stompMessage(e.Raw)
				if in.add(m); err != nil {
					in.fail(err)
				}
			}
		})
		if err != nil {
			return nil, nil, err
		}
		answer := oneByOne(in)
		ask := func(topic string, m message) (message, error) {
			headers := [][2]string{{"reply-to", "/temp-queue/answers"}, {"correlation-id", string(m.Correlation)}}
			if _, err := c.call("stomp.send", map[string]any{"destination": "/topic/" + topic, "headers": headers, "body": m.Payload}); err != nil {
				return message{}, err
			}
			return answer()
		}
		nobody := func(topic string) error {
			_, err := c.call("stomp.send", map[string]any{"destination": "/topic/" + topic, "headers": [][2]string{{"mandatory", "true"}}, "body": []byte("?")})
			return err // and the connection is closed
		}
		return ask, nobody, nil
	}},
	{"Paho", func(t testing.TB, b *broker) (func(string, message) (message, error), func(string) error, error) {
		in := newInbox()
		c, _, err := paho.dial(t, b, mqttOptions{}, in.mqttEvents)
		if err != nil {
			return nil, nil, err
		}
		t.Cleanup(func() { c.close() })
		inbox := topicAddress("$inbox/" + c.name + "-answers")
		if err := mqttSubscribe(c, selection{from: []address{inbox}}); err != nil {
			return nil, nil, err
		}
		answer := oneByOne(in)
		ask := func(topic string, m message) (message, error) {
			m.ReplyTo = inbox.topic
			if _, err := c.call("mqtt.publish", mqttPublish(topicAddress(topic), m)); err != nil {
				return message{}, err
			}
			return answer()
		}
		nobody := func(topic string) error {
			ok, err := c.call("mqtt.publish", mqttPublish(topicAddress(topic), message{Headers: []header{{"mandatory", "true"}}}))
			var r struct{ Code int }
			if err := firstOf(err, json.Unmarshal(ok, &r)); err != nil {
				return err
			}
			return fmt.Errorf("PUBACK %#x", r.Code)
		}
		return ask, nobody, nil
	}},
}

// respond answers what comes over one protocol until it is ended. Where nobody
// listens between one request and the next, it is a group that does.
func respond(t testing.TB, b *broker, r receiver, topic string) (end func(), err error) {
	replier, asked := replierOf[r.name], selection{from: []address{topicAddress(topic)}}
	if r.name == "long poll" {
		replier, asked.group = curlPub, "responders"
	}
	publish, err := replier(t, b)
	if err != nil {
		return nil, err
	}
	in, err := r.open(t, b, asked)
	if err != nil {
		return nil, err
	}
	go func() {
		for n := 1; ; n++ {
			asked, err := in.wait(n, time.Hour)
			if err != nil {
				return // ended
			}
			m := asked[n-1]
			answer := message{Payload: fmt.Appendf(nil, "%s says %s", r.name, m.Payload), Correlation: m.Correlation}
			if err := publish(topicAddress(m.ReplyTo), answer); err != nil {
				t.Errorf("%s answers at %s: %v", r.name, m.ReplyTo, err)
			}
		}
	}()
	return func() {
		in.end()
		in.fail(errClosed)
	}, nil
}

// TestRequestsAcross: a client of each protocol asks, one of each answers, and
// each answer comes to who asked, with the correlation that it gave. Where
// nobody answers, each is told so at once, in its protocol's words.
func TestRequestsAcross(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	type open struct {
		name   string
		ask    func(string, message) (message, error)
		nobody func(string) error
	}
	var asking []open
	for _, a := range askers {
		ask, nobody, err := a.open(t, b)
		if err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
		asking = append(asking, open{a.name, ask, nobody})
	}
	refused := map[string]string{"curl": "no-responders", "WebSocket": "no_responders", "stomp.py": "nobody answers there", "Paho": "PUBACK 0x10"}
	for _, r := range receivers {
		switch r.name { // one of each protocol
		case "Paho", "stomp.py", "WebSocket", "long poll":
		default:
			continue
		}
		topic := "service/" + strings.ReplaceAll(r.name, " ", "-")
		end, err := respond(t, b, r, topic)
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		for i, a := range asking {
			correlation := fmt.Sprintf("%s-%d", topic, i)
			m, err := a.ask(topic, message{Payload: []byte("hello " + a.name), Correlation: []byte(correlation)})
			if want := r.name + " says hello " + a.name; err != nil || string(m.Payload) != want || string(m.Correlation) != correlation {
				t.Errorf("%s asks %s: %q with %q, %v", a.name, r.name, m.Payload, m.Correlation, err)
			}
		}
		end()
	}
	for _, a := range asking {
		if err := a.nobody("service/of/nobody"); err == nil || !strings.Contains(err.Error(), refused[a.name]) {
			t.Errorf("%s is told %v", a.name, err)
		}
	}
}

// TestTemporaryAddressesEnd: who asked and went cannot be answered, and whoever
// wants to is told.
func TestTemporaryAddressesEnd(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	in, err := paho.receive(t, b, selection{from: []address{topicAddress("service")}})
	if err != nil {
		t.Fatal(err)
	}
	defer in.end()
	c, err := stompPy.dial(t, b, func(event) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.call("stomp.send", map[string]any{"destination": "/topic/service", "headers": [][2]string{{"reply-to", "/temp-queue/mine"}}, "body": []byte("?")}); err != nil {
		t.Fatal(err)
	}
	asked, err := in.wait(1, arrive)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(i int) error {
		_, err := curl(context.Background(), t, b, publishPath(topicAddress(asked[i].ReplyTo), message{})+"?mandatory", []byte("!"), "--data-binary", "@-")
		return err
	}
	gone := func(i int) {
		t.Helper()
		eventually(t, arrive, func() error {
			if err := answer(i); err == nil || !strings.Contains(err.Error(), "no-responders") {
				return fmt.Errorf("after it has gone: %v", err)
			}
			return nil
		})
	}
	if err := answer(0); err != nil {
		t.Errorf("while it is there: %v", err)
	}
	if err := c.drop(); err != nil {
		t.Fatal(err)
	}
	gone(0)
	// Over HTTP the address ends with the request, over a WebSocket with the
	// connection.
	_, err = curl(context.Background(), t, b, "/t/service?reply=200ms", []byte("?"), "--data-binary", "@-")
	if err == nil || !strings.Contains(err.Error(), "504") {
		t.Errorf("curl is told %v", err)
	}
	w, err := nodeWebSocket.dial(t, b, func(*jsonObject) {}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.request(map[string]any{"op": "request", "topic": "service", "d": "?", "timeout": 200}); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("the WebSocket is told %v", err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	for n := 2; n <= 3; n++ {
		if asked, err = in.wait(n, arrive); err != nil {
			t.Fatal(err)
		}
		gone(n - 1)
	}
}

// oneByOne waits, each time it is called, for the next message of an inbox.
func oneByOne(in *inbox) func() (message, error) {
	n := 0
	return func() (message, error) {
		n++
		got, err := in.wait(n, arrive)
		if err != nil {
			return message{}, err
		}
		return got[n-1], nil
	}
}
