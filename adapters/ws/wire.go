package ws

import (
	"bufio"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// closeWait is how long a peer has to answer a close frame, and to read what
// was written before it.
const closeWait = time.Second

// A wire is the hijacked connection as the WebSocket library reads it. It knows
// since when it has been waiting for the peer. On a plain TCP socket it waits
// without a buffer, and borrows a large one once there is something to read.
type wire struct {
	net.Conn
	waiting atomic.Int64 // since when a Read waits, in nanoseconds since 1970; 0: none does, -1: none will
	beats   *time.Timer

	// The reader's.

	raw   syscall.RawConn // nil where the connection is not a socket
	step  func(fd uintptr) bool
	small *bufio.Reader // the library's buffer
	chunk *[]byte       // borrowed while it has something
	have  []byte        // of chunk, what was not taken yet
	err   error         // why step read nothing

	frames framing
	broken error // what frames has found
}

// chunks are the buffers that wires borrow.
var chunks = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// smallBuffer is how large the library's own buffer is: it takes no smaller one.
const smallBuffer = 272

// Read reads for the library, up to a frame that must not pass.
func (w *wire) Read(p []byte) (int, error) {
	if w.broken != nil {
		return 0, w.broken
	}
	n, err := w.receive(p)
	sound, broken := w.frames.check(p[:n])
	if broken == nil {
		return n, err
	}
	w.broken = broken
	if sound == 0 {
		return 0, broken
	}
	return sound, nil
}

// receive reads what comes, whatever it is.
func (w *wire) receive(p []byte) (int, error) {
	if w.raw != nil {
		if len(w.have) == 0 && w.err == nil {
			w.wait()
		}
		n := copy(p, w.have)
		if w.have = w.have[n:]; len(w.have) == 0 && w.chunk != nil {
			chunks.Put(w.chunk)
			w.chunk = nil
		}
		err := w.err
		w.err = nil
		return n, err
	}
	w.waiting.Store(time.Now().UnixNano())
	n, err := w.Conn.Read(p)
	w.waiting.Store(0)
	return n, err
}

// await waits until there is something to read, if it can. Who calls it before
// the library reads, waits on a stack that is not deep, and so stays small: with
// the library's frames on it, it would stay at twice its size.
func (w *wire) await() {
	if w.raw != nil && len(w.have) == 0 && w.err == nil && w.small.Buffered() == 0 {
		w.wait()
	}
}

// wait reads what comes next, or sets err.
func (w *wire) wait() {
	w.waiting.Store(time.Now().UnixNano())
	if err := w.raw.Read(w.step); err != nil {
		w.err = err
	}
	w.waiting.Store(0)
}

// buffered makes the buffer that the library reads with.
func (w *wire) buffered(outer io.Reader) *bufio.Reader {
	w.openRaw()
	w.small = bufio.NewReaderSize(outer, smallBuffer)
	return w.small
}

// keepAlive calls ping about an interval after the peer was last heard of, and
// cuts the connection when two more have passed without a sign of it: proxies
// see traffic, and a peer that has vanished is found. One that was never asked
// is not cut, however late the timer comes.
func (w *wire) keepAlive(interval time.Duration, ping func()) {
	var asked int64 // the silence, by its beginning, in which a ping was sent
	missed := 0
	w.beats = time.AfterFunc(math.MaxInt64, func() {
		switch since := w.waiting.Load(); {
		case since < 0:
			return
		case since == 0: // the broker is not reading, so it cannot tell
		case since == asked:
			if missed++; missed == 2 {
				w.Conn.Close()
				return
			}
		case time.Now().UnixNano()-since >= int64(interval/2):
			asked, missed = since, 0
			ping()
		}
		w.beats.Reset(interval)
	})
	w.beats.Reset(interval)
}

// answerOf is the close code that answers one of the peer's (RFC 6455, section
// 5.5.1), as the library has read it.
func (w *wire) answerOf(code int) int {
	switch {
	case code == websocket.CloseNoStatusReceived:
		return websocket.CloseNormalClosure
	case w.frames.gateway:
		return closeBadGateway
	}
	return code
}

// linger throws away what the peer still sends, until it closes the connection
// too, or closeWait: a socket closed with input unread resets, and the peer might
// lose what was written last.
func (w *wire) linger() {
	adapters.CloseWrite(w.Conn)
	adapters.Discard(w.Conn, closeWait)
}

// close cuts the connection for good.
func (w *wire) close() {
	if w.chunk != nil {
		chunks.Put(w.chunk)
		w.chunk, w.have = nil, nil
	}
	w.waiting.Store(-1)
	if w.beats != nil {
		w.beats.Stop()
	}
	w.Conn.Close()
}

// An outlet is a wire whose frames go through an outbox, so that many become
// one write. The library's own (it answers a broken frame with a close frame)
// come through Write.
type outlet struct {
	wire
	coding coding
	out    *adapters.Outbox
	// closed says that a close frame was appended, behind which nothing may
	// follow (RFC 6455, section 5.5.1). It is guarded by the outbox's lock:
	// only what runs under it looks at it.
	closed bool
}

func (o *outlet) init(c net.Conn, limits *adapters.Limits) {
	o.wire.Conn = c
	o.out = adapters.NewOutbox(c, limits.OutputBytes, limits.Stall)
}

// Write takes a whole frame, or the handshake's answer.
func (o *outlet) Write(p []byte) (int, error) {
	if !o.send(func(buf []byte) []byte {
		o.closed = p[0] == frameClose
		return append(buf, p...)
	}) {
		return 0, net.ErrClosed
	}
	return len(p), nil
}

// The outbox sets the deadlines of writes.
func (o *outlet) SetWriteDeadline(time.Time) error  { return nil }
func (o *outlet) SetDeadline(t time.Time) error     { return o.Conn.SetReadDeadline(t) }
func (o *outlet) SetReadDeadline(t time.Time) error { return o.Conn.SetReadDeadline(t) }

// send appends whole frames; encode runs under the outbox's lock and must not
// block.
func (o *outlet) send(encode func(buf []byte) []byte) bool {
	return o.sendFor(nil, core.Credit{}, encode)
}

// sendFor is send for deliveries, whose credit is granted to the consumer once
// they are written.
func (o *outlet) sendFor(k *core.Consumer, credit core.Credit, encode func(buf []byte) []byte) bool {
	return o.out.AppendFor(k, credit, func(buf []byte) []byte {
		if o.closed {
			return buf
		}
		return encode(buf)
	})
}

// answer sends one object, whose members fill adds.
func (o *outlet) answer(op string, fill func(*object)) bool {
	return o.sendFrame(func(buf []byte) []byte {
		a := o.coding.begin(buf, op)
		fill(&a)
		return a.end()
	})
}

// sendFrame sends what encode appends as one message.
func (o *outlet) sendFrame(encode func(buf []byte) []byte) bool {
	return o.send(func(buf []byte) []byte {
		return closeFrame(encode(openFrame(buf)), len(buf), o.coding.frame())
	})
}

func (o *outlet) sendControl(first byte, payload string) bool {
	return o.send(func(buf []byte) []byte { return appendControl(buf, first, payload) })
}

// sendClose sends a close frame, unless one has been sent.
func (o *outlet) sendClose(code int, text string) {
	o.send(func(buf []byte) []byte {
		o.closed = true
		return appendClose(buf, code, text)
	})
}
