package stomp_test

import (
	"strings"

	"github.com/sluicemq/sluice/core"
)

// sendRules are about SEND.
var sendRules = []rule{
	{section: "SEND", name: "needs a destination", said: []said{
		{"1.2 1.1", "It has one REQUIRED header, `destination`, which indicates where to send the message."},
		{"1.0", "It has one required header, *destination*, which indicates where to send the message."},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("SEND", "receipt:r", " x")
		p.expectError("missing header", "receipt-id:r", "SEND needs the header destination")
		p = s.connect()
		p.send("SEND", "destination:", "receipt:r", " x")
		p.expectError("invalid destination", "receipt-id:r", "/topic/a/b")
		p = s.consume("/queue/a")
		p.send("SEND", "destination:/queue/a", " x")
		p.expect("MESSAGE\n", "\n\nx^@")
	}},
	{section: "SEND", name: "the body is the message", said: []said{
		{"1.2 1.1", "The body of the `SEND` frame is the message to be sent."},
		{"1.0", "The body of the SEND command is the message to be sent."},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		for _, body := range []string{"", "x", "\n", "hello queue a\n", strings.Repeat("0123456789", 10_000)} {
			p.send("SEND", "destination:/topic/a", " "+body)
			if r := p.expect("MESSAGE\n"); r.body != body {
				s.Errorf("%.40q is %.40q", body, r.body)
			}
		}
	}},
	{section: "SEND", name: "in a transaction", said: []said{
		{"1.2 1.1", "`SEND` supports a `transaction` header which allows for transactional sends."},
		{"1.0", "SEND supports a *transaction* header which allows for transaction sends."},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.send("BEGIN", "transaction:t")
		p.send("SEND", "destination:/topic/a", "transaction:t", "receipt:r", " x")
		p.expect("RECEIPT\nreceipt-id:r\n")
		p.quiet(calm)
		p.send("COMMIT", "transaction:t")
		if r := p.expect("MESSAGE\n", "\n\nx^@"); r.header("transaction") != "" {
			s.Errorf("%s", r)
		}
	}},
	{section: "SEND", name: "headers of one's own arrive", said: []said{
		{"1.2 1.1", "The user defined headers MUST be passed through in the `MESSAGE` frame."},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.send("SEND", "b:1", "destination:/topic/a", "a:2", "empty:", "b:3", "X-Y_z.1:4", "type:order", "receipt:r")
		r := p.read()
		if r.command != "MESSAGE" {
			r = p.expect("MESSAGE\n")
		}
		if want := "\nb:1\na:2\nempty:\nb:3\nX-Y_z.1:4\ntype:order\n\n"; !strings.Contains(r.String(), want) {
			s.Errorf("want %q in\n%s", want, r)
		}
	}},
	{section: "SEND", name: "a header that the broker says is the broker's", said: []said{
		{"1.2 1.1", "in addition to the server specific headers that MAY get added to the frame"},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.send("SEND", "destination:/topic/a", "subscription:9", "message-id:mine", "ack:9", "offset:9", "time:9", "attempt:9", "redelivered:true", "publisher:9", "gap:9")
		r := p.expect("MESSAGE\nsubscription:0\n", "\noriginal-message-id:mine\n", "\nredelivered:false\n")
		if strings.Contains(r.String(), ":9\n") || strings.Count(r.String(), "message-id:") != 2 {
			s.Errorf("%s", r)
		}
	}},
	{section: "SEND", name: "what cannot be processed is an ERROR", said: []said{
		{"1.2", "If the server cannot successfully process the `SEND` frame for any reason, the server MUST send the client an `ERROR` frame and then close the connection."},
		{"1.1", "If the server cannot successfully process the `SEND` frame for any reason, the server MUST send the client an `ERROR` frame and disconnect the client."},
	}, test: func(s *spec) {
		if err := s.g.admin().DeclareQueue(s.Context(), core.QueueDefinition{Name: "there"}); err != nil {
			s.Fatal(err)
		}
		for header, want := range map[string]string{
			"destination:/exchange/none/k": `"none"`, "destination:/amq/queue/none": `"none"`, "destination:/topic/a/#": "wildcard",
			"destination:/topic/" + strings.Repeat("x", 2000): "1024", "destination:/topic/$SYS/x": "broker's own", "destination:/queue/": "empty",
		} {
			for _, receipt := range []string{"receipt:r", "no:receipt"} {
				p := s.connect()
				p.send("SEND", header, receipt)
				if r := p.expectError(want); (r.header("receipt-id") == "r") != (receipt == "receipt:r") {
					s.Errorf("%s", r)
				}
			}
		}
	}},
	{section: "SEND", name: "content-length and content-type", said: []said{
		{"1.2 1.1", "`SEND` frames SHOULD include a"},
		{"1.0", "It is recommended that SEND frames include a content-length header"},
	}, why: "binds clients; Sluice takes frames without"},
}
