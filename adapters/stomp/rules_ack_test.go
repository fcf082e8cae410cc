package stomp_test

import (
	"strings"
)

// ackRules are about ACK and NACK.
var ackRules = []rule{
	{section: "ACK", name: "not consumed until acknowledged", said: []said{
		{"1.2", "Any messages received from such a subscription will not be considered to have been consumed until the message has been acknowledged via an `ACK`."},
		{"1.1", "Any messages received from such a subscription will not be considered to have been consumed until the message has been acknowledged via an `ACK` or a `NACK`."},
		{"1.0", "any messages received from that destination will not be considered to have been consumed (by the server) until the message has been acknowledged via an ACK"},
	}, test: func(s *spec) {
		p := s.consume("/queue/q", "ack:client")
		s.sent("/queue/q", "1", "2")
		p.messages(2)
		p.bye()
		if got := s.left("/queue/q"); got != "1 2" {
			s.Errorf("left are %s", got)
		}
	}},
	{section: "ACK", name: "names the message", said: []said{
		{"1.2", "The `ACK` frame MUST include an `id` header matching the `ack` header of the `MESSAGE` being acknowledged."},
		{"1.1", "`ACK` has two REQUIRED headers: `message-id`, which MUST contain a value matching the `message-id` for the `MESSAGE` being acknowledged and `subscription`"},
		{"1.0", "ACK has one required header, *message-id*, which must contain a value matching the *message-id* for the MESSAGE being acknowledged."},
	}, test: func(s *spec) {
		name := "message-id"
		if s.since("1.2") {
			name = "id"
		}
		for header, want := range map[string]string{
			"x:y": "ACK needs the header " + name, name + ":nonsense": "is \"nonsense\"", name + ":": "is \"\"", name + ":99-1": "another connection's", name + ":1-99": "acknowledged before, or was not sent",
		} {
			p := s.consume("/queue/q", "ack:client")
			p.send("ACK", header, "subscription:0", "receipt:r")
			p.expectError("receipt-id:r", want)
		}
		if s.v == "1.1" {
			p := s.consume("/queue/q", "ack:client")
			s.sent("/queue/q", "x")
			id := p.messages(1)[0].header("message-id")
			p.send("ACK", "message-id:"+id, "receipt:r")
			p.expectError("receipt-id:r", "ACK needs the header subscription")
			p = s.consume("/queue/q", "ack:client")
			id = p.messages(1)[0].header("message-id")
			p.send("ACK", "message-id:"+id, "subscription:1", "receipt:r")
			p.expectError("receipt-id:r", "subscription")
		}
		p := s.consume("/queue/one", "ack:client")
		s.sent("/queue/one", "x")
		p.acks("ACK", s.v, p.messages(1)[0], "receipt:r")
		p.expect("RECEIPT\nreceipt-id:r\n")
		p.bye()
		if got := s.left("/queue/one"); got != "" {
			s.Errorf("left is %s", got)
		}
	}},
	{section: "ACK", name: "in a transaction", said: []said{
		{"1.2 1.1", "a `transaction` header MAY be specified, indicating that the message acknowledgment SHOULD be part of the named transaction"},
		{"1.0", "a *transaction* header may be specified, indicating that the message acknowledgment should be part of the named transaction"},
	}, test: func(s *spec) {
		p := s.consume("/queue/q", "ack:client")
		s.sent("/queue/q", "1", "2", "3")
		rs := p.messages(3)
		p.send("BEGIN", "transaction:never")
		p.send("BEGIN", "transaction:t")
		p.acks("ACK", s.v, rs[0], "transaction:t")
		p.acks("ACK", s.v, rs[1], "transaction:never")
		p.send("COMMIT", "transaction:t", "receipt:c")
		p.expect("RECEIPT\n")
		p.bye()
		if got := s.left("/queue/q"); got != "2 3" {
			s.Errorf("left are %s", got)
		}
	}},
	{section: "ACK", name: "once", said: []said{
		{"1.2 1.1", "`ACK` is used to acknowledge consumption of a message from a subscription using `client` or `client-individual` acknowledgment."},
		{"1.0", "ACK is used to acknowledge consumption of a message from a subscription using client acknowledgment."},
	}, test: func(s *spec) {
		for _, destination := range []string{"/queue/q", "/topic/a"} {
			p := s.consume(destination, "ack:client")
			s.sent(destination, "x")
			r := p.messages(1)[0]
			p.acks("ACK", s.v, r)
			p.acks("ACK", s.v, r, "receipt:r")
			p.expectError("receipt-id:r", "acknowledged before", "Acknowledge each message once.")
		}
		p := s.consume("/queue/q", "ack:auto")
		s.sent("/queue/q", "x")
		r := p.messages(1)[0]
		p.send("ACK", "id:"+r.header("message-id"), "message-id:"+r.header("message-id"), "subscription:0", "receipt:r")
		p.expectError("receipt-id:r", "has ack:auto")
	}},
	{section: "NACK", name: "the message was not consumed", said: []said{
		{"1.2 1.1", "The server can then either send the message to a different client, discard it, or put it in a dead letter queue."},
	}, test: func(s *spec) {
		p := s.consume("/queue/q", "ack:client-individual")
		s.sent("/queue/q", "again", "dead", "done")
		rs := p.messages(3)
		p.acks("ACK", s.v, rs[2])
		p.acks("NACK", s.v, rs[0])
		p.acks("NACK", s.v, rs[1], "requeue:false")
		r := p.expect("MESSAGE\n", "\nredelivered:true\n", "\nattempt:2\n", "\n\nagain^@")
		p.acks("NACK", s.v, r, "requeue:true")
		p.expect("MESSAGE\n", "\nattempt:3\n", "\n\nagain^@")
		d := s.consume("/queue/q.dead")
		d.expect("MESSAGE\n", "\n\ndead^@")
		d.quiet(calm)
		p.acks("NACK", s.v, r, "requeue:perhaps")
		p.expectError("invalid header", "requeue")
	}},
	{section: "NACK", name: "of a topic the message is gone", said: []said{
		{"1.2 1.1", "The exact behavior is server specific."},
	}, test: func(s *spec) {
		p := s.consume("/topic/a", "ack:client-individual", "prefetch-count:1")
		s.sent("/topic/a", "1", "2", "3")
		p.acks("NACK", s.v, p.messages(1)[0])
		p.acks("NACK", s.v, p.messages(1)[0], "requeue:false")
		if r := p.messages(1)[0]; r.body != "3" {
			s.Errorf("%s", r)
		}
		p.quiet(calm)
		if n := s.g.counter("sluice_translation_fallbacks_total", "field", "nack"); n != 2 {
			s.Errorf("counted %d", n)
		}
	}},
	{section: "NACK", name: "names the message as ACK does", said: []said{
		{"1.2", "`NACK` takes the same headers as `ACK`: `id` (REQUIRED) and `transaction` (OPTIONAL)."},
		{"1.1", "`NACK` takes the same headers as `ACK`: `message-id` (mandatory), `subscription` (mandatory) and `transaction` (OPTIONAL)."},
	}, test: func(s *spec) {
		p := s.consume("/queue/q", "ack:client")
		p.send("NACK", "x:y", "receipt:r")
		p.expectError("receipt-id:r", "NACK needs the header")
		p = s.consume("/queue/q", "ack:client-individual")
		s.sent("/queue/q", "1", "2")
		rs := p.messages(2)
		p.send("BEGIN", "transaction:t")
		p.acks("NACK", s.v, rs[0], "transaction:t", "requeue:false")
		p.acks("ACK", s.v, rs[1], "transaction:t")
		p.quiet(calm)
		p.send("COMMIT", "transaction:t", "receipt:c")
		p.expect("RECEIPT\n")
		p.bye()
		if got := s.left("/queue/q") + "," + s.left("/queue/q.dead"); got != ",1" {
			s.Errorf("left are %s", got)
		}
	}},
	{section: "NACK", name: "one message or all before it", said: []said{
		{"1.2", "`NACK` applies either to one single message (if the subscription's `ack` mode is `client-individual`) or to all messages sent before and not yet `ACK`'ed or `NACK`'ed (if the subscription's `ack` mode is `client`)."},
		{"1.1", "`NACK` applies either to one single message (if the subscription's ack mode is `client-individual`) or to all messages sent before and not yet `ACK`'ed or `NACK`'ed."},
	}, test: func(s *spec) {
		for ack, want := range map[string]string{"client": "2 3", "client-individual": "3"} {
			queue := "/queue/" + ack
			p := s.consume(queue, "ack:"+ack)
			s.sent(queue, "1", "2", "3", "4")
			rs := p.messages(4)
			p.acks("ACK", s.v, rs[0])
			p.acks("NACK", s.v, rs[2], "requeue:false", "receipt:n")
			p.expect("RECEIPT\n")
			p.bye()
			if got := s.left(queue + ".dead"); got != want {
				s.Errorf("%s: dead are %s", ack, got)
			}
			rest := strings.Join(strings.Fields(strings.TrimPrefix(strings.TrimPrefix("1 2 3 4", "1 "), want)), " ")
			if ack == "client-individual" {
				rest = "2 4"
			}
			if got := s.left(queue); got != rest {
				s.Errorf("%s: left are %s", ack, got)
			}
		}
	}},
	{section: "NACK", name: "1.0 has none", said: []said{
		{"1.0", "At this point there are a number of commands the client may send"},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("NACK", "message-id:1-1")
		p.expectError("unknown command", "1.0 has no NACK", "accept-version:1.2")
	}},
	{section: "NACK", name: "clients send it for what they did not process", said: []said{
		{"1.2", "In case the client did not process some messages, it SHOULD send `NACK` frames to tell the server it did not consume these messages."},
	}, why: "binds clients; what is neither acknowledged nor refused comes again when its lease or its connection ends"},
}
