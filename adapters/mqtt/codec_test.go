package mqtt

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"pgregory.net/rapid"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
	_ "github.com/sluicemq/sluice/core/coretest/sameseed" // this package's property tests
)

func TestVarint(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 16383, 16384, 2097151, 2097152, 268435455} {
		b := appendVarint(nil, n)
		if got, size, err := varint(b); got != n || size != len(b) || err != nil || size != varintSize(n) {
			t.Errorf("%d: got %d, %d bytes of %d, %v", n, got, size, len(b), err)
		}
		for i := range b {
			if _, size, err := varint(b[:i]); size != 0 || err != nil {
				t.Errorf("%d cut at %d: %d bytes, %v", n, i, size, err)
			}
		}
	}
	if _, _, err := varint([]byte{0x80, 0x80, 0x80, 0x80, 1}); err == nil {
		t.Error("five bytes are taken")
	}
}

func TestParseHeader(t *testing.T) {
	for _, c := range []struct {
		in   []byte
		want header
		ok   bool
	}{
		{[]byte{0x30}, header{}, false},
		{[]byte{0x30, 5}, header{0x30, 2, 5}, true},
		{[]byte{0x30, 0x80}, header{}, false},
		{[]byte{0x30, 0x80, 1}, header{0x30, 3, 128}, true},
		{[]byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F}, header{0x30, 5, 268435455}, true},
	} {
		got, ok, err := parseHeader(c.in)
		if ok != c.ok || err != nil || ok && got != c.want {
			t.Errorf("% X: got %+v, %v, %v", c.in, got, ok, err)
		}
	}
	if _, _, err := parseHeader([]byte{0x30, 0xFF, 0xFF, 0xFF, 0xFF}); err == nil {
		t.Error("a length of five bytes is taken")
	}
}

// drawEnvelope draws an envelope that MQTT 5 can carry in full.
func drawEnvelope(t *rapid.T) *core.Envelope {
	text := rapid.StringOfN(rapid.RuneFrom([]rune("ab/é€𝄞 \n")), 0, 20, -1)
	bytesOf := rapid.SliceOfN(rapid.Byte(), 0, 300)
	e := &core.Envelope{
		Topic:         rapid.StringMatching(`[a-z/é]{1,200}`).Draw(t, "topic"),
		Payload:       bytesOf.Draw(t, "payload"),
		Key:           text.Draw(t, "key"),
		ID:            text.Draw(t, "id"),
		ContentType:   text.Draw(t, "type"),
		ReplyTo:       text.Draw(t, "reply"),
		Text:          rapid.Bool().Draw(t, "text"),
		Retain:        rapid.Bool().Draw(t, "retain"),
		Guarantee:     core.Guarantee(rapid.IntRange(0, 2).Draw(t, "guarantee")),
		CorrelationID: []byte(nil),
	}
	e.EmptyType = e.ContentType == "" && rapid.Bool().Draw(t, "empty type")
	e.EmptyReplyTo = e.ReplyTo == "" && rapid.Bool().Draw(t, "empty reply")
	e.Bytes = !e.Text && rapid.Bool().Draw(t, "bytes")
	if rapid.Bool().Draw(t, "has correlation") {
		e.CorrelationID = append([]byte{}, bytesOf.Draw(t, "correlation")...)
	}
	if rapid.Bool().Draw(t, "has priority") {
		e.Priority = core.PriorityOf(rapid.IntRange(0, 9).Draw(t, "priority"))
	}
	for range rapid.IntRange(0, 4).Draw(t, "headers") {
		name := text.Draw(t, "name")
		if name != "" {
			e.Headers = append(e.Headers, core.Header{Name: "h" + name, Value: text.Draw(t, "value")})
		}
	}
	return e
}

// What is encoded for a client is decoded as it was, by mochi's decoder and by
// ours.
func TestPublishRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEnvelope(t)
		now := time.UnixMilli(1_700_000_000_000)
		e.Time = now
		if rapid.Bool().Draw(t, "expires") {
			e.Expires = now.Add(time.Duration(rapid.IntRange(1, 100_000).Draw(t, "ms")) * time.Millisecond)
		}
		d := &core.Delivery{Envelope: e, Offset: core.Offset(rapid.Uint64().Draw(t, "offset")), Attempt: uint16(rapid.IntRange(1, 65535).Draw(t, "attempt"))}
		p := outPublish{first: 0x30 | byte(e.Guarantee)<<1, plain: isPlain(e), meta: rapid.Bool().Draw(t, "meta")}
		if e.Retain {
			p.first |= 1
		}
		if e.Guarantee > 0 {
			p.id = uint16(rapid.IntRange(1, 65535).Draw(t, "id"))
		}
		p.ids = rapid.SliceOfN(rapid.Uint32Range(1, 268435455), 0, 3).Draw(t, "subscription ids")
		packet := appendPublish5([]byte("before"), &p, d, now)[len("before"):]
		h, ok, err := parseHeader(packet)
		if !ok || err != nil || h.size+h.length != len(packet) {
			t.Fatalf("header %+v, %v, %v of %d bytes", h, ok, err, len(packet))
		}

		theirs := packets.Packet{ProtocolVersion: 5}
		if err := theirs.FixedHeader.Decode(packet[0]); err != nil {
			t.Fatal(err)
		}
		if err := theirs.PublishDecode(packet[h.size:]); err != nil {
			t.Fatal(err)
		}
		var ids []uint32
		for _, id := range theirs.Properties.SubscriptionIdentifier {
			ids = append(ids, uint32(id))
		}
		if theirs.TopicName != e.Topic || !bytes.Equal(theirs.Payload, e.Payload) || theirs.PacketID != p.id ||
			len(ids) != len(p.ids) || len(ids) > 0 && !reflect.DeepEqual(ids, p.ids) {
			t.Fatalf("mochi reads %+v", theirs)
		}
		if want := uint32((e.Expires.Sub(now) + time.Second - 1) / time.Second); !e.Expires.IsZero() && theirs.Properties.MessageExpiryInterval != want {
			t.Fatalf("expiry %d, want %d", theirs.Properties.MessageExpiryInterval, want)
		}

		if want := countUsers(e) + map[bool]int{true: 3}[p.meta]; len(theirs.Properties.User) != want {
			t.Fatalf("%d user properties, want %d", len(theirs.Properties.User), want)
		}

		p.ids, p.meta = nil, false // a server takes none
		packet = appendPublish5(nil, &p, d, now)
		h, _, _ = parseHeader(packet)
		var got core.Envelope
		var in publishPacket
		if f := in.decode(packet[0]&0x0F, packet[h.size:], v5, &got); f != nil {
			t.Fatal(f)
		}
		want := *e
		want.Time, want.Expires = time.Time{}, time.Time{}
		for _, x := range []*core.Envelope{&got, &want} {
			if len(x.Payload) == 0 {
				x.Payload = nil
			}
			if len(x.Headers) == 0 {
				x.Headers = nil
			}
			if x.CorrelationID != nil {
				x.CorrelationID = append([]byte{}, x.CorrelationID...)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
		if in.id != p.id || in.users != countUsers(&want) {
			t.Fatalf("got %+v", in)
		}
	})
}

func countUsers(e *core.Envelope) int {
	n := len(e.Headers)
	if e.Key != "" {
		n++
	}
	if e.ID != "" {
		n++
	}
	if e.Priority != 0 {
		n++
	}
	return n
}

func TestPublish3RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEnvelope(t)
		p := outPublish{first: 0x30 | byte(e.Guarantee)<<1}
		if e.Guarantee > 0 {
			p.id = uint16(rapid.IntRange(1, 65535).Draw(t, "id"))
		}
		packet := appendPublish3(nil, &p, e)
		h, ok, _ := parseHeader(packet)
		if !ok || h.size+h.length != len(packet) {
			t.Fatalf("header %+v of %d bytes", h, len(packet))
		}
		theirs := packets.Packet{ProtocolVersion: 4, FixedHeader: packets.FixedHeader{Qos: byte(e.Guarantee)}}
		if err := theirs.PublishDecode(packet[h.size:]); err != nil {
			t.Fatal(err)
		}
		if theirs.TopicName != e.Topic || !bytes.Equal(theirs.Payload, e.Payload) || theirs.PacketID != p.id {
			t.Fatalf("mochi reads %+v", theirs)
		}
	})
}

// What MQTT cannot carry is left out, and the packet stays whole.
func TestPublishLeavesOutWhatDoesNotFit(t *testing.T) {
	long := strings.Repeat("x", maxString+1)
	e := &core.Envelope{
		Topic: "t", Payload: []byte("p"), Key: long, ID: "i\x00d", ContentType: long, ReplyTo: "a/+", CorrelationID: []byte(long),
		Headers: []core.Header{{Name: long, Value: "1"}, {Name: "kept", Value: "1"}, {Name: "a", Value: "\x00"}, {Name: "offset", Value: "7"}},
		Time:    time.UnixMilli(5),
	}
	packet := appendPublish5(nil, &outPublish{first: 0x30, meta: true}, &core.Delivery{Envelope: e, Offset: 9, Attempt: 1}, time.Time{})
	h, _, _ := parseHeader(packet)
	if h.size+h.length != len(packet) {
		t.Fatalf("header %+v of %d bytes", h, len(packet))
	}
	theirs := packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: typePublish}}
	if err := theirs.PublishDecode(packet[h.size:]); err != nil {
		t.Fatal(err)
	}
	want := []packets.UserProperty{{Key: "kept", Val: "1"}, {Key: "offset", Val: "9"}, {Key: "time", Val: "5"}, {Key: "attempt", Val: "1"}}
	if !reflect.DeepEqual(theirs.Properties.User, want) || theirs.Properties.ContentType != "" || theirs.Properties.ResponseTopic != "" {
		t.Errorf("got %+v", theirs.Properties)
	}
}

func TestAckRoundTrip(t *testing.T) {
	limits := adapters.DefaultLimits()
	for _, kind := range []byte{typePuback, typePubrec, typePubrel, typePubcomp} {
		for _, code := range []byte{0, codeIDNotFound, codeQuota} {
			for _, v := range []version{v311, v5} {
				packet := appendAck(nil, kind, 0x1234, v, code)
				h, _, _ := parseHeader(packet)
				var a ackPacket
				f := a.decode(kind, packet[h.size:], v, &limits)
				if !validAck(kind, code) && v == v5 {
					if f == nil {
						t.Errorf("packet type %d takes the reason code %#x", kind, code)
					}
					continue
				}
				want := ackPacket{id: 0x1234, code: code}
				if v != v5 {
					want.code = 0
				}
				if f != nil || a != want {
					t.Errorf("% X: got %+v, %v", packet, a, f)
				}
			}
		}
	}
}

// A reason string is kept, or left out where the packet would be too large.
func TestAckReason(t *testing.T) {
	whole := appendAckReason(nil, typePuback, 7, codeQuota, "because", 0)
	theirs := packets.Packet{ProtocolVersion: 5, FixedHeader: packets.FixedHeader{Type: typePuback, Remaining: len(whole) - 2}}
	if err := theirs.PubackDecode(whole[2:]); err != nil || theirs.ReasonCode != codeQuota || theirs.Properties.ReasonString != "because" {
		t.Errorf("mochi reads %+v, %v", theirs, err)
	}
	if got := appendAckReason(nil, typePuback, 7, codeQuota, "because", len(whole)); !bytes.Equal(got, whole) {
		t.Errorf("at its own size: % X", got)
	}
	if got := appendAckReason(nil, typePuback, 7, codeQuota, "because", len(whole)-1); !bytes.Equal(got, []byte{0x40, 3, 0, 7, codeQuota}) {
		t.Errorf("one byte less: % X", got)
	}
}

// Every error of the core's has a reason code that the packet may carry.
func TestReasonCodes(t *testing.T) {
	allowed := map[byte][]byte{
		typePuback:     {0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
		typePubrec:     {0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
		typeSuback:     {0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
		typeUnsuback:   {0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
		typeDisconnect: {0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99},
		typeConnack:    {0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9F},
	}
	for _, err := range []error{
		core.ErrInvalidTopic, core.ErrInvalidFrom, core.ErrInvalid, core.ErrTooLarge, core.ErrNotAuthorized,
		core.ErrNotFound, core.ErrNoResponders, core.ErrConflict, core.ErrInUse, core.ErrQueueFull, core.ErrLimit, core.ErrStorage, core.ErrStorageFull,
		core.ErrClosed, &core.OffsetRemovedError{}, errors.New("any other"),
	} {
		for kind, codes := range allowed {
			if kind == typeUnsuback && (errors.Is(err, core.ErrQueueFull) || errors.Is(err, core.ErrLimit) || errors.Is(err, core.ErrTooLarge) || errors.Is(err, core.ErrStorageFull)) {
				continue // an UNSUBSCRIBE cannot meet them
			}
			if code, reason := reasonOf(err, kind); !bytes.Contains(codes, []byte{code}) || reason == "" {
				t.Errorf("%v in packet type %d: reason code %#x, word %q", err, kind, code, reason)
			}
		}
	}
	// What may end a connection that has no CONNACK yet.
	for _, f := range []*fault{
		errMalformed, errSecondConnect, errAuthFirst, errAuthMethod, errLoginRate, errTooLarge, errHandshake, errTakenOver, errForeign,
		errExpired, errDisconnected, errShed, errShutdown, errRevoked, errDeleted, errFailed, errPanic,
	} {
		if code := connackV5(f.code); !bytes.Contains(allowed[typeConnack], []byte{code}) {
			t.Errorf("%v in CONNACK: reason code %#x", f, code)
		}
	}
	if code, _ := reasonOf(core.ErrUnauthenticated, typeConnack); code != codeLogin {
		t.Errorf("a wrong password: %#x", code)
	}
}

func TestParseDelay(t *testing.T) {
	for s, want := range map[string]time.Duration{"0": 0, "90": 90 * time.Second, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond} {
		if got, ok := parseDelay(s); !ok || got != want {
			t.Errorf("%q: %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "-1", "-5s", "x", "1e9", "99999999999", "9000h"} {
		if got, ok := parseDelay(s); ok {
			t.Errorf("%q is taken as %v", s, got)
		}
	}
}

func TestTagHoldsOptions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plain, meta := subscriptionOptions(rapid.Uint32().Draw(t, "plain")), subscriptionOptions(rapid.Uint32().Draw(t, "meta"))
		if p, m := optionsOf(tagOf(plain, meta)); p != plain || m != meta {
			t.Fatalf("got %x, %x", p, m)
		}
	})
	o := subscriptionOptions(2) | optionNoLocal | optionRAP | 268435455<<optionID
	if o.qos() != 2 || !o.noLocal() || o.id() != 268435455 || !o.exists() || optionNone.exists() {
		t.Errorf("%x", o)
	}
}
