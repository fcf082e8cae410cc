package stomp_test

import (
	"fmt"
	"strings"

	"github.com/sluicemq/sluice/core"
)

// frameRules are what holds for every frame.
var frameRules = []rule{
	{section: "Frames", name: "lines may end in CR LF", said: []said{
		{"1.2", "an OPTIONAL carriage return (octet 13) followed by a REQUIRED line feed (octet 10)"},
	}, test: func(s *spec) {
		p := s.g.dial()
		p.write("CONNECT\r\naccept-version:1.2\r\nhost:h\r\n\r\n^@\r\n\r\n")
		p.expect("CONNECTED\n", "version:1.2\n")
		p.write("SUBSCRIBE\r\nid:0\r\ndestination:/topic/a\r\nreceipt:r\r\n\r\n^@\r\n")
		p.expect("RECEIPT\nreceipt-id:r\n")
		p.write("SEND\r\ndestination:/topic/a\r\nx:y\r\n\r\nbody\r\n^@\r\n")
		p.expect("MESSAGE\n", "\nx:y\n", "\n\nbody\r\n^@")
		// Each line for itself.
		p = s.g.dial()
		p.write("\r\nCONNECT\naccept-version:1.2\r\nhost:h\n\r\n^@SUBSCRIBE\r\nid:0\ndestination:/topic/a\r\nreceipt:r\n\n^@\n\r\n")
		p.expect("CONNECTED\n", "version:1.2\n")
		p.expect("RECEIPT\nreceipt-id:r\n")
	}},
	{section: "Frames", name: "lines end in LF", said: []said{
		{"1.1", "Each header entry is terminated by a newline."},
		{"1.0", "each header followed by a newline"},
	}, test: func(s *spec) {
		p := s.g.dial()
		p.write("CONNECT\naccept-version:" + s.v + "\nhost:h\n\n^@SUBSCRIBE\nid:0\ndestination:/topic/a\nreceipt:r\n\n^@")
		p.expect("CONNECTED\n")
		p.expect("RECEIPT\nreceipt-id:r\n")
	}},
	{section: "Frames", name: "line ends may follow a frame", said: []said{
		{"1.2", "The NULL octet can be optionally followed by multiple EOLs."},
		{"1.1", "The null byte can be optionally followed by multiple newlines."},
		{"1.0", "*( LF )"},
	}, test: func(s *spec) {
		p := s.connect()
		p.write("\n\n\nSEND\ndestination:/queue/q\nreceipt:1\n\nx^@\n\n\n\nSEND\ndestination:/queue/q\nreceipt:2\n\ny^@\n\n")
		p.expect("RECEIPT\nreceipt-id:1\n")
		p.expect("RECEIPT\nreceipt-id:2\n")
	}},
	{section: "Frames", name: "commands and header names are case sensitive", said: []said{
		{"1.2 1.1", "All commands and header names referenced in this document are case sensitive."},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("SEND", "Destination:/queue/q", "receipt:r")
		p.expectError("missing header", "receipt-id:r")
		p = s.connect()
		p.send("Send", "destination:/queue/q")
		p.expectError("unknown command")
	}},
	{section: "Frames", name: "limits are answered with an ERROR", said: []said{
		{"1.2", "If these limits are exceeded the server SHOULD send the client an `ERROR` frame and then close the connection."},
		{"1.1", "If these limits are exceeded the server SHOULD send the client an `ERROR` frame and disconnect the client."},
	}, by: "TestLimits"},

	{section: "Value Encoding", name: "escapes are decoded", said: []said{
		{"1.2 1.1", "When decoding frame headers, the following transformations MUST be applied"},
	}, test: func(s *spec) {
		p := s.connect()
		escaped, plain := `a\nb\cc\\d`, "a\nb:c\\d"
		if s.since("1.2") {
			escaped, plain = escaped+`\re`, plain+"\re"
		}
		p.publish("/topic/"+strings.ReplaceAll(escaped, `\n`, ""), "x", escaped+":"+escaped)
		page, err := s.g.admin().Read(s.Context(), core.ReadRequest{Filters: []core.Filter{"#"}, From: core.Earliest})
		if err != nil || len(page.Messages) != 1 {
			s.Fatalf("%+v, %v", page, err)
		}
		m := page.Messages[0]
		if m.Topic != strings.ReplaceAll(plain, "\n", "") || m.Headers[0] != (core.Header{Name: plain, Value: plain}) {
			s.Errorf("%q, %q", m.Topic, m.Headers)
		}
	}},
	{section: "Value Encoding", name: "unknown escapes are fatal", said: []said{
		{"1.2", "Undefined escape sequences such as `\\t` (octet 92 and 116) MUST be treated as a fatal protocol error."},
		{"1.1", "Undefined escape sequences such as `\\r` (octet 92 and 114) MUST be treated as a fatal protocol error."},
	}, test: func(s *spec) {
		bad := []string{`x:\t`, `\t:x`, `x:\`, `x:\N`}
		if s.v == "1.1" {
			bad = append(bad, `x:\r`)
		}
		for _, header := range bad {
			p := s.connect()
			p.send("SEND", "destination:/queue/q", header)
			p.expectError("wrong escape", `\n, \c and \\`)
		}
	}},
	{section: "Value Encoding", name: "headers are encoded", said: []said{
		{"1.2 1.1", "Conversely when encoding frame headers, the reverse transformation MUST be applied."},
	}, test: func(s *spec) {
		p := s.consume("/topic/#")
		err := s.g.admin().Publish(s.Context(), &core.Envelope{Topic: "a:b", Headers: []core.Header{{Name: "n:\n", Value: `v:\` + "\n"}, {Name: "r", Value: "\r"}}}, 0)
		if err != nil {
			s.Fatal(err)
		}
		r := p.expect("MESSAGE\n", `destination:/topic/a\cb`+"\n", "\n"+`n\c\n:v\c\\\n`+"\n")
		// 1.1 has no escape for a carriage return, which may end a line.
		if want := map[string]string{"1.1": " ", "1.2": `\r`}[s.v]; r.header("r") != want {
			s.Errorf("%q", r.header("r"))
		}
	}},
	{section: "Value Encoding", name: "CONNECT and CONNECTED are not escaped", said: []said{
		{"1.2 1.1", "All frames except the `CONNECT` and `CONNECTED` frames will also escape any"},
	}, by: "TestLoginIsNotUnescaped"},
	{section: "Value Encoding", name: "spaces stay", said: []said{
		{"1.2", "In STOMP 1.2, clients and servers MUST never trim or pad headers with spaces."},
		{"1.1", "In STOMP 1.1, clients and servers MUST never trim or pad headers with spaces."},
	}, test: func(s *spec) {
		p := s.consume("/topic/ a ")
		p.write("SEND\ndestination:/topic/ a \n x : y \n\n^@")
		p.expect("MESSAGE\n", "\ndestination:/topic/ a \n", "\n x : y \n")
	}},
	{section: "Value Encoding", name: "padding is taken off", said: []said{
		{"1.0", "destination: /queue/foo"},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("SUBSCRIBE", "destination: /queue/foo", "ack: client", "receipt: r")
		p.expect("RECEIPT\nreceipt-id:r\n")
		p.send("SEND", "destination:/queue/foo", " x")
		r := p.expect("MESSAGE\ndestination:/queue/foo\n")
		p.send("ACK", "message-id: "+r.header("message-id"), "receipt:a")
		p.expect("RECEIPT\nreceipt-id:a\n")
	}},
	{section: "Value Encoding", name: "text is UTF-8", said: []said{
		{"1.2 1.1", "All STOMP clients and servers MUST support UTF-8 encoding and decoding."},
	}, test: func(s *spec) {
		p := s.consume("/topic/größe/→")
		p.send("SEND", "destination:/topic/größe/→", "schlüssel:wörter 日本", "content-type:text/plain", " käse")
		p.expect("MESSAGE\n", "\ndestination:/topic/größe/→\n", "\nschlüssel:wörter 日本\n", "\n\nkäse^@")
		p.send("SEND", "destination:/topic/a", "x:\xff\xfe")
		p.expectError("not UTF-8")
	}},

	{section: "Body", name: "only SEND has one", said: []said{
		{"1.2 1.1", "All other frames MUST NOT have a body."},
	}, test: func(s *spec) {
		for _, command := range []string{"SUBSCRIBE", "UNSUBSCRIBE", "BEGIN", "ACK", "DISCONNECT"} {
			p := s.connect()
			p.send(command, "id:0", "destination:/queue/q", "transaction:t", " body")
			p.expectError("unexpected body", command)
		}
		s.serverFrames(func(r reply) {
			if r.command != "MESSAGE" && r.command != "ERROR" && r.body != "" {
				s.Errorf("a body in\n%s", r)
			}
		})
	}},
	{section: "Body", name: "that of SUBSCRIBE is ignored", said: []said{
		{"1.0", "The body of the SUBSCRIBE command is ignored."},
	}, test: func(s *spec) {
		p := s.connect()
		p.send("SUBSCRIBE", "destination:/queue/q", "receipt:r", "content-length:3", " a\x00b")
		p.expect("RECEIPT\nreceipt-id:r\n")
	}},

	{section: "content-length", name: "so many bytes are read", said: []said{
		{"1.2", "this number of octets MUST be read, regardless of whether or not there are NULL octets in the body"},
		{"1.1", "this number of bytes MUST be read, regardless of whether or not there are null characters in the body"},
		{"1.0", "this number of bytes should be read, regardless of whether or not there are null characters in the body"},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		for _, body := range []string{"a\x00b", "\x00", "\x00\x00SEND\n\n\x00", strings.Repeat("\x00\xff", 3000)} {
			p.write(fmt.Sprintf("SEND\ndestination:/topic/a\ncontent-length:%d\n\n%s\x00", len(body), body))
			if r := p.expect("MESSAGE\n"); r.body != body {
				s.Errorf("%q is %q", body, r.body)
			}
		}
	}},
	{section: "content-length", name: "NUL still ends the frame", said: []said{
		{"1.2", "The frame still needs to be terminated with a NULL octet."},
		{"1.1", "The frame still needs to be terminated with a null byte."},
		{"1.0", "The frame still needs to be terminated with a null byte"},
	}, test: func(s *spec) {
		for _, length := range []string{"2", "0", "-1", "x", "", "99999999999999999999"} {
			p := s.connect()
			p.send("SEND", "destination:/queue/q", "content-length:"+length, " abc")
			p.expectError("wrong content-length")
		}
	}},
	{section: "content-length", name: "without it NUL ends the body", said: []said{
		{"1.0", "the first null byte encountered signals the end of the frame"},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.write("SEND\ndestination:/topic/a\n\none\x00SEND\ndestination:/topic/a\n\ntwo\x00")
		if got := bodies(p.messages(2)); got != "one two" {
			s.Error(got)
		}
	}},
	{section: "content-length", name: "MESSAGE has it", said: []said{
		{"1.2", "the `SEND`, `MESSAGE` and `ERROR` frames SHOULD include a `content-length` header to ease frame parsing"},
		{"1.1", "The `SEND`, `MESSAGE` and `ERROR` frames SHOULD include a `content-length` header if a frame body is present."},
		{"1.0", "It is recommended that MESSAGE frames include a *content-length* header"},
	}, test: func(s *spec) {
		s.serverFrames(func(r reply) {
			if (r.command == "MESSAGE" || r.command == "ERROR") && r.header("content-length") != fmt.Sprint(len(r.body)) {
				s.Errorf("no content-length:%d in\n%s", len(r.body), r)
			}
		})
	}},
	{section: "content-length", name: "MESSAGE with NUL bytes has it", said: []said{
		{"1.2", "If the frame body contains NULL octets, the frame MUST include a `content-length` header."},
		{"1.1", "If a frame's body contains NULL octets, the frame MUST include a `content-length` header."},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.send("SEND", "destination:/topic/a", "content-length:3", " a\x00b")
		p.expect("MESSAGE\n", "\ncontent-length:3\n")
	}},
	{section: "content-type", name: "that of SEND is in MESSAGE", said: []said{
		{"1.2", "the `SEND`, `MESSAGE` and `ERROR` frames SHOULD include a `content-type` header to help the receiver of the frame interpret its body"},
		{"1.1", "The `SEND`, `MESSAGE` and `ERROR` frames SHOULD include a `content-type` header if a frame body is present."},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.send("SEND", "destination:/topic/a", "content-type:text/html;charset=utf-16", " <")
		p.expect("MESSAGE\n", "\ncontent-type:text/html;charset=utf-16\n")
		// What the sender did not say is not invented.
		p.send("SEND", "destination:/topic/a", " <")
		if r := p.expect("MESSAGE\n"); r.header("content-type") != "" {
			s.Errorf("%s", r)
		}
	}},
	{section: "content-type", name: "it is a MIME type", said: []said{
		{"1.2", "its value MUST be a MIME type which describes the format of the body"},
		{"1.1", "It SHOULD be set to a mime type which describes the format of the body"},
	}, why: "binds who sends; Sluice passes on what it says, and sends `text/plain` itself"},
	{section: "content-type", name: "without it the body is bytes", said: []said{
		{"1.2", "Otherwise, the receiver SHOULD consider the body to be a binary blob."},
		{"1.1", "the receiver SHOULD consider the body to be a binary blob"},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		body := "\xff\xfe\x80 not text \xc3\x28"
		p.write("SEND\ndestination:/topic/a\n\n" + body + "\x00")
		if r := p.expect("MESSAGE\n"); r.body != body {
			s.Errorf("%q", r.body)
		}
	}},
	{section: "content-type", name: "a charset is named", said: []said{
		{"1.2", "you SHOULD append `;charset=<encoding>` to the MIME type"},
		{"1.1", "you SHOULD append `;charset=<encoding>` to the mime type"},
	}, why: "binds applications; Sluice looks into no body"},

	{section: "content-type", name: "a charset is named for what is no text type", said: []said{
		{"1.2", "The `;charset=<encoding>` SHOULD also get appended to any non `text/` MIME types which can be interpreted as text."},
		{"1.1", "The `;charset=<encoding>` SHOULD also get appended to any non `text/` mime types which can be interpreted as text."},
	}, why: "binds applications; Sluice looks into no body"},
	{section: "content-type", name: "text is best in UTF-8", said: []said{
		{"1.2 1.1", "it is RECOMMENDED that text based content be encoded with UTF-8"},
	}, why: "binds applications; Sluice's own ERROR bodies are UTF-8"},

	{section: "receipt", name: "every client frame may ask", said: []said{
		{"1.2 1.1", "Any client frame other than `CONNECT` MAY specify a `receipt` header with an arbitrary value."},
		{"1.0", "Any client frame other than CONNECT may specify a *receipt* header with an arbitrary value."},
	}, test: func(s *spec) {
		p := s.connect()
		frames := [][]string{
			{"SUBSCRIBE", "id:0", "destination:/queue/q", "ack:client"}, {"BEGIN", "transaction:t"}, {"SEND", "destination:/topic/x", "transaction:t"},
			{"COMMIT", "transaction:t"}, {"BEGIN", "transaction:t"}, {"ABORT", "transaction:t"}, {"SEND", "destination:/topic/x"},
			{"UNSUBSCRIBE", "id:0"}, {"DISCONNECT"},
		}
		for i, f := range frames {
			id := fmt.Sprintf("any thing %d", i)
			p.send(f[0], append(f[1:], "receipt:"+id)...)
			p.expect("RECEIPT\nreceipt-id:" + id + "\n")
		}
		p.expectEnd()
	}},

	{section: "Repeated Header Entries", name: "the first counts", said: []said{
		{"1.2", "If a client or a server receives repeated frame header entries, only the first header entry SHOULD be used as the value of header entry."},
		{"1.1", "If the client receives repeated frame header entries, only the first header entry SHOULD be used as the value of header entry."},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.send("SEND", "destination:/topic/a", "destination:/topic/b", "priority:7", "priority:high", "content-length:1", "content-length:9", "receipt:r", "receipt:s", " x")
		got := p.expect("\n").String() + p.expect("\n").String()
		if !strings.Contains(got, "MESSAGE\n") || !strings.Contains(got, "\npriority:7\n") || !strings.Contains(got, "RECEIPT\nreceipt-id:r\n") {
			s.Error(got)
		}
	}},
	{section: "Repeated Header Entries", name: "the others are kept", said: []said{
		{"1.2", "Subsequent values are only used to maintain a history of state changes of the header and MAY be ignored."},
		{"1.1", "Subsequent values are only used to maintain a history of state changes of the header."},
	}, test: func(s *spec) {
		p := s.consume("/topic/a")
		p.send("SEND", "destination:/topic/a", "foo:World", "foo:Hello")
		r := p.expect("MESSAGE\n", "\nfoo:World\nfoo:Hello\n")
		if r.header("foo") != "World" {
			s.Errorf("%s", r)
		}
	}},
	{section: "Repeated Header Entries", name: "a server may change headers", said: []said{
		{"1.2", "A STOMP server MAY 'update' header values"},
		{"1.1", "The intermediate server MAY 'update' header values"},
	}, why: "Sluice changes no header of an application's"},

	{section: "Connection Lingering", name: "clients come and go", said: []said{
		{"1.2", "STOMP servers must be able to support clients which rapidly connect and disconnect."},
		{"1.1", "STOMP servers MUST support clients which rapidly connect and disconnect."},
	}, test: func(s *spec) {
		for range 300 {
			p := s.g.dial()
			p.write("CONNECT\naccept-version:" + s.v + "\nhost:h\n\n^@SEND\ndestination:/queue/q\n\nx^@DISCONNECT\nreceipt:r\n\n^@")
			p.expect("CONNECTED\n")
			p.expect("RECEIPT\nreceipt-id:r\n")
			p.expectEnd()
		}
		if got := strings.Fields(s.left("/queue/q")); len(got) != 300 {
			s.Errorf("%d messages", len(got))
		}
	}},
}

// serverFrames has the broker send a frame of each kind.
func (s *spec) serverFrames(look func(r reply)) {
	p := s.g.dial()
	p.send("CONNECT", "accept-version:"+s.v, "host:h")
	look(p.expect("CONNECTED\n"))
	p.send("SUBSCRIBE", "id:0", "destination:/topic/a", "receipt:r")
	look(p.expect("RECEIPT\n"))
	for _, body := range []string{"", "x", strings.Repeat("long ", 1000)} {
		p.send("SEND", "destination:/topic/a", " "+body)
		look(p.expect("MESSAGE\n"))
	}
	p.send("COMMIT", "transaction:none", "receipt:e")
	look(p.expect("ERROR\n"))
	p.expectEnd()
}
