package http

import (
	"errors"
	nethttp "net/http"
	"strconv"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core"
)

// Times of a stream: how often it shows that it lives, and how long a browser
// waits before it comes again (HTML standard, 9.2.6).
const (
	heartBeat  = 15 * time.Second
	retryAfter = 2 * time.Second
)

// streamTopic is GET /sse/<filter>.
func (s *Server) streamTopic(w nethttp.ResponseWriter, r *nethttp.Request) error {
	return s.streamFilter(w, r, "/sse/", queryOf(r, "from", "group", "where", "format", "retained"))
}

// streamFilter answers with the events of a filter until the peer or the server
// ends it.
func (s *Server) streamFilter(w nethttp.ResponseWriter, r *nethttp.Request, prefix string, q query) error {
	filter := q.filter(prefix)
	e := eventEncoder{topics: !filter.Exact()}
	switch q.string("format") {
	case "", "text", "sse":
	case "json":
		e.json = true
	default:
		q.bad("format", "text or json")
	}
	q.refuse("does not go with a stream", "until", "limit", "wait", "for", "settle")
	st := &stream{s: s, events: e, wake: make(chan struct{}, 1), group: q.has("group")}
	where := q.where()
	retained := q.flag("retained", false)
	from := q.from(core.Latest)
	resumed := false
	if last := r.Header.Get("Last-Event-ID"); last != "" && !st.group {
		// A browser that comes again asks for the same address, so this is
		// newer than from.
		n, err := strconv.ParseUint(last, 10, 63)
		if err != nil {
			q.fail(badFrom.with("Last-Event-ID: " + quote(last) + " is not the offset of an event"))
		}
		from, resumed, retained = core.FromOffset(core.Offset(n+1)), true, false
	}
	if st.group && retained {
		q.fail(badRequest.with("retained does not go with group"))
	}
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	defer h.release()

	var k *core.Consumer
	if st.group {
		var c core.Consumption
		if c, err = groupConsumption(q.string("group"), filter, from); err == nil {
			c.Where = where
			k, err = h.client.Consume(r.Context(), c, st)
		}
	} else {
		sub := core.Subscription{Bindings: []core.Binding{{Filter: filter, Where: where}}, From: from, Retained: retained}
		k, err = h.client.Subscribe(r.Context(), sub, st)
		var outside *core.OffsetRemovedError
		if resumed && errors.As(err, &outside) && outside.Offset < outside.Earliest {
			// A browser gives up where it is refused. It is told what it
			// missed instead, and gets the rest.
			st.buf = st.events.appendGap(st.buf, outside.Offset, outside.Earliest)
			sub.From = core.FromOffset(outside.Earliest)
			k, err = h.client.Subscribe(r.Context(), sub, st)
		}
	}
	if err != nil {
		return err
	}
	defer k.Close()
	st.consumer = k
	header := w.Header()
	header["Content-Type"] = []string{formTypes[formStream]}
	header["Cache-Control"] = noStore
	header["X-Accel-Buffering"] = []string{"no"} // nginx
	header["X-Content-Type-Options"] = nosniff
	if r.Method != nethttp.MethodHead {
		st.run(w, r)
	}
	return nil
}

// A stream is the events of one request. The core fills its buffer; the
// request's goroutine empties it and then grants the credit anew, so a peer
// that does not read stops its own deliveries. It is a core.Receiver.
type stream struct {
	s        *Server
	events   eventEncoder
	group    bool
	consumer *core.Consumer
	wake     chan struct{} // there is something to write

	mu     sync.Mutex // guards what follows
	buf    []byte
	credit core.Credit // that the buffer's events took
	count  int         // of the buffer's events
	last   core.Offset // the latest in the buffer
	ended  bool        // nothing follows
}

// streamCredit is how many messages may be on their way to a stream.
const streamCredit = 256

// keepEvents is how large the buffer of an idle stream may stay.
const keepEvents = 4 << 10

func (st *stream) Deliver(batch []core.Delivery) {
	now := time.Time{}
	if st.events.json {
		now = time.Now()
	}
	st.mu.Lock()
	for i := range batch {
		d := &batch[i]
		st.buf = st.events.append(st.buf, d, now)
		st.credit.Bytes += d.Size()
		if !d.Settled {
			st.credit.Messages++
		}
	}
	st.count += len(batch)
	st.last = batch[len(batch)-1].Offset
	st.mu.Unlock()
	st.tell()
}

func (st *stream) Notice(n core.Notice) {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch n.Kind {
	case core.NoticeGap:
		st.buf = st.events.appendGap(st.buf, n.From, n.To)
	case core.NoticeRevoked:
		if n.Err != nil {
			st.end(problemOf(n.Err))
			break
		}
		st.end(forbidden.with("the right to read this was withdrawn, or another consumer took over"))
	case core.NoticeDeleted:
		st.end(notFound.with("the group was deleted"))
	case core.NoticeFailed:
		st.end(storageFailed.with("the log could not be read"))
	}
	st.tell()
}

// end appends the last event.
func (st *stream) end(p *problem) {
	st.buf = append(p.appendJSON(append(st.buf, "event: error\ndata: "...)), "\n\n"...)
	st.ended = true
}

func (st *stream) tell() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// run writes until the peer is gone, the server stops or nothing follows.
func (st *stream) run(w nethttp.ResponseWriter, r *nethttp.Request) {
	// An id without data is remembered and not shown: whoever loses the
	// connection before the first event misses nothing. Nothing is delivered
	// before the first credit, so the position is not ahead of the peer.
	start := append([]byte(nil), "retry: "...)
	start = append(strconv.AppendInt(start, retryAfter.Milliseconds(), 10), '\n')
	if at := st.consumer.Position(); at > 0 && !st.group {
		start = append(strconv.AppendUint(append(start, "id: "...), uint64(at-1), 10), '\n')
	}
	if st.write(w, append(start, '\n')) != nil {
		return
	}
	st.tell() // a gap may be there already
	st.consumer.Grant(core.Credit{Messages: min(streamCredit, st.s.limits.MaxInFlight), Bytes: st.s.limits.OutputBytes})

	beat := time.NewTimer(heartBeat)
	defer beat.Stop()
	var spare []byte
	for {
		select {
		case <-st.wake:
		case <-beat.C:
			if st.write(w, []byte(":\n\n")) != nil {
				return
			}
			beat.Reset(heartBeat)
			continue
		case <-st.s.stopping.Done():
			return
		case <-r.Context().Done():
			return
		}
		st.mu.Lock()
		buf, credit, count, last, ended := st.buf, st.credit, st.count, st.last, st.ended
		st.buf, st.credit, st.count = spare[:0], core.Credit{}, 0
		st.mu.Unlock()
		if len(buf) > 0 && st.write(w, buf) != nil {
			return
		}
		st.s.metrics.Sent.Add(float64(count))
		if ended {
			return
		}
		if st.group && count > 0 {
			// Who reads a group by a stream settles by reading.
			if err := st.consumer.Settle(last, core.Accepted, core.SettleOptions{Through: true, Credit: credit}); err != nil {
				st.s.log.Debug("group not settled", "err", err)
				return
			}
		} else if count > 0 {
			st.consumer.Grant(credit)
		}
		if spare = buf; cap(spare) > keepEvents && len(buf) < keepEvents {
			spare = nil
		}
		beat.Reset(heartBeat)
	}
}

// write writes and flushes.
func (st *stream) write(w nethttp.ResponseWriter, b []byte) error {
	if err := st.s.writeAll(w, b); err != nil {
		return err
	}
	return nethttp.NewResponseController(w).Flush()
}
