package mqtt

import (
	"errors"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// Enhanced authentication (section 4.12): the method is the core's to know. A
// login runs within CONNECT, or again on a connection that is open.

// Reason codes of AUTH (section 3.15.2.1).
const (
	codeContinue = 0x18
	codeReauth   = 0x19
)

// An authPacket is an AUTH (section 3.15).
type authPacket struct {
	code   byte
	method string
	data   []byte
}

func (a *authPacket) decode(body []byte, l *adapters.Limits) *fault {
	*a = authPacket{}
	s := scanner{rest: body}
	if len(s.rest) == 0 {
		return nil // reason code 0, no properties
	}
	a.code = s.byte()
	var ps propertyScanner
	if err := ps.enter(&s, typeAuth); err != nil {
		return err
	}
	var x property
	for {
		more, err := ps.next(&x)
		if err != nil {
			return err
		}
		if !more {
			if err := checkUsers(ps.users, ps.userBytes, l); err != nil {
				return err
			}
			return s.end()
		}
		switch x.id {
		case propAuthMethod:
			a.method = x.text
		case propAuthData:
			a.data = x.value
		}
	}
}

// appendAuth appends an AUTH of the server's.
func appendAuth(b []byte, code byte, method string, data []byte) []byte {
	props := 3 + len(method)
	if data != nil {
		props += 3 + len(data)
	}
	b = appendVarint(append(b, typeAuth<<4), 1+varintSize(props)+props)
	b = appendVarint(append(b, code), props)
	b = appendString(append(b, propAuthMethod), method)
	if data != nil {
		b = appendString(append(b, propAuthData), alias(data))
	}
	return b
}

// beginLogin begins a login by the method that CONNECT names ([MQTT-4.12.0-1]).
// Until it is over, only AUTH and DISCONNECT are taken ([MQTT-3.1.2-30]).
func (c *conn) beginLogin(pk *packets.Packet) error {
	c.method = strings.Clone(pk.Properties.AuthenticationMethod)
	c.user = strings.Clone(string(pk.Connect.Username))
	return c.startLogin(pk.Properties.AuthenticationData)
}

// startLogin begins a login with the client's first data. Where there are none,
// the server speaks first, and says nothing.
func (c *conn) startLogin(data []byte) error {
	adapters.Waits(c.nc)
	remote := c.nc.RemoteAddr()
	if !c.s.gate.MayLogin(remote) {
		return errLoginRate
	}
	var err error
	c.login, err = c.s.broker.Login(c.method, core.Credentials{
		Protocol: protocol, Client: c.id, User: c.user, Certificate: c.certificate(), Remote: remote,
	})
	if err != nil {
		return errAuthMethod
	}
	if len(data) == 0 {
		c.send(appendAuth(nil, codeContinue, c.method, nil))
		return nil
	}
	return c.goOn(data)
}

// handleAuth takes an AUTH: of the login within CONNECT, or of another one by
// the same method on the open connection ([MQTT-4.12.1-1]).
func (c *conn) handleAuth(body []byte) error {
	if c.v != v5 {
		return errPacketType
	}
	if c.method == "" {
		return errAuth // [MQTT-4.12.0-7]
	}
	var a authPacket
	if err := a.decode(body, &c.s.limits); err != nil {
		return err
	}
	switch {
	case a.method == "":
		return errNoAuthMethod
	case a.method != c.method:
		return errAuthMethod // [MQTT-4.12.0-5]
	case a.code == codeContinue && c.login != nil:
		return c.goOn(a.data)
	case a.code == codeReauth && c.login == nil && c.connected:
		return c.startLogin(a.data)
	}
	return errAuthState // [MQTT-4.12.0-3], [MQTT-4.12.0-4]
}

// goOn hands the client's data to the core and sends its answer. A failure is
// the connection's end, during CONNECT and later ([MQTT-4.12.0-4],
// [MQTT-4.12.1-2]).
func (c *conn) goOn(data []byte) error {
	login := c.login
	answer, done, err := login.Next(data)
	if err == nil && !done {
		c.send(appendAuth(nil, codeContinue, c.method, answer)) // [MQTT-4.12.0-2]
		return nil
	}
	c.login = nil
	switch {
	case err != nil:
	case !c.s.gate.MayLogin(c.nc.RemoteAddr()):
		return errLoginRate
	case c.connected:
		if err = login.Renew(c.client); err == nil {
			c.send(appendAuth(nil, codeSuccess, c.method, answer))
			return nil
		}
	default:
		var client *core.Client
		if client, err = login.Connect(c); err == nil {
			c.enteredBy(client)
			c.opening.proof = answer
			ctx := c.handshake()
			defer ctx.stop()
			return c.open(ctx)
		}
	}
	if errors.Is(err, core.ErrUnauthenticated) {
		c.s.gate.LoginFailed(c.nc.RemoteAddr())
	}
	_, reason := reasonOf(err, typeConnack)
	return &fault{codeNotAuthorized, reason, "the login failed"}
}

// enteredBy takes the client that a login gave.
func (c *conn) enteredBy(client *core.Client) {
	c.client = client
	client.Buffers(c.out)
	client.WhenExpired(func(why error) {
		switch {
		case errors.Is(why, core.ErrShed):
			c.out.Drop()
			c.stop(errShed)
		case errors.Is(why, core.ErrDisconnected):
			c.stop(errDisconnected)
		default:
			c.stop(errExpired)
		}
	})
}
