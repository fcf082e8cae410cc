package clienttest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A message is what a test publishes or a client received, in the words of the
// envelope. What is empty is unset.
type message struct {
	// Topic as the publisher says it, or as the receiver was told it.
	Topic       string
	Payload     []byte
	ContentType string
	Headers     []header
	ReplyTo     string // a topic
	Correlation []byte
	Key         string
	Priority    string // a digit
	TTL         time.Duration
	ID          string
	Retain      bool // on delivery: it came as a retained value

	// What follows is the broker's own, where the receiver sees it.
	Offset, Attempt string
	Time            time.Time
}

type header struct{ Name, Value string }

// An address is where a message goes to or comes from: a topic, or a queue. For
// a receiver the topic may be a filter.
type address struct{ topic, queue string }

func topicAddress(topic string) address { return address{topic: topic} }
func queueAddress(queue string) address { return address{queue: queue} }

// name is the broker's own name of it.
func (a address) name() string {
	if a.queue != "" {
		return "$queue/" + a.queue
	}
	return a.topic
}

// A selection is what a receiver asks for.
type selection struct {
	from  []address
	start string // replay from here; empty is live
	group string // join this group
	// ordered asks it to keep the order of each key.
	ordered bool
	// retained says that only retained values are wanted, for a receiver
	// that asks for them apart.
	retained bool
	// hold takes messages without acknowledging them.
	hold bool
	// bulk acknowledges many messages at once, where the protocol has that.
	bulk bool
}

// binary is every byte value, NUL included.
var binaryPayload = func() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}()

// large is 100 KiB without a pattern that a packet's size divides.
var largePayload = func() []byte {
	b := make([]byte, 100<<10)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}()

// A sample is one message of the set that every cell of the matrix carries. Its
// topic is made of the cell's own word, so that cells do not see one another.
type sample struct {
	name    string
	topic   func(cell string) string
	payload []byte
}

// samples pairs each kind of payload with a kind of topic.
var samples = []sample{
	{"text on a plain topic", func(c string) string { return c + "/hello" }, []byte("it works")},
	{"nothing on empty levels", func(c string) string { return c + "//x//" }, nil},
	{"all bytes on a topic with spaces and umlauts", func(c string) string { return c + "/Halle 3/Öfen  süd/温度" }, binaryPayload},
	{"invalid UTF-8 on dots in levels", func(c string) string { return c + "/v1.2.3/.hidden/a.b." }, []byte("\xff\xfe\x80 not \xc3\x28 UTF-8")},
	{"100 KiB on percent signs and quotes", func(c string) string { return c + `/100%/%2F/"it's"` }, largePayload},
	{"text on an empty first level", func(c string) string { return "/" + c }, []byte("päyload ✓")},
	{"one NUL on one level with dots", func(c string) string { return "v1." + c + ".x" }, []byte{0}},
}

// filters are what a receiver subscribes to for all samples.
func filters(cell string) []address {
	return []address{topicAddress(cell + "/#"), topicAddress("/" + cell), topicAddress("v1." + cell + ".x")}
}

// brief is a payload as an error message shows it.
func brief(p []byte) string {
	if len(p) > 40 {
		return fmt.Sprintf("%q… (%d bytes)", p[:40], len(p))
	}
	return fmt.Sprintf("%q", p)
}

// compareSamples says what differs between what was published and what came, by
// topic: each exactly once and whole.
func compareSamples(want, got []message) error {
	var wrong []string
	left := slices.Clone(got)
	for _, w := range want {
		i := slices.IndexFunc(left, func(m message) bool { return m.Topic == w.Topic && bytes.Equal(m.Payload, w.Payload) })
		if i < 0 {
			wrong = append(wrong, fmt.Sprintf("missing %q: %s", w.Topic, brief(w.Payload)))
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, m := range left {
		wrong = append(wrong, fmt.Sprintf("not wanted %q: %s", m.Topic, brief(m.Payload)))
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(wrong, "\n\t"))
}
