package link

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/go-stomp/stomp/v3"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluicemq/sluice/core"
	_ "github.com/sluicemq/sluice/core/coretest/sameseed" // this package's property tests
)

// TestStompDestinations: a topic, queue or exchange, said in STOMP's words and
// read again, is the same.
func TestStompDestinations(t *testing.T) {
	for topic, want := range map[string]string{
		"a/b": "/topic/a/b", "a.b": "/topic/a%2Eb", "/a//b/": "/topic//a//b/", "100%, *>": "/topic/100%25%2C %2A%3E", "a/+/#": "/topic/a/+/#",
		"$queue/q.1": "/queue/q.1", "$exchange/e/a.b": "/exchange/e/a.b",
	} {
		if got := stompDestination(topic); got != want {
			t.Errorf("%s: %s, want %s", topic, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		topic := rapid.SampledFrom([]string{"", "$queue/", "$exchange/e/"}).Draw(t, "kind") + rapid.StringMatching(`[a-c/.%,*>2E ü]{1,12}`).Draw(t, "topic")
		if got := stompTopic(stompDestination(topic)); got != topic {
			t.Fatalf("%q became %q", topic, got)
		}
	})
}

func TestHeadersKeepTheirOrder(t *testing.T) {
	want := []core.Header{{Name: "z", Value: "1"}, {Name: "a", Value: "2"}, {Name: "1", Value: "ü"}}
	for _, text := range []string{`{"z":"1","a":"2","1":"ü"}`, `[["z","1"],["a","2"],["1","ü"]]`} {
		got, err := ParseHeaders(json.RawMessage(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(text, diff)
		}
	}
	for _, text := range []string{`{"a":1}`, `[["a"],1]`, `{"a"`} {
		if got, err := ParseHeaders(json.RawMessage(text)); err == nil {
			t.Error(text, got)
		}
	}
}

// TestHeaderLines: what cannot stand in an HTTP header line is said another
// way, and nothing of it ends the line.
func TestHeaderLines(t *testing.T) {
	m := &Message{}
	m.Key, m.ReplyTo, m.CorrelationID = "a\r\nX-Evil: 1", "reply/ü", []byte(" c ")
	m.Headers = []core.Header{{Name: "a\nb", Value: "ü\r\n😀"}}
	h, err := publishHeader(m)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"X-Key*": "UTF-8''a%0D%0AX-Evil%3A%201", "X-Reply-To*": "UTF-8''reply%2F%C3%BC", "X-Correlation-Id*": "UTF-8''%20c%20",
		"X-Headers": `[["a\nb","\u00fc\r\n\ud83d\ude00"]]`,
	} {
		if got := h[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	m.CorrelationID = []byte{0xff}
	if _, err := publishHeader(m); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("bytes that are no text: %v", err)
	}
}

func TestFailuresHaveTheirKind(t *testing.T) {
	for _, c := range []struct{ got, want error }{
		{(&wsFrame{Code: "not_authorized", Text: "no"}).failure(), core.ErrNotAuthorized},
		{failure(mqttKind(0x87), "no"), core.ErrNotAuthorized},
		{failure(mqttKind(0x86), "no"), core.ErrUnauthenticated},
		{stompFailure(stomp.Error{Message: "access refused"}), core.ErrNotAuthorized},
		{stompFailure(stomp.Error{Message: "not found"}), core.ErrNotFound},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%v is no %v", c.got, c.want)
		}
	}
}
