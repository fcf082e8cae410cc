package stomp_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/adapters/stomp"
	"github.com/sluicemq/sluice/core"
)

// A row is one row of a page's tables, as it is run.
type row struct {
	*testing.T
	g *gateway
}

// runRows runs each row of a page's tables. A row without a test, and a test
// without a row, fails.
func runRows(t *testing.T, page string, tests map[string]func(r *row)) {
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	tests = maps.Clone(tests)
	maps.Copy(tests, sharedRows)
	seen := make(map[string]bool)
	for _, line := range strings.Split(string(text), "\n") {
		m := tableRow.FindStringSubmatch(line)
		if m == nil || m[2] == "in Sluice" || strings.HasPrefix(m[1], "-") {
			continue
		}
		name := strings.ReplaceAll(m[1], "`", "")
		test := tests[name]
		if test == nil {
			t.Errorf("%s has the row %q, which nothing tests", page, name)
			continue
		}
		seen[name] = true
		t.Run(name, func(t *testing.T) {
			var options []func(*stomp.Options, *core.Options)
			if strings.HasPrefix(name, "login") {
				options = append(options, func(_ *stomp.Options, o *core.Options) { o.Authorizer = only{user: "ann", password: "pw"} })
			}
			bubble(t, func(g *gateway) { test(&row{g.t.(*testing.T), g}) }, options...)
		})
	}
	for name := range tests {
		if !seen[name] {
			t.Errorf("%s has no row %q", page, name)
		}
	}
}

var tableRow = regexp.MustCompile(`^\| (.+?) \| (.+) \|$`)

func TestMovingFromRabbitMQ(t *testing.T) {
	t.Parallel()
	runRows(t, "moving-from-rabbitmq.md", rabbitRows)
}

func TestMovingFromActiveMQ(t *testing.T) {
	t.Parallel()
	runRows(t, "moving-from-activemq.md", activeRows)
}

// one connects, subscribes and sends one message, which must arrive.
func (r *row) one(destination string, subscribe, send []string) reply {
	r.Helper()
	p, s := r.g.connect("1.2"), r.g.connect("1.2")
	s.subscribe("0", destination, subscribe...)
	p.publish(destination, "x", send...)
	return s.expect("MESSAGE\nsubscription:0\n", "\n\nx^@")
}

// carried sends headers, which must come back as they were.
func carried(headers ...string) func(r *row) {
	return func(r *row) {
		m := r.one("/queue/q", nil, headers)
		for _, h := range headers {
			if !strings.Contains(m.String(), "\n"+h+"\n") {
				r.Errorf("no %s in\n%s", h, m)
			}
		}
	}
}

// refused subscribes with headers, which must be answered with an ERROR.
func refused(destination, header string, want ...string) func(r *row) {
	return func(r *row) {
		p := r.g.connect("1.2", "client-id:c")
		p.send("SUBSCRIBE", "id:0", "destination:"+destination, header, "receipt:r")
		p.expectError(append(want, "receipt-id:r")...)
	}
}

// exchange declares an exchange.
func (r *row) exchange(name string, kind core.ExchangeKind) {
	r.Helper()
	if err := r.g.admin().DeclareExchange(r.Context(), core.ExchangeDefinition{Name: name, Kind: kind}); err != nil {
		r.Fatal(err)
	}
}

// has is what a queue has, for somebody who looks without taking.
func (r *row) has(queue string) string {
	r.Helper()
	synctest.Wait()
	p := r.g.connect("1.2")
	p.subscribe("0", "/queue/"+queue, "browser:true")
	var all []string
	for {
		m := p.expect("MESSAGE\n")
		if m.header("browser") == "end" {
			p.bye()
			return strings.Join(all, " ")
		}
		all = append(all, m.body)
	}
}

// Rows that both pages have.

func sharedQueue(r *row) {
	p := r.g.connect("1.2")
	p.publish("/queue/q", "before anybody came")
	p.subscribe("0", "/queue/q")
	p.expect("MESSAGE\nsubscription:0\ndestination:/queue/q\n", "before anybody came")
}

func sharedTopic(r *row) {
	p, q := r.g.connect("1.2"), r.g.connect("1.2")
	p.subscribe("0", "/topic/a.b")
	q.subscribe("0", "/topic/a/b")
	p.publish("/topic/a.b", "x")
	p.expect("MESSAGE\n", "\ndestination:/topic/a.b\n")
	q.expect("MESSAGE\n", "\ndestination:/topic/a/b\n")
}

func sharedLogin(r *row) {
	p := r.g.dial()
	p.send("CONNECT", "accept-version:1.2", "host:/", "login:ann", "passcode:wrong")
	p.expectError("access refused")
	r.g.connect("1.2", "login:ann", "passcode:pw")
}

func sharedHeartBeat(r *row) {
	p := r.g.connect("1.2", "heart-beat:10,10")
	p.skipEnds()
	p.between(0, time.Second)
	p.expectError("no heart-beat in time")
}

func sharedID(r *row) {
	p := r.g.connect("1.2")
	p.subscribe("mine", "/queue/q")
	p.publish("/queue/q", "x")
	p.expect("MESSAGE\nsubscription:mine\n")
	p.send("UNSUBSCRIBE", "id:mine", "receipt:u")
	p.expect("RECEIPT\n")
}

func sharedAck(r *row) {
	for ack, left := range map[string]string{"auto": "", "client": "4", "client-individual": "1 2 4"} {
		p := r.g.connect("1.2")
		p.subscribe("0", "/queue/"+ack, "ack:"+ack)
		for i := range 4 {
			p.publish("/queue/"+ack, fmt.Sprint(i+1))
		}
		ms := p.messages(4)
		if ack != "auto" {
			p.acks("ACK", "1.2", ms[2])
		}
		p.bye()
		if got := r.has(ack); got != left {
			r.Errorf("%s: left is %s", ack, got)
		}
	}
}

// prefetched is how many messages come before any is acknowledged.
func prefetched(header string) func(r *row) {
	return func(r *row) {
		pub := r.g.connect("1.2")
		for i := range 1100 {
			pub.publish("/queue/q", fmt.Sprint(i))
		}
		for value, want := range map[string]int{"5": 5, "0": 1, "": 32, "100000": 1024} {
			headers := []string{"ack:client-individual"}
			if value != "" {
				headers = append(headers, header+":"+value)
			}
			p := r.g.connect("1.2")
			p.subscribe("0", "/queue/q", headers...)
			ms := p.messages(want)
			p.quiet(time.Second)
			p.acks("ACK", "1.2", ms[0])
			p.messages(1)
			p.quiet(time.Second)
			p.bye()
			pub.publish("/queue/q", "for the one that was acknowledged")
		}
	}
}

func sharedPriority(r *row) {
	p := r.g.connect("1.2")
	declare := []string{"x-max-priority:10"}
	for i, level := range []string{"1", "9", "", "4", "0"} {
		headers := declare
		if level != "" {
			headers = append(headers[:1:1], "priority:"+level)
		}
		p.publish("/queue/q", fmt.Sprint(i), headers...)
	}
	p.subscribe("0", "/queue/q", declare...)
	ms := p.messages(5)
	if got := bodies(ms); got != "1 2 3 0 4" || ms[0].header("priority") != "9" {
		r.Errorf("%s, %s", got, ms[0])
	}
}

func sharedReplyTo(r *row) {
	client, service := r.g.connect("1.2"), r.g.connect("1.2")
	service.subscribe("0", "/queue/service")
	client.publish("/queue/service", "ask", "reply-to:/queue/answers")
	m := service.expect("MESSAGE\n", "\nreply-to:/queue/answers\n")
	service.publish(m.header("reply-to"), "answer")
	if got := r.has("answers"); got != "answer" {
		r.Error(got)
	}
}

func sharedPersistent(r *row) {
	p := r.g.connect("1.2")
	p.subscribe("0", "/topic/a")
	p.send("SEND", "destination:/topic/a", "persistent:true", " 1")
	p.expect("MESSAGE\n", "\npersistent:true\n")
	p.publish("/topic/a", "2", "persistent:false")
	p.expect("MESSAGE\n", "\npersistent:true\n")
	p.send("SEND", "destination:/topic/a", "persistent:false", " 3")
	if m := p.expect("MESSAGE\n"); m.header("persistent") != "" {
		r.Errorf("%s", m)
	}
}

func sharedReceipt(r *row) {
	p := r.g.connect("1.2")
	for _, f := range [][]string{{"SUBSCRIBE", "id:0", "destination:/topic/a"}, {"SEND", "destination:/queue/q"}, {"BEGIN", "transaction:t"}, {"ABORT", "transaction:t"}, {"UNSUBSCRIBE", "id:0"}, {"DISCONNECT"}} {
		p.send(f[0], append(f[1:], "receipt:"+f[0])...)
		p.expect("RECEIPT\nreceipt-id:" + f[0] + "\n")
	}
}

func sharedTransaction(r *row) {
	p := r.g.connect("1.2")
	p.publish("/queue/in", "1")
	p.subscribe("0", "/queue/in", "ack:client-individual")
	m := p.messages(1)[0]
	p.send("BEGIN", "transaction:t")
	p.send("SEND", "destination:/queue/out", "transaction:t", " done")
	p.acks("ACK", "1.2", m, "transaction:t")
	if got := r.has("in") + "," + r.has("out"); got != "1," {
		r.Error(got)
	}
	p.send("COMMIT", "transaction:t", "receipt:c")
	p.expect("RECEIPT\n")
	if got := r.has("in") + "," + r.has("out"); got != ",done" {
		r.Error(got)
	}
}

func sharedRedelivered(r *row) {
	p := r.g.connect("1.2")
	p.subscribe("0", "/queue/q", "ack:client")
	p.publish("/queue/q", "x")
	p.expect("MESSAGE\n", "\nattempt:1\nredelivered:false\n")
	p.conn.Close()
	p = r.g.connect("1.2")
	p.subscribe("0", "/queue/q")
	p.expect("MESSAGE\n", "\nattempt:2\nredelivered:true\n")
}

// durably subscribes with headers, is away, and comes back.
func durably(headers ...string) func(r *row) {
	return func(r *row) {
		headers := append(headers, "ack:client")
		p, pub := r.g.connect("1.2", "client-id:c"), r.g.connect("1.2")
		p.subscribe("d", "/topic/a.*", headers...)
		p.bye()
		pub.publish("/topic/a.b", "while away")
		p = r.g.connect("1.2", "client-id:c")
		p.subscribe("d", "/topic/a.*", headers...)
		p.expect("MESSAGE\n", "\ndestination:/topic/a.b\n", "while away")
		p.send("UNSUBSCRIBE", append(headers, "id:d", "receipt:u")...)
		p.receipt("u")
		for q := range r.g.admin().Queues("$session/") {
			r.Errorf("left is %s", q.Name)
		}
	}
}
