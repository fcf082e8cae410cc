package bench

import (
	"bytes"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

// decode decodes one packet with a codec that is not ours.
func decode(t *testing.T, level byte, b []byte) *packets.Packet {
	t.Helper()
	first, body, n, err := nextMQTT(b)
	if err != nil || n != len(b) {
		t.Fatalf("nextMQTT(% x) = %d, %v, want %d", b, n, err, len(b))
	}
	pk := &packets.Packet{ProtocolVersion: level}
	if err := pk.FixedHeader.Decode(first); err != nil {
		t.Fatal(err)
	}
	pk.FixedHeader.Remaining = len(body)
	decoders := map[byte]func([]byte) error{
		packets.Connect: pk.ConnectDecode, packets.Subscribe: pk.SubscribeDecode, packets.Publish: pk.PublishDecode,
		packets.Puback: pk.PubackDecode, packets.Pubrel: pk.PubrelDecode,
	}
	if err := decoders[pk.FixedHeader.Type](body); err != nil {
		t.Fatalf("% x: %v", b, err)
	}
	return pk
}

func TestConnectIsWhatOthersRead(t *testing.T) {
	for _, h := range []mqttHello{
		{level: 4, id: "a"},
		{level: 4, id: "keeps", keep: true},
		{level: 5, id: "five"},
		{level: 5, id: "five-keeps", keep: true, receive: 1024},
	} {
		pk := decode(t, h.level, h.append(nil))
		if v := pk.ConnectValidate(); v.Code != packets.CodeSuccess.Code {
			t.Errorf("%+v: not valid: %v", h, v)
		}
		if pk.Connect.ClientIdentifier != h.id || pk.ProtocolVersion != h.level || pk.Connect.Clean == h.keep {
			t.Errorf("%+v: read as %+v", h, pk.Connect)
		}
		if pk.Properties.ReceiveMaximum != h.receive || (pk.Properties.SessionExpiryInterval > 0) != (h.keep && h.level == 5) {
			t.Errorf("%+v: read with %+v", h, pk.Properties)
		}
	}
}

func TestPublishIsWhatOthersRead(t *testing.T) {
	x := noise(7)
	for _, level := range []byte{4, 5} {
		for qos := range byte(3) {
			topic := newMQTTTopic(level, qos, "bench/0/17", 333)
			b := x.appendPayload(topic.append(nil, 513), 333, 17, 99, 12345)
			pk := decode(t, level, b)
			if pk.TopicName != "bench/0/17" || pk.FixedHeader.Qos != qos || len(pk.Payload) != 333 || qos > 0 && pk.PacketID != 513 {
				t.Errorf("level %d QoS %d: read as %+v", level, qos, pk)
			}
			publisher, seq, at, ok := header(pk.Payload)
			if publisher != 17 || seq != 99 || at != 12345 || !ok {
				t.Errorf("level %d QoS %d: header %d %d %d %v", level, qos, publisher, seq, at, ok)
			}
		}
	}
}

func TestSubscribeAndAcksAreWhatOthersRead(t *testing.T) {
	for _, level := range []byte{4, 5} {
		pk := decode(t, level, appendMQTTSubscribe(nil, level, 1, "bench/0/+", 1))
		if len(pk.Filters) != 1 || pk.Filters[0].Filter != "bench/0/+" || pk.Filters[0].Qos != 1 {
			t.Errorf("level %d: read as %+v", level, pk.Filters)
		}
		for _, kind := range []byte{mqttPuback, mqttPubrel} {
			if pk := decode(t, level, appendMQTTAck(nil, kind, 777)); pk.PacketID != 777 {
				t.Errorf("level %d, type %#x: read as %+v", level, kind, pk)
			}
		}
	}
}

// What others write is read whole, however it is cut.
func TestPublishOfOthersIsRead(t *testing.T) {
	payload := noise(3).fill(200)
	for _, level := range []byte{4, 5} {
		for qos := range byte(3) {
			pk := packets.Packet{ProtocolVersion: level, TopicName: "bench/0/3", Payload: payload, PacketID: 4321,
				FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}}
			if level == 5 {
				pk.Properties.User = []packets.UserProperty{{Key: "offset", Val: "17"}, {Key: "time", Val: "2026-11-21T03:00:00Z"}}
			}
			var buf bytes.Buffer
			if err := pk.PublishEncode(&buf); err != nil {
				t.Fatal(err)
			}
			b := buf.Bytes()
			for cut := range len(b) {
				if _, _, n, err := nextMQTT(b[:cut]); n != 0 || err != nil {
					t.Fatalf("level %d QoS %d: %d of %d bytes are read as a packet of %d, %v", level, qos, cut, len(b), n, err)
				}
			}
			first, body, n, err := nextMQTT(append(b, 0xd0, 0))
			if n != len(b) || err != nil {
				t.Fatalf("level %d QoS %d: %d bytes of %d, %v", level, qos, n, len(b), err)
			}
			id, got, err := mqttPayload(level, first, body)
			if err != nil || !bytes.Equal(got, payload) || qos > 0 && id != 4321 {
				t.Errorf("level %d QoS %d: id %d, %d bytes of payload, %v", level, qos, id, len(got), err)
			}
		}
	}
}

func (x noise) fill(n int) []byte { return x.appendPayload(nil, n, 0, 0, 0) }

func TestBadPacketsAreErrors(t *testing.T) {
	if _, _, _, err := nextMQTT([]byte{0x30, 0xff, 0xff, 0xff, 0xff, 1}); err == nil {
		t.Error("a length of five bytes is taken")
	}
	for _, body := range [][]byte{{}, {0}, {0, 9, 'a'}, {0, 1, 'a', 1}, {0, 1, 'a', 0, 1, 0x80}, {0, 1, 'a', 0, 1, 4, 1}} {
		if _, _, err := mqttPayload(5, 0x32, body); err == nil {
			t.Errorf("% x is taken as a PUBLISH", body)
		}
	}
	if _, err := mqttAckID(mqttPuback, []byte{0, 1, 0x97}); err == nil {
		t.Error("a PUBACK that refuses is taken")
	}
	if id, err := mqttAckID(mqttPuback, []byte{0, 1, 0x10, 0}); id != 1 || err != nil {
		t.Errorf("a PUBACK without subscribers: %d, %v", id, err)
	}
}

func FuzzNextMQTT(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	f.Add([]byte{0x30, 3, 0, 1, 'a'})
	f.Add([]byte{0x32, 0x80, 0x80, 0x80, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		first, body, n, err := nextMQTT(b)
		if err != nil || n == 0 {
			return
		}
		if n > len(b) || len(body) >= n {
			t.Fatalf("a packet of %d, body %d, in %d bytes", n, len(body), len(b))
		}
		for _, level := range []byte{4, 5} {
			mqttPayload(level, first, body)
		}
		mqttAckID(first, body)
	})
}
