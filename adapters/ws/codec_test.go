package ws

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

// decodeNew decodes a copy of a text.
func decodeNew(text string) (*command, error) {
	c := &command{maxHeaders: 64}
	return c, c.decode(codingJSON, []byte(text))
}

func TestDataForms(t *testing.T) {
	for _, f := range []struct{ member, payload, contentType string }{
		{`"d":"text"`, "text", ""},
		{`"d":""`, "", ""},
		{`"d":"\"quoted\""`, `"quoted"`, ""},
		{`"d":{"a" : 1.0 }`, `{"a" : 1.0 }`, "application/json"},
		{`"d":[1, 2]`, `[1, 2]`, "application/json"},
		{`"d":null`, "null", "application/json"},
		{`"d":-1e400`, "-1e400", "application/json"},
		{`"d":true,"type":"application/x+json"`, "true", "application/x+json"},
		{`"d":"[1]","type":"application/json"`, "[1]", "application/json"},
		{`"b":"AP8="`, "\x00\xff", ""},
		{`"b":""`, "", ""},
	} {
		c, err := decodeNew(`{"op":"pub","topic":"t",` + f.member + `}`)
		if err != nil {
			t.Errorf("%s: %v", f.member, err)
			continue
		}
		var e core.Envelope
		if err := newConn(&Server{}).fillForTest(&e, c); err != nil {
			t.Fatal(err)
		}
		if string(e.Payload) != f.payload || e.ContentType != f.contentType {
			t.Errorf("%s: payload %q of type %q", f.member, e.Payload, e.ContentType)
		}
	}
}

func (c *conn) fillForTest(e *core.Envelope, cmd *command) error {
	c.srv.Limits.HeaderBytes = 1 << 16
	return c.fill(e, cmd, cmd.topic)
}

// encoded is a delivery as an object.
func encoded(d *core.Delivery, now time.Time) []byte {
	return append(adapters.AppendJSONDelivery([]byte(`{"op":"msg"`), d, now), '}')
}

// TestHostileEnvelope: whatever an envelope of another door holds, the message
// is valid JSON in UTF-8.
func TestHostileEnvelope(t *testing.T) {
	bad := "\xff\"\\\x00\u2028</script>\xed\xa0\x80"
	d := &core.Delivery{Offset: 1, Attempt: 3, Retained: true, Envelope: &core.Envelope{
		Topic: bad, Key: bad, ID: bad, ContentType: bad, ReplyTo: bad, CorrelationID: []byte(bad), Payload: []byte(bad),
		Headers: []core.Header{{Name: bad, Value: bad}, {Name: bad, Value: bad}}, Priority: core.PriorityOf(9),
		Publisher: core.Publisher{Principal: bad, Client: bad, Protocol: bad}, Expires: time.Unix(1, 0), Time: time.Unix(2, 0),
	}}
	out := encoded(d, time.Unix(5, 0))
	if !json.Valid(out) || !utf8.Valid(out) {
		t.Fatalf("%s", out)
	}
	if !bytes.Contains(out, []byte(`"ttl":0`)) {
		t.Fatalf("an expiry that has passed: %s", out)
	}
}

// FuzzCommand: no text makes decoding panic, what is accepted is valid JSON to
// encoding/json too, and a message that is published comes out as it went in.
func FuzzCommand(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, seed := range []string{
		`{"op":"pub","req":1,"topic":"a/b","d":{"x":[1,"\u00e4"]},"h":[["a","b"]],"ttl":5,"prio":9,"key":"k","id":"i","corr":"c","reply":"r","type":"t"}`,
		`{"op":"sub","sub":"s","queue":"q","credit":5,"from":"-10","ack":true,"create":false,"exclusive":true}`,
		`{"op":"nack","sub":"s","o":9007199254740991,"delay":0,"requeue":false,"reason":"no"}`,
		`{"op":"hello","token":"t","user":"u","pass":"p","client":"c"}`,
		`{"op":"request","req":"x","exchange":"e","key":"k","b":"AAEC","timeout":1,"corr64":"/w=="}`,
		`{"op":"extend","sub":"s","o":1,"by":1}`, `{"op":"credit","sub":"s","n":1}`, `{"op":"bye"}`, `{}`, `[]`, `{"op":"pub","d":"\ud83d\ude00\n"}`,
		`{"op":"pub","topic":"a","d":{"a":[1,-2.5e+3,null,true,{"b":"\u0000\ud83d\ude00"}, 0.1, -0, 1e9]}}`,
		`{"op":"pub","topic":"a","d":[18446744073709551616,"\ud800"]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) {
			return
		}
		original := string(text)
		c := &command{maxHeaders: 64}
		if err := c.decode(codingJSON, text); err != nil {
			if s, ok := err.(*syntaxError); !ok || s.at < 0 || s.at > len(text) {
				t.Fatalf("%q: %v", original, err)
			}
			return
		}
		if !json.Valid([]byte(original)) {
			t.Fatalf("%q accepted", original)
		}
		if c.structured {
			checkValue(t, c.payload)
		}
		if c.op != opPub {
			return
		}
		var e core.Envelope
		if (&conn{srv: &Server{}}).fillForTest(&e, c) != nil {
			return
		}
		out := encoded(&core.Delivery{Envelope: &e, Offset: 1, Attempt: 1}, time.Now())
		again := &command{maxHeaders: 64}
		text2 := `{"op":"pub"` + strings.TrimPrefix(string(out), `{"op":"msg"`)
		text2 = strings.Replace(text2, `"o":1,`, "", 1)
		text2 = text2[:11] + `,"topic"` + text2[strings.Index(text2, `"t":`)+3:]
		if err := again.decode(codingJSON, []byte(text2)); err != nil {
			t.Fatalf("%q came out as %s: %v", original, out, err)
		}
		var e2 core.Envelope
		if err := (&conn{srv: &Server{}}).fillForTest(&e2, again); err != nil {
			t.Fatal(err)
		}
		if string(e2.Payload) != string(e.Payload) || e2.ContentType != e.ContentType || e2.Key != e.Key || e2.ID != e.ID ||
			string(e2.CorrelationID) != string(e.CorrelationID) || len(e2.Headers) != len(e.Headers) || e2.Priority != e.Priority {
			t.Fatalf("%q came out as %s", original, out)
		}
		for i := range e.Headers {
			if e.Headers[i] != e2.Headers[i] {
				t.Fatalf("%q came out as %s", original, out)
			}
		}
	})
}

// TestAllocations pins the hot paths: a message in, a message out.
func TestAllocations(t *testing.T) {
	text := []byte(`{"op":"pub","req":17,"topic":"plant/3/temp","d":"{\"celsius\":21.5}","type":"application/json","h":{"unit":"c"}}`)
	buf := make([]byte, len(text))
	c := &command{maxHeaders: 64, maxValue: 1000}
	if n := testing.AllocsPerRun(100, func() {
		copy(buf, text)
		if err := c.decode(codingJSON, buf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("decoding allocates %v times", n)
	}
	d := &core.Delivery{Offset: 9, Attempt: 2, Envelope: &core.Envelope{
		Topic: "plant/3/temp", Payload: []byte(`{"celsius":21.5}`), ContentType: "application/json", CorrelationID: []byte("c"),
		Headers: []core.Header{{Name: "unit", Value: "c"}}, Publisher: core.Publisher{Client: "a", Protocol: "mqtt"}, Time: time.Now(),
	}}
	out, now := make([]byte, 0, 1024), time.Now()
	if n := testing.AllocsPerRun(100, func() {
		out = closeFrame(append(adapters.AppendJSONDelivery(append(openFrame(out[:0]), `{"op":"msg","sub":"1"`...), d, now), '}'), 0, frameText)
	}); n != 0 {
		t.Errorf("encoding allocates %v times", n)
	}
	message := toCBOR(t, strings.Replace(string(text), `"{\"celsius\":21.5}"`, `{"celsius":21.5}`, 1))
	buf = make([]byte, len(message))
	if n := testing.AllocsPerRun(100, func() {
		copy(buf, message)
		if err := c.decode(codingCBOR, buf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("decoding CBOR allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { out, _ = appendCBORDelivery(out[:0], d, now) }); n != 0 {
		t.Errorf("encoding CBOR allocates %v times", n)
	}
}

func TestFrames(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 100_000} {
		payload := strings.Repeat("x", n)
		buf := append(openFrame([]byte("before")), payload...)
		buf = closeFrame(buf, len("before"), frameText)
		want := "before" + string(appendHeader(nil, frameText, n)) + payload
		if string(buf) != want {
			t.Errorf("%d bytes: %.20q...", n, buf)
		}
	}
	if got := appendClose(nil, 1002, strings.Repeat("\u20ac", 100)); len(got) != 2+maxControl || !utf8.Valid(got[4:]) {
		t.Errorf("a long reason is cut to %d bytes, %q", len(got), got)
	}
}

func BenchmarkDecode(b *testing.B) {
	text := []byte(`{"op":"pub","req":17,"topic":"plant/3/temp","d":"` + strings.Repeat("x", 100) + `"}`)
	buf := make([]byte, len(text))
	c := &command{maxHeaders: 64}
	for b.Loop() {
		copy(buf, text)
		if err := c.decode(codingJSON, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	d := &core.Delivery{Offset: 9, Attempt: 1, Envelope: &core.Envelope{
		Topic: "plant/3/temp", Payload: bytes.Repeat([]byte("x"), 100), Publisher: core.Publisher{Client: "a", Protocol: "mqtt"}, Time: time.Now(),
	}}
	out, now := make([]byte, 0, 1024), time.Now()
	for b.Loop() {
		out = closeFrame(append(adapters.AppendJSONDelivery(append(openFrame(out[:0]), `{"op":"msg","sub":"1"`...), d, now), '}'), 0, frameText)
	}
}
