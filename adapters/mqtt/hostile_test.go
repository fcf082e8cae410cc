package mqtt

import (
	"fmt"
	"io"
	"maps"
	"net"
	"testing"
)

// hostile are packets that no client may send, with the reason code that MQTT 5
// has for them (sections 2.2, 3 and 4.13). What stands under connect is sent
// instead of a CONNECT, all else behind one.
var hostile = map[string][]struct {
	code   byte
	packet string
}{
	"fixed header": {
		{codeMalformed, `00 00`}, {codeMalformed, `0F 00`}, // no such type
		{codeMalformed, `41 02 0001`}, {codeMalformed, `52 02 0001`}, {codeMalformed, `60 02 0001`}, {codeMalformed, `63 02 0001`}, {codeMalformed, `78 02 0001`},
		{codeMalformed, `80 L(0001 00 s"t" 00)`}, {codeMalformed, `8A L(0001 00 s"t" 00)`}, {codeMalformed, `A0 L(0001 00 s"t")`}, {codeMalformed, `A3 L(0001 00 s"t")`},
		{codeMalformed, `C1 00`}, {codeMalformed, `E2 00`}, {codeMalformed, `F4 00`},
		{codeMalformed, `C0 80 00`}, {codeMalformed, `30 84 80 80 00 s"t" 00 "x"`}, {codeMalformed, `30 FF FF FF FF`}, {codeMalformed, `30 80 80 80 80 01`},
		{codeTooLarge, `30 FF FF FF 7F`}, {codeTooLarge, `40 FF FF FF 7F`}, {codeTooLarge, `82 81 80 C4 00`},
		{codeMalformed, `C0 01 00`},
		{codeProtocol, `20 02 00 00`}, {codeProtocol, `90 L(0001 00 00)`}, {codeProtocol, `B0 L(0001 00 00)`}, {codeProtocol, `D0 00`}, // a server's
		{codeProtocol, `10 L(s"MQTT" 05 02 003C 00 s"x")`}, {codeProtocol, `10 00`},
	},
	"PUBLISH": {
		{codeMalformed, `36 L(s"t" 0001 00 "x")`}, {codeMalformed, `38 L(s"t" 00 "x")`},
		{codeProtocol, `32 L(s"t" 0000 00 "x")`}, {codeProtocol, `34 L(s"t" 0000 00 "x")`},
		{codeMalformed, `30 00`}, {codeMalformed, `30 01 00`}, {codeMalformed, `30 L(0005 "t" 00)`}, {codeMalformed, `32 L(s"t" 00)`}, {codeMalformed, `30 L(s"t")`},
		{codeMalformed, `30 L(s"t" 05 01)`}, {codeMalformed, `30 L(s"t" 80 00 "x")`}, {codeMalformed, `30 L(s"t" FF FF FF FF 01 "x")`}, {codeMalformed, `30 L(s"t" 80)`},
		{codeMalformed, `30 L(s"t" L(7F 00))`}, {codeMalformed, `30 L(s"t" L(00 00))`}, {codeMalformed, `30 L(s"t" L(81 00 01))`},
		{codeMalformed, `30 L(s"t" L(11 00000001))`}, {codeMalformed, `30 L(s"t" L(18 00000001))`}, {codeMalformed, `30 L(s"t" L(1F s"x"))`}, {codeMalformed, `30 L(s"t" L(12 s"x"))`},
		{codeMalformed, `30 L(s"t" L(01))`}, {codeMalformed, `30 L(s"t" L(02 0000))`}, {codeMalformed, `30 L(s"t" L(03 0005 "x"))`}, {codeMalformed, `30 L(s"t" L(26 s"k"))`}, {codeMalformed, `30 L(s"t" L(23 00))`},
		{codeProtocol, `30 L(s"t" L(01 00 01 00))`}, {codeProtocol, `30 L(s"t" L(02 00000001 02 00000001))`}, {codeProtocol, `30 L(s"t" L(03 s"a" 03 s"a"))`},
		{codeProtocol, `30 L(s"t" L(08 s"a" 08 s"a"))`}, {codeProtocol, `30 L(s"t" L(09 s"a" 09 s"a"))`}, {codeProtocol, `30 L(s"t" L(23 0001 23 0001))`},
		{codeProtocol, `30 L(s"t" L(01 02))`}, {codeProtocol, `30 L(s"t" L(0B 01))`}, {codeProtocol, `30 L(s"t" L(0B 00))`},
		{codeTopicAlias, `30 L(s"t" L(23 0000) "x")`}, {codeTopicAlias, `30 L(s"t" L(23 0041) "x")`}, {codeTopicAlias, `30 L(s"" L(23 FFFF) "x")`},
		{codeProtocol, `30 L(s"" 00 "x")`}, {codeProtocol, `30 L(s"" L(08 s"r/+") "x")`}, {codeProtocol, `30 L(s"t" L(08 s"r/#") "x")`},
		{codeTopic, `30 L(s"+" 00 "x")`}, {codeTopic, `30 L(s"a#" 00 "x")`}, {codeTopic, `30 L(s"é/#" 00 "x")`},
		{codeMalformed, `30 L(0003 ED A0 80 00 "x")`}, {codeMalformed, `30 L(0002 C0 80 00 "x")`}, {codeMalformed, `30 L(0003 "a" 00 "b" 00 "x")`}, {codeMalformed, `30 L(0001 FF 00 "x")`},
		{codeMalformed, `30 L(s"t" L(03 0003 ED BF BF))`}, {codeMalformed, `30 L(s"t" L(03 0001 00))`}, {codeMalformed, `30 L(s"t" L(08 0001 FF))`},
		{codeMalformed, `30 L(s"t" L(26 0003 ED A0 80 s"v"))`}, {codeMalformed, `30 L(s"t" L(26 s"k" 0001 00))`}, {codeMalformed, `30 L(s"t" L(26 s"k" 0004 F4 90 80 80))`},
	},
	"PUBACK to PUBCOMP": {
		{codeProtocol, `40 02 0000`}, {codeProtocol, `50 02 0000`}, {codeProtocol, `62 02 0000`}, {codeProtocol, `70 02 0000`},
		{codeMalformed, `40 00`}, {codeMalformed, `50 01 00`}, {codeMalformed, `62 01 00`}, {codeMalformed, `70 00`},
		{codeMalformed, `40 03 0001 01`}, {codeMalformed, `50 03 0001 92`}, {codeMalformed, `62 03 0001 80`}, {codeMalformed, `70 03 0001 10`},
		{codeMalformed, `40 L(0001 00 05)`}, {codeMalformed, `40 L(0001 00 00 00)`}, {codeMalformed, `40 L(0001 00 80 00)`}, {codeMalformed, `50 L(0001 00 L(02 00000001))`},
		{codeProtocol, `40 L(0001 00 L(1F s"a" 1F s"a"))`}, {codeProtocol, `62 L(0001 00 L(1F s"a" 1F s"a"))`}, {codeMalformed, `70 L(0001 00 L(1F 0001 FF))`},
	},
	"SUBSCRIBE": {
		{codeProtocol, `82 L(0000 00 s"t" 00)`}, {codeProtocol, `82 L(0001 00)`}, {codeMalformed, `82 L(0001)`}, {codeMalformed, `82 00`}, {codeMalformed, `82 01 00`},
		{codeMalformed, `82 L(0001 00 s"t")`}, {codeMalformed, `82 L(0001 00 0009 "t" 00)`}, {codeMalformed, `82 L(0001 00 s"t" 00 00)`},
		{codeMalformed, `82 L(0001 00 s"t" 40)`}, {codeMalformed, `82 L(0001 00 s"t" 80)`}, {codeProtocol, `82 L(0001 00 s"t" 03)`}, {codeProtocol, `82 L(0001 00 s"t" 30)`},
		{codeProtocol, `82 L(0001 00 s"$share/g/t" 04)`},
		{codeProtocol, `82 L(0001 L(0B 00) s"t" 00)`}, {codeProtocol, `82 L(0001 L(0B 01 0B 02) s"t" 00)`}, {codeMalformed, `82 L(0001 L(0B 80 80 80 80 01) s"t" 00)`}, {codeMalformed, `82 L(0001 L(0B 81 00) s"t" 00)`},
		{codeMalformed, `82 L(0001 L(1F s"x") s"t" 00)`}, {codeMalformed, `82 L(0001 L(23 0001) s"t" 00)`},
		{codeMalformed, `82 L(0001 00 0003 ED A0 80 00)`}, {codeMalformed, `82 L(0001 00 0003 "a" 00 "b" 00)`},
	},
	"UNSUBSCRIBE": {
		{codeProtocol, `A2 L(0000 00 s"t")`}, {codeProtocol, `A2 L(0001 00)`}, {codeMalformed, `A2 L(0001)`}, {codeMalformed, `A2 00`},
		{codeMalformed, `A2 L(0001 00 0009 "t")`}, {codeMalformed, `A2 L(0001 00 s"t" 00)`}, {codeMalformed, `A2 L(0001 00 0001 FF)`}, {codeMalformed, `A2 L(0001 00 0001 00)`},
		{codeMalformed, `A2 L(0001 L(0B 01) s"t")`}, {codeMalformed, `A2 L(0001 L(1F s"x") s"t")`},
	},
	"DISCONNECT": {
		{codeProtocol, `E0 L(00 L(11 0000003C))`}, {codeProtocol, `E0 L(00 L(11 00000000 11 00000000))`}, {codeMalformed, `E0 L(00 L(1C s"other"))`},
		{codeMalformed, `E0 L(01)`}, {codeMalformed, `E0 L(8B)`}, {codeMalformed, `E0 L(8E)`}, {codeMalformed, `E0 L(00 05)`}, {codeMalformed, `E0 L(00 00 00)`}, {codeMalformed, `E0 L(00 L(11 0000))`},
	},
	"AUTH": {
		{codeProtocol, `F0 00`}, {codeProtocol, `F0 L(18 L(15 s"SCRAM-SHA-256"))`}, {codeProtocol, `F0 L(19 00)`},
	},
	"connect": {
		{codeMalformed, `10 L(s"MQTT" 05 03 003C 00 s"x")`}, {codeMalformed, `10 L(s"MQTT" 05 0A 003C 00 s"x")`}, {codeMalformed, `10 L(s"MQTT" 05 22 003C 00 s"x")`}, {codeMalformed, `10 L(s"MQTT" 05 1E 003C 00 s"x" 00 s"w" s"y")`},
		{codeVersion, `10 L(s"MQTT" 06 02 003C 00 s"x")`}, {codeVersion, `10 L(s"MQTT" FF 02 003C 00 s"x")`}, {codeVersion, `10 L(s"MQTT" 85 02 003C 00 s"x")`},
		{codeMalformed, `10 L(s"MQTT" 05 02 003C)`}, {codeMalformed, `10 L(s"MQTT" 05 02 003C 00)`}, {codeMalformed, `10 L(s"MQTT" 05)`}, {codeMalformed, `10 L(s"MQTT" 05 02 003C 00 s"x" s"y")`}, {codeMalformed, `10 L(s"MQTT" 05 82 003C 00 s"x")`},
		{codeMalformed, `10 L(s"MQTT" 05 06 003C 00 s"x" s"w" s"y")`}, // the will's properties are missing
		{codeProtocol, `10 L(s"MQTT" 05 02 003C L(11 00000001 11 00000001) s"x")`}, {codeProtocol, `10 L(s"MQTT" 05 02 003C L(21 0000) s"x")`}, {codeProtocol, `10 L(s"MQTT" 05 02 003C L(27 00000000) s"x")`},
		{codeProtocol, `10 L(s"MQTT" 05 02 003C L(17 02) s"x")`}, {codeProtocol, `10 L(s"MQTT" 05 02 003C L(19 02) s"x")`}, {codeProtocol, `10 L(s"MQTT" 05 02 003C L(22 0001 22 0001) s"x")`}, {codeProtocol, `10 L(s"MQTT" 05 02 003C L(15 s"m" 15 s"m") s"x")`},
		{codeProtocol, `10 L(s"MQTT" 05 02 003C L(16 s"data") s"x")`}, {codeProtocol, `10 L(s"MQTT" 05 02 003C L(16 s"") s"x")`}, {codeAuthMethod, `10 L(s"MQTT" 05 02 003C L(15 s"") s"x")`},
		{codeMalformed, `10 L(s"MQTT" 05 02 003C L(18 00000001) s"x")`}, {codeMalformed, `10 L(s"MQTT" 05 02 003C L(12 s"x") s"x")`}, {codeMalformed, `10 L(s"MQTT" 05 02 003C L(23 0001) s"x")`}, {codeMalformed, `10 L(s"MQTT" 05 02 003C L(11 00) s"x")`},
		{codeMalformed, `10 L(s"MQTT" 05 02 003C 00 0003 ED A0 80)`}, {codeMalformed, `10 L(s"MQTT" 05 02 003C 00 0001 00)`}, {codeMalformed, `10 L(s"MQTT" 05 82 003C 00 s"x" 0001 FF)`},
		{codeMalformed, `10 L(s"MQTT" 05 06 003C 00 s"x" L(11 00000001) s"w" s"y")`}, {codeMalformed, `10 L(s"MQTT" 05 06 003C 00 s"x" L(23 0001) s"w" s"y")`}, {codeMalformed, `10 L(s"MQTT" 05 06 003C 00 s"x" L(0B 01) s"w" s"y")`},
		{codeProtocol, `10 L(s"MQTT" 05 06 003C 00 s"x" L(18 00000001 18 00000001) s"w" s"y")`}, {codeProtocol, `10 L(s"MQTT" 05 06 003C 00 s"x" L(01 02) s"w" s"y")`}, {codeProtocol, `10 L(s"MQTT" 05 06 003C 00 s"x" L(08 s"r/+") s"w" s"y")`},
		{codePayloadFormat, `10 L(s"MQTT" 05 06 003C 00 s"x" L(01 01) s"w" 0001 FF)`}, {codeTopic, `10 L(s"MQTT" 05 06 003C 00 s"x" 00 s"w/#" s"y")`}, {codeTopic, `10 L(s"MQTT" 05 06 003C 00 s"x" 00 s"" s"y")`}, {codeMalformed, `10 L(s"MQTT" 05 06 003C 00 s"x" 00 0001 00 s"y")`},
	},
}

// hostileWords are the metric's for a reason code; those of a topic alias that is
// not known differ.
var hostileWords = map[byte]string{
	codeMalformed: "malformed", codeProtocol: "protocol", codeTooLarge: "packet_too_large", codeTopic: "topic", codeTopicAlias: "topic_alias",
	codeVersion: "version", codeAuthMethod: "auth_method", codePayloadFormat: "payload_format",
}

// Every malformed or forbidden packet gets the reason code that the specification
// has for it and the close, is counted once under its reason, and leaves nothing
// behind.
func TestHostilePackets(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	refused := map[string]float64{}
	for kind, packets := range hostile {
		for _, x := range packets {
			c, answer := s.dial(), byte(typeDisconnect<<4)
			if kind == "connect" {
				answer = typeConnack << 4
			} else {
				s.say(c, `10 L(s"MQTT" 05 02 003C 00 s"a")`)
				s.hear(c, `20 L(00 00 L(21 0400 22 0040 27 00110000))`)
			}
			s.say(c, x.packet)
			if err := refusal(c, answer, x.code); err != nil {
				t.Errorf("%s: %v", x.packet, err)
			}
			c.Close() // or the server lingers
			refused[hostileWords[x.code]]++
			s.gone("a")
			s.poll(x.packet+" is not counted once, as it should be", func() bool { return maps.Equal(s.refusals(), refused) })
		}
	}
	s.leavesNothing()
}

// refusal reads a CONNACK or DISCONNECT with the reason code, and the close.
func refusal(c net.Conn, kind, code byte) error {
	at := 0 // behind the remaining length
	if kind == typeConnack<<4 {
		at = 1
	}
	if err := expect(c, fmt.Sprintf("%02X ?1", kind)); err != nil {
		return err
	}
	rest, err := io.ReadAll(c) // until the close
	if err != nil {
		return err
	}
	if len(rest) <= at || rest[at] != code {
		return fmt.Errorf("% X, want the reason code %X", rest, code)
	}
	return nil
}

// leavesNothing checks that the log is empty and nobody is known.
func (s *site) leavesNothing() {
	s.t.Helper()
	if _, end := s.options.engine.Bounds(); end != 1 {
		s.t.Errorf("the log ends at %d", end)
	}
	if there := s.broker.Attendance(); there.Away != 0 || there.Subscriptions != 0 {
		s.t.Errorf("there are %+v", there)
	}
	s.poll("somebody is still there", func() bool { return s.broker.Attendance().Clients == 0 })
}

// In 3.1.1 and 3.1 what is malformed or forbidden is closed without a word
// ([MQTT-4.8.0-1]), is counted and leaves nothing behind.
func TestHostilePacketsBefore5(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	n := 0.0
	for _, hello := range []string{`10 L(s"MQTT" 04 02 003C s"a")`, `10 L(s"MQIsdp" 03 02 003C s"a")`} {
		for _, packet := range []string{
			`00 00`, `F0 00`, `C0 01 00`, `20 02 00 00`, `D0 00`, `90 L(0001 00)`, `10 00`, hello, `30 FF FF FF FF`, `30 FF FF FF 7F`,
			`36 L(s"t" 0001 "x")`, `32 L(s"t" 0000 "x")`, `32 L(s"t" 00)`, `30 L(0005 "t")`, `30 00`, `30 L(s"" "x")`, `30 L(s"a/+" "x")`, `30 L(s"#" "x")`,
			`30 L(0003 ED A0 80 "x")`, `30 L(0001 00 "x")`, `40 02 0000`, `40 03 0001 00`, `50 01 00`, `62 02 0000`, `60 02 0001`, `70 00`,
			`82 L(0000 s"t" 00)`, `82 L(0001)`, `82 L(0001 s"t")`, `82 L(0001 s"t" 03)`, `82 L(0001 s"t" 04)`, `82 L(0001 0001 FF 00)`, `80 L(0001 s"t" 00)`,
			`A2 L(0000 s"t")`, `A2 L(0001)`, `A2 L(0001 s"t" 00)`, `A0 L(0001 s"t")`, `E0 01 00`,
		} {
			c := s.dial()
			s.say(c, hello)
			s.hear(c, `20 02 00 00`)
			s.say(c, packet)
			if err := expect(c, "close"); err != nil {
				t.Errorf("%s behind %s: %v", packet, hello, err)
			}
			c.Close()
			n++
			s.gone("a")
			s.poll(packet+" is not counted once", func() bool {
				sum := 0.0
				for _, x := range s.refusals() {
					sum += x
				}
				return sum == n
			})
		}
	}
	s.leavesNothing()
}
