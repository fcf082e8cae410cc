package http

import (
	"context"
	"errors"
	"net"
	nethttp "net/http"
	"strconv"
	"sync"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// heartBeat is how often a stream shows that it lives, unless the longest
// heart-beat is shorter.
const heartBeat = 15 * time.Second

func (s *Server) heartBeat() time.Duration { return min(heartBeat, s.limits.KeepAlive) }

// streamCredit is how many messages may be on their way to a stream.
const streamCredit = 256

// A stream is a connection that has become a stream of events. It is taken from
// net/http, whose buffers and stack would be most of what an idle stream costs:
// the core's deliveries are encoded into the connection's outbox, which grants
// their credit anew when they are written, so a peer that does not read stops
// its own deliveries. It is a core.Receiver.
type stream struct {
	s        *Server
	client   *core.Client // its own
	consumer *core.Consumer
	events   *events
	group    bool
	chunked  bool

	conn net.Conn
	out  *adapters.Outbox

	mu    sync.Mutex  // guards what follows
	beat  *time.Timer // nil until it has begun
	early []byte      // events that came before it began
	ended bool        // nothing follows
}

// begin takes the connection over and answers. The request's handler returns
// then, and with it net/http's part ends.
func (st *stream) begin(w nethttp.ResponseWriter, r *nethttp.Request) error {
	p := peerOf(r)
	p.streams.Store(true)
	conn, _, err := nethttp.NewResponseController(w).Hijack()
	if err != nil {
		p.streams.Store(false)
		st.consumer.Close()
		st.client.Close()
		gone()
	}
	h := w.Header()
	setStreamHeader(h)
	h["Connection"] = []string{"close"}
	if st.chunked {
		h["Transfer-Encoding"] = []string{"chunked"}
	}
	st.conn, st.out = conn, adapters.NewOutbox(conn, st.s.limits.OutputBytes, st.s.limits.Stall)
	st.client.Buffers(st.out)
	st.out.Append(func(b []byte) []byte {
		b = append(b, "HTTP/1.1 200 OK\r\nDate: "...)
		b = append(st.s.clock.appendDate(b), "\r\n"...)
		for name, values := range h {
			for _, v := range values {
				b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
			}
		}
		return append(b, "\r\n"...)
	})
	// An id without data is remembered and not shown: whoever loses the
	// connection before the first event misses nothing. Nothing is delivered
	// before the first credit, so the position is not ahead of the peer.
	st.send(func(b []byte) []byte {
		b = strconv.AppendInt(append(b, "retry: "...), retryAfter.Milliseconds(), 10)
		if at := st.consumer.Position(); at > 0 && !st.group {
			b = strconv.AppendUint(append(b, "\nid: "...), uint64(at-1), 10)
		}
		return append(b, "\n\n"...)
	})
	st.mu.Lock()
	if len(st.early) > 0 {
		st.send(func(b []byte) []byte { return append(b, st.early...) })
		st.early = nil
	}
	st.beat = time.AfterFunc(st.s.heartBeat(), st.live)
	if st.ended {
		st.interrupt()
	}
	st.mu.Unlock()
	go st.run()
	st.consumer.Grant(core.Credit{Messages: min(streamCredit, st.s.limits.MaxInFlight), Bytes: st.s.limits.OutputBytes})
	return nil
}

// run waits until the peer is gone, the server stops or nothing follows. What
// the peer still says is not looked at.
func (st *stream) run() {
	stop := context.AfterFunc(st.s.stopping, st.interrupt)
	ignored := make([]byte, 64)
	for {
		if _, err := st.conn.Read(ignored); err != nil {
			break
		}
	}
	stop()
	st.mu.Lock()
	st.beat.Stop()
	proper := st.ended || st.s.stopping.Err() != nil
	st.ended = true
	st.mu.Unlock()
	if !proper {
		st.conn.Close()
	}
	if proper && st.chunked {
		st.out.Append(func(b []byte) []byte { return append(b, "0\r\n\r\n"...) })
	}
	ctx, cancel := context.WithTimeout(context.Background(), st.s.limits.Stall)
	defer cancel()
	st.out.Close(ctx)
	// Not before the writer has ended: a group's message that it has written
	// is settled, and not released to come again.
	st.consumer.Close()
	st.client.Close()
	st.s.leave(st.conn)
}

// interrupt ends what run waits for.
func (st *stream) interrupt() { st.conn.SetReadDeadline(time.Unix(1, 0)) }

// live sends a comment, now and then.
func (st *stream) live() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.ended {
		st.send(func(b []byte) []byte { return append(b, ":\n\n"...) })
		st.beat.Reset(st.s.heartBeat())
	}
}

// send appends events that are no message.
func (st *stream) send(encode func([]byte) []byte) {
	st.out.Append(func(b []byte) []byte { return st.chunk(b, encode) })
}

// chunk appends what encode appends, as one chunk (RFC 9112, 7.1) where the
// answer is in chunks.
func (st *stream) chunk(b []byte, encode func([]byte) []byte) []byte {
	if !st.chunked {
		return encode(b)
	}
	const head = "00000000\r\n"
	start := len(b)
	b = encode(append(b, head...))
	size := len(b) - start - len(head)
	if size == 0 { // an empty chunk would end the answer
		return b[:start]
	}
	for i := 7; i >= 0; i-- {
		b[start+i] = "0123456789abcdef"[size&15]
		size >>= 4
	}
	return append(b, "\r\n"...)
}

// Deliver encodes deliveries into the outbox.
func (st *stream) Deliver(batch []core.Delivery) {
	var credit core.Credit
	var through core.Offset
	for i := range batch {
		credit.Bytes += batch[i].Size()
		if !batch[i].Settled {
			credit.Messages++
		}
		through = max(through, batch[i].Offset)
	}
	if !st.group {
		through = 0
	}
	now := time.Now()
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended { // what is left behind is released with the consumer
		return
	}
	st.out.AppendSettling(st.consumer, through, credit, func(b []byte) []byte {
		return st.chunk(b, func(b []byte) []byte {
			if st.group {
				return st.events.appendEach(b, batch, now)
			}
			return st.events.appendShared(b, batch, now)
		})
	})
	st.s.metrics.Sent.Add(float64(len(batch)))
}

// Notice tells the peer of something other than a message.
func (st *stream) Notice(n core.Notice) {
	var event []byte
	var p *problem
	switch n.Kind {
	case core.NoticeGap:
		event = appendGapEvent(nil, n.From, n.To)
	case core.NoticeRevoked:
		if p = forbidden.with("another consumer took over"); n.Err != nil {
			p = problemOf(n.Err)
		}
	case core.NoticeDeleted:
		p = notFound.with("the group was deleted")
	case core.NoticeFailed:
		p = storageFailed.with("the log could not be read")
	}
	if p != nil {
		event = append(p.appendJSON([]byte("event: error\ndata: ")), '\n')
		if p.retry > retryAfter {
			event = append(strconv.AppendInt(append(event, "retry: "...), p.retry.Milliseconds(), 10), '\n')
		}
		event = append(event, '\n')
	}
	if event == nil {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended {
		return
	}
	st.ended = p != nil
	if st.beat == nil {
		st.early = append(st.early, event...)
		return
	}
	if errors.Is(n.Err, core.ErrShed) {
		st.out.Drop()
	}
	st.send(func(b []byte) []byte { return append(b, event...) })
	if st.ended {
		st.interrupt()
	}
}
