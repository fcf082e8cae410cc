package stomp_test

import (
	"fmt"
	"strings"
)

// transactionRules are about BEGIN, COMMIT, ABORT and DISCONNECT.
var transactionRules = []rule{
	{section: "BEGIN", name: "atomic", said: []said{
		{"1.2", "any messages sent or acknowledged during a transaction will be processed atomically based on the transaction"},
		{"1.1 1.0", "any messages sent or acknowledged during a transaction will be handled atomically based on the transaction"},
	}, by: "TestTransactions"},
	{section: "BEGIN", name: "all or nothing", said: []said{
		{"1.2", "any messages sent or acknowledged during a transaction will be processed atomically"},
		{"1.1 1.0", "any messages sent or acknowledged during a transaction will be handled atomically"},
	}, test: func(s *spec) {
		p := s.consume("/queue/in", "ack:client")
		s.sent("/queue/in", "1")
		r := p.messages(1)[0]
		p.send("BEGIN", "transaction:t")
		p.send("SEND", "destination:/queue/out", "transaction:t", " x")
		p.acks("ACK", s.v, r, "transaction:t")
		p.send("SEND", "destination:/topic/$SYS/refused", "transaction:t", " y")
		p.send("COMMIT", "transaction:t", "receipt:c")
		p.expectError("broker's own")
		if got := s.left("/queue/out") + "," + s.left("/queue/in"); got != ",1" {
			s.Errorf("left are %s", got)
		}
	}},
	{section: "BEGIN", name: "needs an id", said: []said{
		{"1.2 1.1", "The `transaction` header is REQUIRED, and the transaction identifier will be used for `SEND`, `COMMIT`, `ABORT`, `ACK`, and `NACK` frames"},
		{"1.0", "The *transaction* header is required, and the transaction identifier will be used for SEND, COMMIT, ABORT, and ACK frames"},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("BEGIN", "receipt:r")
		p.expectError("receipt-id:r", "BEGIN needs the header transaction")
		for _, f := range [][]string{{"SEND", "destination:/queue/q"}, {"COMMIT"}, {"ABORT"}} {
			p = s.connect()
			p.send(f[0], append(f[1:], "transaction:none", "receipt:r")...)
			p.expectError("receipt-id:r", `The transaction "none" is not open`)
		}
		p = s.consume("/queue/q", "ack:client")
		s.sent("/queue/q", "x")
		p.acks("ACK", s.v, p.messages(1)[0], "transaction:none", "receipt:r")
		p.expectError("receipt-id:r", `The transaction "none" is not open`)
	}},
	{section: "BEGIN", name: "ids differ", said: []said{
		{"1.2", "Within the same connection, different transactions MUST use different transaction identifiers."},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("BEGIN", "transaction:t")
		p.send("BEGIN", "transaction:t", "receipt:r")
		p.expectError("transaction is open", "receipt-id:r")
		p, q := s.connect(), s.connect()
		for range 2 {
			p.send("BEGIN", "transaction:t")
			q.send("BEGIN", "transaction:t")
			p.send("COMMIT", "transaction:t", "receipt:p")
			q.send("ABORT", "transaction:t", "receipt:q")
			p.expect("RECEIPT\n")
			q.expect("RECEIPT\n")
		}
	}},
	{section: "BEGIN", name: "DISCONNECT aborts", said: []said{
		{"1.2 1.1", "Any started transactions which have not been committed will be implicitly aborted if the client sends a `DISCONNECT` frame or if the TCP connection fails for any reason."},
	}, test: func(s *spec) {
		for _, end := range []func(p *peer){(*peer).bye, func(p *peer) { p.conn.Close() }} {
			p := s.consume("/queue/in", "ack:client")
			s.sent("/queue/in", "1")
			r := p.messages(1)[0]
			s.Log(r)
			p.send("BEGIN", "transaction:t")
			p.send("SEND", "destination:/queue/out", "transaction:t", " x")
			p.acks("ACK", s.v, r, "transaction:t", "receipt:r")
			p.expect("RECEIPT\n")
			end(p)
			if got := s.left("/queue/out") + "," + s.left("/queue/in"); got != ",1" {
				s.Errorf("left are %s", got)
			}
		}
	}},
	{section: "COMMIT", name: "needs an id", said: []said{
		{"1.2", "The `transaction` header is REQUIRED and MUST specify the identifier of the transaction to commit."},
		{"1.1", "The `transaction` header is REQUIRED and MUST specify the id of the transaction to commit"},
		{"1.0", "The *transaction* header is required, you must specify which transaction to commit"},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("COMMIT", "receipt:r")
		p.expectError("receipt-id:r", "COMMIT needs the header transaction")
		p = s.connect()
		p.send("BEGIN", "transaction:t")
		p.send("COMMIT", "transaction:t")
		p.send("COMMIT", "transaction:t", "receipt:r")
		p.expectError("receipt-id:r", "is not open")
	}},
	{section: "COMMIT", name: "durable with its receipt", said: []said{
		{"1.2 1.1 1.0", "`COMMIT` is used to commit a transaction in progress."},
	}, by: "TestCommitsAreDurable"},
	{section: "ABORT", name: "needs an id", said: []said{
		{"1.2", "The `transaction` header is REQUIRED and MUST specify the identifier of the transaction to abort."},
		{"1.1", "The `transaction` header is REQUIRED and MUST specify the id of the transaction to abort"},
		{"1.0", "The *transaction* header is required, you must specify which transaction to abort"},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("ABORT", "receipt:r")
		p.expectError("receipt-id:r", "ABORT needs the header transaction")
	}},
	{section: "ABORT", name: "rolls back", said: []said{
		{"1.2 1.1", "`ABORT` is used to roll back a transaction in progress."},
		{"1.0", "ABORT is used to roll back a transaction in progress."},
	}, test: func(s *spec) {
		p := s.consume("/queue/in", "ack:client")
		s.sent("/queue/in", "1", "2")
		rs := p.messages(2)
		p.send("BEGIN", "transaction:t")
		p.send("SEND", "destination:/queue/out", "transaction:t", " x")
		p.acks("ACK", s.v, rs[1], "transaction:t")
		p.send("ABORT", "transaction:t")
		// What it acknowledged waits to be acknowledged again.
		p.acks("ACK", s.v, rs[0], "receipt:a")
		p.expect("RECEIPT\n")
		p.bye()
		if got := s.left("/queue/out") + "," + s.left("/queue/in"); got != ",2" {
			s.Errorf("left are %s", got)
		}
	}},
	{section: "DISCONNECT", name: "its receipt comes last", said: []said{
		{"1.2 1.1", "the client is assured that all previous frames have been received by the server"},
		{"1.0", "DISCONNECT does a graceful disconnect from the server."},
	}, test: func(s *spec) {
		p := s.connect()
		var b strings.Builder
		for i := range 100 {
			fmt.Fprintf(&b, "SEND\ndestination:/queue/q\n\n%d^@", i)
		}
		p.write(b.String() + "DISCONNECT\nreceipt:77\n\n^@")
		p.expect("RECEIPT\nreceipt-id:77\n")
		p.expectEnd()
		if got := strings.Fields(s.left("/queue/q")); len(got) != 100 {
			s.Errorf("%d messages", len(got))
		}
	}},
	{section: "DISCONNECT", name: "nothing follows", said: []said{
		{"1.2 1.1", "Clients MUST NOT send any more frames after the `DISCONNECT` frame is sent."},
	}, test: func(s *spec) {
		p := s.connect()
		p.write("DISCONNECT\nreceipt:1\n\n^@SEND\ndestination:/queue/q\nreceipt:2\n\nx^@")
		p.expect("RECEIPT\nreceipt-id:1\n")
		p.expectEnd()
		if got := s.left("/queue/q"); got != "" {
			s.Errorf("sent was %s", got)
		}
	}},
}

// serverRules are about MESSAGE, RECEIPT and ERROR.
var serverRules = []rule{
	{section: "MESSAGE", name: "has its destination", said: []said{
		{"1.2", "The `MESSAGE` frame MUST include a `destination` header indicating the destination the message was sent to."},
		{"1.1", "The `MESSAGE` frame will include a `destination` header indicating the destination the message was sent to."},
		{"1.0", "The MESSAGE frame will include a header, *destination*, indicating the destination the message was delivered to."},
	}, test: func(s *spec) {
		p := s.connect()
		p.subscribe("0", "/topic/a/*")
		p.subscribe("1", "/queue/q")
		s.sent("/topic/a/b", "x")
		s.sent("/queue/q", "x")
		for range 2 {
			r := p.expect("MESSAGE\n")
			if want := map[string]string{"0": "/topic/a/b", "1": "/queue/q"}[r.header("subscription")]; r.header("destination") != want {
				s.Errorf("%s", r)
			}
		}
	}},
	{section: "MESSAGE", name: "destination as it was sent", said: []said{
		{"1.2", "this `destination` header SHOULD be identical to the one used in the corresponding `SEND` frame"},
	}, by: "TestDestinationsComeBackInStyle"},
	{section: "MESSAGE", name: "has a message-id of its own", said: []said{
		{"1.2", "The `MESSAGE` frame MUST also contain a `message-id` header with a unique identifier for that message"},
		{"1.1 1.0", "header with a unique identifier for that message"},
	}, test: func(s *spec) {
		p := s.connect()
		p.subscribe("0", "/topic/a")
		p.subscribe("1", "/queue/q")
		s.sent("/topic/a", "1", "2", "3")
		s.sent("/queue/q", "1", "2", "3")
		seen := make(map[string]bool)
		for _, r := range p.messages(6) {
			seen[r.header("message-id")] = true
		}
		if len(seen) != 6 || seen[""] {
			s.Error(seen)
		}
	}},
	{section: "MESSAGE", name: "has its subscription", said: []said{
		{"1.2", "a `subscription` header matching the identifier of the subscription that is receiving the message"},
		{"1.1", "The `subscription` header will be set to match the `id` header of the subscription that is receiving the message."},
	}, test: func(s *spec) {
		p := s.connect()
		p.subscribe(`my\csub 1`, "/topic/a")
		s.sent("/topic/a", "x")
		p.expect(`MESSAGE` + "\n" + `subscription:my\csub 1` + "\n")
	}},
	{section: "MESSAGE", name: "has an ack header where one is due", said: []said{
		{"1.2", "then the `MESSAGE` frame MUST also contain an `ack` header with an arbitrary value"},
	}, test: func(s *spec) {
		for _, ack := range []string{"auto", "client", "client-individual"} {
			p := s.consume("/queue/"+ack, "ack:"+ack)
			s.sent("/queue/"+ack, "x")
			if r := p.messages(1)[0]; (r.header("ack") != "") != (ack != "auto") {
				s.Errorf("%s gives\n%s", ack, r)
			}
		}
	}},
	{section: "MESSAGE", name: "content-length and content-type", said: []said{
		{"1.2 1.1", "`MESSAGE` frames SHOULD include a"},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.send("SEND", "destination:/topic/a", "content-type:application/json", " {}")
		p.expect("MESSAGE\n", "\ncontent-length:2\n", "\ncontent-type:application/json\n")
	}},
	{section: "MESSAGE", name: "has the sender's headers", said: []said{
		{"1.2 1.1", "`MESSAGE` frames will also include all user defined headers that were present when the message was sent to the destination"},
	}, by: "TestHeadersArriveInOrder"},

	{section: "RECEIPT", name: "names what was asked", said: []said{
		{"1.2", "A `RECEIPT` frame MUST include the header `receipt-id`, where the value is the value of the `receipt` header in the frame which this is a receipt for."},
		{"1.1", "A `RECEIPT` frame will include the header `receipt-id`, where the value is the value of the `receipt` header in the frame which this is a receipt for."},
		{"1.0", "A RECEIPT frame will include the header *receipt-id*, where the value is the value of the *receipt* header in the frame which this is a receipt for."},
	}, test: func(s *spec) {
		p := s.connect()
		ids := []string{"message-12345", "", " a b ", "ü"}
		if s.since("1.1") {
			ids = append(ids, `a\cb\n\\`)
		} else {
			ids[2] = "a b " // 1.0 takes padding off
		}
		for _, id := range ids {
			p.write("SEND\ndestination:/queue/q\nreceipt:" + id + "\n\n^@")
			if r := p.expect("RECEIPT\n"); r.header("receipt-id") != id {
				s.Errorf("%q: %s", id, r)
			}
		}
	}},
	{section: "RECEIPT", name: "its body is empty", said: []said{
		{"1.1 1.0", "The receipt body will be empty."},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("BEGIN", "transaction:t", "receipt:r")
		if r := p.expect("RECEIPT\n"); r.body != "" {
			s.Errorf("%s", r)
		}
	}},
	{section: "RECEIPT", name: "speaks for all before it", said: []said{
		{"1.2", "the receipt is also a cumulative acknowledgment that all the previous frames have been _received_ by the server"},
	}, by: "TestReceiptsArePipelined"},
	{section: "RECEIPT", name: "after the message is durable", said: []said{
		{"1.2 1.1", "A `RECEIPT` frame is sent from the server to the client once a server has successfully processed a client frame that requests a receipt."},
		{"1.0", "Receipts are issued from the server when the client has requested a receipt for a given command."},
	}, by: "TestReceiptsFollowTheSync"},
	{section: "RECEIPT", name: "frames count without it too", said: []said{
		{"1.2", "If the client disconnects, previously received frames SHOULD continue to get processed by the server."},
	}, test: func(s *spec) {
		p := s.connect()
		p.write("SEND\ndestination:/queue/q\n\nx^@BEGIN\ntransaction:t\n\n^@SEND\ndestination:/queue/q\ntransaction:t\n\ny^@COMMIT\ntransaction:t\n\n^@")
		p.conn.Close()
		if got := s.left("/queue/q"); got != "x y" {
			s.Errorf("sent are %q", got)
		}
	}},

	{section: "ERROR", name: "the connection is closed", said: []said{
		{"1.2", "it MUST then close the connection just after sending the `ERROR` frame"},
	}, by: "TestErrorsCloseTheConnection"},
	{section: "ERROR", name: "says what is wrong and what to do", said: []said{
		{"1.2", "The `ERROR` frame SHOULD contain a `message` header with a short description of the error"},
		{"1.1", "The error frame SHOULD contain a `message` header with a short description of the error"},
		{"1.0", "The error frame should contain a *message* header with a short description of the error"},
	}, test: func(s *spec) {
		for _, f := range [][]string{
			{"SEND"}, {"SUBSCRIBE", "id:0"}, {"UNSUBSCRIBE", "id:9"}, {"ACK", "id:1-1", "message-id:1-1", "subscription:0"}, {"COMMIT", "transaction:9"}, {"BEGIN"}, {"NONE"},
		} {
			p := s.connect()
			p.send(f[0], f[1:]...)
			r := p.expectError()
			if m := r.header("message"); m == "" || len(m) > 60 || len(r.body) < 20 || !strings.HasSuffix(r.body, ".\n") {
				s.Errorf("%s: %s", f[0], r)
			}
		}
	}},
	{section: "ERROR", name: "helps to find the frame", said: []said{
		{"1.2", "If the error is related to a specific frame sent from the client, the server SHOULD add additional headers to help identify the original frame that caused the error."},
		{"1.1", "If the error is related to specific frame sent from the client, the server SHOULD add additional headers to help identify the original frame that caused the error."},
	}, test: func(s *spec) {
		// Without a receipt the body names the command or the value.
		for _, f := range [][2]string{{"SEND", "SEND"}, {"UNSUBSCRIBE", "UNSUBSCRIBE"}, {"BEGIN", "BEGIN"}, {"ABORT", "ABORT"}} {
			p := s.connect()
			p.send(f[0])
			p.expectError(f[1])
		}
	}},
	{section: "ERROR", name: "names the frame", said: []said{
		{"1.2", "the `ERROR` frame SHOULD set the `receipt-id` header to match the value of the `receipt` header of the frame which the error is related to"},
		{"1.1", "the `ERROR` frame SHOULD set the `receipt-id` header to match the value of the `receipt` header of the frame which the error is related to"},
	}, test: func(s *spec) {
		for _, f := range [][]string{
			{"SEND"}, {"SUBSCRIBE", "id:0"}, {"UNSUBSCRIBE", "id:9"}, {"ACK", "id:1-1", "message-id:1-1", "subscription:0"}, {"NACK", "id:1-1", "message-id:1-1", "subscription:0"},
			{"BEGIN"}, {"COMMIT", "transaction:9"}, {"ABORT", "transaction:9"},
		} {
			p := s.connect()
			p.send(f[0], append(f[1:], `receipt:the\cone`)...)
			if r := p.expectError(); r.header("receipt-id") != `the\cone` {
				s.Errorf("%s: %s", f[0], r)
			}
		}
		// So does one that cannot be read, wherever its receipt stands.
		for _, text := range []string{
			"SEND\nNO\nRECEIPT\n\nx^@", "SEND\nRECEIPT\n:empty\n\nx^@", "SEND\nx:\xff\nRECEIPT\n\nx^@", "SEND\nRECEIPT\nx:\xff\n\nx^@",
			"SEND\nRECEIPT\ncontent-length:1\n\nabc^@", "SEND\ncontent-length:-1\nRECEIPT\n\n^@", "SEND\nRECEIPT\ncontent-length:9999999\n\nx",
			"BEGIN\ntransaction:t\nRECEIPT\n\nbody^@", "SEND\nx:" + strings.Repeat("x", 9000) + "\nRECEIPT\n\n^@",
			"SEND\n" + strings.Repeat("a:b\n", 65) + "RECEIPT\n\n^@", "NONE\nx:y\nRECEIPT\nreceipt:other\n\n^@", "SEND\nNO\r\nRECEIPT\r\n\r\n^@",
			`SEND` + "\nx:\\t\nRECEIPT\n\n^@",
		} {
			p := s.connect()
			p.write(strings.ReplaceAll(text, "RECEIPT", `receipt:the\cone`))
			if r := p.expectError(); r.header("receipt-id") != `the\cone` {
				s.Errorf("%.40q: %s", text, r)
			}
		}
		for _, text := range []string{"SEND\nNO\n\nreceipt:body^@", "SEND\nNO^@\nreceipt:next\n\n^@", "SEND\nNO\nreceipt:\\x\n\n^@"} {
			p := s.connect()
			p.write(text)
			if r := p.expectError(); strings.Contains(r.String(), "receipt-id") {
				s.Errorf("%q: %s", text, r)
			}
		}
	}},
	{section: "ERROR", name: "content-length and content-type", said: []said{
		{"1.2 1.1", "`ERROR` frames SHOULD include a"},
		{"1.0", "It is recommended that ERROR frames include a *content-length* header"},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("COMMIT", "transaction:none")
		r := p.expectError("\ncontent-type:text/plain\n")
		if r.header("content-length") != fmt.Sprint(len(r.body)) {
			s.Errorf("%s", r)
		}
	}},

	{section: "Extensions", name: "headers belong to the message", said: []said{
		{"1.2", "the `SEND` and `MESSAGE` frames MAY include arbitrary user defined headers that SHOULD be considered as being part of the carried message"},
	}, by: "TestHeadersArriveInOrder"},
	{section: "Extensions", name: "persistence and expiry", said: []said{
		{"1.2", "STOMP servers MAY use additional headers to give access to features like persistency or expiration."},
	}, by: "TestEnvelopeHeaders"},
}
