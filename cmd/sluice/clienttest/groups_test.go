package clienttest

import (
	"fmt"
	"strconv"
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
