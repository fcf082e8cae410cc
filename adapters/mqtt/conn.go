package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A conn is one connection. One goroutine at a time reads, decodes and calls the
// core; everything to the peer goes through out.
type conn struct {
	s    *Server
	nc   net.Conn
	out  *adapters.Outbox
	in   reader
	done chan struct{} // closed when nothing of the connection is left

	// Set by CONNECT and fixed from then on.

	v         version
	bridge    bool   // a bridge of mosquitto's
	problems  bool   // the client wants reason strings
	id        string // client id
	client    *core.Client
	keepAlive time.Duration // one and a half times the client's; 0 is none
	maxOut    int           // the largest packet the client takes; 0 is no bound
	aliasMax  uint16        // of the aliases that the client takes
	credit    int           // how many messages a consumer is granted
	expiry    time.Duration // how long the session outlives the connection
	method    string        // of the enhanced authentication, if CONNECT named one
	user      string        // that CONNECT named besides

	// The reader goroutine's own.

	ctx       context.Context // ends when the connection is to end
	over      bool            // nothing more is read
	busy      bool            // more will follow what has just come
	armed     time.Time       // when the read deadline was last set
	partial   int             // how much of a packet had come then
	connected bool            // CONNACK with success is on its way
	left      bool            // DISCONNECT came
	opening   *opening        // from CONNECT to CONNACK
	login     *core.Login     // that is going on
	will      core.Will       // of an empty envelope where there is none
	noWill    bool            // DISCONNECT said not to publish it
	publish   *publishing     // what PUBLISH is decoded into; made with the first
	once      []byte          // scratch: the session's prefix and a packet id
	aliases   []string        // topics by the client's alias, from 1
	received  int             // publishes since the metric was last told
	main      *attachment
	extras    []*attachment
	retired   []*attachment // unsubscribed, while messages are on their way
	session   sessionKind
	resumed   bool // the session goes on: the client may know more of it
	fresh     bool // main has just begun and waits for credit

	// acknowledged messages of the creditor's wait to be granted.
	creditor     *attachment
	acknowledged int

	// has are the messages that the client had already when the session was
	// resumed, by meta.Released, and that may come again. It is made before
	// deliveries begin, and guarded by the outbox from then on.
	has map[sending]bool

	// sentAliases are guarded by the outbox.
	sentAliases map[string]uint16

	saveAtEnd   bool // the session's meta has changed since it was saved
	metaChanged bool // likewise, and the client is to be told only once it is saved

	saving   sync.Mutex // serializes saves of the session; held over the core's call
	savers   sync.WaitGroup
	settings *core.QueueSettings // of the session's queue, where it has one

	// flights are the QoS 1 and 2 messages on their way to the client.
	flights flights

	hasSession bool // guarded by s.mu

	stopped    atomic.Bool
	superseded atomic.Bool // the client has another connection: what has come is the last
	shutdown   atomic.Bool // Stop was called
	lingering  atomic.Bool // all is said, and the client may still read it
	cancel     context.CancelFunc

	mu          sync.Mutex // guards what follows
	room        sync.Cond  // signalled when waiting has become less
	cause       error      // why the connection ends
	unconfirmed int        // QoS 1 and 2 publishes that are not acknowledged to their end
	waiting     int        // of what the core has yet to confirm
	incoming    map[uint16]incoming
	meta        sessionMeta
	releasing   []release // PUBREC came; PUBREL waits until that is durable
	isReleasing bool
	hasUnsaved  bool // messages wait for their packet ids to be kept
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		s: s, nc: nc, done: make(chan struct{}),
		out: adapters.NewOutbox(nc, s.limits.OutputBytes, s.limits.Stall),
	}
	c.in.open(nc)
	c.room.L = &c.mu
	c.ctx, c.cancel = context.WithCancel(context.Background())
	nc.SetReadDeadline(time.Now().Add(s.limits.Handshake))
	return c
}

// Serve goes on until the connection rests, or ends; then it leaves nothing of it.
// It rests when the last that came were not messages, and no acknowledgements of
// such.
func (c *conn) Serve() (rests bool, err error) {
	for !c.over {
		c.busy = false
		if c.turn(); !c.busy && !c.over && !c.stopped.Load() && !c.superseded.Load() {
			return true, nil
		}
	}
	adapters.Waits(c.nc)
	return false, c.end()
}

// works says that what has come may have the connection wait, and that more will
// follow.
func (c *conn) works() {
	if !c.busy {
		c.busy = true
		adapters.Waits(c.nc)
	}
}

// end leaves nothing of the connection, and returns why it ended.
func (c *conn) end() error {
	defer c.s.metrics.Connections.Dec()
	c.mu.Lock()
	err := c.cause
	c.mu.Unlock()
	var f *fault
	if errors.As(err, &f) && f != errTakenOver && f != errShutdown {
		c.s.refused(f) // the client may look as soon as it is told
	}
	lingers := c.finish(err)
	close(c.done)
	if lingers {
		// The client is to read why, whatever it was sending.
		c.lingering.Store(true)
		if !c.shutdown.Load() {
			adapters.Discard(c.nc, lingerTime)
		}
		c.nc.Close()
	}
	if f != nil {
		return err
	}
	if c.left || isEnd(err) || errors.Is(err, io.EOF) && c.will.Envelope == nil {
		return nil
	}
	return err
}

// Stop ends the connection, as the server shuts down.
func (c *conn) Stop() {
	c.shutdown.Store(true)
	c.stop(errShutdown)
	if c.lingering.Load() {
		c.nc.Close()
	}
}

// stop ends the connection from any goroutine; the reader says why to the
// client. The first cause holds.
func (c *conn) stop(cause error) {
	c.mu.Lock()
	if c.cause == nil {
		c.cause = cause
	}
	c.room.Broadcast()
	c.mu.Unlock()
	c.stopped.Store(true)
	c.cancel()
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// supersede ends the connection, from any goroutine, because its client has
// another one. What the client had sent by then is handled first: it may have
// published and said DISCONNECT before it came again, and neither is to be lost
// only because it was quicker than the reader ([MQTT-3.14.4-3] of 5.0,
// [MQTT-3.1.2-10] of 3.1.1).
func (c *conn) supersede() {
	c.superseded.Store(true)
	c.nc.SetReadDeadline(c.in.lastDeadline())
}

// turn reads once and handles the packets that have come. It is the last one
// after DISCONNECT, and after an error, which stops the connection.
func (c *conn) turn() {
	err := c.read()
	if c.over = err != nil || c.left; c.over {
		c.stop(err)
	}
}

func (c *conn) read() error {
	if c.stopped.Load() {
		return context.Canceled
	}
	if c.superseded.Load() && !c.in.last {
		c.in.last = true
		adapters.Waits(c.nc)
	}
	buf, err := c.in.fill()
	if err != nil {
		c.in.keep(buf)
		if err == adapters.ErrRest {
			return nil
		}
		return c.readError(err)
	}
	rest, err := c.handleAll(buf)
	c.grant()
	if c.received > 0 {
		c.s.metrics.Received.Add(float64(c.received))
		c.received = 0
	}
	if err != nil || c.left {
		c.in.keep(nil)
		return err
	}
	c.in.keep(rest)
	c.heard(len(buf), len(rest))
	return c.out.WaitContext(c.ctx)
}

// heard moves the read deadline once a packet has come, or much of one: bytes
// that drip do not keep a connection ([MQTT-3.1.2-22] of 5.0, [MQTT-3.1.2-24] of
// 3.1.1), and a large packet that takes its time does not end it. before and
// left are what was to be handled, and is.
func (c *conn) heard(before, left int) {
	const much = 1000
	if left < before || left >= c.partial+much {
		c.partial = left
		c.arm()
	}
}

// arm moves the read deadline once an eighth of its time has passed, so that it
// costs nothing for each packet and the client has between 1.5 and 1.7 times
// its keep-alive ([MQTT-3.1.2-22] of 5.0, [MQTT-3.1.2-24] of 3.1.1).
func (c *conn) arm() {
	if !c.connected || c.keepAlive == 0 {
		return
	}
	if now := time.Now(); now.Sub(c.armed) > c.keepAlive/8 {
		c.armed = now
		c.nc.SetReadDeadline(now.Add(c.keepAlive + c.keepAlive/8))
	}
}

func (c *conn) readError(err error) error {
	switch {
	case c.stopped.Load():
		return context.Canceled
	case isTimeout(err) && c.superseded.Load():
		if !c.in.last {
			return nil // the next turn reads what has come
		}
		return errTakenOver
	case isTimeout(err) && !c.connected:
		return errHandshake
	case isTimeout(err):
		return errKeepAlive
	}
	return err
}

// handleAll handles the packets that are complete and returns what is left. A
// panic is this connection's end and no other's.
func (c *conn) handleAll(buf []byte) (rest []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			c.s.log.Error("panic while handling a packet", "client", fmt.Sprintf("%q", c.id), "err", r, "stack", string(debug.Stack()))
			rest, err = nil, errPanic
		}
	}()
	for {
		h, ok, err := parseHeader(buf)
		if err != nil {
			return nil, err
		}
		if !ok {
			return buf, nil
		}
		if err := c.checkHeader(h); err != nil {
			return nil, err
		}
		if len(buf)-h.size < h.length {
			return buf, nil
		}
		end := h.size + h.length
		if err := c.handle(h, buf[h.size:end:end]); err != nil {
			return nil, err
		}
		if c.left {
			return nil, nil
		}
		if c.stopped.Load() {
			return nil, context.Canceled
		}
		if buf = buf[end:]; len(buf) > 0 && !c.busy {
			adapters.Waits(c.nc) // many packets may take long
		}
	}
}

// checkHeader refuses a packet by its fixed header alone, before anything is
// kept of it.
func (c *conn) checkHeader(h header) error {
	limit := c.s.maxPacket
	if !c.connected {
		switch kind := h.kind(); {
		case c.login != nil && (kind == typeAuth || kind == typeDisconnect):
		case c.login != nil && kind != typeConnect:
			return errAuthFirst // [MQTT-3.1.2-30]
		case kind != typeConnect:
			return errFirstConnect // [MQTT-3.1.0-1]
		}
		limit = min(c.s.limits.PreAuthBytes, limit)
	}
	if h.size+h.length > limit {
		return errTooLarge
	}
	if err := c.checkLength(h); err != nil {
		return err
	}
	want := byte(0)
	switch h.kind() {
	case typePublish:
		return nil
	case typePubrel, typeSubscribe, typeUnsubscribe:
		want = 2
		if c.v == v31 {
			h.first &^= 8 // 3.1 allows DUP here
		}
	}
	if h.first&0x0F != want { // [MQTT-2.1.3-1] of 5.0, [MQTT-2.2.2-2] of 3.1.1
		return errFlags
	}
	return nil
}

// checkLength refuses a Remaining Length that is not in its shortest form
// ([MQTT-1.5.5-1]); before 5.0 it may be.
func (c *conn) checkLength(h header) error {
	if h.size > 2 && c.v == v5 && h.size-1 != varintSize(h.length) {
		return errLongVarint
	}
	return nil
}

func (c *conn) handle(h header, body []byte) error {
	switch h.kind() {
	case typePublish:
		c.works()
		return c.handlePublish(h.first&0x0F, body)
	case typePuback, typePubrec, typePubrel, typePubcomp:
		c.works()
		var a ackPacket
		if err := a.decode(h.kind(), body, c.v, &c.s.limits); err != nil {
			return err
		}
		return c.handleAck(h.kind(), a)
	case typePingreq:
		if len(body) > 0 {
			return errTrailing
		}
		c.out.AppendNow(appendPingresp)
		return nil
	case typeConnect:
		if c.connected || c.login != nil {
			return errSecondConnect // [MQTT-3.1.0-2]
		}
		return c.handleConnect(h, body)
	case typeSubscribe, typeUnsubscribe:
		adapters.Waits(c.nc)
		pk, bad := decodeControl(h, body, c.v, &c.s.limits)
		if bad != nil {
			return bad
		}
		if h.kind() == typeSubscribe {
			return c.handleSubscribe(pk)
		}
		return c.handleUnsubscribe(pk)
	case typeDisconnect:
		return c.handleDisconnect(body)
	case typeAuth:
		adapters.Waits(c.nc)
		return c.handleAuth(body)
	case typeConnack, typeSuback, typeUnsuback, typePingresp:
		return errServerPacket
	}
	return errPacketType
}

func appendPingresp(b []byte) []byte { return append(b, typePingresp<<4, 0) }

// handleDisconnect takes the client's leave (section 3.14).
func (c *conn) handleDisconnect(body []byte) error {
	var d disconnectPacket
	if err := d.decode(body, c.v, &c.s.limits); err != nil {
		return err
	}
	if d.expires {
		expiry := c.s.sessionExpiry(d.expiry)
		if c.expiry == 0 && expiry > 0 {
			return errSessionExpiry // [MQTT-3.14.2-2]
		}
		c.expiry = expiry
	}
	if d.code == codeSuccess {
		c.noWill = true // [MQTT-3.14.4-3]
	}
	c.left = true
	return nil
}

// send sends an encoded packet, unless it is larger than the client takes
// ([MQTT-3.1.2-24]).
func (c *conn) send(packet []byte) {
	if c.maxOut > 0 && len(packet) > c.maxOut {
		c.s.metrics.Refused("client_packet_size")
		return
	}
	c.out.AppendNow(func(b []byte) []byte { return append(b, packet...) })
}
