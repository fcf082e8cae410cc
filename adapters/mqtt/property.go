package mqtt

import "github.com/sluicemq/sluice/adapters"

// The properties of MQTT 5 (section 2.2.2.2).
const (
	propPayloadFormat   = 1
	propMessageExpiry   = 2
	propContentType     = 3
	propResponseTopic   = 8
	propCorrelation     = 9
	propSubscriptionID  = 11
	propSessionExpiry   = 17
	propAssignedID      = 18
	propServerKeepAlive = 19
	propAuthMethod      = 21
	propAuthData        = 22
	propProblemInfo     = 23
	propWillDelay       = 24
	propResponseInfo    = 25
	propReasonString    = 31
	propReceiveMax      = 33
	propAliasMax        = 34
	propAlias           = 35
	propUser            = 38
	propMaxPacket       = 39
)

// A propertyKind is how a property's value is written.
type propertyKind uint8

const (
	propByte propertyKind = iota + 1
	propUint16
	propUint32
	propVarint
	propBytes
	propString
	propPair
)

// kindWill stands for the will's properties in CONNECT where a packet type is
// wanted.
const kindWill = 16

// properties says of each property that a client may send how it is written
// and which packets it belongs to, one bit each.
var properties = [...]struct {
	kind    propertyKind
	packets uint32
}{
	propPayloadFormat:  {propByte, 1<<typePublish | 1<<kindWill},
	propMessageExpiry:  {propUint32, 1<<typePublish | 1<<kindWill},
	propContentType:    {propString, 1<<typePublish | 1<<kindWill},
	propResponseTopic:  {propString, 1<<typePublish | 1<<kindWill},
	propCorrelation:    {propBytes, 1<<typePublish | 1<<kindWill},
	propSubscriptionID: {propVarint, 1<<typePublish | 1<<typeSubscribe},
	propSessionExpiry:  {propUint32, 1<<typeConnect | 1<<typeDisconnect},
	propAuthMethod:     {propString, 1<<typeConnect | 1<<typeAuth},
	propAuthData:       {propBytes, 1<<typeConnect | 1<<typeAuth},
	propProblemInfo:    {propByte, 1 << typeConnect},
	propWillDelay:      {propUint32, 1 << kindWill},
	propResponseInfo:   {propByte, 1 << typeConnect},
	propReasonString: {propString, 1<<typePuback | 1<<typePubrec | 1<<typePubrel | 1<<typePubcomp |
		1<<typeDisconnect | 1<<typeAuth},
	propReceiveMax: {propUint16, 1 << typeConnect},
	propAliasMax:   {propUint16, 1 << typeConnect},
	propAlias:      {propUint16, 1 << typePublish},
	propUser: {propPair, 1<<typeConnect | 1<<kindWill | 1<<typePublish | 1<<typePuback | 1<<typePubrec |
		1<<typePubrel | 1<<typePubcomp | 1<<typeSubscribe | 1<<typeUnsubscribe | 1<<typeDisconnect | 1<<typeAuth},
	propMaxPacket: {propUint32, 1 << typeConnect},
}

// A property is one property as it was read. Which fields are set depends on
// its kind; they alias the packet.
type property struct {
	id     int
	number uint32
	value  []byte
	text   string
	name   string // of a user property; text is its value
}

// A propertyScanner reads the properties of one packet. It refuses what does
// not belong there and what stands twice.
type propertyScanner struct {
	scanner
	packet byte
	seen   uint64
	// users and userBytes count the user properties.
	users, userBytes int
}

// enter reads the property length off the body; what follows the properties
// stays in body.
func (p *propertyScanner) enter(body *scanner, packet byte) *fault {
	n := body.varint()
	if body.bad || n > len(body.rest) {
		return errMalformed
	}
	*p = propertyScanner{scanner: scanner{rest: body.rest[:n:n]}, packet: packet}
	body.rest = body.rest[n:]
	return nil
}

// next reads one property; more is false behind the last one.
func (p *propertyScanner) next(out *property) (more bool, err *fault) {
	if len(p.rest) == 0 {
		return false, nil
	}
	// Identifiers are variable byte integers; all of those that exist have
	// one byte.
	id := int(p.byte())
	if id >= len(properties) || properties[id].packets&(1<<p.packet) == 0 {
		return false, errProperty
	}
	if id != propUser {
		// A client's PUBLISH never holds a subscription identifier, so no
		// property but the user's may stand twice.
		if p.seen&(1<<id) != 0 {
			return false, errPropertyTwice
		}
		p.seen |= 1 << id
	}
	out.id = id
	switch properties[id].kind {
	case propByte:
		out.number = uint32(p.byte())
	case propUint16:
		out.number = uint32(p.uint16())
	case propUint32:
		out.number = p.uint32()
	case propVarint:
		out.number = uint32(p.varint())
	case propBytes:
		out.value = p.bytes()
	case propString:
		out.text = p.string()
	case propPair:
		out.name = p.string()
		out.text = p.string()
		p.users++
		p.userBytes += len(out.name) + len(out.text)
	}
	if p.bad {
		return false, errMalformed
	}
	return true, p.check(out)
}

// check refuses values that a property must not have.
func (p *propertyScanner) check(x *property) *fault {
	wrong := false
	switch x.id {
	case propPayloadFormat, propProblemInfo, propResponseInfo:
		wrong = x.number > 1
	case propReceiveMax, propMaxPacket, propSubscriptionID:
		wrong = x.number == 0
	}
	if wrong {
		return errPropertyValue
	}
	return nil
}

// skip reads over the properties of a packet, and checks them and how many of
// the user there are.
func (p *propertyScanner) skip(l *adapters.Limits) *fault {
	var x property
	for {
		more, err := p.next(&x)
		if err != nil {
			return err
		}
		if !more {
			return checkUsers(p.users, p.userBytes, l)
		}
	}
}

// checkUsers refuses a packet with more user properties than allowed.
func checkUsers(users, bytes int, l *adapters.Limits) *fault {
	if users > l.MQTTUserProperties || bytes > l.MQTTUserPropertyBytes {
		return errUsers
	}
	return nil
}
