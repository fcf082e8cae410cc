package adapters

import (
	"context"
	"net"
	"sync"
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

	mu      sync.Mutex // guards what follows
	room    sync.Cond  // signalled when buf has become shorter, or closed
	buf     []byte     // what waits
	spare   []byte     // what the writer has done with
	grants  []grant    // for what waits
	done    []grant    // the writer's
	writing bool       // a writer is running
	closing bool       // nothing more is taken
	err     error      // why writing ended
	writers sync.WaitGroup
}

type grant struct {
	consumer *core.Consumer
	credit   core.Credit
}

// keepBytes is how large an idle outbox's buffer may stay.
const keepBytes = 4 << 10

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
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || o.err != nil {
		return false
	}
	o.buf = encode(o.buf)
	if k != nil && credit != (core.Credit{}) {
		if n := len(o.grants); n > 0 && o.grants[n-1].consumer == k {
			o.grants[n-1].credit.Messages += credit.Messages
			o.grants[n-1].credit.Bytes += credit.Bytes
		} else {
			o.grants = append(o.grants, grant{k, credit})
		}
	}
	if !o.writing && (len(o.buf) > 0 || len(o.grants) > 0) {
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
	for (len(o.buf) > 0 || len(o.grants) > 0) && o.err == nil {
		buf, grants := o.buf, o.grants
		o.buf, o.spare = o.spare[:0], nil
		o.grants, o.done = o.done[:0], nil
		o.mu.Unlock()

		err := o.writeAll(buf)
		if err == nil {
			for _, g := range grants {
				g.consumer.Grant(g.credit)
			}
		}
		clear(grants)

		o.mu.Lock()
		if cap(buf) <= o.limit {
			o.spare = buf[:0]
		}
		o.done = grants[:0]
		o.err = err
		o.room.Broadcast()
	}
	if cap(o.spare) > keepBytes {
		o.spare = nil
	}
	if cap(o.buf) > keepBytes && len(o.buf) == 0 {
		o.buf = nil
	}
	o.writing = false
	failed := o.err != nil
	o.mu.Unlock()
	if failed {
		o.conn.Close()
	}
}

// writeAll writes with a deadline that moves with progress: a peer is slow as
// long as it takes something within the stall time.
func (o *Outbox) writeAll(buf []byte) error {
	const chunk = 256 << 10
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
	for len(o.buf) > o.limit && o.err == nil && !o.closing {
		o.room.Wait()
	}
	return o.err
}

// WaitContext is Wait that also ends with ctx, whose error it returns then.
func (o *Outbox) WaitContext(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.buf) <= o.limit || o.err != nil || o.closing {
		return o.err
	}
	stop := context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.room.Broadcast()
	})
	defer stop()
	for len(o.buf) > o.limit && o.err == nil && !o.closing && ctx.Err() == nil {
		o.room.Wait()
	}
	if o.err != nil {
		return o.err
	}
	return ctx.Err()
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
