package http

import (
	"context"
	"fmt"
	"io"
	nethttp "net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core"
)

// publishBatch publishes a body of lines, each a message as JSON, and answers
// with a line for each. Lines are taken as they come; what became of them is
// gathered, and begins to be written where it outgrows the connection's output
// buffer.
func (s *Server) publishBatch(w nethttp.ResponseWriter, r *nethttp.Request, topic string, q query) error {
	atomic := q.flag("atomic", false)
	q.refuse("is what each line of a batch says for itself", "retain", "durable", "mandatory", "reply")
	// What a header says of one message is not said of each line.
	for name := range r.Header {
		if strings.HasPrefix(name, "X-H-") || slices.Contains(messageFields, strings.TrimSuffix(name, "*")) {
			q.fail(badRequest.with("in a batch each line says for itself what " + strings.Replace(name, "Ttl", "TTL", 1) + " says of a message"))
		}
	}
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	defer h.release()
	if atomic {
		return s.publishAtomically(w, r, h, topic)
	}
	b := batch{s: s, w: w, r: r, hold: h, topic: topic, lines: s.lines(w, r), wait: h.wait()}
	defer b.wait.end()
	return b.run()
}

// messageFields are the headers that say something of one message.
var messageFields = []string{
	"X-Key", "X-Ttl", "X-Delay", "X-Priority", "X-Reply-To", "X-Correlation-Id", "X-Correlation-Id-Base64", "X-Headers", "Idempotency-Key",
}

// A batch is a body of lines on its way in.
type batch struct {
	s     *Server
	w     nethttp.ResponseWriter
	r     *nethttp.Request
	hold  *hold
	topic string
	lines *lineReader
	wait  *wait

	decoder   lineDecoder
	envelope  core.Envelope
	read      int // lines read
	published int
	confirmed int
	failed    []failedLine // not yet told, in order
	out       []byte
	got       []core.Confirmation
	writing   bool // the answer has begun
}

// A failedLine is one that was not handed in.
type failedLine struct {
	line int
	err  error
}

// run publishes the lines. An error means that nothing of the answer has been
// written.
func (b *batch) run() error {
	var ended error
	for {
		var data []byte
		if data, ended = b.lines.next(); ended != nil {
			break
		}
		index := b.read
		b.read++
		if err := b.decoder.decode(data, b.topic, time.Now(), &b.envelope); err != nil {
			b.failed = append(b.failed, failedLine{index, err})
			if len(b.failed) < b.s.limits.PublishInFlight {
				continue
			}
		} else {
			if ended = b.hold.publish(b.r.Context(), &b.envelope, b.wait.first+core.Receipt(index)); ended != nil {
				break // nothing was handed in
			}
			b.published++
		}
		for len(b.failed)+b.published-b.confirmed >= b.s.limits.PublishInFlight && b.published > b.confirmed {
			b.confirm(b.r.Context().Done())
		}
		if b.published == b.confirmed {
			b.tell(b.read)
		}
		if b.flush(b.s.limits.OutputBytes) != nil {
			gone()
		}
	}
	// net/http ends a request's context where reading its body fails, though
	// the peer may be there and wait.
	peer := b.r.Context().Done()
	if ended != io.EOF {
		peer = nil
	}
	for b.published > b.confirmed {
		b.confirm(peer)
	}
	b.tell(b.read)
	b.s.metrics.Received.Add(float64(b.published))
	if ended != io.EOF {
		if b.read == 0 && !b.writing {
			return ended
		}
		b.s.metrics.Refused(problemOf(ended).reason())
		b.out = appendError(b.out, ended)
		if !b.writing {
			b.w.Header().Set("Connection", "close")
		}
	}
	if b.read == 0 {
		return errNoLine
	}
	if !b.writing {
		b.s.answer(b.w, formLines, b.out)
	} else if b.flush(0) != nil {
		gone()
	}
	return nil
}

var errNoLine = badRequest.with("the batch has no line")

// confirm waits for confirmations and tells of them, unless the peer goes.
func (b *batch) confirm(peer <-chan struct{}) {
	select {
	case <-b.wait.came:
	case <-peer:
		gone()
	}
	b.got = b.wait.take(b.got)
	for _, c := range b.got {
		b.tell(int(c.Receipt - b.wait.first))
		b.confirmed++
		if c.Err != nil {
			b.s.metrics.Refused(problemOf(c.Err).reason())
			b.out = appendError(b.out, c.Err)
			continue
		}
		b.out = append(b.out, `{"o":`...)
		b.out = strconv.AppendUint(b.out, uint64(c.Offset), 10)
		if c.Duplicate {
			b.out = append(b.out, `,"dup":true`...)
		}
		b.out = append(b.out, "}\n"...)
	}
}

// tell tells of the lines that failed in front of a line.
func (b *batch) tell(line int) {
	n := 0
	for n < len(b.failed) && b.failed[n].line < line {
		b.s.metrics.Refused(problemOf(b.failed[n].err).reason())
		b.out = appendError(b.out, b.failed[n].err)
		n++
	}
	b.failed = slices.Delete(b.failed, 0, n)
}

// flush writes what has gathered if it is more than most. From then on the
// answer runs beside the request's body.
func (b *batch) flush(most int) error {
	if len(b.out) <= most {
		return nil
	}
	rc := nethttp.NewResponseController(b.w)
	if !b.writing {
		b.writing = true
		if err := rc.EnableFullDuplex(); err != nil {
			return err
		}
		b.w.Header()["Content-Type"] = []string{typeLines}
	}
	if err := b.s.writeAll(b.w, b.out); err != nil {
		return err
	}
	b.out = b.out[:0]
	return rc.Flush()
}

// atomicMessages bounds a batch that is all or nothing, beside its bytes: as
// much as a message may have, atomicBytes times over.
const (
	atomicMessages = 1024
	atomicBytes    = 4
)

// publishAtomically publishes all lines or none, and answers once they are
// durable.
func (s *Server) publishAtomically(w nethttp.ResponseWriter, r *nethttp.Request, h *hold, topic string) error {
	lines := s.lines(w, r)
	var t core.Transaction
	size, plain := 0, true
	for {
		data, err := lines.next()
		if err == io.EOF {
			break
		}
		var d lineDecoder
		e := new(core.Envelope)
		if err == nil {
			// What it decodes may alias the line.
			err = d.decode(slices.Clone(data), topic, time.Now(), e)
		}
		if err == nil {
			size += e.Size()
			plain = plain && e.ID == "" && e.DeliverAt.IsZero()
			if most := atomicBytes * s.limits.MessageBytes; len(t.Publish) == atomicMessages || size > most {
				err = tooLarge.with(fmt.Sprintf("an atomic batch has at most %d messages and %d bytes", atomicMessages, most))
			}
		}
		if err != nil {
			p := *problemOf(err)
			p.detail = fmt.Sprintf("line %d: %s", len(t.Publish)+1, p.detail)
			return &p
		}
		t.Publish = append(t.Publish, e)
	}
	if len(t.Publish) == 0 {
		return errNoLine
	}
	return s.commitAll(w, r, h, t, plain)
}

// commitAll publishes a transaction and answers with a result for each message.
// plain says that each is a record of its own in one commit.
func (s *Server) commitAll(w nethttp.ResponseWriter, r *nethttp.Request, h *hold, t core.Transaction, plain bool) error {
	wait := h.wait()
	defer wait.end()
	err := h.commit(r.Context(), t, wait.first)
	var c core.Confirmation
	if err == nil {
		c, err = wait.one(r.Context())
	}
	if err == nil {
		err = c.Err
	}
	if err != nil {
		return err
	}
	s.metrics.Received.Add(float64(len(t.Publish)))
	var out []byte
	for i := range t.Publish {
		if plain {
			// One commit's records are consecutive.
			out = append(strconv.AppendUint(append(out, `{"o":`...), uint64(c.Offset)+uint64(i), 10), "}\n"...)
		} else {
			out = append(out, "{}\n"...)
		}
	}
	header := w.Header()
	header["X-Offset"] = []string{strconv.FormatUint(uint64(c.Offset), 10)}
	header["Content-Type"] = []string{typeLines}
	if s.writeUntil(w) == nil {
		w.WriteHeader(nethttp.StatusCreated)
		s.writeAll(w, out)
	}
	return nil
}

// commit hands a transaction in, in the order of the hold's publishes.
func (h *hold) commit(ctx context.Context, t core.Transaction, r core.Receipt) error {
	h.publishing.Lock()
	defer h.publishing.Unlock()
	return h.client.Commit(ctx, t, r)
}

// Bounds of a batch of settlements: how many lines, and how many of them at
// once, as each waits to be durable and shares a commit with the others.
const (
	settleMost   = 1024
	settleAtOnce = 64
)

// settleLines is POST /lease: lines of {"lease","do",…}, with a line for each
// in the answer.
func (s *Server) settleLines(w nethttp.ResponseWriter, r *nethttp.Request) error {
	q := queryOf(r)
	if !isLines(r) {
		q.fail(wrongType.with("settlements are lines of JSON: Content-Type: " + typeLines))
	}
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	defer h.release()
	lines := s.lines(w, r)
	lines.most = 16 << 10
	var all []settled
	for {
		data, err := lines.next()
		if err == io.EOF {
			break
		}
		if err == nil && len(all) == settleMost {
			err = tooLarge.with(fmt.Sprintf("a batch settles at most %d leases", settleMost))
		}
		if err != nil {
			return err // nothing has been settled yet
		}
		var st settled
		if err := unmarshalStrict(data, &st.settling); err != nil {
			st.err = badRequest.with("the line is not a settlement: " + err.Error())
		}
		all = append(all, st)
	}
	if len(all) == 0 {
		return errNoLine
	}
	next := make(chan *settled)
	var workers sync.WaitGroup
	for range min(settleAtOnce, len(all)) {
		workers.Go(func() {
			for st := range next {
				st.until, st.err = h.settleNow(r, &st.settling)
			}
		})
	}
	for i := range all {
		if all[i].err == nil {
			next <- &all[i]
		}
	}
	close(next)
	workers.Wait()
	var out []byte
	for i := range all {
		if all[i].err != nil {
			s.metrics.Refused(problemOf(all[i].err).reason())
		}
		out = appendSettled(out, &all[i].settling, all[i].until, all[i].err)
	}
	s.answer(w, formLines, out)
	return nil
}

// A settled is a settling and what became of it.
type settled struct {
	settling
	until time.Time
	err   error
}
