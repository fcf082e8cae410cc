package clienttest

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestConfirmedIsThereAfterRestart publishes through every door, ends the
// broker, starts it again, and reads all of it through every door.
func TestConfirmedIsThereAfterRestart(t *testing.T) {
	for _, restart := range restarts {
		t.Run(restart.name, func(t *testing.T) {
			b := startBroker(t)
			sent := make(map[string][]message) // by cell
			for i, p := range publishers {
				cell := fmt.Sprintf("kept%d", i)
				publish, err := opened(t, b, p)
				if err != nil {
					t.Fatal(err)
				}
				if sent[cell], err = publishAll(publish, cell, samples, false, topicAddress); err != nil {
					t.Fatalf("%s: %v", p.name, err)
				}
			}
			restart.end(b)
			b.start()
			for cell, want := range sent {
				for _, r := range receivers {
					in, err := r.open(t, b, selection{from: filters(cell), start: "earliest"})
					if err != nil {
						t.Errorf("%s: %v", r.name, err)
						continue
					}
					if err := received(in, want); err != nil {
						t.Errorf("%s: %v", r.name, err)
					}
					in.end()
				}
			}
		})
	}
}

// TestRetainedIsThereAfterRestart: likewise the retained values.
func TestRetainedIsThereAfterRestart(t *testing.T) {
	for _, restart := range restarts {
		t.Run(restart.name, func(t *testing.T) {
			b := startBroker(t)
			want := make(map[string]message)
			for i, p := range publishers {
				publish, err := opened(t, b, p)
				if err != nil {
					t.Fatal(err)
				}
				m := message{Topic: fmt.Sprintf("state/%d", i), Payload: []byte("set by " + p.name), Retain: true}
				if err := publish(topicAddress(m.Topic), m); err != nil {
					t.Fatalf("%s: %v", p.name, err)
				}
				want[m.Topic] = m
			}
			restart.end(b)
			b.start()
			for topic, m := range want {
				in, err := paho.receive(t, b, selection{from: []address{topicAddress(topic)}, retained: true})
				if err != nil {
					t.Fatal(err)
				}
				if err := received(in, []message{m}); err != nil {
					t.Error(err)
				}
				in.end()
			}
		})
	}
}

// TestSessionSurvivesRestart: a persistent MQTT session that was offline while
// messages came, before and after a restart, gets each of them once and in
// order.
func TestSessionSurvivesRestart(t *testing.T) {
	for _, restart := range restarts {
		t.Run(restart.name, func(t *testing.T) {
			b := startBroker(t)
			mine := selection{from: []address{topicAddress("fleet/+/temp")}}

			// Paho with MQTT 5 and MQTT.js with 3.1.1 each make a session and
			// leave.
			sessions := []struct {
				name   string
				dialer mqttDialer
				opts   mqttOptions
			}{
				{"Paho, MQTT 5", paho, mqttOptions{ClientID: "truck-5", Resume: true, SessionExpiry: 3600}},
				{"Paho, MQTT 3.1.1", paho, mqttOptions{ClientID: "truck-3", Resume: true, Version: 4}},
				{"MQTT.js, MQTT 5", mqttJS, mqttOptions{ClientID: "truck-js", Resume: true, SessionExpiry: 3600}},
			}
			for _, s := range sessions {
				c, session, err := s.dialer.dial(t, b, s.opts, func(event) {})
				if err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				if session.SessionPresent {
					t.Errorf("%s: a session was present before there was one", s.name)
				}
				if err := mqttSubscribe(c, mine); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				if err := c.close(); err != nil {
					t.Fatal(err)
				}
			}

			var want []message
			send := func() {
				for i, p := range publishers {
					publish, err := opened(t, b, p)
					if err != nil {
						t.Fatal(err)
					}
					for range 3 {
						m := message{Topic: fmt.Sprintf("fleet/%d/temp", i), Payload: fmt.Appendf(nil, "%d", len(want))}
						if err := publish(topicAddress(m.Topic), m); err != nil {
							t.Fatalf("%s: %v", p.name, err)
						}
						want = append(want, m)
					}
				}
			}
			send()
			restart.end(b)
			b.start()
			send()

			for _, s := range sessions {
				in := newInbox()
				c, session, err := s.dialer.dial(t, b, s.opts, in.mqttEvents)
				if err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				if !session.SessionPresent {
					t.Errorf("%s: the session is gone", s.name)
				}
				if err := receivedInOrder(in, want); err != nil {
					t.Errorf("%s: %v", s.name, err)
				}
				if err := c.close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// receivedInOrder waits for exactly these messages in this order.
func receivedInOrder(in *inbox, want []message) error {
	got, err := in.wait(len(want), arrive)
	if err := errors.Join(err, compareSamples(want, got)); err != nil {
		return err
	}
	for i := range want {
		if got[i].Topic != want[i].Topic || string(got[i].Payload) != string(want[i].Payload) {
			return fmt.Errorf("message %d is %q %s, want %q %s", i, got[i].Topic, brief(got[i].Payload), want[i].Topic, brief(want[i].Payload))
		}
	}
	return nil
}

// TestQueueSurvivesRestart: what was acknowledged before does not come again,
// what was not comes, through every receiver that can acknowledge.
func TestQueueSurvivesRestart(t *testing.T) {
	for _, restart := range restarts {
		t.Run(restart.name, func(t *testing.T) {
			b := startBroker(t)
			type half struct{ before, after []message }
			halves := make(map[string]*half)
			publish, err := opened(t, b, publisher{"Paho", paho.publish})
			if err != nil {
				t.Fatal(err)
			}
			send := func(queue address, phase string) (sent []message) {
				for i := range 5 {
					m := message{Topic: queue.name(), Payload: fmt.Appendf(nil, "%s %d", phase, i)}
					if err := publish(queue, m); err != nil {
						t.Fatal(err)
					}
					sent = append(sent, m)
				}
				return sent
			}
			for i, r := range receivers {
				queue, mine := r.work(fmt.Sprintf("work.%d", i))
				if err := r.prepare(t, b, mine); err != nil {
					t.Fatalf("%s: %v", r.name, err)
				}
				h := &half{before: send(queue, "before")}
				halves[r.name] = h
				in, err := r.open(t, b, mine)
				if err != nil {
					t.Fatalf("%s: %v", r.name, err)
				}
				if err := received(in, h.before); err != nil {
					t.Errorf("%s: %v", r.name, err)
				}
				if err := in.end(); err != nil {
					t.Errorf("%s: %v", r.name, err)
				}
				h.after = send(queue, "after")
			}
			// Settlements are made durable within 20 ms or with the next
			// commit; those publishes were the next commit.
			restart.end(b)
			b.start()
			for i, r := range receivers {
				_, mine := r.work(fmt.Sprintf("work.%d", i))
				in, err := r.open(t, b, mine)
				if err != nil {
					t.Fatalf("%s: %v", r.name, err)
				}
				if err := received(in, halves[r.name].after); err != nil {
					t.Errorf("%s: %v", r.name, err)
				}
				in.end()
			}
		})
	}
}

// TestUnacknowledgedComesBack: a message that a receiver holds when its
// connection is cut goes to the next one, marked as a redelivery.
func TestUnacknowledgedComesBack(t *testing.T) {
	b := startBroker(t)
	for i, r := range receivers {
		if !canHold[r.name] {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			publish, err := opened(t, b, publisher{"Paho", paho.publish})
			if err != nil {
				t.Fatal(err)
			}
			queue := queueAddress(fmt.Sprintf("held.%d", i))
			m := message{Topic: queue.name(), Payload: []byte("do it")}
			if err := publish(queue, m); err != nil {
				t.Fatal(err)
			}
			in, err := r.open(t, b, selection{from: []address{queue}, hold: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := received(in, []message{m}); err != nil {
				t.Fatal(err)
			}
			dropped := time.Now()
			if err := in.drop(); err != nil {
				t.Fatal(err)
			}
			var again []message
			eventually(t, arrive, func() error {
				var err error
				again, err = curlLease(t, b, queue, 10, time.Second)
				if err == nil && len(again) == 0 {
					err = errors.New("it does not come again")
				}
				return err
			})
			t.Logf("it was there again after %v", time.Since(dropped))
			if err := compareSamples([]message{m}, again); err != nil {
				t.Error(err)
			}
			if again[0].Attempt != "2" {
				t.Errorf("attempt is %q, want 2", again[0].Attempt)
			}
		})
	}
}

// canHold are the receivers that can have a message without acknowledging it.
var canHold = map[string]bool{"Paho": true, "stomp.py": true, "WebSocket": true, "MQTT.js": true, "STOMP.js": true}

// TestTransactionIsWhole: what stomp.py sends in a transaction is there, whole,
// once its COMMIT has its receipt, and not at all without.
func TestTransactionIsWhole(t *testing.T) {
	b := startBroker(t)
	for _, committed := range []bool{false, true} {
		c, err := stompPy.dial(t, b, func(event) {})
		if err != nil {
			t.Fatal(err)
		}
		call := func(op string, args map[string]any) {
			t.Helper()
			if _, err := c.call(op, args); err != nil {
				t.Fatalf("%s: %v", op, err)
			}
		}
		call("stomp.begin", map[string]any{"transaction": "t1"})
		for i := range 3 {
			call("stomp.send", map[string]any{
				"destination": "/topic/ledger", "body": fmt.Appendf(nil, "entry %d", i), "headers": [][2]string{{"transaction", "t1"}},
			})
		}
		if committed {
			call("stomp.commit", map[string]any{"transaction": "t1"})
		}
		b.kill()
		b.start()
		c.drop()
		got, err := curlRead(t, b, topicAddress("ledger"), "earliest")
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{false: 0, true: 3}[committed]; len(got) != want {
			t.Errorf("committed: %t: %d messages are there, want %d", committed, len(got), want)
		}
	}
}
