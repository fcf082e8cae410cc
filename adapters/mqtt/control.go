package mqtt

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluicemq/sluice/adapters"
)

// controls holds packets for decodeControl.
var controls = sync.Pool{New: func() any { return new(packets.Packet) }}

// releaseControl gives a packet that decodeControl returned back, for another one.
func releaseControl(pk *packets.Packet) {
	*pk = packets.Packet{}
	controls.Put(pk)
}

// decodeControl decodes a CONNECT that [checkConnect] found good, a SUBSCRIBE or
// an UNSUBSCRIBE by mochi's packets, behind checks of ours: it takes properties that stand twice or have forbidden
// values, and bytes behind a packet's end, and panics on a truncated SUBSCRIBE.
// What it decodes aliases the body, until releaseControl. (Its DISCONNECT decoder overlooks a reason
// code without properties, so that packet is decoded here.)
//
//go:noinline
func decodeControl(h header, body []byte, v version, l *adapters.Limits) (pk *packets.Packet, bad *fault) {
	switch h.kind() {
	case typeSubscribe:
		bad = checkSubscribe(body, v, l)
	case typeUnsubscribe:
		bad = checkUnsubscribe(body, v, l)
	}
	if bad != nil {
		return nil, bad
	}
	defer func() {
		if recover() != nil {
			pk, bad = nil, errMalformed
		}
	}()
	pk = controls.Get().(*packets.Packet)
	pk.FixedHeader = packets.FixedHeader{Type: h.kind(), Remaining: len(body), Qos: h.first >> 1 & 3}
	pk.ProtocolVersion = byte(v)
	var err error
	switch h.kind() {
	case typeConnect:
		err = pk.ConnectDecode(body)
	case typeSubscribe:
		err = pk.SubscribeDecode(body)
	case typeUnsubscribe:
		err = pk.UnsubscribeDecode(body)
	}
	if err != nil {
		return nil, errMalformed
	}
	return pk, nil
}

// checkConnect walks a CONNECT (section 3.1) whose protocol name and level have
// been looked at, and returns the will's properties from their length on.
func checkConnect(body []byte, v version, l *adapters.Limits) (willProperties []byte, bad *fault) {
	s := scanner{rest: body}
	s.bytes()
	s.byte()
	at := len(body) - len(s.rest)
	flags := s.byte()
	s.uint16()
	if s.bad {
		return nil, errMalformed
	}
	will, willQoS := flags&4 != 0, flags>>3&3
	switch {
	case flags&1 != 0 && v != v31: // [MQTT-3.1.2-3]; 3.1 does not use the bit
		return nil, errMalformed
	case !will && flags&0x38 != 0 && v != v31: // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
		return nil, errMalformed
	case willQoS == 3: // [MQTT-3.1.2-12]
		return nil, errQoS
	case v != v5 && flags&0xC0 == 0x40: // [MQTT-3.1.2-22] of 3.1.1: a password needs a user name
		return nil, errMalformed
	}
	if v == v5 {
		if err := checkConnectProperties(&s, l); err != nil {
			return nil, err
		}
	}
	s.string() // client id
	if will {
		if v == v5 {
			willProperties = s.rest
			if err := skipProperties(&s, kindWill, l); err != nil {
				return nil, err
			}
		}
		if topic := s.string(); !s.bad && strings.ContainsAny(topic, "+#") {
			return nil, errWildcard
		}
		s.bytes()
	}
	for _, field := range [...]byte{flagUser, flagPassword} {
		switch {
		case flags&field == 0:
		case v == v31 && !s.bad && len(s.rest) == 0:
			body[at] &^= field // 3.1: the remaining length goes before the flags
		case field == flagUser:
			s.string() // [MQTT-3.1.3-11]: the user name is UTF-8
		default:
			s.bytes()
		}
	}
	return willProperties, s.end()
}

// The connect flags that say that there is a user name, and a password.
const (
	flagUser     = 0x80
	flagPassword = 0x40
)

// checkConnectProperties reads over those of CONNECT itself.
func checkConnectProperties(s *scanner, l *adapters.Limits) *fault {
	var ps propertyScanner
	if err := ps.enter(s, typeConnect); err != nil {
		return err
	}
	var x property
	for {
		more, err := ps.next(&x)
		switch {
		case err != nil:
			return err
		case more && x.id == propAuthMethod && x.text == "":
			return errAuthMethod
		case more:
			continue
		case ps.seen&(1<<propAuthData) != 0 && ps.seen&(1<<propAuthMethod) == 0: // section 3.1.2.11.10
			return errNoAuthMethod
		}
		return checkUsers(ps.users, ps.userBytes, l)
	}
}

func checkSubscribe(body []byte, v version, l *adapters.Limits) *fault {
	s := scanner{rest: body}
	id := s.uint16()
	if v == v5 && !s.bad {
		if err := skipProperties(&s, typeSubscribe, l); err != nil {
			return err
		}
	}
	if !s.bad && id == 0 {
		return errPacketID
	}
	if !s.bad && len(s.rest) == 0 {
		return errNoFilters // [MQTT-3.8.3-2] of 5.0, [MQTT-3.8.3-3] of 3.1.1
	}
	for !s.bad && len(s.rest) > 0 {
		filter := s.string()
		options := s.byte()
		switch {
		case s.bad:
		case v == v5 && options&0xC0 != 0: // [MQTT-3.8.3-5]
			return errOptions
		case v != v5 && options&0xFC != 0: // [MQTT-3.8.3-4] of 3.1.1
			return errOptions
		case options&3 == 3:
			return errMaximumQoS
		case options&0x30 == 0x30:
			return errRetainHandling
		case options&4 != 0 && strings.HasPrefix(filter, "$share/"):
			return errSharedNoLocal // [MQTT-3.8.3-4]
		}
	}
	return s.end()
}

func checkUnsubscribe(body []byte, v version, l *adapters.Limits) *fault {
	s := scanner{rest: body}
	id := s.uint16()
	if v == v5 && !s.bad {
		if err := skipProperties(&s, typeUnsubscribe, l); err != nil {
			return err
		}
	}
	if !s.bad && id == 0 {
		return errPacketID
	}
	if !s.bad && len(s.rest) == 0 {
		return errNoFilters // [MQTT-3.10.3-2]
	}
	for !s.bad && len(s.rest) > 0 {
		s.string()
	}
	return s.end()
}

// A disconnectPacket is a client's DISCONNECT (section 3.14).
type disconnectPacket struct {
	code    byte
	expiry  uint32 // session expiry interval, where expires is set
	expires bool
}

func (d *disconnectPacket) decode(body []byte, v version, l *adapters.Limits) *fault {
	*d = disconnectPacket{}
	s := scanner{rest: body}
	if v == v5 && len(s.rest) > 0 {
		if d.code = s.byte(); !validDisconnect(d.code) {
			return errMalformed // [MQTT-3.14.2-1]
		}
		if len(s.rest) > 0 {
			var ps propertyScanner
			if err := ps.enter(&s, typeDisconnect); err != nil {
				return err
			}
			var x property
			for {
				more, err := ps.next(&x)
				if err != nil {
					return err
				}
				if !more {
					break
				}
				if x.id == propSessionExpiry {
					d.expires, d.expiry = true, x.number
				}
			}
			if err := checkUsers(ps.users, ps.userBytes, l); err != nil {
				return err
			}
		}
	}
	return s.end()
}

// validDisconnect reports whether a client's DISCONNECT may carry the reason
// code.
func validDisconnect(code byte) bool {
	switch code {
	case codeSuccess, codeDisconnectWithWill, codeUnspecified, codeMalformed, codeProtocol, codeImplementation, codeTopic,
		codeReceiveMax, codeTopicAlias, codeTooLarge, 0x96, codeQuota, codeAdministrative, codePayloadFormat:
		return true
	}
	return false
}

func skipProperties(s *scanner, packet byte, l *adapters.Limits) *fault {
	if s.bad {
		return errMalformed
	}
	var ps propertyScanner
	if err := ps.enter(s, packet); err != nil {
		return err
	}
	return ps.skip(l)
}

// end says what is wrong with a packet that should be at its end.
func (s *scanner) end() *fault {
	switch {
	case s.bad:
		return errMalformed
	case len(s.rest) > 0:
		return errTrailing
	}
	return nil
}

// encodeControl encodes a CONNACK, SUBACK, UNSUBACK or DISCONNECT of ours. A
// reason string that would make it larger than the client takes is left out.
func encodeControl(pk *packets.Packet) []byte {
	var b bytes.Buffer
	var err error
	switch pk.FixedHeader.Type {
	case typeConnack:
		err = pk.ConnackEncode(&b)
	case typeSuback:
		err = pk.SubackEncode(&b)
	case typeUnsuback:
		err = pk.UnsubackEncode(&b)
	case typeDisconnect:
		err = pk.DisconnectEncode(&b)
	default:
		panic(fmt.Sprintf("mqtt: no encoder for packet type %d", pk.FixedHeader.Type))
	}
	if err != nil {
		panic(err) // nothing that these packets hold can fail to encode
	}
	return b.Bytes()
}
