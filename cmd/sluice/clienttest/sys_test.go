package clienttest

import (
	"context"
	"strconv"
	"strings"
	"testing"
)

// TestSys has unchanged clients look at what the broker tells of itself.
func TestSys(t *testing.T) {
	b := startBroker(t, "sys_interval: 1s")
	everything, err := startMosquittoSub(t, b, "-t", "#", "-t", "+/broker/uptime", "-t", "+/#")
	if err != nil {
		t.Fatal(err)
	}
	defer everything.end()

	// Retained at once, then what changes.
	in, err := startMosquittoSub(t, b, "-t", "$SYS/#")
	if err != nil {
		t.Fatal(err)
	}
	defer in.end()
	values := make(map[string]string)
	n := 0
	until := func(what string, ok func(message) bool) {
		t.Helper()
		for {
			got, err := in.wait(n+1, arrive)
			if err != nil {
				t.Fatalf("%s did not come: %v; there is %v", what, err, values)
			}
			m := got[n]
			n++
			values[m.Topic] = string(m.Payload)
			if ok(m) {
				return
			}
		}
	}
	until("the last of the retained values", func(m message) bool {
		if !m.Retain {
			t.Errorf("%s is not retained", m.Topic)
		}
		return m.Topic == "$SYS/broker/version"
	})
	for _, topic := range []string{
		"uptime", "clients/connected", "clients/total", "clients/maximum", "clients/disconnected", "messages/received",
		"messages/sent", "messages/stored", "publish/messages/received", "publish/messages/sent", "publish/messages/dropped",
		"subscriptions/count", "retained messages/count", "heap/current", "store/messages/count", "load/messages/received/15min", "load/connections/1min",
		"clients/expired", "shared_subscriptions/count", "load/sockets/5min",
	} {
		if values["$SYS/broker/"+topic] == "" {
			t.Errorf("there is no %s", topic)
		}
	}
	if v := values["$SYS/broker/version"]; !strings.HasPrefix(v, "sluice version ") {
		t.Errorf("version %q", v)
	}
	if c := values["$SYS/broker/clients/connected"]; c != "2" {
		t.Errorf("%s clients connected", c)
	}
	publish, err := mosquittoPub(t, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := publish(topicAddress("a"), message{Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	until("the publish", func(m message) bool { return m.Topic == "$SYS/broker/messages/received" && string(m.Payload) == "1" })
	until("the uptime", func(m message) bool { return m.Topic == "$SYS/broker/uptime" && !m.Retain })

	// The other doors.
	uptime := func() {
		t.Helper()
		a, err := curl(context.Background(), t, b, "/last/$SYS/broker/uptime", nil)
		if err != nil {
			t.Fatal(err)
		}
		seconds, _ := strings.CutSuffix(string(a.body), " seconds")
		if _, err := strconv.Atoi(seconds); err != nil {
			t.Errorf("uptime %q", a.body)
		}
	}
	uptime()
	if a, err := curl(context.Background(), t, b, "/last/%23", nil); err != nil || strings.Contains(string(a.body), "$SYS") {
		t.Errorf("retained values of #: %s, %v", a.body, err)
	}
	for _, door := range []receiver{{"stomp.py", stompPy.receive}, {"WebSocket", nodeWebSocket.receive}, {"SSE", curlSSE}} {
		in, err := door.open(t, b, selection{from: []address{topicAddress("$SYS/broker/uptime")}})
		if err != nil {
			t.Fatalf("%s: %v", door.name, err)
		}
		got, err := in.wait(1, arrive)
		if err != nil || !strings.HasSuffix(string(got[0].Payload), " seconds") {
			t.Errorf("%s: %v, %v", door.name, got, err)
		}
		in.end()
	}

	// Only the broker publishes there.
	refusal := map[string]string{"Paho": "0x87", "curl": "403", "WebSocket": "not_authorized", "stomp.py": "access refused"}
	for _, p := range publishers {
		f, err := opened(t, b, p)
		if err == nil {
			err = f(topicAddress("$SYS/broker/uptime"), message{Payload: []byte("forged"), Retain: true})
		}
		if err == nil || !strings.Contains(err.Error(), refusal[p.name]) {
			t.Errorf("%s: published: %v, want %s", p.name, err, refusal[p.name])
		}
	}
	uptime()

	// No wildcard in the first level has matched anything of it.
	if err := publish(topicAddress("end"), message{Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		got, err := everything.wait(n+1, arrive)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(got[n].Topic, "$") {
			t.Errorf("# matched %s", got[n].Topic)
		}
		if got[n].Topic == "end" {
			break
		}
	}
}
