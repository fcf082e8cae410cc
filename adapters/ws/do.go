package ws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/sluicemq/sluice/core"
)

// do does what a command says. An error is the command's answer.
func (c *conn) do(cmd *command, sc *scratch) (err error) {
	switch cmd.op {
	case opHello, opAuth, opSub, opRequest:
		aside(func() { err = c.doHere(cmd, sc) })
		return err
	}
	return c.doHere(cmd, sc)
}

// aside runs f on a goroutine of its own and waits for it: what f needs of stack
// is not kept by a connection that has nothing more to say. f panics here.
func aside(f func()) {
	var running sync.WaitGroup
	var panicked any
	running.Go(func() {
		defer func() { panicked = recover() }()
		f()
	})
	running.Wait()
	if panicked != nil {
		panic(panicked)
	}
}

func (c *conn) doHere(cmd *command, sc *scratch) error {
	if cmd.op == opHello {
		return c.hello(cmd)
	}
	if c.client == nil {
		c.turnAway(cmd.req, http.StatusUnauthorized, codeUnauthenticated, "say hello first, with a token, or a user and a password")
		return nil
	}
	if !c.greeted {
		c.greet()
	}
	switch cmd.op {
	case opPub:
		return c.publish(cmd, &sc.envelope)
	case opRequest:
		return c.request(cmd, &sc.envelope)
	case opSub:
		return c.subscribe(cmd)
	case opUnsub:
		return c.unsubscribe(cmd)
	case opAck, opNack:
		return c.settle(cmd)
	case opExtend:
		return c.extend(cmd)
	case opCredit:
		return c.credit(cmd)
	case opPing:
		c.answer("pong", func(o *object) {
			o.req(cmd.req)
			o.int("ts", time.Now().UnixMilli())
		})
	case opAuth:
		return c.auth(cmd)
	case opBye:
		c.bye(cmd)
	}
	return nil
}

// ok answers a request that has nothing else to tell.
func (c *conn) ok(req []byte) {
	if req != nil {
		c.answer("ok", func(o *object) { o.req(req) })
	}
}

// hello authenticates. It is the first command or none; credentials of the
// upgrade request are not replaced by others.
func (c *conn) hello(cmd *command) error {
	if c.greeted {
		return fmt.Errorf("%w: hello comes first, and once", core.ErrInvalid)
	}
	shown := cmd.hasAny(fieldToken | fieldUser | fieldPass)
	if c.shown && (shown || cmd.hasAny(fieldClient)) {
		return fmt.Errorf("%w: the upgrade request carried credentials already; name the client there, by ?client=", core.ErrInvalid)
	}
	if c.client == nil || shown || cmd.hasAny(fieldClient) {
		status, code, text := c.enter(core.Credentials{
			Client: cmd.client, User: cmd.user, Password: []byte(cmd.pass), Token: cmd.token,
			Certificate: c.certificate, Remote: c.RemoteAddr(),
		}, shown)
		if status == 0 && c.client == nil {
			status, code, text = http.StatusUnauthorized, codeUnauthenticated, "credentials are needed"
		}
		if status != 0 {
			c.turnAway(cmd.req, status, code, text)
			return nil
		}
	}
	c.greet()
	if cmd.resume != "" {
		c.takeOver(cmd.resume)
	}
	c.welcome(cmd.req)
	return nil
}

// auth shows new credentials before the old ones' time is over. Where they are
// refused, what held before holds on.
func (c *conn) auth(cmd *command) error {
	if !cmd.hasAny(fieldToken | fieldUser) {
		return fmt.Errorf(`%w: want a "token", or a "user" and a "pass"`, core.ErrInvalid)
	}
	s := c.srv
	if !s.Gate.MayLogin(c.RemoteAddr()) {
		return errLoginRate
	}
	ctx, cancel := context.WithTimeout(s.hard, s.Limits.Handshake)
	defer cancel()
	err := c.client.Renew(ctx, core.Credentials{
		Protocol: protocol, Client: c.name, User: cmd.user, Password: []byte(cmd.pass), Token: cmd.token,
		Certificate: c.certificate, Remote: c.RemoteAddr(),
	})
	if errors.Is(err, core.ErrUnauthenticated) {
		s.Gate.LoginFailed(c.RemoteAddr())
	}
	if err == nil && cmd.req != nil {
		c.answer("ok", func(o *object) {
			o.req(cmd.req)
			c.tellEnd(o)
		})
	}
	return err
}

// tellEnd adds how long the client's credentials last, where they end.
func (c *conn) tellEnd(o *object) {
	if until := c.client.Principal().Until; !until.IsZero() {
		o.int("ttl", time.Until(until).Milliseconds())
	}
}

// turnAway answers a hello that was refused and closes.
func (c *conn) turnAway(req []byte, status int, code, text string) {
	c.srv.count.Refused(code)
	again := status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
	c.sendFrame(func(buf []byte) []byte { return c.coding.appendErr(buf, req, code, text, again, nil) })
	switch status {
	case http.StatusTooManyRequests:
		c.part(closeLoginRate, text)
	case http.StatusServiceUnavailable:
		c.part(websocket.CloseTryAgainLater, text)
	case http.StatusUnauthorized:
		c.part(closeUnauthenticated, text)
	default:
		c.part(closeMalformed, text)
	}
}

// greet ends the handshake.
func (c *conn) greet() {
	c.greeted = true
	c.ws.SetReadLimit(c.srv.messageBytes())
	if !c.leaving.Load() {
		c.SetReadDeadline(time.Time{})
	}
}

// welcome tells who the client is and what the limits are.
func (c *conn) welcome(req []byte) {
	user := c.client.Principal().Name
	c.srv.remember(c)
	c.client.Buffers(c.out)
	c.client.WhenExpired(c.expire)
	c.answer("welcome", func(o *object) {
		o.req(req)
		if user != "" {
			o.str("user", user)
		}
		c.tellEnd(o)
		o.str("protocol", c.coding.protocol())
		o.str("resume", c.ticket)
		o.name("limits")
		o.buf = append(o.buf, c.srv.own[c.coding]...)
	})
}

// appendLimits appends the limits that a welcome tells.
func (s *Server) appendLimits(dst []byte, k coding) []byte {
	limits := [...]struct {
		name  string
		value int64
	}{
		{"payload", int64(s.Limits.MessageBytes)},
		{"message", s.messageBytes()},
		{"headers", int64(s.Limits.HeaderCount)},
		{"header_bytes", int64(s.Limits.HeaderBytes)},
		{"topic", core.MaxTopicBytes},
		{"subscriptions", int64(s.Limits.Subscriptions)},
		{"credit", int64(s.Limits.InFlight)},
		{"max_credit", int64(s.Limits.MaxInFlight)},
		{"publishes", int64(s.Limits.PublishInFlight)},
		{"ping_ms", s.Ping.Milliseconds()},
	}
	if k == codingCBOR {
		dst = appendCBORHead(dst, cborMap, uint64(len(limits)))
		for _, l := range limits {
			dst = appendCBORHead(appendCBORText(dst, l.name), cborUint, uint64(l.value))
		}
		return dst
	}
	for i, l := range limits {
		dst = strconv.AppendQuote(append(dst, "{,"[min(i, 1)]), l.name)
		dst = strconv.AppendInt(append(dst, ':'), l.value, 10)
	}
	return append(dst, '}')
}

// bye ends the subscriptions, waits for what is pending, and closes.
func (c *conn) bye(cmd *command) {
	for _, s := range c.subs.list() {
		s.consumer.Close()
	}
	c.subs = subscriptions{}
	c.drain(c.srv.Limits.Stall)
	c.answer("bye", func(o *object) { o.req(cmd.req) })
	c.part(websocket.CloseNormalClosure, "bye")
}
