package core

import (
	"math"
	"time"

	"github.com/sluicemq/sluice/core/pause"
)

// Attempts are exact across crashes, for queues and groups: what a consumer may
// have been given before the broker was killed counts.
//
// Before a message is delivered again, or is taken from what was passed over,
// its attempt is made durable (persist). For a message's first delivery that
// would cost every delivery a sync, so there a bound is durable instead: reach,
// the offset before which messages may have been given to somebody. At the
// log's end it is everything, so that live delivery waits for nothing; a queue
// that is behind when its position is journaled, or has no consumer with credit,
// takes it back, and then it goes as far as there is credit. After a crash, what stands
// between the queue's next offset and its reach counts as delivered once, and
// is delivered again like what was passed over. So a
// message never comes with an attempt that it has had, and one that was never
// sent is counted only if it was about to be when the broker died.
//
// A session's position is not kept so: its protocol's mark of a redelivery is
// set from what was journaled last. But that it has a retained value is durable
// before that is delivered, see [queue.offer].

// everywhere is the reach of a queue that delivers at the log's end.
const everywhere = Offset(math.MaxUint64)

// exact reports whether the queue's attempts are.
func (q *queue) exact() bool { return kindOf(q.name) != KindSession }

// cover reports whether deliveries, read up to after, may be given away.
// Otherwise it makes that durable, as far as there is credit for them, and has
// the cursor looked at again. Whoever runs the cursor calls it.
func (q *queue) cover(ds []Delivery, after Offset) bool {
	q.mu.Lock()
	before := after
	if len(ds) > 0 {
		if credit := q.credit(); credit < len(ds) {
			before = ds[credit].Offset
		}
	}
	if !q.exact() || q.reach >= before || len(ds) > 0 && (q.settings.Priority || q.selective > 0) {
		// What such queues cannot give away at once they pass over.
		q.mu.Unlock()
		return true
	}
	again := q.reaching
	if before >= q.b.dispatcher.end() {
		before = everywhere
	}
	q.reaching, q.wanted = true, before
	q.mu.Unlock()
	pause.At("reach wanted")
	if again {
		return false
	}
	p, err := q.b.journal.enterUnbounded()
	if err != nil {
		return false
	}
	q.putPosition(p)
	p.Sync = true
	p.after = append(p.after, func(_ Offset, err error) {
		q.mu.Lock()
		q.reaching = false
		if err == nil && q.wanted >= before { // it was not rewound meanwhile
			q.reach = max(q.reach, before)
		}
		q.mu.Unlock()
		if err != nil {
			q.stall(err)
			return
		}
		q.kick()
	})
	q.b.journal.leave()
	return false
}

// stallRetry is how long to wait before what could not be made durable is tried
// again.
const stallRetry = time.Second

// stall tells the consumers why they get nothing, and has the cursor looked at
// again a little later, if that may help. No lock is held.
func (q *queue) stall(err error) {
	q.notice(Notice{Kind: NoticeStalled, Err: err})
	if noRoom(err) {
		time.AfterFunc(stallRetry, q.kick)
	}
}

func (q *queue) atEnd() bool { return !q.exact() || q.reach == everywhere }

// withdraw takes back the reach of a queue that nobody delivers from now.
// cursor.mu is held, and the position is journaled next.
func (q *queue) withdraw() {
	if q.reach != 0 && !q.reaching && q.state == cursorIdle && !q.feeding.Load() &&
		(!q.ready() || q.next < q.b.dispatcher.end()) {
		q.reach, q.wanted = 0, 0
	}
}

// rest ends a queue's work because the broker is being closed: nothing is
// delivered any more, so the position is exact by itself.
func (q *queue) rest() {
	d := q.b.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopTimers()
	q.unlive()
	if q.reach != 0 {
		q.reach, q.wanted = 0, 0
		q.changed()
	}
}

// persist makes the queue's position durable before what was just assigned is
// delivered, where it has to be. It blocks a pump for one commit. If that fails
// nothing may be delivered.
func (p *pump) persist(q *queue) error {
	if !q.exact() && !q.unsure || len(q.touched) == 0 {
		return nil
	}
	c, err := p.b.journal.enterUnbounded()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	q.putPosition(c)
	c.Sync = true
	c.after = append(c.after, func(_ Offset, err error) { done <- err })
	p.b.journal.leave()
	err = <-done
	q.unsure = q.unsure && err != nil
	return err
}

// hand delivers what was assigned once its attempts are durable.
func (p *pump) hand(q *queue) {
	pause.At("about to hand over")
	err := p.persist(q)
	if err == nil {
		q.deliver()
		return
	}
	for i, k := range q.touched {
		q.undelivered(k, k.batch, defaultBackoff)
		clear(k.batch)
		k.batch = k.batch[:0]
		q.touched[i] = nil
	}
	q.touched = q.touched[:0]
	q.notice(Notice{Kind: NoticeStalled, Err: err})
}
