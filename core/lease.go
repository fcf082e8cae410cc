package core

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core/pause"
)

// Lease takes messages of a queue for a time, without a lasting consumer. It
// blocks for as long as q.Wait while there is none.
func (c *Client) Lease(ctx context.Context, q LeaseRequest) ([]Lease, error) {
	if q.Max < 1 || q.Max > c.broker.limits.MaxInFlight {
		return nil, fmt.Errorf("%w: lease from 1 to %d messages, not %d", ErrInvalid, c.broker.limits.MaxInFlight, q.Max)
	}
	q.Consumption.Settlement = SettleAlways
	r := newCollector(Credit{Messages: q.Max, Bytes: leaseBytes})
	k, err := c.Consume(ctx, q.Consumption, r)
	if err != nil {
		return nil, err
	}
	k.queue.mu.Lock()
	r.idle = !k.queue.mayWork(k) // nothing is there for it before others have gone
	k.queue.mu.Unlock()
	k.Grant(r.credit)
	k.queue.tellCaughtUp() // behind the credit, so that it counts
	waitErr := r.wait(ctx, q.Wait)
	tokens := k.queue.leaveLeased(k, q.For)
	pause.At("leased")
	k.end()
	c.forgetConsumer(k)

	leases := make([]Lease, 0, len(r.got))
	for _, d := range r.got {
		if t, ok := tokens[d.Offset]; ok {
			leases = append(leases, Lease{Delivery: d, Token: leaseToken(k.queue.name, d.Offset, t.token), Until: t.until})
			delete(tokens, d.Offset)
		}
	}
	// What was given to the consumer as it ended never reached it.
	for at, t := range tokens {
		k.queue.giveBack(at, t.token)
	}
	if len(leases) == 0 && waitErr != nil {
		return nil, waitErr
	}
	return leases, nil
}

// leaseBytes bounds the messages of one lease, but for the last.
const leaseBytes = 4 << 20

type leased struct {
	token uint64
	until time.Time
}

// leaveLeased takes a consumer out and leaves what it holds as leases.
func (q *queue) leaveLeased(k *Consumer, lease time.Duration) map[Offset]leased {
	tokens := make(map[Offset]leased)
	q.mu.Lock()
	if lease <= 0 {
		if lease = q.settings.lease(); lease == 0 {
			lease = defaultLease
		}
	}
	due, until := q.now()+int64(lease), time.Now().Add(lease)
	for e := range q.holds(k, 0, k.high) {
		e.state, e.holder, e.token, e.due = entryLeased, nil, rand.Uint64(), due
		q.leasing++
		q.enroll(e)
		tokens[e.offset] = leased{e.token, until}
	}
	q.mu.Unlock()
	q.leave(k)
	return tokens
}

func leaseToken(queue string, at Offset, token uint64) string {
	b := binary.BigEndian.AppendUint64(nil, token)
	b = binary.AppendUvarint(b, uint64(at))
	return base64.RawURLEncoding.EncodeToString(append(b, queue...))
}

func parseLeaseToken(s string) (queue string, at Offset, token uint64, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < 9 {
		return "", 0, 0, fmt.Errorf("%w: not a lease's token", ErrInvalid)
	}
	offset, n := binary.Uvarint(b[8:])
	if n <= 0 {
		return "", 0, 0, fmt.Errorf("%w: not a lease's token", ErrInvalid)
	}
	return string(b[8+n:]), Offset(offset), binary.BigEndian.Uint64(b), nil
}

func (c *Client) leasedQueue(token string) (*queue, Offset, uint64, error) {
	name, at, t, err := parseLeaseToken(token)
	if err != nil {
		return nil, 0, 0, err
	}
	q := c.broker.queue(name)
	if q == nil {
		return nil, 0, 0, fmt.Errorf("%w: the queue %q is gone", ErrNotHeld, name)
	}
	if err := c.maySee(q); err != nil {
		return nil, 0, 0, err
	}
	return q, at, t, nil
}

// A LeaseSettling is one settlement of a lease.
type LeaseSettling struct {
	Token   string
	Outcome Outcome
	// Options: Receipt, Through and Credit mean nothing here.
	Options SettleOptions
}

// SettleLease ends a lease and returns once that is durable. A token that is
// not valid any more is ErrNotHeld.
func (c *Client) SettleLease(ctx context.Context, token string, o Outcome, opts SettleOptions) error {
	return c.SettleLeases(ctx, []LeaseSettling{{token, o, opts}})[0]
}

// SettleLeases ends leases and returns once that is durable, with an error for
// each, in their order. Where the log has no room for it, that is
// [ErrStorageFull], and the leases are what they were.
func (c *Client) SettleLeases(ctx context.Context, leases []LeaseSettling) []error {
	errs := make([]error, len(leases))
	settling := make([]leaseSettling, len(leases))
	undos := make(map[*queue]*undo)
	for i, l := range leases {
		s := &settling[i]
		if s.queue, s.at, s.token, errs[i] = c.leasedQueue(l.Token); errs[i] == nil {
			undos[s.queue] = &undo{q: s.queue}
		}
	}
	if len(undos) == 0 {
		return errs
	}
	err := c.broker.journal.commitWith(ctx, func(p *commit) error {
		for i, l := range leases {
			if s := &settling[i]; errs[i] == nil {
				errs[i] = undos[s.queue].settleLease(s.at, s.token, l.Outcome, l.Options)
			}
		}
		for q, u := range undos {
			if len(u.entries) == 0 {
				continue
			}
			q.putPosition(p)
			p.undos = append(p.undos, u)
		}
		return nil
	})
	for i := range errs {
		if errs[i] == nil {
			errs[i] = err
		}
	}
	return errs
}

// leaseOf is the entry of a lease that is not over. cursor.mu is held.
func (q *queue) leaseOf(at Offset, token uint64) (*outEntry, error) {
	e := q.out.find(at)
	if e == nil || e.state != entryLeased || e.token != token {
		return nil, fmt.Errorf("%w: the lease of offset %d of queue %q is over", ErrNotHeld, at, q.name)
	}
	return e, nil
}

// giveBack releases a lease at once, if it is not over.
func (q *queue) giveBack(at Offset, token uint64) {
	q.mu.Lock()
	if e, err := q.leaseOf(at, token); err == nil {
		q.settleOne(e, Released, SettleOptions{Delay: NoDelay})
	}
	q.mu.Unlock()
	q.kick()
}

// A leaseSettling is what a token names.
type leaseSettling struct {
	queue *queue
	at    Offset
	token uint64
}

// ExtendLease lengthens a lease to by from now. A token that is not valid any
// more is ErrNotHeld.
func (c *Client) ExtendLease(_ context.Context, token string, by time.Duration) (until time.Time, err error) {
	q, at, t, err := c.leasedQueue(token)
	if err != nil {
		return time.Time{}, err
	}
	until = time.Now().Add(by)
	return until, q.extend(func(e *outEntry) bool { return e.state == entryLeased && e.token == t }, at, by)
}

// A collector is a receiver that keeps what it is given, for calls that return
// messages.
type collector struct {
	credit Credit

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	got     []Delivery
	gaps    []Gap
	bytes   int
	idle    bool  // all that was there has come
	stalled error // why nothing comes for the moment
	err     error // why nothing follows
}

func newCollector(c Credit) *collector {
	return &collector{credit: c, changed: make(chan struct{}, 1)}
}

func (r *collector) Deliver(batch []Delivery) {
	r.mu.Lock()
	for _, d := range batch {
		r.got, r.stalled = append(r.got, d.Clone()), nil
		r.bytes += d.Size()
	}
	r.mu.Unlock()
	r.tell()
}

func (r *collector) Notice(n Notice) {
	r.mu.Lock()
	switch n.Kind {
	case NoticeGap:
		r.gaps = append(r.gaps, Gap{From: n.From, To: n.To})
	case NoticeCaughtUp:
		r.idle, r.stalled = true, nil
	case NoticeStalled:
		r.stalled = n.Err
	case NoticeRevoked, NoticeDeleted, NoticeFailed:
		if r.err = n.Err; r.err == nil {
			r.err = ErrClosed
		}
	}
	r.mu.Unlock()
	r.tell()
}

func (r *collector) tell() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// wait returns when the credit is used up, when all that was there has come and
// is something, or when the time is over. While nothing can be delivered it waits
// no longer than it was asked to, and returns why.
func (r *collector) wait(ctx context.Context, d time.Duration) error {
	found := time.NewTimer(collectTime)
	defer found.Stop()
	waited := time.NewTimer(d)
	defer waited.Stop()
	over := d <= 0
	for {
		r.mu.Lock()
		err, some, idle, stalled := r.err, len(r.got) > 0, r.idle, r.stalled
		full := len(r.got) >= r.credit.Messages || r.bytes >= r.credit.Bytes
		r.mu.Unlock()
		if err != nil || full || idle && (some || over) {
			return err
		}
		if stalled != nil && (some || over) {
			return stalled
		}
		select {
		case <-r.changed:
		case <-waited.C:
			over = true
		case <-found.C:
			if idle || stalled != nil {
				found.Reset(d + collectTime)
				continue
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// collectTime bounds how long finding what is there may take.
const collectTime = 10 * time.Second

// Clone returns a delivery that belongs to the caller, envelope and all.
func (d Delivery) Clone() Delivery {
	e := *d.Envelope
	e.Topic, e.Key, e.ID = strings.Clone(e.Topic), strings.Clone(e.Key), strings.Clone(e.ID)
	e.ContentType, e.ReplyTo = strings.Clone(e.ContentType), strings.Clone(e.ReplyTo)
	e.Payload, e.CorrelationID = bytes.Clone(e.Payload), bytes.Clone(e.CorrelationID)
	e.Publisher = Publisher{
		Principal: strings.Clone(e.Publisher.Principal), Client: strings.Clone(e.Publisher.Client), Protocol: strings.Clone(e.Publisher.Protocol),
	}
	e.Headers = slices.Clone(e.Headers)
	for i, h := range e.Headers {
		e.Headers[i] = Header{strings.Clone(h.Name), strings.Clone(h.Value)}
	}
	d.Envelope = &e
	d.Tags = slices.Clone(d.Tags)
	return d
}
