package stomp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

var versions = []string{"1.0", "1.1", "1.2"}

// eachVersion runs a test with a connection of each version.
func eachVersion(t *testing.T, test func(t *testing.T, g *gateway, version string)) {
	for _, v := range versions {
		t.Run(v, func(t *testing.T) { test(t, start(t), v) })
	}
}

// STOMP 1.2 "Protocol Negotiation".
func TestNegotiatesTheHighestCommonVersion(t *testing.T) {
	t.Parallel()
	g := start(t)
	for accept, want := range map[string]string{
		"accept-version:1.0,1.1,1.2": "1.2", "accept-version:1.1,1.0": "1.1", "accept-version:1.0": "1.0",
		"accept-version:2.0,1.1,9": "1.1", "x:no accept-version": "1.0", "accept-version: 1.1 , 1.2": "1.2",
	} {
		for _, command := range []string{"CONNECT", "STOMP"} {
			p := g.dial()
			p.send(command, accept, "host:h")
			r := p.expect("CONNECTED\n", "\nversion:"+want+"\n", "\nserver:Sluice\n", "\nheart-beat:0,0\n")
			if r.header("session") == "" || r.body != "" {
				t.Errorf("%s", r)
			}
		}
	}
}

func TestRefusesUnknownVersions(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, accept := range []string{"2.0", "", "1.3,0.9"} {
		p := g.dial()
		p.send("CONNECT", "accept-version:"+accept, "host:h")
		p.expectError("\nversion:1.0,1.1,1.2\n", "content-type:text/plain", "Supported protocol versions are 1.0, 1.1 and 1.2.")
	}
	if n := g.refused("version"); n != 3 {
		t.Errorf("counted %d", n)
	}
}

// The server session must be unique (STOMP 1.2 "CONNECTED").
func TestSessionsDiffer(t *testing.T) {
	t.Parallel()
	g := start(t)
	seen := make(map[string]bool)
	for range 5 {
		p := g.dial()
		p.send("CONNECT", "accept-version:1.2", "host:h")
		seen[p.read().header("session")] = true
	}
	if len(seen) != 5 {
		t.Error(seen)
	}
}

// A client may send before CONNECTED has come.
func TestPipelinedFramesAreObeyed(t *testing.T) {
	t.Parallel()
	p := start(t).dial()
	p.write("CONNECT\naccept-version:1.2\nhost:h\n\n^@\nSUBSCRIBE\nid:0\ndestination:/topic/a\n\n^@SEND\ndestination:/topic/a\nreceipt:1\n\nx^@")
	p.expect("CONNECTED\n")
	frames := p.expect("\n").String() + p.expect("\n").String()
	if !strings.Contains(frames, "MESSAGE\n") || !strings.Contains(frames, "receipt-id:1\n") {
		t.Error(frames)
	}
}

// STOMP 1.2 "Value Encoding": CONNECT and CONNECTED are not escaped.
func TestLoginIsNotUnescaped(t *testing.T) {
	t.Parallel()
	g := start(t, func(_ *adapters.Limits, o *core.Options) { o.Authorizer = only{user: `a\cb`, password: `p\t:x`} })
	for _, v := range versions {
		p := g.dial()
		p.send("CONNECT", "accept-version:"+v, "host:h", `login:a\cb`, `passcode:p\t:x`)
		p.expect("CONNECTED\n")
	}
}

func TestWrongLoginIsRefused(t *testing.T) {
	t.Parallel()
	g := start(t, func(_ *adapters.Limits, o *core.Options) { o.Authorizer = only{user: "ann", password: "secret"} })
	for _, passcode := range []string{"wrong", "", "secret "} {
		p := g.dial()
		p.send("CONNECT", "accept-version:1.2", "host:h", "login:ann", "passcode:"+passcode)
		p.expectError("message:access refused", "login and passcode")
	}
	p := g.dial()
	p.send("CONNECT", "accept-version:1.0", "host:h", "login: ann", "passcode: secret")
	p.expect("CONNECTED\n")
}

func TestLoginFailuresAreLimited(t *testing.T) {
	t.Parallel()
	g := start(t, func(l *adapters.Limits, o *core.Options) {
		l.LoginFailuresPerAddress = 3
		o.Authorizer = only{user: "ann", password: "secret"}
	})
	for range 3 {
		p := g.dial()
		p.send("CONNECT", "accept-version:1.2", "host:h", "login:ann", "passcode:wrong")
		p.expectError("access refused")
	}
	p := g.dial()
	p.send("CONNECT", "accept-version:1.2", "host:h", "login:ann", "passcode:secret")
	p.expectError("too many failed logins")
	if n := g.refused("login_rate"); n != 1 {
		t.Errorf("counted %d", n)
	}
}

// All headers of SEND arrive in MESSAGE, repeats in order, but for those that
// the protocol uses (STOMP 1.2 "SEND", "Repeated Header Entries").
func TestHeadersArriveInOrder(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, g *gateway, version string) {
		p := g.connect(version)
		p.send("SUBSCRIBE", "id:0", "destination:/topic/a")
		p.send("SEND", "x:1", "destination:/topic/a", "y:2", "x:3", "type:order", "receipt:r", "content-type:a/b", "content-type:c/d", "subscription:9", "offset:9", "time:9", "attempt:9", "redelivered:true", "publisher:me", "ack:9", "gap:9", " body")
		var r reply
		for r.command != "MESSAGE" {
			r = p.read()
		}
		want := []string{"content-type:a/b", "x:1", "y:2", "x:3", "type:order"}
		at := 0
		for _, w := range want {
			i := strings.Index(r.String()[at:], "\n"+w+"\n")
			if i < 0 {
				t.Fatalf("no %q, in order, in\n%s", w, r)
			}
			at += i
		}
		for _, not := range []string{"c/d", ":9", "publisher:me", "redelivered:true", "receipt:", "gap:"} {
			if strings.Contains(r.String(), not) {
				t.Errorf("%q in\n%s", not, r)
			}
		}
		if r.header("message-id") == "" || r.header("destination") != "/topic/a" || r.header("content-length") != "4" {
			t.Errorf("%s", r)
		}
		if want := map[string]string{"1.0": "", "1.1": "", "1.2": ""}[version]; r.header("ack") != want {
			t.Errorf("an ack header for ack:auto: %s", r)
		}
	})
}

// STOMP 1.2 "Value Encoding", both ways and between versions.
func TestEscapesBetweenVersions(t *testing.T) {
	t.Parallel()
	g := start(t)
	to := make(map[string]*peer)
	for _, v := range versions {
		to[v] = g.connect(v)
		to[v].send("SUBSCRIBE", "id:s:1", "destination:/topic/a/b c", "receipt:r")
		if v != "1.0" {
			to[v] = g.connect(v)
			to[v].send("SUBSCRIBE", `id:s\c1`, "destination:/topic/a/b c", "receipt:r")
		}
		to[v].expect("RECEIPT\n")
	}
	p := g.connect("1.2")
	p.send("SEND", "destination:/topic/a/b c", `n\c1:a\nb\cc\\d\r`, " x")
	to["1.2"].expect("\nsubscription:s\\c1\n", "\nn\\c1:a\\nb\\cc\\\\d\\r\n")
	to["1.1"].expect("\nsubscription:s\\c1\n", "\nn\\c1:a\\nb\\cc\\\\d \n")
	to["1.0"].expect("\nsubscription:s:1\n", "\nn_1:a b:c\\d \n")
}

// STOMP 1.2 "Header content-length": bodies with NUL bytes.
func TestBinaryBodies(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, g *gateway, version string) {
		p := g.connect(version)
		p.send("SUBSCRIBE", "id:0", "destination:/topic/a")
		body := "\x00\x01\x00\xff\n\x00"
		p.write(fmt.Sprintf("SEND\ndestination:/topic/a\ncontent-length:%d\n\n%s\x00", len(body), body))
		if r := p.expect("MESSAGE\n"); r.body != body {
			t.Errorf("%q", r.body)
		}
	})
}

// STOMP 1.2 "SUBSCRIBE id Header": required since 1.1, unique in a connection.
func TestSubscriptionIDs(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, g *gateway, version string) {
		p := g.connect(version)
		p.send("SUBSCRIBE", "destination:/topic/a", "receipt:r")
		if version != "1.0" {
			p.expectError("missing header", "receipt-id:r", "needs the header id")
			return
		}
		p.expect("RECEIPT\n")
		p.send("SEND", "destination:/topic/a", " 1")
		if r := p.expect("MESSAGE\n"); strings.Contains(r.String(), "subscription:") {
			t.Errorf("a subscription header without an id: %s", r)
		}
		p.send("UNSUBSCRIBE", "destination:/topic/a", "receipt:u")
		p.expect("RECEIPT\nreceipt-id:u\n")
		p.send("SEND", "destination:/topic/a", "receipt:s", " 2")
		p.expect("RECEIPT\nreceipt-id:s\n")
	})
	p := start(t).connect("1.2")
	p.send("SUBSCRIBE", "id:0", "destination:/topic/a")
	p.send("SUBSCRIBE", "id:0", "destination:/topic/b")
	p.expectError("subscription exists", "UNSUBSCRIBE")
}

// One MESSAGE for each subscription that matches, with its id.
func TestSubscriptionsAreTheirOwn(t *testing.T) {
	t.Parallel()
	p := start(t).connect("1.2")
	p.send("SUBSCRIBE", "id:one", "destination:/topic/a")
	p.send("SUBSCRIBE", "id:two", "destination:/topic/*")
	p.send("SEND", "destination:/topic/a", " x")
	seen := p.expect("MESSAGE\n").header("subscription") + p.expect("MESSAGE\n").header("subscription")
	if seen != "onetwo" && seen != "twoone" {
		t.Error(seen)
	}
	p.send("UNSUBSCRIBE", "id:one", "receipt:u")
	p.expect("RECEIPT\n")
	p.send("SEND", "destination:/topic/a", " y")
	p.expect("MESSAGE\nsubscription:two\n", "y^@")
	p.send("UNSUBSCRIBE", "id:one")
	p.expectError("unknown subscription", `"one"`)
}

// STOMP 1.2 "SUBSCRIBE ack Header": auto is the default.
func TestAckModes(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, ack := range []string{"", "auto", "client", "client-individual"} {
		p := g.connect("1.2")
		p.send("SUBSCRIBE", "id:0", "destination:/queue/modes"+ack, "ack:"+ack, "receipt:r")
		p.expect("RECEIPT\n")
		p.send("SEND", "destination:/queue/modes"+ack, " x")
		r := p.expect("MESSAGE\n")
		if has := r.header("ack") != ""; has != strings.HasPrefix(ack, "client") {
			t.Errorf("ack:%s gives\n%s", ack, r)
		}
	}
	p := g.connect("1.2")
	p.send("SUBSCRIBE", "id:0", "destination:/queue/q", "ack:sometimes")
	p.expectError("invalid header", "client-individual")
	p = g.connect("1.0")
	p.send("SUBSCRIBE", "id:0", "destination:/queue/q", "ack:client-individual")
	p.expectError("invalid header", "client-individual")
}

// receiveMessages subscribes to a queue and reads n messages, whose bodies are
// 1, 2, and so on.
func receiveMessages(t *testing.T, g *gateway, version, destination, ack string, n int) (*peer, []reply) {
	t.Helper()
	p := g.connect(version)
	p.send("SUBSCRIBE", "id:s", "destination:"+destination, "ack:"+ack, "receipt:sub")
	p.expect("RECEIPT\n")
	for i := range n {
		p.send("SEND", "destination:"+destination, fmt.Sprint(" ", i+1))
	}
	var rs []reply
	for i := range n {
		r := p.expect("MESSAGE\n")
		if r.body != fmt.Sprint(i+1) {
			t.Fatalf("message %d is %s", i+1, r)
		}
		rs = append(rs, r)
	}
	return p, rs
}

// acks sends an ACK or NACK as the version names messages.
func (p *peer) acks(command, version string, r reply, more ...string) {
	p.t.Helper()
	switch version {
	case "1.2":
		p.send(command, append(more, "id:"+r.header("ack"))...)
	case "1.1":
		p.send(command, append(more, "message-id:"+r.header("message-id"), "subscription:"+r.header("subscription"))...)
	default:
		p.send(command, append(more, "message-id:"+r.header("message-id"))...)
	}
}

// left connects anew and reads what a queue still has, up to a last message
// that it sends.
func left(g *gateway, destination string) (bodies []string) {
	p := g.connect("1.2")
	p.subscribe("s", destination)
	// What comes again is not in order with what is new.
	g.settles(strings.TrimPrefix(destination, "/queue/"), func(i core.QueueInfo) bool { return i.Waiting == 0 })
	p.send("SEND", "destination:"+destination, " end")
	for {
		r := p.expect("MESSAGE\n")
		if r.body == "end" {
			p.bye()
			return bodies
		}
		bodies = append(bodies, r.body)
	}
}

// settles waits until a queue is as it should be.
func (g *gateway) settles(queue string, ok func(core.QueueInfo) bool) {
	g.t.Helper()
	admin := g.admin()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		info, err := admin.Queue(queue)
		if err == nil && ok(info) {
			return
		}
		if time.Now().After(end) {
			g.t.Fatalf("the queue %q is %+v, %v", queue, info, err)
		}
	}
}

// bye disconnects and waits until that is done.
func (p *peer) bye() {
	p.t.Helper()
	p.send("DISCONNECT", "receipt:bye")
	for {
		if r := p.read(); r.command == "RECEIPT" && r.header("receipt-id") == "bye" {
			break
		}
	}
	p.expectEnd()
}

// STOMP 1.2 "ACK": client-individual acknowledges one message.
func TestAckIndividual(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"1.1", "1.2"} {
		t.Run(v, func(t *testing.T) {
			g := start(t)
			p, rs := receiveMessages(t, g, v, "/queue/q", "client-individual", 4)
			p.acks("ACK", v, rs[2])
			p.acks("ACK", v, rs[0])
			p.bye()
			if got := fmt.Sprint(left(g, "/queue/q")); got != "[2 4]" {
				t.Errorf("left are %s", got)
			}
		})
	}
}

// STOMP 1.2 "ACK": client is cumulative, in the order of sending.
func TestAckClientIsCumulative(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, g *gateway, v string) {
		p, rs := receiveMessages(t, g, v, "/queue/q", "client", 4)
		p.acks("ACK", v, rs[2])
		p.bye()
		if got := fmt.Sprint(left(g, "/queue/q")); got != "[4]" {
			t.Errorf("left are %s", got)
		}
	})
}

// STOMP 1.2 "NACK": a message comes again, marked; requeue:false rejects it.
func TestNack(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"1.1", "1.2"} {
		t.Run(v, func(t *testing.T) {
			g := start(t)
			p, rs := receiveMessages(t, g, v, "/queue/q", "client-individual", 2)
			p.acks("NACK", v, rs[0])
			p.acks("NACK", v, rs[1], "requeue:false", "receipt:n")
			p.expect("RECEIPT\nreceipt-id:n\n")
			r := p.expect("MESSAGE\n", "redelivered:true", "attempt:2", "\n\n1^@")
			p.acks("ACK", v, r, "receipt:a")
			p.expect("RECEIPT\nreceipt-id:a\n")
			d := g.connect("1.2")
			d.send("SUBSCRIBE", "id:d", "destination:/queue/q.dead")
			d.expect("MESSAGE\n", "\n\n2^@")
		})
	}
	p := start(t).connect("1.0")
	p.send("NACK", "message-id:1-1")
	p.expectError("unknown command", "1.0 has no NACK")
}

// "a second ACK of the same message is told so".
func TestWrongAcksAreRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		destination, ack string
		do               func(p *peer, rs []reply)
		want             string
	}{
		"twice":                     {"/queue/q", "client-individual", func(p *peer, rs []reply) { p.acks("ACK", "1.2", rs[0]); p.acks("ACK", "1.2", rs[0], "receipt:r") }, "acknowledged before"},
		"twice, cumulative":         {"/queue/q", "client", func(p *peer, rs []reply) { p.acks("ACK", "1.2", rs[1]); p.acks("ACK", "1.2", rs[0], "receipt:r") }, "acknowledged before"},
		"twice, of a topic":         {"/topic/q", "client-individual", func(p *peer, rs []reply) { p.acks("ACK", "1.2", rs[0]); p.acks("ACK", "1.2", rs[0], "receipt:r") }, "acknowledged before"},
		"of what was not sent":      {"/topic/q", "client", func(p *peer, rs []reply) { p.send("ACK", "id:1-99999", "receipt:r") }, "not sent on this connection"},
		"of another subscription":   {"/queue/q", "client", func(p *peer, rs []reply) { p.send("ACK", "id:2-1", "receipt:r") }, "has ended, or is another connection's"},
		"with nonsense":             {"/queue/q", "client", func(p *peer, rs []reply) { p.send("ACK", "id:nonsense", "receipt:r") }, "the ack header of a MESSAGE"},
		"without an id":             {"/queue/q", "client", func(p *peer, rs []reply) { p.send("ACK", "message-id:1-1", "receipt:r") }, "needs the header id"},
		"of ack:auto":               {"/queue/q", "auto", func(p *peer, rs []reply) { p.send("ACK", "id:"+rs[0].header("message-id"), "receipt:r") }, "has ack:auto"},
		"in an unknown transaction": {"/queue/q", "client", func(p *peer, rs []reply) { p.acks("ACK", "1.2", rs[0], "transaction:t", "receipt:r") }, "is not open"},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t)
			p, rs := receiveMessages(t, g, "1.2", test.destination, test.ack, 3)
			test.do(p, rs)
			p.expectError("receipt-id:r", test.want)
		})
	}
	p, rs := receiveMessages(t, start(t), "1.1", "/queue/q", "client", 1)
	p.send("ACK", "message-id:"+rs[0].header("message-id"))
	p.expectError("needs the header subscription")
}

// STOMP 1.2 "BEGIN", "COMMIT", "ABORT".
func TestTransactions(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, g *gateway, v string) {
		p, rs := receiveMessages(t, g, v, "/queue/in", "client", 3)
		p.send("BEGIN", "transaction:t")
		p.send("SEND", "destination:/queue/out", "transaction:t", "receipt:1", "h:a", " one")
		p.send("SEND", "destination:/queue/out", "transaction:t", " two")
		p.acks("ACK", v, rs[1], "transaction:t")
		p.send("BEGIN", "transaction:u")
		p.send("SEND", "destination:/queue/out", "transaction:u", " never")
		p.acks("ACK", v, rs[2], "transaction:u")
		p.expect("RECEIPT\nreceipt-id:1\n")
		p.send("ABORT", "transaction:u", "receipt:2")
		p.expect("RECEIPT\nreceipt-id:2\n")
		p.send("COMMIT", "transaction:t", "receipt:3")
		p.expect("RECEIPT\nreceipt-id:3\n")
		p.bye()
		if got := fmt.Sprint(left(g, "/queue/out")); got != "[one two]" {
			t.Errorf("sent are %s", got)
		}
		if got := fmt.Sprint(left(g, "/queue/in")); got != "[3]" {
			t.Errorf("left are %s", got)
		}
	})
}

func TestWrongTransactionsAreRefused(t *testing.T) {
	t.Parallel()
	g := start(t)
	for name, test := range map[string]struct {
		do   func(p *peer)
		want string
	}{
		"BEGIN without id": {func(p *peer) { p.send("BEGIN", "receipt:r") }, "needs the header transaction"},
		"BEGIN twice":      {func(p *peer) { p.send("BEGIN", "transaction:t"); p.send("BEGIN", "transaction:t", "receipt:r") }, "has begun before"},
		"COMMIT unknown":   {func(p *peer) { p.send("COMMIT", "transaction:t", "receipt:r") }, "is not open"},
		"ABORT unknown":    {func(p *peer) { p.send("ABORT", "transaction:t", "receipt:r") }, "is not open"},
		"SEND unknown":     {func(p *peer) { p.send("SEND", "destination:/queue/q", "transaction:t", "receipt:r") }, "is not open"},
		"COMMIT twice": {func(p *peer) {
			p.send("BEGIN", "transaction:t")
			p.send("COMMIT", "transaction:t")
			p.send("COMMIT", "transaction:t", "receipt:r")
		}, "is not open"},
	} {
		t.Run(name, func(t *testing.T) {
			p := g.connect("1.2")
			test.do(p)
			p.expectError("receipt-id:r", test.want)
		})
	}
}

// STOMP 1.2 "Header receipt": every client frame but CONNECT may have one.
func TestEveryFrameHasAReceipt(t *testing.T) {
	t.Parallel()
	p, rs := receiveMessages(t, start(t), "1.2", "/queue/q", "client-individual", 2)
	for i, f := range [][]string{
		{"SEND", "destination:/topic/x"}, {"SUBSCRIBE", "id:2", "destination:/topic/y"}, {"UNSUBSCRIBE", "id:2"},
		{"ACK", "id:" + rs[0].header("ack")}, {"NACK", "id:" + rs[1].header("ack"), "requeue:false"},
		{"BEGIN", "transaction:t"}, {"SEND", "destination:/topic/x", "transaction:t"}, {"COMMIT", "transaction:t"},
		{"BEGIN", "transaction:t"}, {"ABORT", "transaction:t"}, {"DISCONNECT"},
	} {
		id := fmt.Sprintf("r\\c%d", i)
		p.send(f[0], append(f[1:], "receipt:"+id)...)
		if r := p.expect("RECEIPT\n"); r.header("receipt-id") != id || r.body != "" {
			t.Errorf("%s: %s", f[0], r)
		}
	}
	p.expectEnd()
}

// Receipts come in the order of their frames and are not waited for.
func TestReceiptsArePipelined(t *testing.T) {
	t.Parallel()
	p := start(t).connect("1.2")
	const n = 3000
	go func() {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "SEND\ndestination:/topic/a\nreceipt:%d\n\nx\x00\n", i)
		}
		p.conn.Write([]byte(b.String()))
	}()
	for i := range n {
		if r := p.expect("RECEIPT\n"); r.header("receipt-id") != fmt.Sprint(i) {
			t.Fatalf("receipt %s at place %d", r.header("receipt-id"), i)
		}
	}
}

// STOMP 1.2 "ERROR": a frame that is refused names its receipt, after those of
// the frames before it; then the connection is closed.
func TestErrorsCloseTheConnection(t *testing.T) {
	t.Parallel()
	p := start(t).connect("1.2")
	p.write("SEND\ndestination:/topic/a\nreceipt:1\n\n^@SEND\nreceipt:2\n\n^@SEND\ndestination:/topic/a\nreceipt:3\n\n^@")
	p.expect("RECEIPT\nreceipt-id:1\n")
	r := p.expectError("\nmessage:missing header\n", "\nreceipt-id:2\n", "\ncontent-type:text/plain\n")
	if r.header("content-length") != fmt.Sprint(len(r.body)) {
		t.Errorf("%s", r)
	}
}

func TestMalformedFramesAreRefused(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, test := range [][2]string{
		{"SELL\n\n^@", "unknown command"},
		{"SEND\nx\n\n^@", "is not a header"},
		{"SEND\nx:\\t\n\n^@", "wrong escape"},
		{"SEND\ndestination:/queue/a\ncontent-length:1\n\nabc^@", "wrong content-length"},
		{"SUBSCRIBE\nid:1\ndestination:/queue/a\n\nbody^@", "has no body"},
	} {
		p := g.connect("1.2")
		p.write(test[0])
		p.expectError(test[1])
	}
	if n := g.refused("malformed"); n != 5 {
		t.Errorf("counted %d", n)
	}
	p := g.connect("1.2")
	p.write("SEND\ndestination:/queue/a\n\nabc")
	p.conn.(interface{ CloseWrite() error }).CloseWrite()
	p.expectError("ended within a frame")
}

// DISCONNECT: its receipt is the last frame, after all receipts before it.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	p := start(t).connect("1.2")
	p.send("SUBSCRIBE", "id:0", "destination:/topic/a")
	p.write("SEND\ndestination:/queue/q\nreceipt:1\n\nx^@DISCONNECT\nreceipt:2\n\n^@")
	p.expect("RECEIPT\nreceipt-id:1\n")
	p.expect("RECEIPT\nreceipt-id:2\n")
	p.expectEnd()
}

// A client that closes its side still gets the receipts that it waits for.
func TestHalfClosedConnectionsGetTheirReceipts(t *testing.T) {
	t.Parallel()
	p := start(t).connect("1.2")
	p.write("SEND\ndestination:/queue/q\nreceipt:1\n\nx^@")
	p.conn.(interface{ CloseWrite() error }).CloseWrite()
	p.expect("RECEIPT\nreceipt-id:1\n")
	p.expectEnd()
}

// The broker says goodbye when it stops.
func TestShutdown(t *testing.T) {
	t.Parallel()
	g := start(t)
	p := g.connect("1.2")
	p.send("SEND", "destination:/queue/q", "receipt:1", " x")
	p.expect("RECEIPT\n")
	g.stop()
	p.expectError("the broker is shutting down")
}
