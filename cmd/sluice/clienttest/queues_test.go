package clienttest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// admin asks the broker over /v1/ and wants an answer.
func (b *broker) admin(t testing.TB, method, path, body string) []byte {
	t.Helper()
	a, err := curl(context.Background(), t, b, path, []byte(body), "-X", method, "--data-binary", "@-")
	if err != nil {
		t.Fatal(err)
	}
	return a.body
}

// TestPriorityFromEveryDoor: a priority is said in each protocol's way, and a
// queue that goes by it delivers what was published last first, if it is higher;
// what has none counts as 4.
func TestPriorityFromEveryDoor(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.admin(t, "PUT", "/v1/queues/p", `{"settings":{"priority":true}}`)
	var sent []message
	for _, level := range []int{-1, 0, 3, 4, 5, 9} {
		for _, p := range publishers {
			if publisherDialects[p.name].bare {
				continue
			}
			m := message{Payload: fmt.Appendf(nil, "%d by %s", level, p.name)}
			if level >= 0 {
				m.Priority = fmt.Sprint(level)
			}
			sent = append(sent, m)
		}
	}
	opened := make(map[string]publishFunc)
	for _, m := range sent {
		_, name, _ := strings.Cut(string(m.Payload), " by ")
		if opened[name] == nil {
			for _, p := range publishers {
				if p.name == name {
					publish, err := p.open(t, b)
					if err != nil {
						t.Fatal(err)
					}
					opened[name] = publish
				}
			}
		}
		if err := opened[name](queueAddress("p"), m); err != nil {
			t.Fatalf("%s: %v", m.Payload, err)
		}
	}
	// What has the same priority comes as it was published.
	rank := func(m message) int {
		if m.Priority == "" {
			return 4
		}
		return int(m.Priority[0] - '0')
	}
	var want []string
	for level := 9; level >= 0; level-- {
		for _, m := range sent {
			if rank(m) == level {
				want = append(want, string(m.Payload))
			}
		}
	}
	in, err := nodeWebSocket.receive(t, b, selection{from: []address{queueAddress("p")}})
	if err != nil {
		t.Fatal(err)
	}
	defer in.end()
	got, err := in.wait(len(want), arrive)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range got {
		if string(m.Payload) != want[i] {
			t.Fatalf("%d came %q with priority %q, want %q", i, m.Payload, m.Priority, want[i])
		}
	}
}

// TestSingleActiveAcross: consumers of one queue over three protocols, of which
// one works at a time; the next one takes over where the one before it was cut
// off, left, or stalled.
func TestSingleActiveAcross(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.admin(t, "PUT", "/v1/queues/s", `{"settings":{"single_active":true}}`)
	b.admin(t, "PUT", "/v1/queues/stalls", `{"settings":{"single_active":true,"lease":"3s"}}`)
	publish, err := curlPub(t, b)
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	send := func(queue string) (sent []message) {
		for range 3 {
			next++
			m := message{Topic: "$queue/" + queue, Payload: fmt.Append(nil, next)}
			if err := publish(queueAddress(queue), m); err != nil {
				t.Fatal(err)
			}
			sent = append(sent, m)
		}
		return sent
	}
	open := func(r func(testing.TB, *broker, selection) (*inbox, error), queue string, hold bool) *inbox {
		t.Helper()
		in, err := r(t, b, selection{from: []address{queueAddress(queue)}, hold: hold})
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	// gives sends three and waits until the one that works has acknowledged them.
	gives := func(name string, in *inbox) {
		t.Helper()
		if err := received(in, send("s")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		eventually(t, arrive, func() error {
			var q struct{ Lag, Held, Waiting int }
			if err := json.Unmarshal(b.admin(t, "GET", "/v1/queues/s", ""), &q); err != nil || q.Lag+q.Held+q.Waiting > 0 {
				return fmt.Errorf("%s leaves %+v, %v", name, q, err)
			}
			return nil
		})
	}
	first := open(stompPy.receive, "s", false)
	second := open(paho.receive, "s", false)
	third := open(nodeWebSocket.receive, "s", false)
	defer third.end()
	gives("stomp.py", first)
	if err := first.drop(); err != nil {
		t.Fatal(err)
	}
	gives("Paho", second)
	if err := second.end(); err != nil {
		t.Fatal(err)
	}
	gives("WebSocket", third)

	stalled := open(nodeWebSocket.receive, "stalls", true)
	defer stalled.end()
	heir := open(curlPoll, "stalls", false)
	defer heir.end()
	sent := send("stalls")
	if err := received(stalled, sent); err != nil {
		t.Fatalf("who stalls: %v", err)
	}
	if err := received(heir, sent); err != nil {
		t.Fatalf("curl: %v", err)
	}
}

// TestLimitsAcross: a full queue is told of in each protocol's words; one that
// drops its oldest takes all; and what expires goes to the dead letters, by the
// queue's time or the message's own.
func TestLimitsAcross(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.admin(t, "PUT", "/v1/queues/full", `{"settings":{"max_length":1}}`)
	b.admin(t, "PUT", "/v1/queues/newest", `{"settings":{"max_length":3,"overflow":"drop-oldest"}}`)
	b.admin(t, "PUT", "/v1/queues/short", `{"settings":{"ttl":"1s","dead_letter_expired":true}}`)
	refused := map[string]string{"Paho": "PUBACK 0x97", "MQTT.js": "", "stomp.py": "queue full", "STOMP.js": "queue full", "curl": "429", "WebSocket": "queue_full"}
	fill, err := curlPub(t, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(queueAddress("full"), message{Payload: []byte("first")}); err != nil {
		t.Fatal(err)
	}
	var newest, expired []string
	for _, p := range publishers {
		if p.name == "mosquitto_pub" {
			continue // it has no word for a refusal
		}
		publish, err := p.open(t, b)
		if err != nil {
			t.Fatal(err)
		}
		for _, queue := range []string{"newest", "short"} {
			m := message{Payload: []byte(queue + " by " + p.name)}
			if queue == "short" && p.name == "Paho" {
				m.TTL = time.Hour // its own: it stays
			}
			if err := publish(queueAddress(queue), m); err != nil {
				t.Fatalf("%s: %v", m.Payload, err)
			}
			if queue == "newest" {
				newest = append(newest, string(m.Payload))
			} else {
				expired = append(expired, string(m.Payload))
			}
		}
		// The last thing, as STOMP ends the connection.
		if err := publish(queueAddress("full"), message{Payload: []byte("second")}); err == nil || !strings.Contains(err.Error(), refused[p.name]) {
			t.Errorf("%s is told %v", p.name, err)
		}
	}
	browse := func(queue string) (payloads []string, err error) {
		a, err := curl(context.Background(), t, b, "/q/"+queue, nil)
		if err != nil {
			return nil, err
		}
		all, err := lines(a)
		for _, m := range all {
			payloads = append(payloads, string(m.Payload))
		}
		return payloads, err
	}
	if got, err := browse("full"); err != nil || fmt.Sprint(got) != "[first]" {
		t.Errorf("full: %q, %v", got, err)
	}
	if got, err := browse("newest"); err != nil || fmt.Sprint(got) != fmt.Sprint(newest[len(newest)-3:]) {
		t.Errorf("newest: %q of %q, %v", got, newest, err)
	}
	eventually(t, arrive, func() error {
		dead, err := browse("short.dead")
		if fmt.Sprint(dead) != fmt.Sprint(expired) {
			return fmt.Errorf("%q are dead, want %q, %v", dead, expired, err)
		}
		return nil
	})
}

// TestQueuesThatEnd: an exclusive queue is nobody else's, on any door, and goes
// with its connection; an auto_delete queue goes with its last consumer; one that
// expires goes when it was not used for so long, also over a kill.
func TestQueuesThatEnd(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	queues := func() (names []string) {
		t.Helper()
		var page struct{ Items []struct{ Name string } }
		if err := json.Unmarshal(b.admin(t, "GET", "/v1/queues?kind=queue", ""), &page); err != nil {
			t.Fatal(err)
		}
		for _, q := range page.Items {
			names = append(names, q.Name)
		}
		return names
	}
	want := func(names ...string) {
		t.Helper()
		eventually(t, arrive, func() error {
			if got := queues(); fmt.Sprint(got) != fmt.Sprint(names) {
				return fmt.Errorf("there are %q, want %q", got, names)
			}
			return nil
		})
	}
	owner, err := stompPy.dial(t, b, func(event) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := owner.call("stomp.subscribe", map[string]any{"destination": "/queue/own", "id": "1", "headers": map[string]string{"exclusive": "true"}}); err != nil {
		t.Fatal(err)
	}
	b.admin(t, "PUT", "/v1/queues/auto", `{"settings":{"auto_delete":true}}`)
	b.admin(t, "PUT", "/v1/queues/short", `{"settings":{"expires":"1s"}}`)
	used, err := stompPy.dial(t, b, func(event) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := used.call("stomp.subscribe", map[string]any{"destination": "/queue/used", "id": "1", "headers": map[string]string{"x-expires": "1000"}}); err != nil {
		t.Fatal(err)
	}
	from := func(queue string) selection { return selection{from: []address{queueAddress(queue)}} }
	for _, r := range receivers {
		if r.name == "mosquitto_sub" || r.name == "SSE" {
			continue // which do not tell why, or read no queues
		}
		in, err := r.open(t, b, from("own"))
		if err == nil {
			_, err = in.wait(1, arrive)
			in.end()
		}
		told := false
		for _, words := range []string{"exclusive to another connection", "ERROR in use", "SUBACK", "Implementation specific error"} {
			told = told || err != nil && strings.Contains(err.Error(), words)
		}
		if !told {
			t.Errorf("%s consumes what is another's: %v", r.name, err)
		}
	}
	one, err := nodeWebSocket.receive(t, b, from("auto"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := paho.receive(t, b, from("auto"))
	if err != nil {
		t.Fatal(err)
	}
	if err := one.end(); err != nil {
		t.Fatal(err)
	}
	want("auto", "own", "used") // short has gone
	if err := two.drop(); err != nil {
		t.Fatal(err)
	}
	want("own", "used")
	if err := owner.drop(); err != nil {
		t.Fatal(err)
	}
	want("used")
	// What is confirmed now stands behind those deletions, which nobody confirms.
	b.admin(t, "PUT", "/v1/queues/last", `{"settings":{"expires":"1s"}}`)
	b.kill()
	b.start()
	want()
}
