package stomp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

func testMetrics() *adapters.ProtocolMetrics {
	return adapters.NewMetrics(prometheus.NewRegistry()).Protocol(protocol)
}

func testEncoder(t testing.TB, v version) *messageEncoder {
	d, err := naming{session: "me"}.source("/topic/>")
	if err != nil {
		t.Fatal(err)
	}
	return newMessageEncoder(v, newMessageRests(testMetrics()), 7, "sub:1", true, d, "", "/topic/>", true)
}

// decodeMessage reads a MESSAGE with the reader by calling it a SEND.
func decodeMessage(t testing.TB, v version, message []byte) (*clientFrame, core.Envelope) {
	t.Helper()
	text := append([]byte("SEND"), bytes.TrimPrefix(message, []byte("MESSAGE"))...)
	r := connectedReader(v, bytes.NewReader(text))
	r.limits.StompHeaders = 100
	f, err := r.next()
	if err != nil {
		t.Fatalf("%v in\n%q", err, message)
	}
	var s sending
	if err := s.read(f, func(w string) (string, error) {
		d, err := naming{session: "me"}.target(w)
		return d.topic, err
	}); err != nil {
		t.Fatalf("%v in\n%q", err, message)
	}
	d, err := naming{session: "me"}.target(s.destination)
	if err != nil {
		t.Fatalf("%v in\n%q", err, message)
	}
	s.envelope.Topic = d.topic
	return f, s.envelope
}

func fullDelivery() *core.Delivery {
	return &core.Delivery{
		Envelope: &core.Envelope{
			Topic: "plant/3/a.b: temp", Key: "pump:7", ID: "id\n1",
			Headers:     []core.Header{{Name: "x", Value: "1"}, {Name: "y:z", Value: "a\r\nb"}, {Name: "x", Value: "2"}, {Name: "traceparent", Value: "00-0af7-b7ad-01"}},
			ContentType: "text/plain;charset=utf-8", Payload: []byte("a\x00b\n"), ReplyTo: "$inbox/you/x:1", CorrelationID: []byte("c:1"),
			Expires: time.UnixMilli(1795232318309), Priority: core.PriorityOf(7), Guarantee: core.ExactlyOnce, Retain: true,
			Publisher: core.Publisher{Principal: "ann", Client: "c1", Protocol: "mqtt"}, Time: time.UnixMilli(1795232300000),
		},
		Offset: 1042, Attempt: 3, Retained: true,
	}
}

func TestMessage(t *testing.T) {
	got := string(testEncoder(t, v12).append(nil, fullDelivery(), core.Gap{From: 5, To: 9}))
	want := `MESSAGE
subscription:sub\c1
destination:/topic/plant.3.a%2Eb\c temp
message-id:7-1042
ack:7-1042
gap:5-8
content-length:4
content-type:text/plain;charset=utf-8
reply-to:/reply-queue/you/x\c1
correlation-id:c\c1
key:pump\c7
priority:7
expires:1795232318309
persistent:true
retain:true
original-message-id:id\n1
offset:1042
time:1795232300000
attempt:3
redelivered:true
publisher:ann
x:1
y\cz:a\r\nb
x:2
traceparent:00-0af7-b7ad-01

` + "a\x00b\n\x00"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestMessageWithNothing: what was not said is not sent.
func TestMessageWithNothing(t *testing.T) {
	d, _ := naming{session: "me"}.source("/queue/q")
	e := newMessageEncoder(v10, newMessageRests(testMetrics()), 1, "/queue/q", false, d, d.topic, "q", false)
	got := string(e.append(nil, &core.Delivery{Envelope: &core.Envelope{Topic: "$queue/q", Time: time.UnixMilli(5)}, Offset: 1, Attempt: 1}, core.Gap{}))
	want := "MESSAGE\ndestination:q\nmessage-id:1-1\ncontent-length:0\noffset:1\ntime:5\nattempt:1\nredelivered:false\n\n\x00"
	if got != want {
		t.Errorf("got\n%s", got)
	}
}

// TestMessageFallbacks: what a version cannot express is sent otherwise.
func TestMessageFallbacks(t *testing.T) {
	for _, test := range []struct {
		name    string
		version version
		change  func(*core.Delivery)
		want    []string
		not     []string
	}{
		{"a correlation id that is no text", v12, func(d *core.Delivery) { d.CorrelationID = []byte{0xff, 0} }, []string{"\ncorrelation-id-base64:/wA=\n"}, []string{"\ncorrelation-id:"}},
		{"an empty correlation id", v12, func(d *core.Delivery) { d.CorrelationID = []byte{} }, []string{"\ncorrelation-id:\n"}, nil},
		{"a line feed in 1.0", v10, func(d *core.Delivery) { d.Headers = []core.Header{{Name: "a:b", Value: "c\nd:e\\"}} }, []string{"\na_b:c d:e\\\n"}, nil},
		{"a carriage return in 1.1", v11, func(d *core.Delivery) { d.Headers = []core.Header{{Name: "a", Value: "b\r\n"}} }, []string{"\na:b \\n\n"}, nil},
		{"a NUL", v12, func(d *core.Delivery) { d.Headers = []core.Header{{Name: "a", Value: "b\x00c"}} }, []string{"\na:b\uFFFDc\n"}, nil},
		{"names that mean something in MESSAGE", v12, func(d *core.Delivery) {
			d.ContentType = ""
			d.Headers = []core.Header{{Name: "subscription", Value: "x"}, {Name: "content-type", Value: "y"}, {Name: "content-length", Value: "99"}, {Name: "ack", Value: "1-1"}}
		}, []string{"\nheader-subscription:x\n", "\nheader-content-type:y\n", "\nheader-content-length:99\n", "\nheader-ack:1-1\n"}, []string{"\ncontent-type:", "\nsubscription:x"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := fullDelivery()
			test.change(d)
			got := string(testEncoder(t, test.version).append(nil, d, core.Gap{}))
			for _, w := range test.want {
				if !strings.Contains(got, w) {
					t.Errorf("no %q in\n%s", w, got)
				}
			}
			for _, w := range test.not {
				if strings.Contains(got, w) {
					t.Errorf("%q in\n%s", w, got)
				}
			}
		})
	}
}

// published is what of an envelope a SEND can say.
func published(e core.Envelope) core.Envelope {
	e.Publisher, e.Time, e.Once, e.Text = core.Publisher{}, time.Time{}, "", false
	e.ID = "" // the MESSAGE's own is another
	if e.Guarantee == core.ExactlyOnce {
		e.Guarantee = core.AtLeastOnce
	}
	return e
}

func TestMessageReadsBack(t *testing.T) {
	for _, v := range []version{v11, v12} {
		d := fullDelivery()
		if v == v11 {
			d.Headers[1].Value = "a\nb"
		}
		f, got := decodeMessage(t, v, testEncoder(t, v).append(nil, d, core.Gap{}))
		if d := cmp.Diff(published(*d.Envelope), published(got)); d != "" {
			t.Errorf("%s: (-want +got):\n%s", v, d)
		}
		number, at, ok := parseToken(f.value("message-id"))
		if number != 7 || at != 1042 || !ok {
			t.Error(number, at, ok)
		}
	}
}

func TestMessageDoesNotAllocate(t *testing.T) {
	e, d := testEncoder(t, v12), fullDelivery()
	d.Topic, d.ReplyTo = "plant/3/temp", "$inbox/you/x"
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(1000, func() { buf = e.append(buf[:0], d, core.Gap{}) }); n != 0 {
		t.Errorf("%v allocations for a MESSAGE", n)
	}
}

func BenchmarkMessage(b *testing.B) {
	e, d := testEncoder(b, v12), fullDelivery()
	d.Topic, d.ReplyTo = "plant/3/temp", "$inbox/you/x"
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.append(buf[:0], d, core.Gap{})
	}
}

// A message for many subscriptions is encoded once, and is what each would have
// been sent by itself; what is its subscription's own is.
func TestMessageForMany(t *testing.T) {
	for _, v := range []version{v10, v11, v12} {
		for _, written := range []string{"/topic/>", "/topic/#", "/#"} {
			rests := newMessageRests(testMetrics())
			d, err := naming{session: "me"}.source(written)
			if err != nil {
				t.Fatal(err)
			}
			// They stay where they are: an envelope's place says which it is.
			deliveries := make([]core.Delivery, 10)
			for i := range deliveries {
				one := fullDelivery()
				one.Attempt, one.Offset = 1, core.Offset(1000+i%7)
				one.Payload = fmt.Append(nil, i)
				deliveries[i] = *one
			}
			for number := range uint64(5) {
				for i := range deliveries {
					got := newMessageEncoder(v, rests, number, "s", true, d, "", written, true).append(nil, &deliveries[i], core.Gap{From: core.Offset(number), To: 3})
					want := newMessageEncoder(v, newMessageRests(testMetrics()), number, "s", true, d, "", written, true).append(nil, &deliveries[i], core.Gap{From: core.Offset(number), To: 3})
					if !bytes.Equal(got, want) {
						t.Fatalf("subscription %d is sent\n%s\nnot\n%s", number, got, want)
					}
				}
			}
		}
	}
}

// FuzzMessage: an envelope with any contents survives MESSAGE and SEND, in the
// versions that can express it.
func FuzzMessage(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	f.Add("a/b", "name", "value", "text/plain", "$queue/r", []byte("corr"), []byte("body"), uint8(2))
	f.Add("a.b", "a:b", "c\r\nd\\", "", "", []byte{0xff}, []byte{0}, uint8(1))
	f.Fuzz(func(t *testing.T, topic, name, value, contentType, replyTo string, corr, body []byte, vn uint8) {
		v := version(vn%2) + v11
		e := &core.Envelope{
			Topic: topic, Headers: []core.Header{{Name: name, Value: value}, {Name: name, Value: "again"}}, ContentType: contentType,
			ReplyTo: replyTo, CorrelationID: corr, Payload: body, Guarantee: core.AtLeastOnce, Time: time.UnixMilli(1),
		}
		if core.CheckTopic(topic) != nil || kindOf(topic) != toTopic || replyTo != "" && (core.CheckTopic(replyTo) != nil || kindOf(replyTo) != toTopic) {
			return
		}
		for i, s := range []string{name, value, contentType, topic, replyTo} {
			if strings.ToValidUTF8(s, "") != s || !expressible(s, v, i == 0) {
				return
			}
		}
		if _, known := sendFields[name]; known || reserved(name) {
			return
		}
		if contentType == "" {
			e.ContentType = ""
		}
		if corr != nil && len(corr) == 0 {
			e.CorrelationID = nil
		}
		message := testEncoder(t, v).append(nil, &core.Delivery{Envelope: e, Offset: 1, Attempt: 1}, core.Gap{})
		_, got := decodeMessage(t, v, message)
		if len(body) == 0 {
			e.Payload, got.Payload = nil, nil
		}
		if d := cmp.Diff(*e, got, cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "Time" || p.String() == "ID" }, cmp.Ignore())); d != "" {
			t.Errorf("(-want +got):\n%s\n%q", d, message)
		}
	})
}
