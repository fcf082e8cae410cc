package stomp_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/adapters/stomp"
	"github.com/sluicemq/sluice/core"
)

// admin is a client of the core for what a test prepares.
func (g *gateway) admin() *core.Client {
	g.t.Helper()
	c, err := g.broker.Connect(context.Background(), core.Credentials{Protocol: "test", Client: "admin"}, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(c.Close)
	return c
}

func (p *peer) subscribe(id, destination string, headers ...string) {
	p.t.Helper()
	p.send("SUBSCRIBE", append([]string{"id:" + id, "destination:" + destination, "receipt:sub-" + id}, headers...)...)
	p.expect("RECEIPT\nreceipt-id:sub-" + id + "\n")
}

// publish sends a message and waits until it is durable.
func (p *peer) publish(destination, body string, headers ...string) {
	p.t.Helper()
	p.send("SEND", append([]string{"destination:" + destination, "receipt:pub", " " + body}, headers...)...)
	p.receipt("pub")
}

// A destination comes back in the style that the subscriber used.
func TestDestinationsComeBackInStyle(t *testing.T) {
	t.Parallel()
	g := start(t)
	pub := g.connect("1.2")
	for _, test := range []struct{ subscribed, sent, back string }{
		{"/topic/a/b", "/topic/a.b", "/topic/a/b"},
		{"/topic/a.b", "/topic/a/b", "/topic/a.b"},
		{"/topic/a.*", "/topic/a/b", "/topic/a.b"},
		{"/topic/a/*", "/topic/a.b", "/topic/a/b"},
		{"/topic/a/>", "/topic/a/b/c.d", "/topic/a/b/c.d"},
		{"/topic/a.>", "/topic/a/b/c.d", "/topic/a.b.c%2Ed"},
		{"/topic/a/#", "/topic/a", "/topic/a"},
		{"/topic/x/*,/topic/y/*", "/topic/y/1", "/topic/y/1"},
		{"/a/*", "/a/b", "/a/b"},
		{"/queue/q1", "q1", "/queue/q1"},
		{"q2", "/queue/q2", "q2"},
	} {
		t.Run(test.subscribed, func(t *testing.T) {
			p := g.connect("1.2")
			p.subscribe("0", test.subscribed)
			pub.publish(test.sent, "x")
			p.expect("MESSAGE\n", "\ndestination:"+test.back+"\n")
		})
	}
}

// Strict mode takes destinations with a known prefix only, and names those.
func TestStrict(t *testing.T) {
	t.Parallel()
	bubble(t, func(g *gateway) {
		for _, bad := range []string{"/a/b", "q", "topic/a", "/topic", "/Topic/a", "/queues/q", "queue:a", "/topic.a"} {
			for _, command := range []string{"SEND", "SUBSCRIBE"} {
				p := g.connect("1.2")
				p.send(command, "id:0", "destination:"+bad, "receipt:r")
				p.expectError("receipt-id:r", "none of the known prefixes", "/topic/a/b, /queue/q, /amq/queue/q, /exchange/e/k, /temp-queue/x, /temp-topic/x and /reply-queue/x")
			}
		}
		p := g.connect("1.2")
		p.send("SEND", "destination:/queue/q", "reply-to:answers")
		p.expectError("none of the known prefixes")
		p = g.connect("1.2")
		for i, good := range []string{"/topic/a/b", "/topic/a.*", "/queue/q", "/amq/queue/q", "/temp-queue/x", "/temp-topic/x", "/topic/a,/topic/b"} {
			p.subscribe(fmt.Sprint(i), good)
		}
	}, func(o *stomp.Options, _ *core.Options) { o.Strict = true })
}

func TestQueuesShare(t *testing.T) {
	t.Parallel()
	g := start(t)
	a, b := g.connect("1.2"), g.connect("1.2")
	a.subscribe("0", "/queue/q", "ack:client-individual", "prefetch-count:1")
	b.subscribe("0", "/queue/q", "ack:client-individual", "activemq.prefetchSize:0")
	pub := g.connect("1.2")
	for i := range 3 {
		pub.publish("/queue/q", fmt.Sprint(i))
	}
	ra, rb := a.expect("MESSAGE\n"), b.expect("MESSAGE\n")
	if ra.body+rb.body != "01" && ra.body+rb.body != "10" {
		t.Errorf("a has %s, b has %s", ra.body, rb.body)
	}
	b.acks("ACK", "1.2", rb)
	rb = b.expect("MESSAGE\n", "\n\n2^@")
	// What a lost connection held comes again at once.
	a.conn.Close()
	b.acks("ACK", "1.2", rb)
	r := b.expect("MESSAGE\n", "redelivered:true")
	if r.body != ra.body {
		t.Errorf("%s comes again, not %s", r.body, ra.body)
	}
}

func TestDeclaredQueues(t *testing.T) {
	t.Parallel()
	g := start(t)
	p := g.connect("1.2")
	p.send("SUBSCRIBE", "id:0", "destination:/amq/queue/q", "receipt:r")
	p.expectError("not found", `"q"`, "receipt-id:r")
	p = g.connect("1.2")
	p.send("SEND", "destination:/amq/queue/q", "receipt:r")
	p.expectError("not found", `"q"`, "receipt-id:r")
	if err := g.admin().DeclareQueue(context.Background(), core.QueueDefinition{Name: "q"}); err != nil {
		t.Fatal(err)
	}
	p = g.connect("1.2")
	p.subscribe("0", "/amq/queue/q")
	p.send("SEND", "destination:/amq/queue/q", " x")
	p.expect("MESSAGE\nsubscription:0\ndestination:/amq/queue/q\n")
}

func TestExchanges(t *testing.T) {
	t.Parallel()
	g := start(t)
	p := g.connect("1.2")
	p.send("SEND", "destination:/exchange/e/k", "receipt:r")
	p.expectError("not found", `"e"`)
	if err := g.admin().DeclareExchange(context.Background(), core.ExchangeDefinition{Name: "e", Kind: core.TopicExchange}); err != nil {
		t.Fatal(err)
	}
	p = g.connect("1.2")
	p.subscribe("0", "/exchange/e/a.*.#")
	p.subscribe("1", "/exchange/e/a.b", "x-queue-name:bound", "ack:client")
	pub := g.connect("1.2")
	pub.publish("/exchange/e/a.b", "x")
	pub.publish("/exchange/e/b.b", "y")
	pub.publish("/exchange/e/a.c.d", "z")
	got := make(map[string]string)
	for range 3 {
		r := p.expect("MESSAGE\n")
		got[r.header("subscription")] += r.header("destination") + " " + r.body + ";"
	}
	if got["0"] != "/exchange/e/a.b x;/exchange/e/a.c.d z;" || got["1"] != "/exchange/e/a.b x;" {
		t.Errorf("%q", got)
	}
	info, err := g.admin().Queue("bound")
	if err != nil || info.Held != 1 {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestComposites(t *testing.T) {
	t.Parallel()
	g := start(t)
	p := g.connect("1.2")
	p.subscribe("t", "/topic/a")
	p.subscribe("q", "/queue/b")
	p.send("SEND", "destination:/topic/a,/queue/b", "receipt:r", " x")
	var got []string
	for range 3 {
		r := p.read()
		got = append(got, r.command)
	}
	if fmt.Sprint(got) != "[MESSAGE MESSAGE RECEIPT]" && fmt.Sprint(got) != "[MESSAGE RECEIPT MESSAGE]" && fmt.Sprint(got) != "[RECEIPT MESSAGE MESSAGE]" {
		t.Error(got)
	}
	p.send("SUBSCRIBE", "id:x", "destination:/topic/a,/queue/b")
	p.expectError("one queue, or topics")
}

// RabbitMQ's: the reply-to of a SEND names a queue of the connection's, without
// a SUBSCRIBE; ActiveMQ's clients subscribe to it first.
func TestTemporaryQueues(t *testing.T) {
	t.Parallel()
	for name, explicit := range map[string]bool{"RabbitMQ": false, "ActiveMQ": true} {
		t.Run(name, func(t *testing.T) {
			g := start(t)
			client, service := g.connect("1.2"), g.connect("1.2")
			service.subscribe("0", "/queue/service")
			id := "/temp-queue/answers"
			if explicit {
				client.subscribe("mine", id)
				id = "mine"
			}
			for i := range 2 {
				client.send("SEND", "destination:/queue/service", "reply-to:/temp-queue/answers", fmt.Sprint("correlation-id:", i), " ask")
				r := service.expect("MESSAGE\n", "\nreply-to:/reply-queue/")
				service.send("SEND", "destination:"+r.header("reply-to"), "correlation-id:"+r.header("correlation-id"), " answer")
				client.expect("MESSAGE\nsubscription:"+id+"\ndestination:/temp-queue/answers\n", fmt.Sprint("\ncorrelation-id:", i, "\n"), "answer")
			}
			other := g.connect("1.2")
			other.send("SUBSCRIBE", "id:0", "destination:/reply-queue/answers")
			other.expectError("invalid destination", "/temp-queue/x")
		})
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	g := start(t)
	p := g.connect("1.2")
	for i := range 5 {
		p.publish("/topic/a", fmt.Sprint(i+1))
	}
	for header, want := range map[string]string{
		"from:earliest": "12345", "from:-2": "45", "from:@1h": "12345", "from:3": "345", "from:latest": "",
		"x-stream-offset:first": "12345", "x-stream-offset:last": "5", "x-stream-offset:next": "", "x-stream-offset:offset=4": "45",
		"x-stream-offset:timestamp=1000000000": "12345",
	} {
		r := g.connect("1.2")
		r.subscribe("0", "/topic/a", header)
		got := ""
		for len(got) < len(want) {
			got += r.expect("MESSAGE\n").body
		}
		if got != want {
			t.Errorf("%s gives %s", header, got)
		}
		r.bye()
	}
	for header, want := range map[string]string{
		"from:yesterday": "want earliest", "x-stream-offset:middle": "want first", "from:99": "from:earliest",
	} {
		r := g.connect("1.2")
		r.send("SUBSCRIBE", "id:0", "destination:/topic/a", header, "receipt:r")
		r.expectError("receipt-id:r", want)
	}
	r := g.connect("1.2")
	r.send("SUBSCRIBE", "id:0", "destination:/queue/a", "from:earliest")
	r.expectError("from does not go with")
}

func TestRetained(t *testing.T) {
	t.Parallel()
	g := start(t)
	p := g.connect("1.2")
	p.publish("/topic/a/1", "kept", "retain:true")
	p.publish("/topic/a/2", "not", "retain:false")
	s := g.connect("1.2")
	s.subscribe("0", "/topic/a/*")
	s.expect("MESSAGE\n", "\nretain:true\n", "\n\nkept^@")
	p.publish("/topic/a/1", "live", "retain:true")
	if r := s.expect("MESSAGE\n", "\n\nlive^@"); r.header("retain") != "" {
		t.Errorf("%s", r)
	}
	p.publish("/topic/a/1", "", "retain:true")
	s = g.connect("1.2")
	s.subscribe("0", "/topic/a/*")
	p.publish("/topic/a/3", "next")
	s.expect("MESSAGE\n", "\n\nnext^@")
}

func TestGroups(t *testing.T) {
	t.Parallel()
	g := start(t)
	a, b := g.connect("1.2"), g.connect("1.1")
	a.subscribe("0", "/topic/a/*", "group:g", "ack:client-individual")
	b.subscribe("0", "/topic/a.*", "group:g", "ack:client-individual")
	if _, err := g.admin().Queue(core.GroupQueue("g", "a/+")); err != nil {
		t.Fatal(err)
	}
	p := g.connect("1.2")
	const n = 20
	for i := range n {
		p.publish("/topic/a/x", fmt.Sprint(i))
	}
	p.bye()
	a.send("UNSUBSCRIBE", "id:0", "receipt:u")
	b.send("UNSUBSCRIBE", "id:0", "receipt:u")
	seen := make(map[string]int)
	for _, p := range []*peer{a, b} {
		for r := p.read(); r.command == "MESSAGE"; r = p.read() {
			seen[r.body]++
		}
	}
	for body, times := range seen {
		if times > 2 {
			t.Errorf("%s came %d times", body, times)
		}
	}
	for _, bad := range []string{"group:", "group:a/b", "group:#"} {
		p := g.connect("1.2")
		p.send("SUBSCRIBE", "id:0", "destination:/topic/a", bad)
		p.expectError("invalid header", "group")
	}
}

// A durable subscription keeps what comes while its client is away, in
// ActiveMQ's words and in RabbitMQ's, also over a restart of the broker.
func TestDurableSubscriptions(t *testing.T) {
	t.Parallel()
	for name, headers := range map[string][]string{
		"ActiveMQ":  {"activemq.subscriptionName:s"},
		"ActiveMQ2": {"durable-subscription-name:s"},
		"RabbitMQ":  {"durable:true", "auto-delete:false"},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t)
			p := g.connect("1.2", "client-id:c")
			p.subscribe("d", "/topic/a/*", append(headers, "ack:client")...)
			p.bye()
			pub := g.connect("1.2")
			pub.publish("/topic/a/1", "while away")
			pub.bye()
			g.stop()

			g = startIn(t, g.dir)
			p = g.connect("1.2", "client-id:c")
			p.subscribe("d", "/topic/a/*", append(headers, "ack:client")...)
			r := p.expect("MESSAGE\n", "\ndestination:/topic/a/1\n", "while away")
			p.acks("ACK", "1.2", r, "receipt:a")
			p.expect("RECEIPT\n")
			p.send("UNSUBSCRIBE", append(headers, "id:d", "receipt:u")...)
			p.expect("RECEIPT\n")
			for q := range g.admin().Queues("$session/") {
				t.Errorf("left is %s", q.Name)
			}
		})
	}
}

func TestDurableSubscriptionsTakeOver(t *testing.T) {
	t.Parallel()
	g := start(t)
	a, b := g.connect("1.2", "client-id:c"), g.connect("1.2", "client-id:c")
	a.subscribe("0", "/topic/a", "activemq.subscriptionName:s")
	b.subscribe("0", "/topic/a", "activemq.subscriptionName:s")
	a.expectError("subscription ended", "took over")
	c := g.connect("1.2", "client-id:c")
	c.send("SUBSCRIBE", "id:0", "destination:/topic/b", "activemq.subscriptionName:s")
	c.expectError("exists with other settings", "/topic/a")
	d := g.connect("1.2")
	d.send("SUBSCRIBE", "id:0", "destination:/topic/b", "activemq.subscriptionName:s")
	d.expectError("client-id in CONNECT")
}

// RabbitMQ's arguments settle what a queue is; other ones are an error that
// shows both.
func TestQueueArguments(t *testing.T) {
	t.Parallel()
	g := start(t)
	arguments := []string{
		"x-message-ttl:60000", "x-expires:3600000", "x-max-length:10", "x-max-length-bytes:1000",
		"x-dead-letter-exchange:", "x-dead-letter-routing-key:dead", "x-overflow:drop-head", "x-single-active-consumer:true", "x-queue-type:quorum",
	}
	p := g.connect("1.2")
	p.publish("/queue/q", "x", arguments...)
	p.subscribe("0", "/queue/q", arguments...)
	r := p.expect("MESSAGE\n")
	if strings.Contains(r.String(), "\nx-") {
		t.Errorf("%s", r)
	}
	info, err := g.admin().Queue("q")
	if err != nil {
		t.Fatal(err)
	}
	want := core.QueueSettings{TTL: time.Minute, Expires: time.Hour, MaxLength: 10, MaxBytes: 1000, DeadLetter: "dead", DeadLetterExpired: true, Overflow: core.OverflowDropOldest, SingleActive: true}
	if fmt.Sprint(info.Settings) != fmt.Sprint(want) {
		t.Errorf("%+v", info.Settings)
	}
	p.send("SUBSCRIBE", "id:1", "destination:/queue/q", "x-max-length:11")
	p.expectError("exists with other settings", "max_length=10", "not max_length=11")
	for header, want := range map[string]string{
		"x-message-ttl:0": "want a number", "x-overflow:x": "drop-head or reject-publish", "x-queue-type:stream": "read with from", "x-dead-letter-exchange:a/b": "exchange name",
		"x-max-length:x": "want a number", "x-max-priority:256": "want a number from 1 to 255",
	} {
		p := g.connect("1.2")
		p.send("SUBSCRIBE", "id:1", "destination:/queue/r", header)
		p.expectError(want)
	}
	p = g.connect("1.2")
	p.send("SUBSCRIBE", "id:1", "destination:/topic/r", "x-max-length:5")
	p.expectError("x-max-length does not go with", "x-queue-name")
}

func TestAutoDeletedQueuesGo(t *testing.T) {
	t.Parallel()
	g := start(t)
	p := g.connect("1.2")
	p.subscribe("0", "/queue/q", "auto-delete:true")
	p.bye()
	admin := g.admin()
	for end := time.Now().Add(patience); ; {
		if _, err := admin.Queue("q"); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("still there")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestUnsupportedHeadersAreNamed(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, test := range [][]string{
		{"SUBSCRIBE", "activemq.retroactive:true"}, {"SUBSCRIBE", "x-priority:5"},
	} {
		name, _, _ := strings.Cut(test[1], ":")
		p := g.connect("1.2")
		p.send(test[0], "id:0", "destination:/queue/q", test[1], "receipt:r")
		p.expectError("unsupported header", "The header "+name+" ", "receipt-id:r")
	}
	p := g.connect("1.2")
	p.subscribe("0", "/queue/q", "browser:false", "activemq.noLocal:false", "exclusive:false")
}

func TestInvalidHeadersAreNamed(t *testing.T) {
	t.Parallel()
	g := start(t)
	for _, header := range []string{"priority:high", "persistent:maybe", "expires:soon", "expiration:-1", "delay:1s", "AMQ_SCHEDULED_PERIOD:soon", "AMQ_SCHEDULED_REPEAT:-2", "retain:1", "correlation-id-base64:%", "transaction:"} {
		name, _, _ := strings.Cut(header, ":")
		p := g.connect("1.2")
		p.send("SEND", "destination:/topic/a", header, "receipt:r")
		p.expectError("invalid header", "The header "+name+" is ", "receipt-id:r")
	}
}

// What a SEND says comes back in MESSAGE.
func TestEnvelopeHeaders(t *testing.T) {
	t.Parallel()
	g := start(t)
	s, p := g.connect("1.2"), g.connect("1.2", "client-id:me")
	s.subscribe("0", "/topic/a")
	p.publish("/topic/a", "x", "correlation-id:")
	s.expect("\ncorrelation-id:\n")
	p.publish("/topic/a", "x", "priority:7", "key:k", "message-id:m1", "reply-to:/queue/r", "correlation-id:c", "expires:4102444800000", "content-type:a/b")
	s.expect("\npriority:7\n", "\nkey:k\n", "\noriginal-message-id:m1\n", "\nreply-to:/queue/r\n", "\ncorrelation-id:c\n", "\nexpires:4102444800000\n", "\ncontent-type:a/b\n", "\npersistent:true\n", "\npublisher:me\n")
	// The same message-id again is the same message: confirmed, not sent.
	p.publish("/topic/a", "again", "message-id:m1")
	p.publish("/topic/a", "y", "JMSXGroupID:g", "persistent:false", "expires:0")
	r := s.expect("\nkey:g\n", "\nJMSXGroupID:g\n", "\n\ny^@")
	if r.header("expires") != "" {
		t.Errorf("%s", r)
	}
	p.send("SEND", "destination:/topic/a", "persistent:false", " z")
	if r := s.expect("\n\nz^@"); r.header("persistent") != "" {
		t.Errorf("%s", r)
	}
	begin := time.Now()
	p.publish("/queue/d", "later", "AMQ_SCHEDULED_DELAY:300")
	s.subscribe("1", "/queue/d")
	s.expect("\n\nlater^@")
	if d := time.Since(begin); d < 299*time.Millisecond { // a message's time is in whole milliseconds
		t.Errorf("after %v", d)
	}
	p.publish("/queue/e", "gone", "expiration:1")
	p.publish("/queue/e", "stays", "expiration:3600000")
	time.Sleep(2 * time.Millisecond) // the millisecond that the message lives
	s.subscribe("2", "/queue/e")
	s.expect("\n\nstays^@", "\nexpires:")
}

// A browser sees what a queue has and leaves it there.
func TestBrowse(t *testing.T) {
	t.Parallel()
	bubble(t, func(g *gateway) {
		p := g.connect("1.2")
		p.subscribe("none", "/queue/none", "browser:true")
		if r := p.expect("MESSAGE\nsubscription:none\ndestination:/queue/none\n", "\nbrowser:end\n"); r.body != "" || r.header("message-id") == "" {
			t.Errorf("%s", r)
		}
		const n = 350
		for i := range n {
			p.publish("/queue/q", fmt.Sprint(i), fmt.Sprint("even:", i%2 == 0))
		}
		holder := g.connect("1.2")
		holder.subscribe("0", "/queue/q", "ack:client", "prefetch-count:3")
		holder.messages(3)
		for round, ack := range []string{"auto", "client"} {
			p.subscribe(ack, "/queue/q", "browser:true", "ack:"+ack)
			rs := p.messages(n)
			p.expect("MESSAGE\n", "\nbrowser:end\n")
			if rs[0].body != "0" || rs[n-1].body != fmt.Sprint(n-1) {
				t.Errorf("from %s to %s in round %d", rs[0], rs[n-1], round)
			}
			if ack == "client" {
				p.acks("ACK", "1.2", rs[5], "receipt:a")
				p.receipt("a")
			}
			p.quiet(calm)
			p.send("UNSUBSCRIBE", "id:"+ack)
		}
		p.subscribe("even", "/queue/q", "browser:true", "selector:even = TRUE")
		p.messages(n / 2)
		p.expect("MESSAGE\n", "\nbrowser:end\n")
		if info, err := g.admin().Queue("q"); err != nil || info.Held != 3 || info.Lag+info.Waiting != n-3 {
			t.Errorf("%+v, %v", info, err)
		}
		p.send("SUBSCRIBE", "id:t", "destination:/topic/a", "browser:true", "receipt:r")
		p.expectError("It goes with a queue")
		p = g.connect("1.2")
		p.send("SUBSCRIBE", "id:t", "destination:/amq/queue/none", "browser:true", "receipt:r")
		p.expectError("not found", "receipt-id:r")
	})
}

// What another connection holds is not this one's to acknowledge, whatever its
// subscriptions are called; nothing of it is lost by the attempt.
func TestAckOfAnotherConnection(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		for _, command := range []string{"ACK", "NACK"} {
			if v == "1.0" && command == "NACK" {
				continue
			}
			bubble(t, func(g *gateway) {
				holder, thief := g.connect(v), g.connect(v)
				holder.subscribe("0", "/queue/q", "ack:client", "prefetch-count:1")
				holder.publish("/queue/q", "held")
				m := holder.messages(1)[0]
				thief.subscribe("0", "/queue/q", "ack:client")
				thief.acks(command, v, m, "receipt:r")
				thief.expectError("receipt-id:r", "was not sent on this connection")
				none := g.connect(v)
				none.acks(command, v, m, "receipt:r")
				none.expectError("receipt-id:r", "another connection's")
				holder.acks("ACK", v, m, "receipt:mine")
				holder.receipt("mine")
				if info, err := g.admin().Queue("q"); err != nil || info.Held+info.Waiting+info.Lag != 0 {
					t.Errorf("%+v, %v", info, err)
				}
			})
		}
	}
}

// A mandatory message that nobody would get is refused.
func TestMandatory(t *testing.T) {
	t.Parallel()
	bubble(t, func(g *gateway) {
		p, s := g.connect("1.2"), g.connect("1.2")
		s.subscribe("0", "/topic/heard")
		p.publish("/topic/heard", "x", "mandatory:true")
		p.publish("/topic/unheard", "x", "mandatory:false")
		p.send("SEND", "destination:/topic/unheard", "mandatory:true", "receipt:r")
		p.expectError("nobody answers there", "receipt-id:r")
	})
}

// A queue that is deleted ends its subscriptions.
func TestDeletedQueuesEndSubscriptions(t *testing.T) {
	t.Parallel()
	g := start(t)
	p := g.connect("1.2")
	p.subscribe("0", "/queue/q")
	if err := g.admin().DeleteQueue(context.Background(), "q"); err != nil {
		t.Fatal(err)
	}
	p.expectError("subscription ended", "The queue was deleted", `"/queue/q"`)
}
