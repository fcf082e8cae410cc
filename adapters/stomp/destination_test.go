package stomp

import (
	"strings"
	"testing"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

func TestParseDestination(t *testing.T) {
	for _, test := range []struct {
		text  string
		topic string // empty: refused
		style style
		back  string // where it is not the text
	}{
		{text: "/topic/a/b", topic: "a/b"},
		{text: "/topic/a.b", topic: "a/b", style: dots},
		{text: "/topic/a.b/c", topic: "a.b/c"},
		{text: "/topic/a%2Eb", topic: "a.b"},
		{text: "/topic/a%2eb", topic: "a.b", back: "/topic/a%2Eb"},
		{text: "/topic/a%2Eb.c", topic: "a.b/c", style: dots},
		{text: "/topic/a%2Fb", topic: "a%2Fb"},
		{text: "/topic/a%252Eb", topic: "a%2Eb"},
		{text: "/topic/100%", topic: "100%"},
		{text: "/topic//a//", topic: "/a//"},
		{text: "/topic/.a..b", topic: "/a//b", style: dots},
		{text: "/topic/a b/ü→", topic: "a b/ü→"},
		{text: "/topic/%2A/>x/%3E", topic: "*/>x/>"},
		{text: "/topic/a,b", topic: "a,b"},
		{text: "/topic/a%2C/topic/b", topic: "a,/topic/b"},
		{text: "/topic/$queue/q", topic: "$queue/q", back: "/queue/q"},
		{text: "/a/b.c", topic: "/a/b.c", style: bare},
		{text: "/queue/a", topic: "$queue/a"},
		{text: "/queue/a/b.c%2E", topic: "$queue/a/b.c%2E"},
		{text: "a", topic: "$queue/a", back: "/queue/a"},
		{text: "a.b/c", topic: "$queue/a.b/c", back: "/queue/a.b/c"},
		{text: "/amq/queue/a", topic: "$queue/a", back: "/queue/a"},
		{text: "/exchange/e/k.l", topic: "$exchange/e/k.l"},
		{text: "/exchange/e/k/l", topic: "$exchange/e/k/l"},
		{text: "/exchange/e", topic: "$exchange/e/", back: "/exchange/e/"},
		{text: "/temp-queue/x", topic: "$inbox/me/x", back: "/reply-queue/me/x"},
		{text: "/temp-topic/x", topic: "$inbox/me.topic/x", back: "/reply-queue/me.topic/x"},
		{text: "/reply-queue/you/x", topic: "$inbox/you/x"},
		{text: ""},
		{text: "/topic/"},
		{text: "/queue/"},
		{text: "/topic/a/+"},
		{text: "/topic/a/#"},
		{text: "/queue/$session/x"},
		{text: "/topic/$queue/$session/x"},
		{text: "/topic/" + strings.Repeat("x", 1025)},
		{text: "/topic/" + strings.Repeat("a.", 32)},
	} {
		t.Run(test.text, func(t *testing.T) {
			d, err := naming{session: "me"}.target(test.text)
			if test.topic == "" {
				if err == nil {
					t.Fatalf("leads to %q", d.topic)
				}
				return
			}
			if err != nil || d.topic != test.topic || d.style != test.style {
				t.Fatalf("%q, style %d, %v; want %q, style %d", d.topic, d.style, err, test.topic, test.style)
			}
			back := test.back
			if back == "" {
				back = test.text
			}
			if got := string(appendDestination(nil, d.topic, d.style)); got != back {
				t.Errorf("given back as %q, want %q", got, back)
			}
		})
	}
}

func TestParseSource(t *testing.T) {
	for text, want := range map[string]string{
		"/topic/a/*/b":      "a/+/b",
		"/topic/a/+/#":      "a/+/#",
		"/topic/a/>":        "a/#",
		"/topic/a.*.>":      "a/+/#",
		"/topic/>":          "#",
		"/topic/#":          "#",
		"/topic/a/>/b":      "a/>/b",
		"/topic/a/%2A":      "a/*",
		"/topic/a/x*":       "a/x*",
		"/a/*":              "/a/+",
		"/queue/a":          "$queue/a",
		"q*":                "$queue/q*",
		"/exchange/e/a.*.#": "$exchange/e/a.*.#",
		"/temp-queue/x":     "$inbox/me/x",
		"/topic/#/a":        "",
		"/topic/a#":         "",
		"/queue/a+":         "",
		"/reply-queue/me/x": "",
		"/topic/$inbox/#":   "",
		"/exchange//k":      "",
	} {
		d, err := naming{session: "me"}.source(text)
		if want == "" {
			if err == nil {
				t.Errorf("%s leads to %q", text, d.topic)
			}
		} else if err != nil || d.topic != want {
			t.Errorf("%s leads to %q, %v; want %q", text, d.topic, err, want)
		}
	}
}

func TestComposites(t *testing.T) {
	for text, want := range map[string]int{
		"/queue/a,/topic/b":            2,
		"/queue/a,/topic/b,/queue/c":   3,
		"/queue/a":                     0,
		"/queue/a,b":                   0,
		"/topic/a,/b":                  0,
		"/topic/a%2C/topic/b":          0,
		"/topic/a, /topic/b":           0,
		"/exchange/e/k,/temp-queue/aa": 2,
	} {
		if got := parts(text); len(got) != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}

// FuzzDestination: what a topic is given back as leads to that topic again, in
// every style, and never reads as a composite.
func FuzzDestination(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, s := range []string{"a/b", "a.b", "a", "/a", "a//b", "%2E", "%25", "%%2E", "%2", "*", "a/*/>", "$queue/q", "$inbox/x", "$exchange/e/k", "a,/topic/b", "/topic/x", ".", "/", ">"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		if core.CheckTopic(topic) != nil {
			return
		}
		if name, _, ok := core.ExchangeOf(topic); ok && (name == "" || !strings.Contains(topic[len(core.ExchangePrefix):], "/")) {
			return
		}
		if name, ok := core.QueueOf(topic); ok && core.CheckQueueName(name) != nil {
			return
		}
		for _, st := range []style{slashes, dots, bare} {
			text := string(appendDestination(nil, topic, st))
			d, err := naming{session: "me"}.target(text)
			if err != nil || d.topic != topic {
				t.Errorf("%q in style %d is %q, which leads to %q, %v", topic, st, text, d.topic, err)
			}
			if kindOf(topic) == toTopic && parts(text) != nil {
				t.Errorf("%q in style %d is the composite %q", topic, st, text)
			}
		}
	})
}

// FuzzSource: no text makes the translation fail, and what it leads to is a
// valid filter or queue.
func FuzzSource(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, s := range []string{"/topic/a.*", "/topic/a/>", "/queue/x", "x", "/exchange/e/#", "/temp-queue/x", "/topic/%2A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := naming{session: "me"}.source(s)
		if err != nil {
			return
		}
		if d.kind == toTopic {
			if _, err := core.ParseFilter(d.topic); err != nil {
				t.Errorf("%q: %v", s, err)
			}
		}
	})
}
