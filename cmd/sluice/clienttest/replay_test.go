package clienttest

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestReplayFrom asks, through every door and after a restart, for each form of
// a start position.
func TestReplayFrom(t *testing.T) {
	b := startBroker(t)
	publish, err := opened(t, b, publisher{"Paho", paho.publish})
	if err != nil {
		t.Fatal(err)
	}
	const n = 10
	var sent []message
	send := func(count int) {
		for range count {
			m := message{Topic: "meter/" + strconv.Itoa(len(sent)%2), Payload: fmt.Appendf(nil, "reading %d", len(sent))}
			if err := publish(topicAddress(m.Topic), m); err != nil {
				t.Fatal(err)
			}
			// Others in between, so that offsets have gaps for the filter.
			if err := publish(topicAddress("noise"), message{Payload: []byte("-")}); err != nil {
				t.Fatal(err)
			}
			sent = append(sent, m)
		}
	}
	send(n)
	b.kill()
	b.start()

	all, err := curlRead(t, b, topicAddress("meter/+"), "earliest")
	if err != nil {
		t.Fatal(err)
	}
	if err := compareSamples(sent, all); err != nil {
		t.Fatal(err)
	}
	// The first message that was taken in the millisecond of message 5.
	moment := all[n/2].Time
	atMoment := 0
	for all[atMoment].Time.Before(moment) {
		atMoment++
	}
	starts := []struct {
		start string
		want  []message
	}{
		{"earliest", sent},
		{all[3].Offset, sent[3:]},
		{"-4", sent[n-4:]},
		{"@2h", sent},
		{"@" + moment.UTC().Format(time.RFC3339Nano), sent[atMoment:]},
	}
	for _, r := range receivers {
		t.Run(r.name, func(t *testing.T) {
			for _, s := range starts {
				in, err := r.open(t, b, selection{from: []address{topicAddress("meter/+")}, start: s.start})
				if err != nil {
					t.Errorf("from %s: %v", s.start, err)
					continue
				}
				err = receivedInOrder(in, s.want)
				in.end()
				if err != nil {
					t.Fatalf("from %s: %v", s.start, err)
				}
			}
			for _, bad := range []string{"yesterday", "999999999"} {
				if in, err := r.open(t, b, selection{from: []address{topicAddress("meter/+")}, start: bad}); err == nil {
					// It may be told after it was let in.
					if _, err := in.wait(1, arrive); err == nil || strings.Contains(err.Error(), "came within") {
						t.Errorf("from %s was not refused", bad)
					}
					in.end()
				}
			}
		})
	}
}

// TestLastEventID: an event stream goes on behind the event that it names.
func TestLastEventID(t *testing.T) {
	b := startBroker(t)
	publish, err := opened(t, b, publisher{"Paho", paho.publish})
	if err != nil {
		t.Fatal(err)
	}
	sent, err := publishAll(publish, "events", samples[:5], false, topicAddress)
	if err != nil {
		t.Fatal(err)
	}
	all, err := curlRead(t, b, topicAddress("events/#"), "earliest")
	if err != nil {
		t.Fatal(err)
	}
	in, err := startCurlSSE(t, b, topicAddress("events/#"), selection{}, "-H", "Last-Event-ID: "+all[1].Offset)
	if err != nil {
		t.Fatal(err)
	}
	defer in.end()
	if err := receivedInOrder(in, sent[2:]); err != nil {
		t.Error(err)
	}
}

// TestReplayEverywhereByShell runs what a user would type.
func TestReplayEverywhereByShell(t *testing.T) {
	b := startBroker(t)
	host, port := hostPort(b.MQTT)
	shell := func(line string) string {
		t.Helper()
		line = strings.NewReplacer("MQTTPORT", strconv.Itoa(port), "MQTTHOST", host, "HTTP", b.HTTP).Replace(line)
		out, err := exec.Command("sh", "-c", line).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		return string(out)
	}
	shell(`for i in 1 2 3; do curl -sS --fail-with-body -d "line $i" HTTP/t/log/a; done`)
	for _, c := range []struct{ line, want string }{
		{`mosquitto_sub -h MQTTHOST -p MQTTPORT -t '$replay/earliest/log/#' -C 3`, "line 1\nline 2\nline 3\n"},
		{`mosquitto_sub -h MQTTHOST -p MQTTPORT -V mqttv5 -D subscribe user-property from -2 -t 'log/#' -C 2`, "line 2\nline 3\n"},
		{`curl -sN --max-time 1 'HTTP/sse/log/%23?from=earliest' | grep ^data`, "data: line 1\ndata: line 2\ndata: line 3\n"},
	} {
		if got := shell(c.line); got != c.want {
			t.Errorf("%s\nprinted %q, want %q", c.line, got, c.want)
		}
	}
}
