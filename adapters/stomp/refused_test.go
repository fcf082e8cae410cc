package stomp_test

import (
	"strings"
	"testing"
	"testing/synctest"
)

// What the broker says last is read by a client that goes on sending: the
// connection is not closed under its hands.
func TestLastWordsAreRead(t *testing.T) {
	t.Parallel()
	more := strings.Repeat("SEND\ndestination:/queue/q\n\n"+strings.Repeat("x", 1000)+"^@\n", 4000)
	bubble(t, func(g *gateway) {
		p := g.connect("1.2")
		p.write("NONE\n\n^@" + more)
		p.expectError("unknown command")
		p = g.connect("1.2")
		p.write("DISCONNECT\nreceipt:r\n\n^@" + more)
		p.expect("RECEIPT\nreceipt-id:r\n")
		p.expectEnd()
		if g.admin().HasQueue("q") {
			t.Error("what follows the end was obeyed")
		}
	})
}

// Nothing is left of a frame that is refused.
func TestRefusedFramesLeaveNothing(t *testing.T) {
	t.Parallel()
	bubble(t, func(g *gateway) {
		for _, frame := range [][]string{
			{"SEND", "destination:/queue/q", "x-max-length:5", "transaction:none"},
			{"SEND", "destination:/queue/q,/queue/", "x-max-length:5"},
			{"SEND", "destination:/queue/q,/amq/queue/none", "x-max-length:5"},
			{"SEND", "destination:/queue/q", "persistent:maybe"},
			{"SUBSCRIBE", "id:0", "destination:/queue/q", "x-max-length:5", "group:g"},
			{"SUBSCRIBE", "id:0", "destination:/queue/q,/queue/r", "x-max-length:5"},
			{"SUBSCRIBE", "id:0", "destination:/topic/a", "x-queue-name:q", "selector:("},
		} {
			p := g.connect("1.2")
			p.send(frame[0], frame[1:]...)
			p.expectError()
			synctest.Wait()
			if g.admin().HasQueue("q") || g.admin().HasQueue("r") {
				t.Errorf("%q made a queue", frame)
			}
		}
	})
}

// STOMP 1.2 "Repeated Header Entries": of every header of a SUBSCRIBE the first
// counts.
func TestFirstHeaderOfSubscribeCounts(t *testing.T) {
	t.Parallel()
	bubble(t, func(g *gateway) {
		p := g.connect("1.2")
		p.publish("/queue/q", "x", "color:red")
		p.subscribe("b", "/queue/q", "browser:true", "browser:false", "selector:color = 'red'", "selector:color = 'blue'", "selector:(")
		p.expect("MESSAGE\nsubscription:b\n", "\n\nx^@")
		p.expect("MESSAGE\n", "\nbrowser:end\n")
		p.subscribe("t", "/topic/a", "activemq.noLocal:false", "activemq.noLocal:true", "x-queue-name:mine", "x-queue-name:yours", "from:earliest", "from:never")
		p.publish("/topic/a", "y")
		p.expect("MESSAGE\nsubscription:t\n", "\n\ny^@")
		if !g.admin().HasQueue("mine") || g.admin().HasQueue("yours") {
			t.Error("x-queue-name is not the first")
		}
	})
}

// A browser sees what its client has sent before, and goes with nothing that
// only a consumer has.
func TestBrowserFollowsWhatWasSent(t *testing.T) {
	t.Parallel()
	bubble(t, func(g *gateway) {
		p := g.connect("1.2")
		p.write(strings.Repeat("SEND\ndestination:/queue/q\n\nx^@", 50) + "SEND\ndestination:/queue/q\nreceipt:s\n\ny^@SUBSCRIBE\nid:0\ndestination:/queue/q\nbrowser:true\nreceipt:b\n\n^@")
		p.expect("RECEIPT\nreceipt-id:s\n")
		p.expect("RECEIPT\nreceipt-id:b\n")
		if got := bodies(p.messages(51)); got != strings.Repeat("x ", 50)+"y" {
			t.Error(got)
		}
		p.expect("MESSAGE\n", "\nbrowser:end\n")
		for _, header := range []string{"group:g", "from:earliest", "x-queue-name:other", "activemq.noLocal:true", "x-max-length:5", "activemq.subscriptionName:s"} {
			p := g.connect("1.2", "client-id:c")
			p.send("SUBSCRIBE", "id:0", "destination:/queue/q", "browser:true", header)
			p.expectError("unsupported header")
		}
		p = g.connect("1.2")
		p.send("SUBSCRIBE", "id:0", "destination:/queue/q,/queue/r", "browser:true")
		p.expectError("one queue")
	})
}

// A durable subscription that is not there cannot be ended.
func TestUnknownDurableSubscription(t *testing.T) {
	t.Parallel()
	bubble(t, func(g *gateway) {
		p := g.connect("1.2", "client-id:c")
		p.subscribe("0", "/topic/a", "activemq.subscriptionName:s")
		for _, want := range []string{"RECEIPT\nreceipt-id:u\n", "ERROR\nmessage:unknown subscription\nreceipt-id:u\n"} {
			p.send("UNSUBSCRIBE", "id:0", "activemq.subscriptionName:s", "receipt:u")
			p.expect(want)
		}
	})
}
