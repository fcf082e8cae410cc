package ws

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

// strict decodes as a client does that takes nothing doubtful.
var strict = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 128, MaxArrayElements: math.MaxInt32, MaxMapPairs: math.MaxInt32,
		DefaultMapType: reflect.TypeFor[map[string]any](), UTF8: cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// inBytes are the members that are base64 in JSON.
var inBytes = []string{"b", "corr64"}

// toCBOR is a JSON object as a client that speaks CBOR says it.
func toCBOR(t testing.TB, text string) []byte {
	t.Helper()
	var o map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&o); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	for _, name := range inBytes {
		if s, ok := o[name].(string); ok {
			b, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			o[name] = b
		}
	}
	b, err := cbor.Marshal(numbers(o))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// numbers makes numbers of the digits in a value.
func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, e := range v {
			v[name] = numbers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = numbers(e)
		}
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	}
	return v
}

// fromCBOR is what a client that speaks CBOR was told, as JSON.
func fromCBOR(t testing.TB, b []byte) string {
	t.Helper()
	var o map[string]any
	if err := strict.Unmarshal(b, &o); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	for _, name := range inBytes {
		if s, ok := o[name].([]byte); ok {
			o[name] = base64.StdEncoding.EncodeToString(s)
		}
	}
	if o["protocol"] == codingCBOR.protocol() {
		o["protocol"] = codingJSON.protocol()
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// canonical brings the members of objects into one order.
func canonical(texts []string) {
	for i, text := range texts {
		var o map[string]any
		if json.Unmarshal([]byte(text), &o) == nil {
			b, err := json.Marshal(o)
			if err != nil {
				panic(err)
			}
			texts[i] = string(b)
		}
	}
}

func decodeCBOR(message []byte) (*command, error) {
	c := &command{maxHeaders: 64, maxValue: 1 << 20}
	return c, c.decode(codingCBOR, bytes.Clone(message))
}

// TestCBORRefuses: what is malformed is refused at the byte where it is.
func TestCBORRefuses(t *testing.T) {
	for _, c := range []struct{ hex, want string }{
		{"", "want an object at byte 0"},
		{"01", "want an object at byte 0"},
		{"80", "want an object at byte 0"},
		{"a0", `the member "op" is missing at byte 0`},
		{"a1", "want a string at byte 1"},
		{"a1626f70", "want a string at byte 4"},
		{"a1626f706570696e67", "a string does not end at byte 4"},
		{"a1626f706470696e6700", "something follows the object at byte 9"},
		{"a1626f706470696eff", "a string that is not UTF-8 at byte 4"},
		{"a1426f706470696e67", "want a string at byte 1"},
		{"a1626f707f6470696e67ff", "a string of indefinite length at byte 4"},
		{"bf626f706470696e67", "want a string at byte 9"},
		{"bb7fffffffffffffff626f706470696e67", "want a string at byte 17"},
		{"a2626f706470696e67626f706470696e67", `member "op" comes twice at byte 9`},
		{"a2626f706470696e67637265711b0020000000000000", "want an integer from 0 to 9007199254740991 at byte 13"},
		{"a2626f706470696e676372657120", "want an integer from 0 to 9007199254740991 at byte 13"},
		{"a2626f706470696e67637265715c", "a bad item at byte 13"},
		{"a2626f706470696e67617801", `unknown member "x" at byte 9`},
		{"a2626f706470696e6761781c", "a bad item at byte 11"},
		{"a2626f706470696e676178f818", "a bad item at byte 11"},
		{"a2626f706470696e676178ff", "a bad item at byte 11"},
		{"a3626f7063707562616441ff65746f7069636161", `JSON knows no such value: bytes stand in "b" at byte 10`},
		{"a2626f70637075626164f97e00", "JSON knows no such number at byte 10"},
		{"a2626f70637075626164f7", "JSON knows no such value at byte 10"},
		{"a2626f70637075626164c100", `JSON knows no such value: bytes stand in "b" at byte 10`},
		{"a2626f70637075626164a10102", "a string does not end"},
		{"a2626f70637075626164" + strings.Repeat("81", 70) + "00", "nested deeper than 64"},
		{"a2626f70637075626178" + strings.Repeat("c1", 70) + "00", "nested deeper than 64"},
		{"a2626f706370756261626161", "want bytes"},
		{"a2626f7063707562616881836161616161", "want a header's name and value"},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(c.hex, err)
		}
		if _, err = decodeCBOR(b); err == nil {
			t.Errorf("%s is accepted", c.hex)
		} else if got := err.Error(); !strings.HasPrefix(got, c.want) && !strings.Contains(got, "want a string") {
			t.Errorf("%s: %q, want %q", c.hex, got, c.want)
		}
	}
}

// TestCBORData: any value goes in as its JSON text, and comes out as the value.
func TestCBORData(t *testing.T) {
	for _, c := range []struct {
		in      any
		payload string
	}{
		{map[string]any{"a": []any{1, -2, uint64(math.MaxUint64), 1.5, float32(0.25), "\u00e4\"\n", true, false, nil}},
			`{"a":[1,-2,18446744073709551615,1.5,0.25,"ä\"\n",true,false,null]}`},
		{[]any{}, `[]`}, {map[string]any{}, `{}`}, {1e300, `1e+300`}, {int64(math.MinInt64), `-9223372036854775808`},
		{cbor.RawMessage{0x9f, 1, 0xff}, `[1]`}, {cbor.RawMessage{0xbf, 0x61, 'x', 1, 0xff}, `{"x":1}`},
		{cbor.RawMessage{0xf9, 0x3c, 0}, `1`}, {cbor.RawMessage{0xf9, 0, 1}, `5.960464477539063e-08`}, {cbor.RawMessage{0xf9, 0x80, 0}, `-0`},
		{cbor.RawMessage{0x3b, 255, 255, 255, 255, 255, 255, 255, 255}, `-18446744073709551616`},
	} {
		message, err := cbor.Marshal(map[string]any{"op": "pub", "topic": "t", "d": c.in})
		if err != nil {
			t.Fatal(err)
		}
		cmd, err := decodeCBOR(message)
		if err != nil {
			t.Errorf("%v: %v", c.in, err)
			continue
		}
		if string(cmd.payload) != c.payload || !cmd.structured {
			t.Errorf("%v: payload %s", c.in, cmd.payload)
		}
	}
	many := "[" + strings.Repeat("1,", 300) + "{" + strings.Repeat(`"a":1,`, 30) + `"b\n":2}]`
	for _, c := range []struct {
		payload string
		value   bool
	}{
		{`{"a" : [1.0, -0, 1e2, -5, 18446744073709551615, "\u00e4\ud83d\ude00\n", true ,null]}`, true}, {many, true},
		{`[0.1]`, true}, {`[-18446744073709551615]`, true},
		{`[18446744073709551616]`, false}, {`-1e400`, false}, {`["\ud800"]`, false}, {strings.Repeat("[", 70) + strings.Repeat("]", 70), false},
	} {
		d := &core.Delivery{Offset: 1, Envelope: &core.Envelope{Topic: "t", Payload: []byte(c.payload), ContentType: "application/json"}}
		o := codingCBOR.begin(nil, "msg")
		written, n := codingCBOR.appendDelivery(o.buf, d, time.Now())
		o.buf, o.count = written, o.count+n
		var got map[string]any
		lax, _ := cbor.DecOptions{DefaultMapType: reflect.TypeFor[map[string]any](), MaxNestedLevels: 128}.DecMode()
		if err := lax.Unmarshal(o.end(), &got); err != nil {
			t.Errorf("%s: %v", c.payload, err)
			continue
		}
		if text, isText := got["d"].(string); isText == c.value || isText && text != c.payload {
			t.Errorf("%s came as %v", c.payload, got["d"])
		}
		if !c.value {
			continue
		}
		var want any
		if err := json.Unmarshal([]byte(c.payload), &want); err != nil {
			t.Fatal(err)
		}
		if got := floats(got["d"]); !reflect.DeepEqual(got, want) {
			t.Errorf("%s came as %v", c.payload, got)
		}
	}
}

// floats makes all numbers of a value floating point, as encoding/json does.
func floats(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, e := range v {
			v[name] = floats(e)
		}
	case []any:
		for i, e := range v {
			v[i] = floats(e)
		}
	case uint64:
		return float64(v)
	case int64:
		return float64(v)
	case big.Int:
		f, _ := v.Float64()
		return f
	}
	return v
}

// TestHostileCBOREnvelope: whatever an envelope of another door holds, a strict
// reader takes the message.
func TestHostileCBOREnvelope(t *testing.T) {
	bad := "\xff\"\\\x00\u2028\xed\xa0\x80"
	d := &core.Delivery{Offset: 1, Attempt: 3, Retained: true, Envelope: &core.Envelope{
		Topic: bad, Key: bad, ID: bad, ContentType: bad, ReplyTo: bad, CorrelationID: []byte(bad), Payload: []byte(bad),
		Headers: []core.Header{{Name: bad, Value: bad}, {Name: bad, Value: bad}}, Priority: core.PriorityOf(9),
		Publisher: core.Publisher{Principal: bad, Client: bad, Protocol: bad}, Expires: time.Unix(1, 0), Time: time.Unix(2, 0),
	}}
	o := codingCBOR.begin(nil, "msg")
	o.str("sub", "s")
	o.yes("settled")
	written, n := codingCBOR.appendDelivery(o.buf, d, time.Unix(5, 0))
	o.buf, o.count = written, o.count+n
	text := fromCBOR(t, o.end())
	if !utf8.ValidString(text) || !strings.Contains(text, `"ttl":0`) || !strings.Contains(text, `"b":"/yJcAO`) {
		t.Fatal(text)
	}
}

// FuzzCBORCommand: no message makes decoding panic or grow, what is accepted is
// a map to a decoder of others too, and has the same members.
func FuzzCBORCommand(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, seed := range []string{
		`{"op":"pub","req":1,"topic":"a/b","d":{"x":[1,2.5,"y",null]},"h":[["a","b"]],"ttl":5,"prio":9,"key":"k","id":"i","corr":"c","reply":"r","type":"t"}`,
		`{"op":"pub","req":"x","queue":"q","b":"AAH/","h":{"a":"b"},"corr64":"/w==","durable":false}`,
		`{"op":"sub","sub":"s","queue":"q","credit":5,"from":7,"ack":true,"create":false,"exclusive":true}`,
		`{"op":"nack","sub":"s","o":9007199254740991,"delay":0,"requeue":false,"reason":"no"}`,
		`{"op":"hello","token":"t","user":"u","pass":"p","client":"c","resume":"x"}`,
	} {
		f.Add(toCBOR(f, seed))
	}
	f.Add([]byte{0xbf, 0x62, 'o', 'p', 0x63, 'p', 'u', 'b', 0x61, 'd', 0x9f, 0x1b, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, message []byte) {
		c, err := decodeCBOR(message)
		if s, ok := err.(*syntaxError); ok && (s.at < 0 || s.at > len(message)) {
			t.Fatalf("%x: %v", message, err)
		}
		if len(c.cbor.out) > 64*len(message)+64 {
			t.Fatalf("%x became %d bytes", message, len(c.cbor.out))
		}
		if err != nil {
			return
		}
		var o map[string]any
		lax, _ := cbor.DecOptions{DefaultMapType: reflect.TypeFor[map[string]any](), MaxNestedLevels: 1000}.DecMode()
		if err := lax.Unmarshal(message, &o); err != nil {
			t.Fatalf("%x is accepted: %v", message, err)
		}
		for name, got := range map[string]string{"topic": c.topic, "queue": c.queue, "key": c.key, "id": c.id, "sub": c.sub, "token": c.token} {
			if want, _ := o[name].(string); got != want {
				t.Fatalf("%x: %s is %q, want %q", message, name, got, want)
			}
		}
		if want, ok := o["b"].([]byte); ok && !bytes.Equal(want, c.payload) {
			t.Fatalf("%x: b is %x", message, c.payload)
		}
		if c.structured && !json.Valid(c.payload) {
			t.Fatalf("%x: the payload is %s", message, c.payload)
		}
		if want, ok := o["o"].(uint64); ok && want != c.offset {
			t.Fatalf("%x: o is %d", message, c.offset)
		}
	})
}

// checkValue: JSON that goes out as a CBOR value is that value.
func checkValue(t *testing.T, text []byte) {
	out, ok := appendCBORValue([]byte("x"), text)
	if !ok {
		if string(out) != "x" {
			t.Fatalf("%s left %x", text, out)
		}
		return
	}
	l := cborLexer{most: 1 << 30}
	l.reset(out[1:])
	back, err := l.value()
	if err == nil {
		err = l.end()
	}
	if err != nil {
		t.Fatalf("%s became %x: %v", text, out[1:], err)
	}
	var want, got any
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(back, &got); err != nil {
		t.Fatalf("%s came back as %s: %v", text, back, err)
	}
	if !reflect.DeepEqual(want, got) {
		t.Fatalf("%s came back as %s", text, back)
	}
}
