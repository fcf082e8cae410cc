package stomp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// errVersion refuses a client whose versions are all unknown (STOMP 1.2
// "Protocol Negotiation").
var errVersion = &refusal{reason: "version", message: "unsupported version", detail: "Supported protocol versions are 1.0, 1.1 and 1.2."}

// errExpired ends a connection whose token was good for no longer.
var errExpired = &refusal{reason: "expired", message: "access expired", detail: "The token in the header passcode has expired. Connect with a new one."}

// negotiate picks the highest version that an accept-version header names; one
// that is absent is 1.0.
func negotiate(accept string, given bool) (version, error) {
	if !given {
		return v10, nil
	}
	best := -1
	for more := true; more; {
		var name string
		name, accept, more = strings.Cut(accept, ",")
		for v, s := range supported {
			if strings.TrimSpace(name) == s {
				best = max(best, v)
			}
		}
	}
	if best < 0 {
		return v10, errVersion
	}
	return version(best), nil
}

// connect obeys CONNECT and STOMP: it agrees on a version and on heart-beats
// and authenticates the client (STOMP 1.2 "CONNECT or STOMP Frame").
func (c *conn) connect(f *clientFrame) error {
	accept, given := f.header(frame.AcceptVersion)
	v, err := negotiate(accept, given)
	if err != nil {
		return err
	}
	header := func(name string) string {
		value := f.value(name)
		if v == v10 {
			value = strings.TrimLeft(value, " ")
		}
		return strings.Clone(value)
	}
	var beats beatOffer
	if offer, given := f.header(frame.HeartBeat); given && v > v10 {
		var ok bool
		if beats, ok = parseBeats(offer); !ok {
			return invalid(frame.HeartBeat, offer, "two numbers of milliseconds, such as 10000,10000")
		}
	}
	if _, asked := f.header(frame.Receipt); asked {
		return refuse("malformed", "unexpected receipt", "CONNECT is answered by CONNECTED; it has no receipt.")
	}
	clientID := header(headerClientID)
	if len(clientID) > c.server.limits.ClientIDBytes {
		return refuse("client_id_too_long", "client-id too long", fmt.Sprintf("A client id may have %d bytes.", c.server.limits.ClientIDBytes))
	}
	client, err := c.authenticate(header(frame.Login), header(frame.Passcode), clientID)
	if err != nil {
		return err
	}

	c.version, c.clientID, c.client = v, clientID, client
	c.in.version, c.in.preAuth = v, false
	c.numbered = make(map[uint64]*subscription)
	c.server.metrics.Connects.Inc()
	server := beats.answer(c.server.limits)
	c.out.Append(func(buf []byte) []byte { return appendConnected(buf, v, c.session, server.String()) })
	c.beats.start(beats, server, c.beat)
	client.Buffers(c.out)
	client.WhenExpired(c.expire)
	return nil
}

// errOperator ends one that an operator ended.
var errOperator = &refusal{reason: "disconnected", message: "disconnected", detail: "An operator ended the connection."}

// errShed ends one that reads too slowly while the memory is short.
var errShed = &refusal{reason: "shed", message: "too slow", detail: "Memory is short and the connection reads too slowly. Connect again."}

// expire ends the connection of a client whose token's time is over.
func (c *conn) expire(why error) {
	refusal := errExpired
	switch {
	case errors.Is(why, core.ErrShed):
		c.out.Drop()
		refusal = errShed
	case errors.Is(why, core.ErrDisconnected):
		refusal = errOperator
	}
	c.refuse(refusal, nil, false)
	c.receipts.end()
	c.interrupt()
}

// beat sends a heart-beat.
func (c *conn) beat() {
	c.out.Append(func(buf []byte) []byte {
		if c.ended || len(buf) > 0 {
			// What waits is as good as a heart-beat.
			return buf
		}
		return append(buf, '\n')
	})
}

// authenticate asks the core who the client is.
func (c *conn) authenticate(login, passcode, clientID string) (*core.Client, error) {
	name := clientID
	if name == "" {
		name = c.session
	}
	ctx, cancel := context.WithDeadline(c.ctx, c.handshake)
	defer cancel()
	client, err := c.server.gate.Login(ctx, c.server.broker, core.Credentials{
		Protocol: protocol, Client: name, User: login, Password: []byte(passcode),
		Certificate: c.certificate(), Remote: c.nc.RemoteAddr(),
	}, c)
	if errors.Is(err, adapters.ErrLogins) {
		return nil, refuse("login_rate", "too many failed logins", "Wait a minute.")
	}
	return client, err
}

// certificate is the client's verified one, where the connection has TLS.
func (c *conn) certificate() *x509.Certificate {
	secured, ok := c.nc.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil
	}
	state := secured.ConnectionState()
	if len(state.VerifiedChains) == 0 {
		return nil
	}
	return state.VerifiedChains[0][0]
}
