package clienttest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// A field is one thing that an envelope carries, as this test shows it.
type field struct {
	name string
	of   func(message) string
}

// fields are those that are compared, one column each in docs/matrix.md.
var fields = []field{
	{"payload", func(m message) string { return string(m.Payload) }},
	{"content type", func(m message) string { return m.ContentType }},
	{"headers", func(m message) string {
		var b strings.Builder
		for _, h := range m.Headers {
			fmt.Fprintf(&b, "%q:%q ", h.Name, h.Value)
		}
		return b.String()
	}},
	{"reply-to", func(m message) string { return m.ReplyTo }},
	{"correlation id", func(m message) string {
		if utf8.Valid(m.Correlation) {
			return string(m.Correlation)
		}
		return "base64 " + base64.StdEncoding.EncodeToString(m.Correlation)
	}},
	{"key", func(m message) string { return m.Key }},
	{"priority", func(m message) string { return m.Priority }},
	{"message id", func(m message) string { return m.ID }},
}

// expiryField is compared apart: what remains of it shrinks.
const expiryField = "expiry"

// A dialect is what a client cannot say or see of what its protocol carries.
type dialect struct {
	// bare says that MQTT 3.1.1 carries the payload alone.
	bare bool
	// headers is what becomes of a list of headers in the library.
	headers func([]header) []header
	note    string
}

var (
	bare = dialect{bare: true, note: "MQTT 3.1.1 has no properties: the payload alone"}
	// stomp.py writes headers sorted by name.
	sortedHeaders = dialect{headers: func(h []header) []header {
		sorted := slices.Clone(h)
		slices.SortStableFunc(sorted, func(a, b header) int { return strings.Compare(a.Name, b.Name) })
		return sorted
	}, note: "the library sends headers sorted by name, repeats kept"}
	// STOMP.js takes an object, and both STOMP libraries give one: of a name
	// that repeats there is the first, as STOMP 1.2 has it ("Repeated Header
	// Entries").
	firstOfEach = dialect{headers: func(h []header) []header {
		var first []header
		for _, one := range h {
			if !slices.ContainsFunc(first, func(f header) bool { return f.Name == one.Name }) {
				first = append(first, one)
			}
		}
		return first
	}, note: "of headers that repeat the library knows the first (STOMP 1.2, \"Repeated Header Entries\")"}
	// STOMP.js reads the headers of a frame from the last to the first.
	lastToFirst = dialect{headers: func(h []header) []header {
		var seen []header
		for _, last := range slices.Backward(h) {
			if !slices.ContainsFunc(seen, func(s header) bool { return s.Name == last.Name }) {
				i := slices.IndexFunc(h, func(f header) bool { return f.Name == last.Name })
				seen = append(seen, h[i])
			}
		}
		return seen
	}, note: "the library gives headers from the last to the first, of those that repeat the first (STOMP 1.2)"}
	// MQTT.js gathers the values of a name at the name's first place.
	gathered = dialect{headers: func(h []header) []header {
		var all []header
		for i, one := range h {
			if slices.ContainsFunc(h[:i], func(f header) bool { return f.Name == one.Name }) {
				continue
			}
			for _, same := range h[i:] {
				if same.Name == one.Name {
					all = append(all, same)
				}
			}
		}
		return all
	}, note: "the library gathers headers that repeat at the first one's place"}
)

// publisherDialects and receiverDialects are those that are not exact.
var (
	publisherDialects = map[string]dialect{
		"mosquitto_pub": bare, "stomp.py": sortedHeaders, "STOMP.js": firstOfEach, "MQTT.js": gathered,
	}
	receiverDialects = map[string]dialect{
		"mosquitto_sub": bare, "stomp.py": firstOfEach, "STOMP.js": lastToFirst, "MQTT.js": gathered,
	}
)

// fidelityReceivers are those of the matrix, and mosquitto_sub on $meta/, which
// shows a 3.1.1 client what it otherwise could not see, and curl on a single
// message, whose fields stand in the answer's header.
var fidelityReceivers = append(slices.Clone(receivers),
	receiver{"mosquitto_sub $meta", mosquittoMeta},
	receiver{"curl, one message", curlOne},
)

// through is what of a message can pass from one client to another.
func through(m message, p, r dialect) message {
	if p.bare || r.bare {
		return message{Payload: m.Payload}
	}
	for _, d := range []dialect{p, r} {
		if d.headers != nil {
			m.Headers = d.headers(m.Headers)
		}
	}
	return m
}

// fidelityMessages carry every field, every field in its awkward form, and no
// field at all.
func fidelityMessages() []message {
	return []message{
		{
			Payload: []byte("every field"), ContentType: "text/plain; charset=utf-8",
			Headers: []header{{"zeta", "1"}, {"alpha", "2"}, {"zeta", "3"}, {"Mid", "4"}},
			ReplyTo: "replies/to/me", Correlation: []byte("order-66"), Key: "truck-7", Priority: "7",
			TTL: 90 * time.Second, ID: "id-1",
		},
		{
			Payload: []byte("\x00\xfe"), ContentType: "application/vnd.example+octet; v=\"1;2\"",
			Headers: []header{{"naïve", "Öl: 5 €"}, {"quotes", `back\slash "quote": colon`}, {"empty", ""}, {"white space", "with  in"}, {"lines", "one\ntwo"}},
			ReplyTo: "replies/für mich/v1.2", Correlation: []byte{0, 0xff, 0x0a, 0x80}, Key: "Schlüssel 7", Priority: "0",
			TTL: 3600 * time.Second, ID: "ümläut id",
		},
		{Payload: []byte("no field")},
	}
}

// TestFidelity publishes through every door and compares, at every other door,
// field by field.
func TestFidelity(t *testing.T) {
	b := startBroker(t)
	seen := newGrid()
	t.Run("pairs", func(t *testing.T) {
		for i, p := range publishers {
			for j, r := range fidelityReceivers {
				t.Run(strings.ReplaceAll(p.name+" to "+r.name, " ", "_"), func(t *testing.T) {
					t.Parallel()
					err := tryFidelity(t, b, fmt.Sprintf("f%d-%d", i, j), p, r)
					seen.set("fields", p.name, r.name, err == nil)
					if err != nil {
						t.Error(err)
					}
				})
			}
		}
	})
	table := fidelityMarkdown(seen)
	t.Logf("\n%s", table)
	compareDocs(t, "fields", table, len(seen.passed) == len(publishers)*len(fidelityReceivers))
}

func tryFidelity(t testing.TB, b *broker, topic string, p publisher, r receiver) error {
	publish, err := opened(t, b, p)
	if err != nil {
		return err
	}
	in, err := r.open(t, b, selection{from: []address{topicAddress(topic)}})
	if err != nil {
		return err
	}
	defer in.end()
	var failed error
	for i, m := range fidelityMessages() {
		m.Topic = topic
		if m.ID != "" {
			m.ID += " " + topic // the broker remembers them
		}
		want := through(m, publisherDialects[p.name], receiverDialects[r.name])
		if err := publish(topicAddress(topic), m); err != nil {
			return fmt.Errorf("message %d: %w", i+1, err)
		}
		got, err := in.wait(i+1, arrive)
		if err != nil {
			return errors.Join(failed, err)
		}
		failed = errors.Join(failed, compareFields(i+1, want, got[i]))
	}
	return failed
}

func compareFields(n int, want, got message) (failed error) {
	for _, f := range fields {
		if w, g := f.of(want), f.of(got); w != g {
			failed = errors.Join(failed, fmt.Errorf("message %d: %s is %q, want %q", n, f.name, g, w))
		}
	}
	// What remains: rounded up to a second at the most, and not long ago.
	if got.TTL > want.TTL+time.Second || got.TTL < want.TTL-80*time.Second || (want.TTL == 0) != (got.TTL == 0) {
		failed = errors.Join(failed, fmt.Errorf("message %d: %s is %v, want at most %v", n, expiryField, got.TTL, want.TTL))
	}
	return failed
}

// TestTextFlag: MQTT's payload format indicator passes between MQTT clients,
// and is not invented.
func TestTextFlag(t *testing.T) {
	b := startBroker(t)
	for _, d := range []mqttDialer{paho, mqttJS} {
		flags := make(chan int, 2)
		c, _, err := d.dial(t, b, mqttOptions{}, func(e event) {
			if e.Event == "message" {
				flags <- mqttTextFlag(t, e.Raw)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		if err := mqttSubscribe(c, selection{from: []address{topicAddress("text")}}); err != nil {
			t.Fatal(err)
		}
		for _, flag := range []int{1, 0} {
			args := mqttPublish(topicAddress("text"), message{Payload: []byte("ja")})
			args["properties"] = mqttProperties{PayloadFormatIndicator: flag}
			if _, err := c.call("mqtt.publish", args); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-flags:
				if got != flag {
					t.Errorf("%s: the format indicator is %d, want %d", c.driver.name, got, flag)
				}
			case <-time.After(arrive):
				t.Fatal("nothing came")
			}
		}
	}
}
