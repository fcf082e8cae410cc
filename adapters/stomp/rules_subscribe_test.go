package stomp_test

import (
	"fmt"
	"strings"
)

// subscribeRules are about SUBSCRIBE and UNSUBSCRIBE.
var subscribeRules = []rule{
	{section: "SUBSCRIBE", name: "needs a destination", said: []said{
		{"1.2 1.1", "the `SUBSCRIBE` frame requires a `destination` header indicating the destination to which the client wants to subscribe"},
		{"1.0", "the SUBSCRIBE command requires a *destination* header indicating which destination to subscribe to"},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("SUBSCRIBE", "id:0", "receipt:r")
		p.expectError("missing header", "receipt-id:r", "SUBSCRIBE needs the header destination")
	}},
	{section: "SUBSCRIBE", name: "messages come from then on", said: []said{
		{"1.2 1.1", "Any messages received on the subscribed destination will henceforth be delivered as `MESSAGE` frames from the server to the client."},
		{"1.0", "Any messages received on the subscription will henceforth be delivered as MESSAGE frames from the server to the client."},
	}, test: func(s *spec) {
		s.sent("/topic/a", "before")
		p := s.consume("/topic/a")
		var want []string
		for i := range 50 {
			want = append(want, fmt.Sprint(i))
		}
		s.sent("/topic/a", want...)
		s.sent("/topic/b", "elsewhere")
		if got := bodies(p.messages(50)); got != strings.Join(want, " ") {
			s.Error(got)
		}
		p.quiet(calm)
	}},
	{section: "SUBSCRIBE", name: "what cannot be created is an ERROR", said: []said{
		{"1.2", "If the server cannot successfully create the subscription, the server MUST send the client an `ERROR` frame and then close the connection."},
		{"1.1", "If the server cannot successfully create the subscription, the server MUST send the client an `ERROR` frame and disconnect the client."},
	}, test: func(s *spec) {
		for header, want := range map[string]string{
			"destination:/exchange/none/k": `"none"`, "destination:/amq/queue/none": `"none"`, "destination:/topic/#/a": "behind its",
			"destination:/topic/$session/x": "broker's own", "destination:/queue/a.>": "wildcard", "destination:/reply-queue/x": "/temp-queue/x",
		} {
			p := s.connect()
			p.send("SUBSCRIBE", "id:0", header, "receipt:r")
			p.expectError(want, "receipt-id:r")
		}
	}},
	{section: "SUBSCRIBE", name: "selector", said: []said{
		{"1.2 1.1", "to filter messages based on the application defined headers using a selector on a `SUBSCRIBE` frame"},
		{"1.0", "Stomp brokers may support the *selector* header which allows you to specify an SQL 92 selector on the message headers"},
	}, by: "TestSelectors"},
	{section: "SUBSCRIBE", name: "headers of the server's", said: []said{
		{"1.2 1.1", "STOMP servers MAY support additional server specific headers to customize the delivery semantics of the subscription."},
	}, why: "[Moving from RabbitMQ](moving-from-rabbitmq.md) and [Moving from ActiveMQ](moving-from-activemq.md) list them, each tested"},
	{section: "SUBSCRIBE id Header", name: "needs an id", said: []said{
		{"1.2", "an `id` header MUST be included in the frame to uniquely identify the subscription"},
		{"1.1", "An `id` header MUST be included in the frame to uniquely identify the subscription"},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("SUBSCRIBE", "destination:/topic/a", "receipt:r")
		p.expectError("missing header", "receipt-id:r", "SUBSCRIBE needs the header id")
	}},
	{section: "SUBSCRIBE id Header", name: "ids differ", said: []said{
		{"1.2", "Within the same connection, different subscriptions MUST use different subscription identifiers."},
		{"1.1", "to uniquely identify the subscription within the STOMP connection session"},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.send("SUBSCRIBE", "id:0", "destination:/topic/b", "receipt:r")
		p.expectError("subscription exists", "receipt-id:r", "UNSUBSCRIBE")
		// Another connection's are its own, and one that ended is free.
		p, q := s.consume("/topic/a"), s.consume("/topic/a")
		p.send("UNSUBSCRIBE", "id:0")
		p.subscribe("0", "/topic/a")
		s.sent("/topic/a", "x")
		p.messages(1)
		q.messages(1)
	}},
	{section: "SUBSCRIBE id Header", name: "an id comes back as subscription", said: []said{
		{"1.0", "If an *id* header is supplied then Stomp brokers should append a *subscription* header to any MESSAGE commands"},
		{"1.2", "The `id` header allows the client and server to relate subsequent `MESSAGE` or `UNSUBSCRIBE` frames to the original subscription."},
		{"1.1", "the `id` header allows the client and server to relate subsequent `ACK`, `NACK` or `UNSUBSCRIBE` frames to the original subscription"},
	}, test: func(s *spec) {
		p := s.connect()
		p.subscribe("one", "/topic/a")
		p.subscribe("two", "/topic/*")
		if s.v == "1.0" {
			p.send("SUBSCRIBE", "destination:/topic/a", "receipt:r")
			p.expect("RECEIPT\n")
		}
		s.sent("/topic/a", "x")
		seen := make(map[string]int)
		n := 2
		if s.v == "1.0" {
			n = 3
		}
		for _, r := range p.messages(n) {
			seen[r.header("subscription")]++
		}
		if seen["one"] != 1 || seen["two"] != 1 || len(seen) != n {
			s.Error(seen)
		}
	}},
	{section: "SUBSCRIBE ack Header", name: "auto is the default", said: []said{
		{"1.2 1.1", "If the header is not set, it defaults to `auto`."},
		{"1.0", "The *ack* header is optional, and defaults to *auto*."},
	}, test: func(s *spec) {
		p := s.consume("/queue/q")
		s.sent("/queue/q", "1", "2")
		if r := p.messages(2)[0]; r.header("ack") != "" {
			s.Errorf("%s", r)
		}
		p.bye()
		if got := s.left("/queue/q"); got != "" {
			s.Errorf("left are %s", got)
		}
	}},
	{section: "SUBSCRIBE ack Header", name: "others are refused", said: []said{
		{"1.2 1.1", "The valid values for the `ack` header are `auto`, `client`, or `client-individual`."},
		{"1.0", "The valid values for *ack* are *auto* (the default if the header is not included) and *client*."},
	}, test: func(s *spec) {
		bad := []string{"sometimes", "Client", "AUTO"}
		if s.v == "1.0" {
			bad = append(bad, "client-individual")
		}
		for _, ack := range bad {
			p := s.connect()
			p.send("SUBSCRIBE", "id:0", "destination:/queue/q", "ack:"+ack, "receipt:r")
			p.expectError("invalid header", "receipt-id:r", "auto, client or client-individual")
		}
	}},
	{section: "SUBSCRIBE ack Header", name: "client is cumulative", said: []said{
		{"1.2", "the acknowledgment operates on the message specified in the `ACK` frame and all messages sent to the subscription before the `ACK`'ed message"},
		{"1.1", "the `ACK` operates on the message specified in the `ACK` frame and all messages sent to the subscription before the `ACK`-ed message"},
	}, test: func(s *spec) {
		p := s.consume("/queue/q", "ack:client")
		s.sent("/queue/q", "1", "2", "3", "4")
		rs := p.messages(4)
		p.acks("ACK", s.v, rs[2])
		p.bye()
		if got := s.left("/queue/q"); got != "4" {
			s.Errorf("left are %s", got)
		}
	}},
	{section: "SUBSCRIBE ack Header", name: "a lost connection's messages go to another", said: []said{
		{"1.2 1.1", "the server will assume the message has not been processed and MAY redeliver the message to another client"},
		{"1.0", "messages will only be considered delivered after the client specifically acknowledges them with an ACK frame"},
	}, test: func(s *spec) {
		p := s.consume("/queue/q", "ack:client")
		s.sent("/queue/q", "1", "2")
		rs := p.messages(2)
		p.acks("ACK", s.v, rs[0], "receipt:a")
		p.expect("RECEIPT\nreceipt-id:a\n")
		p.conn.Close()
		q := s.consume("/queue/q", "ack:client")
		q.expect("MESSAGE\n", "\nredelivered:true\n", "\nattempt:2\n", "\n\n2^@")
		q.quiet(calm)
	}},
	{section: "SUBSCRIBE ack Header", name: "client-individual is not cumulative", said: []said{
		{"1.2", "an `ACK` or `NACK` frame for a subsequent message MUST NOT cause a previous message to get acknowledged"},
		{"1.1", "an `ACK` or `NACK` for a subsequent message MUST NOT cause a previous message to get acknowledged"},
	}, test: func(s *spec) {
		p := s.consume("/queue/q", "ack:client-individual")
		s.sent("/queue/q", "1", "2", "3", "4")
		rs := p.messages(4)
		p.acks("ACK", s.v, rs[2])
		p.acks("NACK", s.v, rs[3], "requeue:false")
		p.bye()
		if got := s.left("/queue/q"); got != "1 2" {
			s.Errorf("left are %s", got)
		}
	}},
	{section: "SUBSCRIBE ack Header", name: "clients acknowledge what they processed", said: []said{
		{"1.2 1.1", "then the client MUST send the server `ACK` frames for the messages it processes"},
	}, why: "binds clients; at most `prefetch-count` messages wait for one that does not"},

	{section: "UNSUBSCRIBE", name: "no more messages", said: []said{
		{"1.2", "Once the subscription is removed the STOMP connections will no longer receive messages from that subscription."},
		{"1.1", "Once the subscription is removed the STOMP connections will no longer receive messages from that destination."},
		{"1.0", "no longer receive messages from that destination"},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.send("UNSUBSCRIBE", "id:0", "receipt:r")
		p.expect("RECEIPT\n")
		s.sent("/topic/a", "x")
		p.quiet(calm)
	}},
	{section: "UNSUBSCRIBE", name: "needs an id", said: []said{
		{"1.2", "an `id` header MUST be included in the frame to uniquely identify the subscription to remove"},
		{"1.1", "It requires that the `id` header matches the `id` value of previous `SUBSCRIBE` operation."},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.send("UNSUBSCRIBE", "destination:/topic/a", "receipt:r")
		p.expectError("missing header", "receipt-id:r", "UNSUBSCRIBE needs the header id")
	}},
	{section: "UNSUBSCRIBE", name: "the id of a subscription", said: []said{
		{"1.2", "This header MUST match the subscription identifier of an existing subscription."},
		{"1.1", "the `id` header matches the `id` value of previous `SUBSCRIBE` operation"},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.send("UNSUBSCRIBE", "id:1", "receipt:r")
		p.expectError("unknown subscription", "receipt-id:r", `"1"`)
	}},
	{section: "UNSUBSCRIBE", name: "a destination or an id", said: []said{
		{"1.0", "It requires either a *destination* header or an *id* header"},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("SUBSCRIBE", "destination:/topic/a")
		p.send("SUBSCRIBE", "destination:/topic/b", "id:b")
		p.send("UNSUBSCRIBE", "destination:/topic/a")
		p.send("UNSUBSCRIBE", "id:b", "receipt:u")
		p.expect("RECEIPT\nreceipt-id:u\n")
		s.sent("/topic/a", "x")
		s.sent("/topic/b", "x")
		p.quiet(calm)
		p.send("UNSUBSCRIBE", "receipt:r")
		p.expectError("missing header", "receipt-id:r")
	}},
}
