package stomp_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/core"
)

// colours sends one message of each colour, with a weight.
func (p *peer) colours(destination string) {
	p.t.Helper()
	for i, colour := range []string{"red", "blue", "red", "green"} {
		p.publish(destination, fmt.Sprint(colour, i), "colour:"+colour, fmt.Sprint("weight:", i), fmt.Sprint("priority:", 2*i))
	}
}

// A selector says what a subscription wants, of topics and of queues.
func TestSelectors(t *testing.T) {
	t.Parallel()
	for selector, want := range map[string]string{
		"colour = 'red'":                             "red0 red2",
		"colour <> 'red' AND weight < 2":             "blue1",
		"weight BETWEEN 1 AND 2 OR colour LIKE 'g%'": "blue1 red2 green3",
		"JMSPriority > 3":                            "red2 green3",
		"colour IN ('green', 'white')":               "green3",
		"missing IS NULL AND NOT colour = 'blue'":    "red0 red2 green3",
		"": "red0 blue1 red2 green3",
	} {
		for _, destination := range []string{"/topic/a", "/topic/*", "/queue/q", "/exchange/e/#"} {
			bubble(t, func(g *gateway) {
				if err := g.admin().DeclareExchange(t.Context(), core.ExchangeDefinition{Name: "e", Kind: core.TopicExchange}); err != nil {
					t.Fatal(err)
				}
				p, pub := g.connect("1.2"), g.connect("1.2")
				p.subscribe("0", destination, "selector:"+strings.ReplaceAll(selector, ":", `\c`))
				pub.colours(strings.NewReplacer("*", "a", "#", "k").Replace(destination))
				if got := bodies(p.messages(len(strings.Fields(want)))); got != want {
					t.Errorf("%s from %s: %s", selector, destination, got)
				}
				p.quiet(calm)
			})
		}
	}
}

// What a queue's consumer does not select stays for the others and blocks
// nobody.
func TestSelectorsOfAQueue(t *testing.T) {
	t.Parallel()
	bubble(t, func(g *gateway) {
		red, pub := g.connect("1.2"), g.connect("1.2")
		red.subscribe("0", "/queue/q", "selector:colour = 'red'", "ack:client-individual")
		for range 50 {
			pub.colours("/queue/q")
		}
		n := 0
		for range 100 {
			r := red.expect("MESSAGE\n")
			n += strings.Count(r.body, "red")
			red.acks("ACK", "1.2", r)
		}
		red.quiet(calm)
		rest := g.connect("1.2")
		rest.subscribe("0", "/queue/q")
		for _, r := range rest.messages(100) {
			n += strings.Count(r.body, "red")
		}
		rest.quiet(calm)
		if n != 100 {
			t.Errorf("%d", n)
		}
	})
}

// A durable subscription keeps only what it selects; with another selector it
// is another subscription.
func TestSelectorsOfADurableSubscription(t *testing.T) {
	t.Parallel()
	bubble(t, func(g *gateway) {
		durable := []string{"activemq.subscriptionName:s", "selector:colour='red'"}
		p, pub := g.connect("1.2", "client-id:c"), g.connect("1.2")
		p.subscribe("0", "/topic/a", durable...)
		p.bye()
		pub.colours("/topic/a")
		p = g.connect("1.2", "client-id:c")
		p.subscribe("0", "/topic/a", "activemq.subscriptionName:s", "selector:colour  =  'red'")
		if got := bodies(p.messages(2)); got != "red0 red2" {
			t.Error(got)
		}
		p.quiet(calm)
		p.bye()
		p = g.connect("1.2", "client-id:c")
		p.send("SUBSCRIBE", "id:0", "destination:/topic/a", "activemq.subscriptionName:s", "selector:colour = 'blue'", "receipt:r")
		p.expectError("exists with other settings", "/topic/a where colour = 'red'", "receipt-id:r")
	})
}

// A selector that does not parse is refused with the place where it stops.
func TestSelectorsThatDoNotParse(t *testing.T) {
	t.Parallel()
	bubble(t, func(g *gateway) {
		for text, want := range map[string]string{
			"colour =":         "at byte 8",
			"colour = 'red":    "at byte 13",
			"= 1":              "at byte 0",
			"a = 1 AND (b = 2": "at byte 16",
			"a = 1 b = 2":      "at byte 6",
			"1 + 2":            "",
			"JMSNonsense = 1":  "at byte 0",
		} {
			p := g.connect("1.2")
			p.send("SUBSCRIBE", "id:0", "destination:/queue/q", "selector:"+text, "receipt:r")
			r := p.expectError("invalid selector", "receipt-id:r", want, "such as color = 'red'")
			if len(r.body) > 1000 {
				t.Errorf("%s", r)
			}
		}
	})
}

// A client that says so does not get its own messages back from a topic.
func TestNoLocal(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"activemq.noLocal", "no-local", "noLocal"} {
		for _, more := range [][]string{{}, {"ack:client-individual", "prefetch-count:2"}, {"activemq.subscriptionName:s"}, {"activemq.subscriptionName:s", "ack:client", "prefetch-count:1"}} {
			bubble(t, func(g *gateway) {
				p, other := g.connect("1.2", "client-id:p"), g.connect("1.2", "client-id:other")
				p.subscribe("0", "/topic/a", append(more, name+":true")...)
				for i := range 200 {
					p.publish("/topic/a", fmt.Sprint("mine", i))
				}
				other.publish("/topic/a", "theirs")
				p.expect("MESSAGE\n", "\n\ntheirs^@")
				p.quiet(calm)
			})
		}
	}
	bubble(t, func(g *gateway) {
		p := g.connect("1.2")
		p.send("SUBSCRIBE", "id:0", "destination:/queue/q", "activemq.noLocal:true", "receipt:r")
		p.expectError("activemq.noLocal does not go with a queue")
	})
}
