package clienttest

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestGroupSpansProtocols: members of one group that came over different
// protocols share it. Each message goes to one of them, and when the members
// come one after another, each goes on where the one before it left.
func TestGroupSpansProtocols(t *testing.T) {
	b := startBroker(t)
	publish, err := opened(t, b, publisher{"Paho", paho.publish})
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	send := func(n int) (sent []message) {
		for range n {
			m := message{Topic: fmt.Sprintf("shop/%d/order", next%3), Payload: []byte(strconv.Itoa(next))}
			if err := publish(topicAddress(m.Topic), m); err != nil {
				t.Fatal(err)
			}
			next++
			sent = append(sent, m)
		}
		return sent
	}
	mine := selection{from: []address{topicAddress("shop/+/order")}, group: "till"}

	t.Run("one after another", func(t *testing.T) {
		for i, r := range receivers {
			var sent []message
			if i > 0 { // the group is there
				sent = send(3)
			}
			in, err := r.open(t, b, mine)
			if err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
			sent = append(sent, send(3)...)
			if err := received(in, sent); err != nil {
				t.Errorf("%s: %v", r.name, err)
			}
			if err := in.end(); err != nil {
				t.Errorf("%s: %v", r.name, err)
			}
		}
	})

	t.Run("together", func(t *testing.T) {
		members := make([]*inbox, len(receivers))
		for i, r := range receivers {
			in, err := r.open(t, b, mine)
			if err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
			defer in.end()
			members[i] = in
		}
		sent := send(300)
		var got []message
		eventually(t, arrive, func() error {
			got = got[:0]
			for _, in := range members {
				got = append(got, in.messages()...)
			}
			if len(got) < len(sent) {
				return fmt.Errorf("%d of %d messages came", len(got), len(sent))
			}
			return nil
		})
		if err := compareSamples(sent, got); err != nil {
			t.Error(err)
		}
		for i, in := range members {
			t.Logf("%-14s %d", receivers[i].name, len(in.messages()))
		}
	})
}

// TestGroupOrderOfKeys: who makes a group over any protocol can have it keep the
// order of each key, and then nobody is given the second message of one while the
// first is with a member. Nobody gets the order of a group that was made without it.
func TestGroupOrderOfKeys(t *testing.T) {
	b := startBroker(t)
	publish, err := opened(t, b, publisher{"Paho", paho.publish})
	if err != nil {
		t.Fatal(err)
	}
	members := slices.Clone(receivers)
	members = slices.DeleteFunc(members, func(r receiver) bool { return r.name == "Paho" || r.name == "MQTT.js" || r.name == "long poll" })
	members[0].open = func(t testing.TB, b *broker, s selection) (*inbox, error) {
		return startMosquittoSub(t, b, "-V", "mqttv5", "-D", "subscribe", "user-property", "ordered", "true", "-t", mqttAddress(s.from[0], s))
	}
	for _, r := range members {
		topic := topicAddress("keyed/" + strings.ToLower(r.name))
		mine := selection{from: []address{topic}, group: "till", ordered: true}
		in, err := r.open(t, b, mine)
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
			continue
		}
		if err := in.end(); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
		for i, key := range []string{"a", "a", "b"} {
			if err := publish(topic, message{Topic: topic.topic, Key: key, Payload: []byte(strconv.Itoa(i))}); err != nil {
				t.Fatal(err)
			}
		}
		path := func(ordered string) string {
			return withQuery("/t/"+levelsPath(topic.topic), "group", "till", "ordered", ordered, "limit", "100", "wait", "0s")
		}
		answer, err := curl(t.Context(), t, b, path("true"), nil)
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
			continue
		}
		var got []string
		for line := range bytes.Lines(answer.body) {
			m, _, err := jsonLease(line)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(m.Payload))
		}
		if !slices.Equal(got, []string{"0", "2"}) {
			t.Errorf("%s: leased %q at once, want the first of each key", r.name, got)
		}
	}
	if _, err := curl(t.Context(), t, b, withQuery("/t/plain", "group", "till", "wait", "0s"), nil); err != nil {
		t.Fatal(err)
	}
	_, err = curl(t.Context(), t, b, withQuery("/t/plain", "group", "till", "ordered", "true", "wait", "0s"), nil)
	if err == nil || !strings.Contains(err.Error(), "409") {
		t.Errorf("the order of a group that was made without: %v", err)
	}
}
