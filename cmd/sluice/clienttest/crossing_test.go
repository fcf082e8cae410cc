package clienttest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestOneOffsetEverywhere: a message has one offset, the same through every
// door that can show it, and a publisher cannot make one up.
func TestOneOffsetEverywhere(t *testing.T) {
	b := startBroker(t)
	publish, err := opened(t, b, publisher{"Paho", paho.publish})
	if err != nil {
		t.Fatal(err)
	}
	forged := []header{{"attempt", "7"}, {"colour", "red"}, {"offset", "999999"}, {"time", "1"}}
	for i := range 3 {
		m := message{Payload: []byte(strconv.Itoa(i)), Headers: forged}
		if err := publish(topicAddress("numbered"), m); err != nil {
			t.Fatal(err)
		}
	}
	all, err := curlRead(t, b, topicAddress("numbered"), "earliest")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range receivers {
		if receiverDialects[r.name].bare {
			continue
		}
		in, err := r.open(t, b, selection{from: []address{topicAddress("numbered")}, start: "earliest"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := in.wait(len(all), arrive)
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		for i := range all {
			if got[i].Offset != all[i].Offset {
				t.Errorf("%s: the offset is %s, over HTTP it is %s", r.name, got[i].Offset, all[i].Offset)
			}
			// They are user properties like others, and stand where these do;
			// in a STOMP frame under names that are not the broker's.
			var headers []header
			for _, h := range got[i].Headers {
				headers = append(headers, header{strings.TrimPrefix(h.Name, "header-"), h.Value})
			}
			byName := func(a, b header) int { return strings.Compare(a.Name, b.Name) }
			slices.SortFunc(headers, byName)
			if !slices.Equal(headers, forged[1:2]) && !slices.Equal(headers, forged) {
				t.Errorf("%s: the headers are %q", r.name, got[i].Headers)
			}
		}
		in.end()
	}
}

// TestSameIDOnce: a message that is published again under its id, over any
// protocol, is confirmed and not there twice; after a restart too.
func TestSameIDOnce(t *testing.T) {
	b := startBroker(t)
	again := func() {
		for _, p := range publishers {
			if publisherDialects[p.name].bare {
				continue
			}
			publish, err := opened(t, b, p)
			if err != nil {
				t.Fatal(err)
			}
			err = publish(topicAddress("orders"), message{Payload: []byte("by " + p.name), ID: "order-66"})
			if p.name == "curl" && err != nil && strings.Contains(err.Error(), "status 200") {
				err = nil // HTTP tells that it repeats
			}
			if err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
		}
	}
	again()
	b.kill()
	b.start()
	again()
	all, err := curlRead(t, b, topicAddress("orders"), "earliest")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || string(all[0].Payload) != "by Paho" {
		t.Errorf("the log has %d messages, want the first alone: %v", len(all), all)
	}
}

// TestOtherSpellings: what a protocol can say in more than one way, or in a way
// of its own, arrives as the same field.
func TestOtherSpellings(t *testing.T) {
	b := startBroker(t)
	in, err := nodeWebSocket.receive(t, b, selection{from: []address{topicAddress("spelled/#")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.end() })
	byCurl := func(args ...string) func(string) error {
		return func(topic string) error {
			_, err := curl(context.Background(), t, b, "/t/"+topic, []byte("x"), append(args, "--data-binary", "@-")...)
			return err
		}
	}
	c, err := stompPy.dial(t, b, func(event) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close() })
	byStomp := func(destination string, headers ...[2]string) func(string) error {
		return func(topic string) error {
			_, err := c.call("stomp.send", map[string]any{"destination": destination + topic, "headers": headers, "body": []byte("x")})
			return err
		}
	}
	inAnHour := strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10)
	cases := []struct {
		name    string
		publish func(topic string) error
		want    message
	}{
		{"curl -d says no content type", byCurl("-d", ""), message{}},
		{"X-H- headers", byCurl("-H", "X-H-Colour: red", "-H", "X-H-colour: blue", "-H", "Content-Type: a/b"),
			message{ContentType: "a/b", Headers: []header{{"colour", "red"}, {"colour", "blue"}}}},
		{"CloudEvents", byCurl("-H", "ce-type: made", "-H", "Ce-Id: 7", "-H", "Content-Type:"),
			message{Headers: []header{{"ce-id", "7"}, {"ce-type", "made"}}}},
		{"traceparent", byCurl("-H", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "-H", "Content-Type:"),
			message{Headers: []header{{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}},
		{"JMSXGroupID", byStomp("/topic/", [2]string{"JMSXGroupID", "truck-7"}),
			message{Key: "truck-7", Headers: []header{{"JMSXGroupID", "truck-7"}}}},
		{"expires", byStomp("/topic/", [2]string{"expires", inAnHour}), message{TTL: time.Hour}},
		{"dots", func(topic string) error { return byStomp("/topic/")(strings.ReplaceAll(topic, "/", ".")) }, message{}},
	}
	for i, c := range cases {
		topic := fmt.Sprintf("spelled/%d", i)
		if err := c.publish(topic); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got, err := in.wait(i+1, arrive)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		c.want.Payload = got[i].Payload
		if err := compareFields(i, c.want, got[i]); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got[i].Topic != topic {
			t.Errorf("%s: came on %q, want %q", c.name, got[i].Topic, topic)
		}
	}
}

// TestRequestAndReply: curl asks and waits; a client of each protocol answers
// at the reply-to with the correlation id that came.
func TestRequestAndReply(t *testing.T) {
	b := startBroker(t)
	for i, r := range receivers {
		replier, ok := replierOf[r.name]
		if !ok {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			topic := fmt.Sprintf("service/%d", i)
			in, err := r.open(t, b, selection{from: []address{topicAddress(topic)}})
			if err != nil {
				t.Fatal(err)
			}
			defer in.end()
			publish, err := replier(t, b)
			if err != nil {
				t.Fatal(err)
			}
			replied := make(chan error, 1)
			go func() {
				asked, err := in.wait(1, arrive)
				if err == nil {
					err = publish(topicAddress(asked[0].ReplyTo), message{
						Payload: append([]byte("you said: "), asked[0].Payload...), Correlation: asked[0].Correlation, ContentType: "text/plain",
					})
				}
				replied <- err
			}()
			a, err := curl(context.Background(), t, b, "/t/"+topic+"?reply=10s", []byte("hello"), "--data-binary", "@-", "-H", "X-Correlation-Id: c-1")
			if err := firstOf(<-replied, err); err != nil {
				t.Fatal(err)
			}
			m, err := rawMessage(a.header, a.body)
			if err != nil {
				t.Fatal(err)
			}
			if a.status != http.StatusOK || string(m.Payload) != "you said: hello" || string(m.Correlation) != "c-1" {
				t.Errorf("status %d, %+v", a.status, m)
			}
		})
	}
}

// replierOf is how a receiver's library publishes.
var replierOf = map[string]func(testing.TB, *broker) (publishFunc, error){
	"Paho": paho.publish, "stomp.py": stompPy.publish, "WebSocket": nodeWebSocket.publish, "MQTT.js": mqttJS.publish, "STOMP.js": stompJS.publish,
}

// TestExpiredIsNotDelivered: what has expired while a session was offline does
// not come, what has not does.
func TestExpiredIsNotDelivered(t *testing.T) {
	b := startBroker(t)
	session := mqttOptions{ClientID: "sleeper", Resume: true, SessionExpiry: 600}
	c, _, err := paho.dial(t, b, session, func(event) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := mqttSubscribe(c, selection{from: []address{topicAddress("news")}}); err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	publish, err := opened(t, b, publisher{"curl", curlPub})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []message{{Payload: []byte("short"), TTL: time.Second}, {Payload: []byte("long"), TTL: time.Hour}} {
		if err := publish(topicAddress("news"), m); err != nil {
			t.Fatal(err)
		}
	}
	published := time.Now()
	eventually(t, arrive, func() error {
		if left := time.Second - time.Since(published); left > -50*time.Millisecond {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	})
	in := newInbox()
	c, _, err = paho.dial(t, b, session, in.mqttEvents)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := received(in, []message{{Topic: "news", Payload: []byte("long")}}); err != nil {
		t.Error(err)
	}
}

// TestDelayed: a delay is said in each protocol's way, and the message comes
// when it is over.
func TestDelayed(t *testing.T) {
	b := startBroker(t)
	in, err := paho.receive(t, b, selection{from: []address{topicAddress("later/#")}})
	if err != nil {
		t.Fatal(err)
	}
	defer in.end()
	node, err := nodeWebSocket.dial(t, b, func(*jsonObject) {}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	defer node.close()
	stomp, err := stompPy.dial(t, b, func(event) {})
	if err != nil {
		t.Fatal(err)
	}
	defer stomp.close()
	mqtt, _, err := paho.dial(t, b, mqttOptions{}, func(event) {})
	if err != nil {
		t.Fatal(err)
	}
	defer mqtt.close()
	mosquitto, err := mosquittoPub(t, b)
	if err != nil {
		t.Fatal(err)
	}
	ways := map[string]func() error{
		"mosquitto_pub": func() error {
			return mosquitto(topicAddress("$delayed/1/later/mosquitto_pub"), message{Payload: []byte("x")})
		},
		"Paho": func() error {
			args := mqttPublish(topicAddress("later/Paho"), message{Payload: []byte("x"), Headers: []header{{"delay", "1"}}})
			_, err := mqtt.call("mqtt.publish", args)
			return err
		},
		"stomp.py": func() error {
			_, err := stomp.call("stomp.send", map[string]any{"destination": "/topic/later/stomp.py", "headers": [][2]string{{"AMQ_SCHEDULED_DELAY", "1000"}}, "body": []byte("x")})
			return err
		},
		"curl": func() error {
			_, err := curl(context.Background(), t, b, "/t/later/curl", []byte("x"), "--data-binary", "@-", "-H", "X-Delay: 1s")
			return err
		},
		"WebSocket": func() error {
			_, err := node.request(map[string]any{"op": "pub", "topic": "later/WebSocket", "d": "x", "delay": 1000})
			return err
		},
	}
	began := time.Now()
	for name, publish := range ways {
		if err := publish(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := in.wait(1, arrive)
	if err != nil {
		t.Fatal(err)
	}
	if early := time.Since(began); early < time.Second-time.Millisecond { // a message's time is in whole milliseconds
		t.Errorf("%q came after %v", got[0].Topic, early)
	}
	if got, err = in.wait(len(ways), arrive); err != nil {
		t.Fatal(err)
	}
	for _, m := range got {
		name := strings.TrimPrefix(m.Topic, "later/")
		if ways[name] == nil {
			t.Errorf("a message came on %q", m.Topic)
		}
		delete(ways, name)
	}
}

// TestQoS2OverRestarts: MQTT.js publishes with QoS 2 and comes back by itself
// while the broker is killed and started again, twice. Each message is in the
// log once.
func TestQoS2OverRestarts(t *testing.T) {
	b := startBroker(t)
	args := mqttJS.where(b)
	for k, v := range map[string]any{"clientId": "exactly-once", "clean": false, "sessionExpiry": 600, "reconnect": 100} {
		args[k] = v
	}
	c, _, err := nodeDriver(t).connect("mqtt.connect", args, func(event) {})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	const n = 300
	confirmed := make(chan error, n)
	slots := make(chan struct{}, 20)
	go func() {
		for i := range n {
			slots <- struct{}{}
			go func() {
				publish := mqttPublish(topicAddress("exactly"), message{Payload: []byte(strconv.Itoa(i))})
				publish["qos"] = 2
				_, err := c.call("mqtt.publish", publish)
				<-slots
				confirmed <- err
			}()
		}
	}()
	for i := range n {
		if err := <-confirmed; err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if i == n/3 || i == 2*n/3 {
			b.kill()
			b.start()
		}
	}
	all, err := curlRead(t, b, topicAddress("exactly"), "earliest")
	if err != nil {
		t.Fatal(err)
	}
	times := make(map[string]int)
	for _, m := range all {
		times[string(m.Payload)]++
	}
	for i := range n {
		if got := times[strconv.Itoa(i)]; got != 1 {
			t.Errorf("message %d is there %d times", i, got)
		}
	}
}
