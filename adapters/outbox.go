package adapters

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/sluicemq/sluice/core"
)

// An Outbox is the way out of one connection: whoever has something for the
// peer appends its bytes, and one goroutine, there only while there is
// something to write, writes all that has gathered in one call. Credit that
// deliveries took is granted back to their consumers once their bytes are
// written, so a peer that does not read stops its own deliveries and nothing
// grows.
type Outbox struct {
	conn  net.Conn
	limit int
	stall time.Duration

	now *nowWriter // the writer's; nil until there was one, and where conn is no socket

	mu      sync.Mutex // guards what follows
	room    sync.Cond  // signalled when buf has become shorter, or closed
	buf     *buffer    // what waits; nil while nothing does
	grants  []grant    // for what waits
	done    []grant    // the writer's
	writing bool       // a writer is running
	flying  int        // bytes that it is writing
	closing bool       // nothing more is taken
	err     error      // why writing ended
	writers sync.WaitGroup
}

// A grant is what a consumer gets once bytes are written: its credit back, and,
// where through is set, what it holds up to there accepted.
type grant struct {
	consumer *core.Consumer
	credit   core.Credit
	through  core.Offset
}

func (g *grant) pay() {
	if g.through == 0 {
		g.consumer.Grant(g.credit)
		return
	}
	// An error says that the consumer has ended, and holds nothing any more.
	_ = g.consumer.Settle(g.through, core.Accepted, core.SettleOptions{Through: true, Credit: g.credit})
}

// A buffer is what an outbox writes. Outboxes borrow theirs, so that an idle
// connection holds none and a busy one does not grow a new one with each burst.
type buffer struct{ bytes []byte }

// bufferClasses are the sizes of buffers: each burst begins with the smallest,
// and goes over to a larger one when that is full.
var bufferClasses = [...]int{4 << 10, 64 << 10, 1280 << 10}

var buffers [len(bufferClasses)]sync.Pool

// borrow returns a buffer with room for n bytes, as far as there are such.
func borrow(n int) *buffer {
	class := 0
	for class < len(bufferClasses)-1 && bufferClasses[class] < n {
		class++
	}
	if b, ok := buffers[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, 0, bufferClasses[class])}
}

func (b *buffer) giveBack() {
	for class := len(bufferClasses) - 1; class >= 0; class-- {
		if cap(b.bytes) < bufferClasses[class] {
			continue
		}
		if cap(b.bytes) <= 2*bufferClasses[class] {
			b.bytes = b.bytes[:0]
			buffers[class].Put(b)
		}
		return
	}
}

// reserve makes room for n bytes more, which will mostly do; the mutex is held.
func (o *Outbox) reserve(n int) {
	switch b := o.buf; {
	case b == nil:
		o.buf = borrow(n)
	case cap(b.bytes)-len(b.bytes) < n && len(b.bytes)+n <= bufferClasses[len(bufferClasses)-1]:
		o.buf = borrow(max(len(b.bytes)+n, cap(b.bytes)+1))
		o.buf.bytes = append(o.buf.bytes, b.bytes...)
		b.giveBack()
	}
}

// keepGrants is how many grants an idle outbox keeps room for.
const keepGrants = 8

// waiting is how many bytes wait; the mutex is held.
func (o *Outbox) waiting() int {
	if o.buf == nil {
		return 0
	}
	return len(o.buf.bytes)
}

// NewOutbox makes the outbox of a connection. At limit bytes Wait blocks; a
// write that makes no progress for stall closes the connection.
func NewOutbox(conn net.Conn, limit int, stall time.Duration) *Outbox {
	o := &Outbox{conn: conn, limit: limit, stall: stall}
	o.room.L = &o.mu
	return o
}

// Append appends what encode appends to the buffer it is given, and starts
// writing. encode runs under the outbox's lock: it must not block nor call the
// outbox. It reports false, without calling encode, once the outbox is closed
// or writing has failed.
func (o *Outbox) Append(encode func(buf []byte) []byte) bool {
	return o.AppendFor(nil, core.Credit{}, encode)
}

// AppendFor is Append for deliveries: once their bytes are written, credit is
// granted to the consumer.
func (o *Outbox) AppendFor(k *core.Consumer, credit core.Credit, encode func(buf []byte) []byte) bool {
	return o.append(grant{consumer: k, credit: credit}, encode)
}

// AppendSettling is AppendFor for a consumer whose peer has no word for it:
// once the bytes are written, what it holds up to and including the offset
// through is accepted.
func (o *Outbox) AppendSettling(k *core.Consumer, through core.Offset, credit core.Credit, encode func(buf []byte) []byte) bool {
	return o.append(grant{k, credit, through}, encode)
}

// AppendNow is Append for an answer that is short and on which the peer waits.
// If nothing else is being written, the caller itself writes what the socket
// takes at once, which spares the wake-up of another goroutine; it does not
// block.
func (o *Outbox) AppendNow(encode func(buf []byte) []byte) bool {
	if _, is := o.conn.(syscall.Conn); !is {
		return o.Append(encode)
	}
	o.mu.Lock()
	if o.closing || o.err != nil || o.writing {
		o.mu.Unlock()
		return o.Append(encode)
	}
	o.reserve(256)
	buf := o.buf
	buf.bytes = encode(buf.bytes)
	o.buf = nil // as write does
	o.writing = true
	o.writers.Add(1)
	o.mu.Unlock()

	n := o.writeSome(buf.bytes)

	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case n < len(buf.bytes):
		buf.bytes = buf.bytes[:copy(buf.bytes, buf.bytes[n:])]
		if o.buf != nil {
			buf.bytes = append(buf.bytes, o.buf.bytes...)
			o.buf.giveBack()
		}
		o.buf = buf
	default:
		buf.giveBack()
	}
	if o.buf != nil {
		go o.write()
		return true
	}
	o.writing = false
	o.writers.Done()
	return true
}

func (o *Outbox) append(g grant, encode func(buf []byte) []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.err != nil {
		return false
	}
	o.reserve(g.credit.Bytes + 256)
	o.buf.bytes = encode(o.buf.bytes)
	if g.consumer != nil && (g.credit != (core.Credit{}) || g.through > 0) {
		if n := len(o.grants); n > 0 && o.grants[n-1].consumer == g.consumer {
			last := &o.grants[n-1]
			last.credit.Messages += g.credit.Messages
			last.credit.Bytes += g.credit.Bytes
			last.through = max(last.through, g.through)
		} else {
			o.grants = append(o.grants, g)
		}
	}
	if !o.writing {
		o.writing = true
		o.writers.Add(1)
		go o.write()
	}
	return true
}

// write writes until nothing is left.
func (o *Outbox) write() {
	defer o.writers.Done()
	o.mu.Lock()
	for o.buf != nil && o.err == nil {
		buf, grants := o.buf, o.grants
		o.buf, o.flying = nil, len(buf.bytes)
		o.grants, o.done = o.done[:0], nil
		o.mu.Unlock()

		err := o.writeAll(buf.bytes)
		buf.giveBack()
		if err == nil {
			for i := range grants {
				grants[i].pay()
			}
		}
		clear(grants)

		o.mu.Lock()
		o.flying = 0
		o.done = grants[:0]
		o.err = err
		o.room.Broadcast()
	}
	if cap(o.done) > keepGrants {
		o.done = nil
	}
	if cap(o.grants) > keepGrants && len(o.grants) == 0 {
		o.grants = nil
	}
	o.writing = false
	failed := o.err != nil
	o.mu.Unlock()
	if failed {
		o.conn.Close()
	}
}

// writeSome writes as much as the socket takes at once, and says how much that was.
// An error is left to who goes on. Only the writer calls it.
func (o *Outbox) writeSome(buf []byte) int {
	if o.now == nil {
		if socket, is := o.conn.(syscall.Conn); is {
			o.now = newNowWriter(socket)
		}
		if o.now == nil {
			return 0
		}
	}
	return o.now.write(buf)
}

// writeAll writes with a deadline that moves with progress: a peer is slow as
// long as it takes something within the stall time.
func (o *Outbox) writeAll(buf []byte) error {
	const chunk = 256 << 10
	buf = buf[o.writeSome(buf[:min(len(buf), chunk)]):]
	for len(buf) > 0 {
		n := min(len(buf), chunk)
		if err := o.conn.SetWriteDeadline(time.Now().Add(o.stall)); err != nil {
			return err
		}
		n, err := o.conn.Write(buf[:n])
		if err != nil {
			return err
		}
		buf = buf[n:]
	}
	return nil
}

// Wait blocks while more than the limit is buffered. A connection's reader
// calls it before it reads on, so that a peer that asks without reading the
// answers is not read from.
func (o *Outbox) Wait() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.waiting() > o.limit && o.err == nil && !o.closing {
		o.room.Wait()
	}
	return o.err
}

// WaitContext is Wait that also ends with ctx, whose error it returns then.
func (o *Outbox) WaitContext(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting() <= o.limit || o.err != nil || o.closing {
		return o.err
	}
	Waits(o.conn)
	stop := context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.room.Broadcast()
	})
	defer stop()
	for o.waiting() > o.limit && o.err == nil && !o.closing && ctx.Err() == nil {
		o.room.Wait()
	}
	if o.err != nil {
		return o.err
	}
	return ctx.Err()
}

// Buffered is how many bytes wait or are being written. An Outbox is a
// core.Buffer.
func (o *Outbox) Buffered() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting() + o.flying
}

// Drop forgets what waits behind what is being written, and who was to be paid
// for it: of what the outbox was given whole, the peer gets all or nothing.
// While nothing is being written nothing is dropped. An adapter drops before it
// tells a peer that reads too slowly why the connection ends.
func (o *Outbox) Drop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.flying == 0 {
		return
	}
	o.buf = nil // for the collector, not for others: the memory is short
	clear(o.grants)
	o.grants = o.grants[:0]
	o.room.Broadcast()
}

// Close takes nothing more, waits until what is left is written or ctx ends,
// and returns when the writer has ended. It does not close the connection
// unless ctx ended first or writing failed.
func (o *Outbox) Close(ctx context.Context) error {
	o.mu.Lock()
	o.closing = true
	o.room.Broadcast()
	o.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { o.conn.Close() })
	o.writers.Wait()
	stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
