package http

import (
	"context"
	"errors"
	"fmt"
	"net"
	nethttp "net/http"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A lane serves the plain publishes of one connection: what parsePlain takes,
// and nothing else. net/http takes longer over a request than the broker does
// over its message, so this is most of what a publisher costs. With the first
// request that is anything else the connection goes to net/http, whole and for
// good: a lane has either answered a request or not looked at a byte of it.
//
// Its reader hands in one request after the other without waiting; answers
// leave in the order of the confirmations, which is that of the requests. It is
// a core.Confirmer.
//
// The alternative, a second server for everything, was rejected: HTTP has too
// many ways to be misread, and net/http knows them.
type lane struct {
	s   *Server
	c   net.Conn
	p   *peer
	out *adapters.Outbox

	// What follows is the reader's.

	client     *core.Client // nil before the first request
	host       []byte       // that the guard has let in
	buf        []byte
	start, end int       // what was read and not yet taken
	came       time.Time // since when the next request is waited for
	deadline   time.Time // of the next read
	envelope   core.Envelope

	mu      sync.Mutex // guards what follows
	settled sync.Cond  // signalled when waiting has become shorter
	topics  [][]byte   // of the publishes that wait, a ring
	first   int
	waiting int
	here    bool                // the reader answers itself what is confirmed now
	early   []core.Confirmation // what it has to answer
}

// Bounds of what a lane reads: its first buffer, and the longest header and
// body that it takes.
const (
	laneBuffer = 2 << 10
	laneHeader = 8 << 10
	laneBody   = 64 << 10
)

// A laneEnd is why a lane has ended.
type laneEnd uint8

const (
	laneOver  laneEnd = iota // the peer is gone, slow or idle, or the server stops
	laneOther                // the next request is not a lane's
)

// serve serves until the lane ends. It reports whether the connection is to go
// on with net/http; what was read of the next request is in rest then.
func (l *lane) serve() (rest []byte, on bool) {
	l.settled.L = &l.mu
	l.out = adapters.NewOutbox(l.c, l.s.limits.OutputBytes, l.s.limits.Stall)
	stop := context.AfterFunc(l.s.stopping, func() { l.c.SetReadDeadline(time.Now()) })
	defer stop()
	end := l.run()
	l.drain(0)
	if l.client != nil {
		l.client.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.s.limits.Stall)
	defer cancel()
	if l.out.Close(ctx) != nil || end == laneOver {
		return nil, false
	}
	return l.buf[l.start:l.end], true
}

func (l *lane) run() (end laneEnd) {
	defer func() {
		if v := recover(); v != nil {
			l.s.log.Error("request panicked", "method", "POST", "panic", v, "stack", string(debug.Stack()))
			end = laneOver
		}
	}()
	for {
		var r plainRequest
		n, step := parsePlain(l.buf[l.start:l.end], &r)
		switch step {
		case plainOther:
			return laneOther
		case plainPart:
			if !l.read(r.length) {
				return laneOver
			}
			continue
		}
		if len(r.body) > l.s.limits.MessageBytes || !l.enter(r.host) {
			return laneOther
		}
		l.publish(&r, l.start+n == l.end)
		if l.start += n; l.start == l.end {
			l.start, l.end = 0, 0
		}
		if l.out.Wait() != nil {
			return laneOver
		}
	}
}

// enter reports whether the lane may publish: the guard knows the host, and the
// broker lets somebody in who shows nothing. Where not, net/http says why.
func (l *lane) enter(host []byte) bool {
	if l.client != nil && string(host) == string(l.host) {
		return true
	}
	if !l.s.guard.knowsHost(string(host), l.c.LocalAddr()) {
		return false
	}
	if l.client == nil {
		ctx, cancel := context.WithTimeout(l.s.stopping, l.s.limits.Handshake)
		defer cancel()
		var err error
		if l.client, err = l.s.login(ctx, l.p, core.Credentials{}, l); err != nil {
			l.client = nil
			return false
		}
		l.client.Buffers(l.out)
	}
	l.host = append(l.host[:0], host...)
	return true
}

// publish hands a message in. Everything in it is the buffer's; the core copies
// what it keeps. last says that no other request has come yet.
func (l *lane) publish(r *plainRequest, last bool) {
	l.s.metrics.Received.Inc()
	l.mu.Lock()
	for l.waiting >= l.s.limits.PublishInFlight {
		l.settled.Wait()
	}
	if l.waiting == len(l.topics) {
		l.grow()
	}
	slot := &l.topics[(l.first+l.waiting)%len(l.topics)]
	*slot = append((*slot)[:0], r.topic...)
	l.waiting++
	alone := last && l.waiting == 1
	l.here = alone
	l.mu.Unlock()
	e := &l.envelope
	*e = core.Envelope{Topic: view(r.topic), Payload: r.body, Guarantee: core.AtLeastOnce}
	if string(r.contentType) != formType {
		e.ContentType = view(r.contentType)
	}
	publish := l.client.Publish
	if alone {
		publish = l.client.PublishAlone
	}
	err := publish(context.Background(), e, 1)
	if alone {
		l.answerHere()
	}
	if err != nil {
		// The broker has closed, and nothing was handed in.
		l.drain(1)
		l.Confirm([]core.Confirmation{{Receipt: 1, Err: err}})
	}
}

// answerHere answers what was confirmed while it was published.
func (l *lane) answerHere() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.here = false
	if len(l.early) > 0 {
		l.answer(l.early, l.out.AppendNow)
		clear(l.early)
		l.early = l.early[:0]
	}
}

// grow makes room for more that wait. l.mu is held.
func (l *lane) grow() {
	ring := make([][]byte, 0, max(1, 2*len(l.topics)))
	for i := range l.waiting {
		ring = append(ring, l.topics[(l.first+i)%len(l.topics)])
	}
	l.first, l.topics = 0, ring[:cap(ring)]
}

// Confirm answers requests.
func (l *lane) Confirm(cs []core.Confirmation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.here {
		l.early = append(l.early, cs...)
		return
	}
	l.answer(cs, l.out.Append)
}

// answer answers requests by a way into the outbox. l.mu is held.
func (l *lane) answer(cs []core.Confirmation, into func(func([]byte) []byte) bool) {
	into(func(b []byte) []byte {
		for i := range cs {
			topic := l.topics[(l.first+i)%len(l.topics)]
			if cs[i].Err != nil {
				b = l.s.appendFailure(b, problemOf(cs[i].Err), false)
			} else {
				b = l.s.appendCreated(b, topic, cs[i].Offset)
			}
		}
		return b
	})
	l.first, l.waiting = (l.first+len(cs))%len(l.topics), l.waiting-len(cs)
	l.settled.Signal()
}

// drain waits until all that was handed in is answered, but for the last few.
func (l *lane) drain(but int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.waiting > but {
		l.settled.Wait()
	}
}

// read reads more of a request, whose body is to be of a length, 0 if that is
// not known yet. A header has the handshake's time, a body what readBody would
// give it; a peer that was too slow over that is told.
func (l *lane) read(length int) bool {
	now := time.Now()
	if l.start > 0 { // what is left is the beginning of another request
		l.came = now
		copy(l.buf, l.buf[l.start:l.end])
		l.start, l.end = 0, l.end-l.start
	}
	switch {
	case l.end == len(l.buf):
		l.buf = append(l.buf, make([]byte, max(laneBuffer, len(l.buf)))...)
	case l.end == 0 && len(l.buf) > laneBuffer:
		l.buf = make([]byte, laneBuffer) // it may wait long
	}
	deadline := l.came.Add(l.s.limits.Handshake + time.Duration(length)*time.Second/slowest)
	empty := l.end == 0 && l.client != nil
	if idle := min(idle, l.s.limits.KeepAlive); empty {
		if deadline = now.Add(idle); l.deadline.After(deadline.Add(-min(time.Second, idle/2))) {
			deadline = l.deadline // to the second will do
		}
	}
	if deadline != l.deadline {
		l.deadline = deadline
		if l.c.SetReadDeadline(deadline) != nil {
			return false
		}
	}
	if l.s.stopping.Err() != nil { // its deadline may have been overwritten
		return false
	}
	n, err := l.c.Read(l.buf[l.end:])
	if empty {
		l.came = time.Now()
	}
	l.end += n
	if n == 0 && length > 0 && errors.Is(err, os.ErrDeadlineExceeded) && l.s.stopping.Err() == nil {
		l.drain(0)
		l.out.Append(func(b []byte) []byte { return l.s.appendFailure(b, problemOf(bodyError(err)), false) })
	}
	return n > 0
}

// appendCreated appends the answer to a publish that is durable, as
// publishDurably gives it.
func (s *Server) appendCreated(b []byte, topic []byte, at core.Offset) []byte {
	b = append(b, "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nX-Offset: "...)
	digits := len(b)
	b = strconv.AppendUint(b, uint64(at), 10)
	digits = len(b) - digits
	b = s.clock.appendDate(append(b, "\r\nDate: "...))
	b = append(b, "\r\nContent-Length: "...)
	// A topic of plain characters stands in JSON as it is.
	b = strconv.AppendInt(b, int64(len(`{"t":"","o":}`)+len(topic)+digits+1), 10)
	b = append(b, "\r\n\r\n{\"t\":\""...)
	b = append(append(b, topic...), `","o":`...)
	b = strconv.AppendUint(b, uint64(at), 10)
	return append(b, "}\n"...)
}

// appendFailure appends the answer that fail gives, and counts it; last says
// that none follows.
func (s *Server) appendFailure(b []byte, p *problem, last bool) []byte {
	s.metrics.Refused(p.reason())
	b = fmt.Appendf(b, "HTTP/1.1 %d %s\r\n", p.status, nethttp.StatusText(p.status))
	h := make(nethttp.Header)
	p.describe(h)
	if last {
		h.Set("Connection", "close")
	}
	for name, values := range h {
		for _, v := range values {
			b = fmt.Appendf(b, "%s: %s\r\n", name, v)
		}
	}
	body := append(p.appendJSON(nil), '\n')
	b = s.clock.appendDate(append(b, "Date: "...))
	b = fmt.Appendf(b, "\r\nContent-Length: %d\r\n\r\n", len(body))
	return append(b, body...)
}

// A clock formats the Date of answers, once a second.
type clock struct {
	mu     sync.Mutex // guards what follows
	second int64
	date   []byte
}

func (c *clock) appendDate(b []byte) []byte {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := now.Unix(); s != c.second {
		c.second, c.date = s, now.UTC().AppendFormat(c.date[:0], nethttp.TimeFormat)
	}
	return append(b, c.date...)
}
