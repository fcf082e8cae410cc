package mqtt

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/gofrs/uuid/v5"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// bridgeBit of the protocol level is how a bridge of mosquitto's says that it
// is one: it does not want back what it sends, and RETAIN as it was published.
const bridgeBit = 0x80

// checkProtocol reads the protocol name and level of a CONNECT, which say how
// the rest is to be read.
func (c *conn) checkProtocol(body []byte) error {
	s := scanner{rest: body}
	name, level := s.bytes(), s.byte()
	if s.bad {
		return errMalformed
	}
	isMQTT, isOld := string(name) == "MQTT", string(name) == "MQIsdp"
	switch {
	case isMQTT && (level == 4 || level == 5), isOld && level == 3:
		c.v = version(level)
		return nil
	case isMQTT && level == bridgeBit|4, isOld && level == bridgeBit|3:
		c.v, c.bridge = version(level&^bridgeBit), true
		return nil
	case isMQTT || isOld:
		// [MQTT-3.1.2-2]: the answer is in the dialect nearest to the one
		// that was asked for.
		c.v = v311
		if level > 5 {
			c.v = v5
		}
		return &fault{codeVersion, "version", fmt.Sprintf("protocol level %d is not supported", level)}
	}
	return errMalformed // [MQTT-3.1.2-1]
}

// handleConnect authenticates the client and opens its session (section 3.1).
func (c *conn) handleConnect(h header, body []byte) error {
	if err := c.checkProtocol(body); err != nil {
		return err
	}
	if err := c.checkLength(h); err != nil {
		return err
	}
	willProperties, bad := checkConnect(body, c.v, &c.s.limits)
	if bad != nil {
		return bad
	}
	pk, bad := decodeControl(h, body, c.v, &c.s.limits)
	if bad != nil {
		return bad
	}
	defer releaseControl(pk)
	defer clear(pk.Connect.Password)
	c.takeOptions(pk)
	method := pk.Properties.AuthenticationMethod
	assigned, err := c.takeID(pk)
	if err != nil {
		return err
	}
	if err := c.takeWillOf(pk, willProperties); err != nil {
		return err
	}
	c.opening = &opening{
		clean: pk.Connect.Clean, assigned: assigned, keepAlive: pk.Connect.Keepalive,
		expiry: pk.Properties.SessionExpiryInterval, inbox: pk.Properties.RequestResponseInfo == 1,
	}
	if method != "" {
		return c.beginLogin(pk)
	}
	ctx := c.handshake()
	defer ctx.stop()
	if err := c.authenticate(ctx, pk); err != nil {
		return err
	}
	return c.open(ctx)
}

// An opening is what of a CONNECT is needed once the client is authenticated.
type opening struct {
	clean, assigned bool
	keepAlive       uint16 // as the client asked
	expiry          uint32 // likewise
	inbox           bool   // the client asks where it may have answers sent to
	proof           []byte // the last data of the authentication method
}

// open opens the session of a client that is authenticated.
func (c *conn) open(ctx context.Context) error {
	var ack *packets.Packet // of 5.0
	if c.v == v5 {
		ack = c.connack()
		if c.maxOut > 0 && len(encodeControl(ack)) > c.maxOut {
			return errSmallPackets // nothing can be said to it
		}
	}
	if err := c.checkWill(); err != nil {
		return err
	}
	switch err := c.s.enter(ctx, c); {
	case err == errForeign:
		return err
	case err != nil:
		return errHandshake
	}
	present, err := c.openSession(ctx, c.opening.clean)
	if err != nil {
		code, reason := reasonOf(err, typeConnack)
		return &fault{code, reason, err.Error()}
	}
	c.s.opened(c)
	if err := c.keepWill(ctx, present); err != nil {
		return refusedWill(err)
	}
	c.connected = true
	c.s.metrics.Connects.Inc()
	if ack != nil {
		ack.SessionPresent = present
		c.send(encodeControl(ack))
	} else {
		flags := byte(0)
		if present && c.v != v31 {
			flags = 1
		}
		c.out.AppendNow(func(b []byte) []byte { return append(b, typeConnack<<4, 2, flags, codeSuccess) })
	}
	c.opening = nil
	if c.keepAlive == 0 {
		c.nc.SetReadDeadline(time.Time{})
	}
	c.arm()
	if c.stopped.Load() {
		return context.Canceled // the deadline of stop may have been overwritten
	}
	c.resume(present)
	return nil
}

// takeOptions takes what CONNECT says of the connection.
func (c *conn) takeOptions(pk *packets.Packet) {
	p := &pk.Properties
	l := &c.s.limits
	keepAlive := time.Duration(pk.Connect.Keepalive) * time.Second
	c.credit, c.flights.permits, c.problems = l.InFlight, idCount, true
	if c.v != v5 {
		// There is no way to tell such a client of a shorter keep-alive.
		c.keepAlive = keepAlive + keepAlive/2
		if !pk.Connect.Clean {
			c.expiry = l.SessionExpiry
		}
		return
	}
	if keepAlive == 0 || keepAlive > l.KeepAlive {
		keepAlive = l.KeepAlive
	}
	c.keepAlive = keepAlive + keepAlive/2
	c.expiry = c.s.sessionExpiry(p.SessionExpiryInterval)
	if p.ReceiveMaximum > 0 {
		c.credit = min(int(p.ReceiveMaximum), l.MaxInFlight)
		c.flights.permits = int(p.ReceiveMaximum)
	}
	c.maxOut = int(min(p.MaximumPacketSize, math.MaxInt32))
	c.aliasMax = uint16(min(int(p.TopicAliasMaximum), l.MQTTTopicAliases))
	c.problems = !p.RequestProblemInfoFlag || p.RequestProblemInfo == 1
}

// sessionExpiry is the time in force for an interval in seconds.
func (s *Server) sessionExpiry(seconds uint32) time.Duration {
	if seconds == math.MaxUint32 {
		return s.limits.SessionExpiry
	}
	return min(time.Duration(seconds)*time.Second, s.limits.SessionExpiry)
}

// takeID takes the client id, or makes one up where the client may leave that
// to the server ([MQTT-3.1.3-6] of 5.0, [MQTT-3.1.3-6] to [MQTT-3.1.3-8] of
// 3.1.1).
func (c *conn) takeID(pk *packets.Packet) (assigned bool, err error) {
	id := pk.Connect.ClientIdentifier
	switch {
	case len(id) > c.s.limits.ClientIDBytes:
		return false, &fault{codeClientID, "client_id_size", "the client id is too long"}
	case id != "":
		c.id = strings.Clone(id)
		return false, nil
	case c.v == v31 || c.v == v311 && !pk.Connect.Clean:
		return false, &fault{codeClientID, "client_id", "the client id is empty"}
	}
	u, err := uuid.NewV7()
	if err != nil {
		return false, err
	}
	c.id = "auto-" + u.String()
	return true, nil
}

// authenticate asks the core who the client is.
func (c *conn) authenticate(ctx context.Context, pk *packets.Packet) error {
	if len(pk.Connect.Username) > 0 || len(pk.Connect.Password) > 0 {
		adapters.Waits(c.nc) // a password takes its time
	}
	client, err := c.s.gate.Login(ctx, c.s.broker, core.Credentials{
		Protocol: protocol, Client: c.id, User: string(pk.Connect.Username), Password: bytes.Clone(pk.Connect.Password),
		Certificate: c.certificate(), Remote: c.nc.RemoteAddr(),
	}, c)
	if errors.Is(err, adapters.ErrLogins) {
		return errLoginRate
	}
	if err != nil {
		code, reason := reasonOf(err, typeConnack)
		return &fault{code, reason, "the login failed"}
	}
	c.enteredBy(client)
	return nil
}

// certificate is the client's verified TLS certificate, nil if it showed none.
func (c *conn) certificate() *x509.Certificate {
	t, ok := c.nc.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil
	}
	state := t.ConnectionState()
	if len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return nil
	}
	return state.PeerCertificates[0]
}

// connack is the answer to a CONNECT of 5.0 that was accepted (section 3.2). It
// names what the server does otherwise than the client asked.
func (c *conn) connack() *packets.Packet {
	o := c.opening
	a := &packets.Packet{FixedHeader: packets.FixedHeader{Type: typeConnack}, ProtocolVersion: byte(v5)}
	p := &a.Properties
	p.ReceiveMaximum = uint16(min(c.s.limits.PublishInFlight, math.MaxUint16))
	p.MaximumPacketSize = uint32(c.s.maxPacket)
	p.TopicAliasMaximum = uint16(c.s.limits.MQTTTopicAliases)
	if c.expiry != time.Duration(o.expiry)*time.Second {
		p.SessionExpiryIntervalFlag, p.SessionExpiryInterval = true, uint32(c.expiry/time.Second)
	}
	if ka := c.keepAlive / 3 * 2 / time.Second; ka != time.Duration(o.keepAlive) {
		p.ServerKeepAliveFlag, p.ServerKeepAlive = true, uint16(ka) // [MQTT-3.1.2-21]
	}
	if o.assigned {
		p.AssignedClientID = c.id // [MQTT-3.2.2-16]
	}
	if o.inbox {
		// Nobody else knows the name, and who knows it may subscribe.
		p.ResponseInfo, a.Mods.AllowResponseInfo = core.InboxPrefix+rand.Text(), true
	}
	p.AuthenticationMethod, p.AuthenticationData = c.method, o.proof
	return a
}

// refuseConnect answers a CONNECT with a reason why not, where the version has
// a word for it.
func (c *conn) refuseConnect(f *fault) {
	a := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: typeConnack}, ProtocolVersion: byte(c.v), ReasonCode: connackV5(f.code),
		Properties: packets.Properties{ReasonString: f.text},
		Mods:       packets.Mods{MaxSize: uint32(c.maxOut)},
	}
	if c.v != v5 {
		code, ok := connackV3(f.code)
		if !ok {
			return
		}
		a.ReasonCode = code
	}
	c.send(encodeControl(&a))
}

// takeWillOf keeps the will, which is published when the connection ends
// without a DISCONNECT ([MQTT-3.1.2-7], [MQTT-3.1.2-8]).
func (c *conn) takeWillOf(pk *packets.Packet, properties []byte) error {
	if !pk.Connect.WillFlag {
		return nil
	}
	x := &pk.Connect
	now := time.Now()
	topic, at, err := publishTopic(x.WillTopic, now)
	if err == nil {
		err = core.CheckTopic(topic)
	}
	if err != nil {
		return &fault{codeTopic, "topic", "the will's topic is invalid: " + err.Error()}
	}
	e := &core.Envelope{
		Topic: topic, Payload: x.WillPayload, Guarantee: core.Guarantee(x.WillQos), Retain: x.WillRetain,
	}
	if c.v == v5 {
		if err := c.takeWillProperties(properties, e); err != nil {
			return err
		}
	}
	if !at.IsZero() {
		c.will.Later += at.Sub(now)
	}
	c.will.Envelope = core.Delivery{Envelope: e}.Clone().Envelope
	return nil
}

// takeWillProperties reads them into the will, which aliases the packet.
func (c *conn) takeWillProperties(properties []byte, e *core.Envelope) error {
	var w publishPacket
	if bad := w.properties(&scanner{rest: properties}, kindWill, e); bad != nil {
		return bad
	}
	if e.Text && !validText(e.Payload) {
		return &fault{codePayloadFormat, "payload_format", "the will's payload is not UTF-8"}
	}
	c.will.Delay = time.Duration(w.willDelay) * time.Second
	c.will.Later += w.delay
	c.will.Expires, c.will.Life = w.expires, time.Duration(w.expiry)*time.Second
	return nil
}
