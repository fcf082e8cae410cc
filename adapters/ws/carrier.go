package ws

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// A carrier is a WebSocket as a net.Conn, which another adapter serves as if it
// were a socket: what the peer sends is one stream of bytes, however it is split
// over messages and frames ([MQTT-6.0.0-2]); each Write is one message.
type carrier struct {
	wire
	ws   *websocket.Conn
	tls  *tls.ConnectionState
	text bool // text messages are carried too, in both directions
	srv  *Server

	// The reader's.

	message io.Reader // what is left of a message, or nil
	runes   runeChecker
	isText  bool // it is a text message
	readErr error
	goodbye bool // the peer's close frame was read

	writing sync.Mutex // held while a frame is written
	closed  bool       // a close frame was written; guarded by writing

	mu       sync.Mutex // guards what follows
	active   bool       // a Write is on its way
	deadline time.Time  // of Write
	closing  bool       // Close was called
	code     int        // what Close says
	reason   string
}

// A peer of the carrier that breaks the rules is told so by these.
var (
	errBinaryOnly = errors.New("ws: a text message where only binary ones are allowed")
	errNotUTF8    = errors.New("ws: a text message is not UTF-8")
)

// Read reads across messages. Text messages are refused unless they are carried
// ([MQTT-6.0.0-1]), and must be UTF-8 (RFC 6455, section 8.1). A peer's close
// frame is io.EOF; after the adapter's own Close it is net.ErrClosed, whether
// the peer's answer or the end came first.
func (c *carrier) Read(p []byte) (int, error) {
	if c.readErr != nil {
		return 0, c.readErr
	}
	n, err := c.read(p)
	if err != nil {
		c.readErr = c.explain(err)
	}
	if n > 0 {
		return n, nil
	}
	return 0, c.readErr
}

func (c *carrier) read(p []byte) (int, error) {
	for len(p) > 0 {
		if c.message == nil {
			kind, message, err := c.ws.NextReader()
			if err != nil {
				return 0, err
			}
			c.isText = kind == websocket.TextMessage
			if c.isText && !c.text {
				return 0, errBinaryOnly
			}
			c.message, c.runes = message, runeChecker{}
		}
		n, err := c.message.Read(p)
		if c.isText && !c.runes.write(p[:n]) {
			return 0, errNotUTF8
		}
		if err == io.EOF {
			c.message, err = nil, nil
			if c.isText && !c.runes.done() {
				return 0, errNotUTF8
			}
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, nil
}

// explain counts why reading ended, tells the peer where the library has not,
// and returns what the adapter is told.
func (c *carrier) explain(err error) error {
	var peer *websocket.CloseError
	switch {
	case errors.Is(err, errBinaryOnly):
		c.srv.count.Refused("text_message")
		c.end(websocket.CloseUnsupportedData, "binary messages only")
	case errors.Is(err, errNotUTF8):
		c.srv.count.Refused("not_utf8")
		c.end(websocket.CloseInvalidFramePayloadData, "not UTF-8")
	case errors.As(err, &peer):
		c.goodbye = true
		if c.isClosing() {
			return net.ErrClosed
		}
		return io.EOF
	case isTimeout(err):
		if c.isClosing() {
			return net.ErrClosed
		}
		return &net.OpError{Op: "read", Net: "websocket", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.ErrDeadlineExceeded}
	case c.broken != nil:
		c.srv.count.Refused("frame_malformed")
		c.end(websocket.CloseProtocolError, c.broken.Error())
	case isProtocolError(err):
		c.srv.count.Refused("frame_malformed")
	}
	return err
}

func (c *carrier) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// isProtocolError reports whether the library found a frame broken: what is not
// an error of the network has no type of its own.
func isProtocolError(err error) bool {
	var network net.Error
	var peer *websocket.CloseError
	return !errors.As(err, &network) && !errors.As(err, &peer) && !errors.Is(err, io.EOF) &&
		!errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe)
}

// Write writes p as one message: a text message where those are carried and p
// is UTF-8, else a binary one.
func (c *carrier) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	first := byte(frameBinary)
	if c.text && utf8.Valid(p) {
		first = frameText
	}
	frame := c.srv.frames.Get().(*[]byte)
	*frame = append(appendHeader((*frame)[:0], first, len(p)), p...)
	err := c.writeFrame(*frame, true)
	if cap(*frame) <= maxPooledFrame {
		c.srv.frames.Put(frame)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// maxPooledFrame is how large a buffer in Server.frames may be.
const maxPooledFrame = 64 << 10

// writeFrame writes a whole frame: under the adapter's deadline where it is the
// adapter's, under one of its own where it is a control frame.
func (c *carrier) writeFrame(frame []byte, data bool) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = frame[0] == frameClose
	c.mu.Lock()
	c.active = data
	deadline := c.deadline
	if !data {
		deadline = time.Now().Add(c.srv.Limits.Stall)
	}
	if c.closing {
		deadline = time.Now().Add(closeWait)
	}
	c.Conn.SetWriteDeadline(deadline)
	c.mu.Unlock()
	_, err := c.Conn.Write(frame)
	c.mu.Lock()
	c.active = false
	c.mu.Unlock()
	if err != nil {
		c.closed = true // part of a frame may have been written
	}
	return err
}

func (c *carrier) writeControl(first byte, payload string) error {
	return c.writeFrame(appendControl(nil, first, payload), false)
}

// SetReadDeadline bounds Read. One that has passed ends reading for good.
func (c *carrier) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return net.ErrClosed
	}
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline bounds Write, one that is on its way too.
func (c *carrier) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.active && !c.closing {
		return c.Conn.SetWriteDeadline(t)
	}
	return nil
}

// SetDeadline sets both.
func (c *carrier) SetDeadline(t time.Time) error {
	c.SetWriteDeadline(t)
	return c.SetReadDeadline(t)
}

// ConnectionState is that of the TLS connection beneath; its zero value where
// there is none.
func (c *carrier) ConnectionState() tls.ConnectionState {
	if c.tls == nil {
		return tls.ConnectionState{}
	}
	return *c.tls
}

// Close says goodbye by a close frame, for which a peer that does not read has
// closeWait, and ends Read. The socket stays open until the adapter has
// returned and the peer has had its time to answer.
func (c *carrier) Close() error {
	c.end(websocket.CloseNormalClosure, "")
	return nil
}

// end closes with a code, which only the first call gives.
func (c *carrier) end(code int, text string) {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return
	}
	c.closing = true
	if c.code != 0 {
		code, text = c.code, c.reason
	}
	c.Conn.SetWriteDeadline(time.Now().Add(closeWait))
	c.mu.Unlock()
	c.writeFrame(appendClose(nil, code, text), false)
	c.Conn.SetReadDeadline(time.Now())
}

// goingAway makes a later Close say that the broker stops.
func (c *carrier) goingAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.code, c.reason = websocket.CloseGoingAway, "the broker stops"
}

// finish ends the connection after its adapter has returned.
func (c *carrier) finish() {
	c.Close()
	if !c.goodbye {
		c.linger()
	}
	c.close()
}

// A carrierWire is the carrier as the WebSocket library sees it: it reads the
// wire, and writes whole frames, or the handshake's answer.
type carrierWire struct{ *carrier }

func (w carrierWire) Read(p []byte) (int, error) { return w.wire.Read(p) }

func (w carrierWire) Write(p []byte) (int, error) {
	if err := w.writeFrame(p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w carrierWire) Close() error                       { return w.wire.Conn.Close() }
func (w carrierWire) SetDeadline(t time.Time) error      { return w.wire.Conn.SetReadDeadline(t) }
func (w carrierWire) SetReadDeadline(t time.Time) error  { return w.wire.Conn.SetReadDeadline(t) }
func (w carrierWire) SetWriteDeadline(t time.Time) error { return nil }

// A runeChecker finds out whether a text is UTF-8 that comes in pieces.
type runeChecker struct {
	part [utf8.UTFMax]byte // of a rune that the last piece cut
	n    int
}

// write takes a piece and reports whether the text may still be UTF-8.
func (r *runeChecker) write(p []byte) bool {
	for r.n > 0 && len(p) > 0 {
		r.part[r.n] = p[0]
		r.n++
		p = p[1:]
		if !utf8.FullRune(r.part[:r.n]) {
			continue
		}
		if c, size := utf8.DecodeRune(r.part[:r.n]); c == utf8.RuneError && size == 1 {
			return false
		}
		r.n = 0
	}
	// Leave the last rune to the next piece if it is cut.
	for back := 1; back <= min(len(p), utf8.UTFMax-1); back++ {
		tail := p[len(p)-back:]
		if utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				r.n = copy(r.part[:], tail)
				p = p[:len(p)-back]
			}
			break
		}
	}
	return utf8.Valid(p)
}

// done reports whether the text ended with a whole rune.
func (r *runeChecker) done() bool { return r.n == 0 }
