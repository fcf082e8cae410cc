package stomp_test

import (
	"strings"
	"time"
)

// connectRules are about CONNECT, CONNECTED and heart-beats.
var connectRules = []rule{
	{section: "Connecting", name: "CONNECT is answered by CONNECTED", said: []said{
		{"1.2 1.1", "If the server accepts the connection attempt it will respond with a `CONNECTED` frame"},
		{"1.0", "the server will always acknowledge the connection, by sending a frame which looks like"},
	}, test: func(s *spec) {
		p := s.g.dial()
		if s.v == "1.0" {
			p.send("CONNECT", "login: ann", "passcode:x")
		} else {
			p.send("CONNECT", "accept-version:"+s.v, "host:stomp.example.org")
		}
		if r := p.expect("CONNECTED\n"); r.header("version") != s.v || r.header("session") == "" {
			s.Errorf("%s", r)
		}
	}},
	{section: "Connecting", name: "a refusal is explained", said: []said{
		{"1.2", "The server SHOULD respond back with an `ERROR` frame explaining why the connection was rejected and then close the connection."},
		{"1.1", "The server SHOULD respond back with an `ERROR` frame listing why the connection was rejected and then close the connection."},
	}, by: "TestWrongLoginIsRefused"},
	{section: "CONNECT or STOMP Frame", name: "STOMP is CONNECT", said: []said{
		{"1.2", "STOMP servers MUST handle a `STOMP` frame in the same manner as a `CONNECT` frame."},
		{"1.1", "STOMP servers SHOULD handle a `STOMP` frame in the same manner as a `CONNECT` frame."},
	}, test: func(s *spec) {
		p := s.g.dial()
		p.send("STOMP", "accept-version:"+s.v, "host:h", "heart-beat:0,5000")
		p.expect("CONNECTED\n", "\nversion:"+s.v+"\n", "\nheart-beat:5000,0\n")
		p.send("STOMP", "accept-version:"+s.v, "host:h")
		p.expectError("already connected")
	}},
	{section: "CONNECT or STOMP Frame", name: "clients go on with CONNECT", said: []said{
		{"1.2", "STOMP 1.2 clients SHOULD continue to use the `CONNECT` command"},
		{"1.1", "STOMP 1.1 clients SHOULD continue to use the `CONNECT` command"},
	}, why: "binds clients; Sluice takes both"},
	{section: "CONNECT or STOMP Frame", name: "every host is the one there is", said: []said{
		{"1.2 1.1", "servers supporting virtual hosting MAY select a default virtual host or reject the connection"},
	}, test: func(s *spec) {
		for _, host := range []string{"host:/", "host:elsewhere.example.org", "host:", "x:no host, as some clients have it"} {
			p := s.g.dial()
			p.send("CONNECT", "accept-version:"+s.v, host)
			p.expect("CONNECTED\n")
		}
	}},
	{section: "CONNECT or STOMP Frame", name: "login and passcode", said: []said{
		{"1.2", "`login` : The user identifier used to authenticate against a secured STOMP server."},
		{"1.1", "`login` : The user id used to authenticate against a secured STOMP server."},
		{"1.0", "passcode:<passcode>"},
	}, by: "TestWrongLoginIsRefused"},
	{section: "CONNECT or STOMP Frame", name: "what clients must set", said: []said{
		{"1.2", "STOMP 1.2 clients MUST set the following headers"},
		{"1.1", "STOMP 1.1 clients MUST set the following headers"},
	}, why: "binds clients; without `host` and `accept-version` a client is as good as one of 1.0, and taken"},
	{section: "CONNECTED Frame", name: "what a server must set", said: []said{
		{"1.2", "STOMP 1.2 servers MUST set the following headers"},
		{"1.1", "STOMP 1.1 servers MUST set the following headers"},
	}, test: func(s *spec) {
		p := s.g.dial()
		p.send("CONNECT", "accept-version:"+s.v, "host:h")
		r := p.expect("CONNECTED\n")
		for _, name := range []string{"version", "heart-beat", "session", "server"} {
			if r.header(name) == "" {
				s.Errorf("no %s in\n%s", name, r)
			}
		}
	}},
	{section: "CONNECTED Frame", name: "version is there", said: []said{
		{"1.2 1.1", "`version` : The version of the STOMP protocol the session will be using."},
	}, test: func(s *spec) {
		p := s.g.dial()
		p.send("CONNECT", "accept-version:"+s.v, "host:h")
		p.expect("CONNECTED\n", "\nversion:"+s.v+"\n")
	}},
	{section: "CONNECTED Frame", name: "sessions are unique", said: []said{
		{"1.2", "`session` : A session identifier that uniquely identifies the session."},
		{"1.1", "`session` : A session id that uniquely identifies the session."},
		{"1.0", "The `session-id` header is a unique identifier for this session"},
	}, by: "TestSessionsDiffer"},
	{section: "CONNECTED Frame", name: "server begins with a name", said: []said{
		{"1.2 1.1", "The field MUST contain a server-name field"},
	}, test: func(s *spec) {
		p := s.g.dial()
		p.send("CONNECT", "accept-version:"+s.v, "host:h")
		if name, _, _ := strings.Cut(p.read().header("server"), "/"); name != "Sluice" {
			s.Error(name)
		}
	}},

	{section: "Protocol Negotiation", name: "without accept-version it is 1.0", said: []said{
		{"1.2 1.1", "If the `accept-version` header is missing, it means that the client only supports version 1.0 of the protocol."},
	}, test: func(s *spec) {
		p := s.g.dial()
		p.send("CONNECT", "host:h")
		p.expect("CONNECTED\n", "\nversion:1.0\n")
		p.send("NACK", "message-id:1-1", "id:1-1", "subscription:0")
		p.expectError("1.0 has no NACK")
	}},
	{section: "Protocol Negotiation", name: "what clients must say", said: []said{
		{"1.2 1.1", "From STOMP 1.1 and onwards, the `CONNECT` frame MUST include the `accept-version` header. It SHOULD be set to a comma separated list of incrementing STOMP protocol versions that the client supports."},
	}, why: "binds clients; the list may have any order"},
	{section: "Protocol Negotiation", name: "the highest common version", said: []said{
		{"1.2 1.1", "The protocol that will be used for the rest of the session will be the highest protocol version that both the client and server have in common."},
	}, test: func(s *spec) {
		for accept, want := range map[string]string{"1.0,1.1,2.0": "1.1", "1.0,1.1,1.2": "1.2", "1.2,1.1": "1.2", "1.1": "1.1", "9.9,1.0": "1.0"} {
			p := s.g.dial()
			p.send("CONNECT", "accept-version:"+accept, "host:h")
			p.expect("CONNECTED\n", "\nversion:"+want+"\n")
		}
	}},
	{section: "Protocol Negotiation", name: "no common version", said: []said{
		{"1.2", "the server MUST respond with an `ERROR` frame similar to the following and then close the connection"},
		{"1.1", "the server SHOULD respond with an `ERROR` frame similar to"},
	}, test: func(s *spec) {
		p := s.g.dial()
		p.send("CONNECT", "accept-version:3.0,4.0", "host:h")
		p.expectError("\nversion:1.0,1.1,1.2\n", "\ncontent-type:text/plain\n", "Supported protocol versions are 1.0, 1.1 and 1.2.")
	}},

	{section: "Heart-beating", name: "two numbers", said: []said{
		{"1.2 1.1", "the `heart-beat` header MUST contain two positive integers separated by a comma"},
	}, test: func(s *spec) {
		for _, offer := range []string{"1", "a,b", "1,2,3", "-1,0", "1,", ",", "1.5,0", "+1,0", ""} {
			p := s.g.dial()
			p.send("CONNECT", "accept-version:"+s.v, "host:h", "heart-beat:"+offer)
			p.expectError("invalid header", "heart-beat", "10000,10000")
		}
		// No bound is named.
		s.connect("heart-beat:99999999999999999999,4294967295").quiet(time.Minute)
	}},
	{section: "Heart-beating", name: "a missing header is 0,0", said: []said{
		{"1.2 1.1", "A missing `heart-beat` header MUST be treated the same way as a \"heart-beat:0,0\" header"},
	}, test: func(s *spec) {
		p := s.g.dial()
		p.send("CONNECT", "accept-version:"+s.v, "host:h")
		p.expect("CONNECTED\n", "\nheart-beat:0,0\n")
		p.quiet(24 * time.Hour)
		p.publish("/queue/q", "a day later")
	}},
	{section: "Heart-beating", name: "0 is none", said: []said{
		{"1.2 1.1", "(the client cannot send heart-beats) or `<sy>` is 0 (the server does not want to receive heart-beats) then there will be none"},
	}, test: func(s *spec) {
		p := s.connect("heart-beat:0,0")
		p.quiet(24 * time.Hour)
		p = s.connect("heart-beat:5000,0")
		p.quiet(9 * time.Second)
		p.expectError("no heart-beat in time")
		// An interval longer than the limit's is not watched.
		p = s.connect("heart-beat:2000000000,0")
		p.quiet(24 * time.Hour)
	}},
	{section: "Heart-beating", name: "every MAX of both", said: []said{
		{"1.2 1.1", "otherwise, there will be heart-beats every MAX(`<cx>`,`<sy>`) milliseconds"},
	}, test: func(s *spec) {
		for offer, want := range map[string]string{
			"0,0": "0,0", "5000,7000": "7000,5000", "0,10": "1000,0", "10,0": "0,1000", "2000000,0": "0,0", "0,2000000": "2000000,0",
		} {
			p := s.g.dial()
			p.send("CONNECT", "accept-version:"+s.v, "host:h", "heart-beat:"+offer)
			if r := p.expect("CONNECTED\n"); r.header("heart-beat") != want {
				s.Errorf("%s is answered %s, not %s", offer, r.header("heart-beat"), want)
			}
		}
	}},
	{section: "Heart-beating", name: "the server sends in time", said: []said{
		{"1.2 1.1", "the sender MUST send new data over the network connection at least every `<n>` milliseconds"},
	}, test: func(s *spec) {
		p := s.connect("heart-beat:0,10000")
		p.skipEnds()
		for range 100 {
			p.between(8*time.Second, 10*time.Second)
		}
	}},
	{section: "Heart-beating", name: "a heart-beat is a line end", said: []said{
		{"1.2", "if the sender has no real STOMP frame to send, it MUST send an end-of-line (EOL)"},
		{"1.1", "if the sender has no real STOMP frame to send, it MUST send a single newline byte (0x0A)"},
	}, test: func(s *spec) {
		p := s.connect("heart-beat:0,10000")
		p.skipEnds()
		for range 3 {
			if b := p.between(0, 10*time.Second); b != '\n' {
				s.Errorf("%q", b)
			}
		}
		p.publish("/queue/q", "x")
	}},
	{section: "Heart-beating", name: "any data counts", said: []said{
		{"1.2 1.1", "any new data received over the network connection is an indication that the remote end is alive"},
	}, test: func(s *spec) {
		p := s.connect("heart-beat:1000,0")
		for _, piece := range []string{"\n", "\n", "SEND\ndesti", "nation:/queue/q\nreceipt:r\n", "\nbo", "dy^@", "\n"} {
			time.Sleep(1900 * time.Millisecond)
			p.write(piece)
		}
		p.expect("RECEIPT\nreceipt-id:r\n")
		time.Sleep(1900 * time.Millisecond)
		if s.since("1.2") {
			p.write("\r\n")
			time.Sleep(1900 * time.Millisecond)
		}
		p.publish("/queue/q", "x")
	}},
	{section: "Heart-beating", name: "silence ends the connection", said: []said{
		{"1.2", "the receiver did not receive any new data, it MAY consider the connection as dead"},
		{"1.1", "the receiver did not receive any new data, it CAN consider the connection as dead"},
	}, test: func(s *spec) {
		p := s.connect("heart-beat:3000,0")
		begin := time.Now()
		p.expectError("no heart-beat in time", "heart-beat promised")
		if d := time.Since(begin); d < 6*time.Second || d > 7*time.Second {
			s.Errorf("after %v", d)
		}
		if n := s.g.refused("heart_beat_timeout"); n != 1 {
			s.Errorf("counted %d", n)
		}
	}},
	{section: "Heart-beating", name: "with tolerance", said: []said{
		{"1.2 1.1", "because of timing inaccuracies, the receiver SHOULD be tolerant and take into account an error margin"},
	}, test: func(s *spec) {
		p := s.connect("heart-beat:1000,0")
		for range 60 {
			time.Sleep(1950 * time.Millisecond)
			p.write("\n")
		}
		p.publish("/queue/q", "x")
	}},

	{section: "Client Frames", name: "unknown ones are refused", said: []said{
		{"1.2", "for such a frame a STOMP 1.2 server MAY respond with an `ERROR` frame and then close the connection"},
		{"1.1", "for such a frame a STOMP 1.1 server MAY respond with an `ERROR` frame"},
	}, test: func(s *spec) {
		for _, command := range []string{"SELL", "MESSAGE", "", "SENDER", "CONNECTED", "GET / HTTP/1.1"} {
			p := s.connect()
			p.write(command + "\x00\n\n^@")
			p.expect("ERROR\n")
			p.expectEnd()
			p = s.g.dial()
			p.write(command + " \n\n^@")
			p.expectError("unknown command", "is not a STOMP command of a client", "want CONNECT, STOMP, SEND")
		}
	}},
	{section: "Client Frames", name: "not before CONNECT", said: []said{
		{"1.0", "At this point there are a number of commands the client may send"},
		{"1.2 1.1", "A STOMP client initiates the stream or TCP connection to the server by sending the `CONNECT` frame"},
	}, test: func(s *spec) {
		for _, command := range []string{"SEND", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "BEGIN", "COMMIT", "ABORT", "DISCONNECT"} {
			p := s.g.dial()
			p.send(command, "destination:/queue/a", "id:1", "transaction:t")
			p.expectError("not connected", "CONNECT")
		}
	}},
}
