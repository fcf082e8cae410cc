package stomp

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A conn is one connection.
type conn struct {
	server *Server
	nc     net.Conn
	ctx    context.Context // ends with the connection, or the server
	stop   context.CancelFunc
	out    *adapters.Outbox
	in     *reader

	// session names the connection: its session header, its inboxes.
	session   string
	handshake time.Time // until when CONNECT must have come

	// interrupted says that the reader is to stop.
	interrupted atomic.Bool
	// ended says that an ERROR frame is the last one. The outbox's lock guards
	// it: it is set and read where frames are encoded.
	ended bool

	receipts *receipts
	beats    heartBeats

	// What follows is set by CONNECT and then the reader's goroutine's own.
	client        *core.Client // nil before
	clientID      string       // as the client named itself, or empty
	version       version
	subscriptions map[string]*subscription // by id
	numbered      map[uint64]*subscription // by number
	lastNumber    uint64
	sources       int // how many destinations all of them have
	transactions  map[string]*transaction
	held          transactionSize // of all that are open
	scratch       sending
	last          addressed // the last SEND's destination
	lastReply     addressed // the last SEND's reply-to
	declared      declaration
	offsets       []core.Offset // scratch of acknowledge
}

// addressed remembers what a destination was understood as: a publisher sends
// to the same one again and again.
type addressed struct {
	written string
	destination
}

func (c *conn) naming() naming { return naming{c.session, c.server.strict} }

// errDisconnected ends serve: the client said goodbye.
var errDisconnected = errors.New("disconnected")

// serve reads frames until the connection is to end, and ends it.
func (c *conn) serve() error {
	for {
		f, err := c.in.next()
		if err == nil {
			err = c.handle(f)
		}
		if err == nil {
			err = c.out.Wait()
		}
		if err == nil {
			continue
		}
		return c.finish(f, err)
	}
}

// Read reads from the connection under the deadline that holds at the time: of
// the handshake, or of the next heart-beat.
func (c *conn) Read(b []byte) (int, error) {
	deadline := c.handshake
	if c.client != nil {
		deadline = time.Time{}
		if d := c.beats.expected; d > 0 {
			deadline = time.Now().Add(d)
		}
	}
	if err := c.nc.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	// interrupt sets the flag first and the deadline then, so that it is seen
	// here or cuts the read short.
	if c.interrupted.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	return c.nc.Read(b)
}

// interrupt makes the reader stop.
func (c *conn) interrupt() {
	c.interrupted.Store(true)
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// handle obeys one frame.
func (c *conn) handle(f *clientFrame) error {
	connecting := f.Command == frame.CONNECT || f.Command == frame.STOMP
	switch {
	case c.client == nil && !connecting:
		return refuse("not_connected", "not connected", "The first frame must be CONNECT or STOMP.")
	case c.client != nil && connecting:
		return refuse("malformed", "already connected", "A connection has one CONNECT frame. Open another connection.")
	}
	switch f.Command {
	case frame.SEND:
		return c.send(f)
	case frame.ACK:
		return c.acknowledge(f, core.Accepted)
	case frame.NACK:
		return c.negative(f)
	case frame.SUBSCRIBE:
		return c.subscribe(f)
	case frame.UNSUBSCRIBE:
		return c.then(f, c.unsubscribe)
	case frame.BEGIN:
		return c.then(f, c.begin)
	case frame.ABORT:
		return c.then(f, c.abort)
	case frame.COMMIT:
		return c.commit(f)
	case frame.DISCONNECT:
		return c.disconnect(f)
	}
	return c.connect(f)
}

// then obeys a frame whose effect is there when do returns, and gives its
// receipt.
func (c *conn) then(f *clientFrame, do func(*clientFrame) error) error {
	if err := do(f); err != nil {
		return err
	}
	return c.done(f)
}

// done gives the receipt of a frame whose effect is there.
func (c *conn) done(f *clientFrame) error {
	number, err := c.receipt(f)
	if err != nil || number == 0 {
		return err
	}
	c.finished(number)
	return nil
}

// receipt makes the receipt that a frame asks for, or 0.
func (c *conn) receipt(f *clientFrame) (core.Receipt, error) {
	id, ok := f.header(frame.Receipt)
	if !ok {
		return 0, nil
	}
	return c.awaited(id)
}

func (c *conn) awaited(id string) (core.Receipt, error) {
	number, ok := c.receipts.add(id)
	if !ok {
		return 0, core.ErrClosed
	}
	return number, nil
}

// finished sends a receipt, once those before it have been sent.
func (c *conn) finished(number core.Receipt) {
	c.out.Append(func(buf []byte) []byte {
		if c.ended {
			return buf
		}
		return c.receipts.finish(buf, number, c.version)
	})
}

// Confirm sends the receipts of what has become durable, and refuses what has
// not.
func (c *conn) Confirm(batch []core.Confirmation) {
	for i := range batch {
		if batch[i].Err != nil {
			c.confirmed(batch[:i])
			id, ok := c.receipts.idOf(batch[i].Receipt)
			c.refuse(batch[i].Err, id, ok)
			c.receipts.end()
			c.interrupt()
			return
		}
	}
	c.confirmed(batch)
}

func (c *conn) confirmed(batch []core.Confirmation) {
	if len(batch) == 0 {
		return
	}
	c.out.Append(func(buf []byte) []byte {
		if c.ended {
			return buf
		}
		for i := range batch {
			buf = c.receipts.finish(buf, batch[i].Receipt, c.version)
		}
		return buf
	})
}

// refuse sends an ERROR frame, unless one has been sent. Nothing follows it.
func (c *conn) refuse(err error, receipt []byte, hasReceipt bool) {
	r := refusalOf(err)
	c.server.metrics.Refused(r.reason)
	if r.reason == "internal" {
		c.server.log.Error("request failed", "client", c.session, "err", err)
	} else {
		c.server.log.Debug("refused", "client", c.session, "err", err)
	}
	c.out.Append(func(buf []byte) []byte {
		if c.ended {
			return buf
		}
		c.ended = true
		return appendError(buf, c.version, r, receipt, hasReceipt)
	})
}

// finish ends the connection: what becomes durable is still confirmed, what is
// wrong is said. f is the frame that was not obeyed, nil where none was read.
func (c *conn) finish(f *clientFrame, err error) error {
	c.beats.stop()
	c.endSubscriptions()
	if err == io.ErrUnexpectedEOF {
		err = refuse("malformed", "unterminated frame", "The connection ended within a frame. A NUL byte ends a frame.")
	}
	var malformed *refusal
	gone := err == io.EOF
	switch {
	case err == errDisconnected, err == io.EOF:
		c.drain()
		err = nil
	case c.ctx.Err() != nil:
		c.drain()
		err = core.ErrClosed
		c.refuse(err, nil, false)
	case c.interrupted.Load():
		// Who interrupted has said why.
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = c.late()
		c.refuse(err, nil, false)
	case f != nil:
		receipt, asked := f.header(frame.Receipt)
		c.drain()
		c.refuse(err, []byte(receipt), asked)
	case errors.As(err, &malformed):
		c.drain()
		c.refuse(err, nil, false)
	}
	c.receipts.end()
	if c.client != nil {
		c.client.Close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), c.server.limits.Stall)
	defer cancel()
	if c.out.Close(ctx) == nil && !gone {
		c.linger()
	}
	return err
}

// abandon ends a connection that cannot go on, without a word.
func (c *conn) abandon() {
	c.beats.stop()
	c.receipts.end()
	c.nc.Close()
	if c.client != nil {
		c.client.Close()
	}
	c.out.Close(context.WithoutCancel(c.ctx))
}

// drain waits until every receipt has been sent, for as long as a peer may
// stall.
func (c *conn) drain() {
	late := time.AfterFunc(c.server.limits.Stall, c.receipts.end)
	defer late.Stop()
	c.receipts.wait()
}

// late is why a deadline passed.
func (c *conn) late() error {
	if c.client == nil {
		return refuse("handshake_timeout", "no CONNECT in time", "Send CONNECT as soon as the connection is open.")
	}
	return refuse("heart_beat_timeout", "no heart-beat in time",
		"Nothing came for twice the interval that the header heart-beat promised.")
}

// linger reads on for a moment behind the last frame, so that closing with
// unread input does not tear it away from its reader (STOMP 1.2 "Connection
// Lingering"). A connection that can be closed one way is, and the client gets
// longer to close the other.
func (c *conn) linger() {
	patience := 100 * time.Millisecond
	if adapters.CloseWrite(c.nc) {
		patience = time.Second
	}
	adapters.Discard(c.nc, patience)
}

// disconnect says goodbye: nothing follows its receipt.
func (c *conn) disconnect(f *clientFrame) error {
	c.endSubscriptions()
	number, err := c.receipt(f)
	if err != nil {
		return err
	}
	if number != 0 {
		c.finished(number)
	}
	return errDisconnected
}

// endSubscriptions releases what the client holds; no MESSAGE follows.
func (c *conn) endSubscriptions() {
	for _, s := range c.numbered {
		s.close()
	}
	clear(c.subscriptions)
	clear(c.numbered)
}
