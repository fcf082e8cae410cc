package ws

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A conn is one connection that speaks the native protocol. One goroutine reads
// it and does what the commands say; what the core has to say is appended to
// the outbox by the core's own goroutines.
type conn struct {
	outlet
	srv         *Server
	ws          *websocket.Conn
	certificate *x509.Certificate
	// leaving says that a close frame was sent, or is about to be: commands
	// are not looked at any more.
	leaving atomic.Bool

	// The reader's.

	client  *core.Client // nil before authentication
	name    string       // of the client
	shown   bool         // the upgrade request carried credentials
	greeted bool         // a command was done: it is too late for hello
	subs    subscriptions
	named   int // the last name that was given to a subscription
	ticket  string
	inbox   *inbox

	mu      sync.Mutex // guards what follows
	idle    sync.Cond  // signalled when something is not pending any more
	pending []pending  // by receipt - 1
	free    int        // the receipt of a free place in pending, 0 for none
	waiting int        // how many places are taken
}

func newConn(s *Server) *conn {
	c := &conn{srv: s}
	c.idle.L = &c.mu
	return c
}

// A scratch is what decoding one message needs. An idle connection has none.
type scratch struct {
	buf      []byte
	command  command
	envelope core.Envelope
}

func (s *Server) newScratch() *scratch {
	return &scratch{buf: make([]byte, 0, 1024), command: command{maxHeaders: s.Limits.HeaderCount, maxValue: s.Limits.MessageBytes}}
}

// maxScratch is how large the buffer of a scratch that is kept may be.
const maxScratch = 64 << 10

func (s *Server) putScratch(sc *scratch) {
	if cap(sc.buf) <= maxScratch && cap(sc.command.cbor.out) <= maxScratch {
		s.scratches.Put(sc)
	}
}

// enter authenticates the connection, or says why not: an HTTP status, a code
// and a text. Without credentials it tries to come in anonymously; where that
// is not allowed, it waits for the hello.
func (c *conn) enter(cr core.Credentials, shown bool) (status int, code, text string) {
	s := c.srv
	cr.Protocol = protocol
	if len(cr.Client) > s.Limits.ClientIDBytes || !utf8.ValidString(cr.Client) {
		return http.StatusBadRequest, codeInvalid, "the client's name is too long or not UTF-8"
	}
	if cr.Client == "" {
		cr.Client = newName()
	}
	ctx, cancel := context.WithTimeout(s.hard, s.Limits.Handshake)
	defer cancel()
	client, err := s.Gate.Login(ctx, s.broker, cr, c)
	switch {
	case errors.Is(err, adapters.ErrLogins):
		return http.StatusTooManyRequests, codeLoginRate, errLoginRate.Error()
	case err == nil:
		c.leave()
		c.client, c.shown, c.name = client, shown, cr.Client
		s.count.Connects.Inc()
		return 0, "", ""
	case !errors.Is(err, core.ErrUnauthenticated):
		s.Logger.Warn("authentication failed", "client", cr.Client, "err", err)
		return http.StatusServiceUnavailable, codeUnavailable, "credentials cannot be checked now"
	case shown:
		return http.StatusUnauthorized, codeUnauthenticated, "wrong credentials"
	}
	return 0, "", ""
}

// expire turns a client away whose token's time is over.
func (c *conn) expire(why error) {
	text := "the credentials have expired: connect with new ones"
	switch {
	case errors.Is(why, core.ErrShed):
		text = "memory is short and the connection reads too slowly: come again"
		c.out.Drop()
		c.srv.count.Refused("shed")
		c.sendFrame(func(buf []byte) []byte { return c.coding.appendErr(buf, nil, codeLimit, text, true, nil) })
		c.part(websocket.CloseTryAgainLater, text)
		return
	case errors.Is(why, core.ErrDisconnected):
		text = "an operator ended the connection"
	}
	c.srv.count.Refused("expired")
	c.sendFrame(func(buf []byte) []byte { return c.coding.appendErr(buf, nil, codeUnauthenticated, text, false, nil) })
	c.part(closeUnauthenticated, text)
}

// newName is the adapter's name for a connection that has none.
func newName() string {
	var b [6]byte
	rand.Read(b[:])
	return "ws-" + hex.EncodeToString(b[:])
}

// leave ends what the connection holds of the broker.
func (c *conn) leave() {
	if c.client != nil {
		c.client.Close()
	}
}

// messageBytes is the longest message once the peer is authenticated: a payload
// at the limit in base64, or as text in which every byte is escaped by one
// other; headers likewise.
func (s *Server) messageBytes() int64 {
	return int64(2*(s.Limits.MessageBytes+s.Limits.HeaderBytes) + s.Limits.PreAuthBytes)
}

// serve reads until the connection ends. Nothing of what it began goes on after
// it has returned.
func (c *conn) serve() {
	s := c.srv
	s.count.Connections.Inc()
	defer s.count.Connections.Dec()
	c.ws.SetPingHandler(func(data string) error {
		err := c.out.Wait()
		c.sendControl(framePong, data)
		return err
	})
	c.ws.SetCloseHandler(func(code int, _ string) error {
		c.sendClose(c.answerOf(code), "")
		return nil
	})
	if c.client != nil {
		c.ws.SetReadLimit(s.messageBytes())
		c.welcome(nil)
	} else {
		c.ws.SetReadLimit(int64(s.Limits.PreAuthBytes))
		c.SetReadDeadline(time.Now().Add(s.Limits.Handshake))
	}
	c.keepAlive(s.Ping, func() { c.sendControl(framePing, "") })
	err := c.read()
	s.forget(c)
	c.leave()
	if c.inbox != nil {
		c.inbox.close()
	}
	c.ended(err)
}

// read reads messages and does what they say until reading fails.
func (c *conn) read() (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.srv.Logger.Error("panic", "remote", c.RemoteAddr().String(), "panic", p, "stack", string(debug.Stack()))
			c.sendClose(websocket.CloseInternalServerErr, "internal error")
			err = errInternal
		}
	}()
	for {
		if err := c.out.Wait(); err != nil {
			return err
		}
		c.await()
		kind, r, err := c.ws.NextReader()
		switch {
		case err != nil:
			return err
		case c.leaving.Load():
			continue
		case (kind == websocket.TextMessage) != (c.coding == codingJSON):
			reason, text := "binary_message", "text messages only"
			if c.coding == codingCBOR {
				reason, text = "text_message", "binary messages only"
			}
			c.srv.count.Refused(reason)
			c.part(websocket.CloseUnsupportedData, text)
			continue
		}
		if err := c.take(r); err != nil {
			return err
		}
	}
}

var errInternal = errors.New("ws: internal error")

// take reads one message and does what it says. Its buffer grows with what
// comes, not with what a header claims.
func (c *conn) take(r io.Reader) error {
	sc := c.srv.scratches.Get().(*scratch)
	defer c.srv.putScratch(sc)
	buf := sc.buf[:0]
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	sc.buf = buf
	if c.coding == codingJSON && !utf8.Valid(buf) {
		c.srv.count.Refused("not_utf8")
		c.part(websocket.CloseInvalidFramePayloadData, "not UTF-8")
		return nil
	}
	cmd := &sc.command
	err := cmd.decode(c.coding, buf)
	if err != nil && c.client == nil {
		c.fail(cmd.req, err)
		c.part(closeMalformed, "want a hello")
		return nil
	}
	if err == nil {
		err = c.do(cmd, sc)
	}
	if err != nil {
		c.fail(cmd.req, err)
	}
	return nil
}

// part sends a close frame and gives the peer closeWait to answer it. What is
// read until then is thrown away.
func (c *conn) part(code int, text string) {
	c.leaving.Store(true)
	c.sendClose(code, text)
	c.SetReadDeadline(time.Now().Add(closeWait))
}

// ended counts why reading ended, tells the peer where nobody has, and closes
// the connection once all is written. The client is closed, so nothing else is
// sent.
func (c *conn) ended(err error) {
	var peer *websocket.CloseError
	answered := false
	switch {
	case errors.As(err, &peer):
		answered = true
	case errors.Is(err, websocket.ErrReadLimit):
		c.srv.count.Refused("message_too_large")
	case isTimeout(err) && c.client == nil && !c.leaving.Load():
		c.srv.count.Refused("handshake_timeout")
		c.sendClose(closeNoHello, "no hello in time")
	case c.broken != nil:
		c.srv.count.Refused("frame_malformed")
		c.sendClose(websocket.CloseProtocolError, c.broken.Error())
	case isProtocolError(err) && err != errInternal:
		c.srv.count.Refused("frame_malformed")
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	flushed := c.out.Close(ctx)
	if isTimeout(flushed) {
		c.srv.count.Refused("stalled")
	}
	if flushed == nil && !answered && !(isTimeout(err) && c.leaving.Load()) {
		c.linger()
	}
	c.close()
}

// depart says goodbye for the broker: what is pending is confirmed first, if
// that does not take too long.
func (c *conn) depart() {
	c.srv.conns.Go(func() {
		c.answer("bye", func(o *object) {
			o.str("code", codeClosing)
			o.str("text", "the broker stops")
			o.yes("retry")
		})
		c.leaving.Store(true)
		c.drain(closeWait)
		c.part(websocket.CloseGoingAway, "the broker stops")
	})
}

func (c *conn) cut() { c.Conn.Close() }
