package core

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core/pause"
)

// A queue is a named position in the log: a cursor, what is outstanding before
// it, and the consumers that compete for its messages. cursor.mu guards all of
// it. It stores no payloads and no entry for a message that nobody has taken.
type queue struct {
	cursor
	name     string
	settings QueueSettings

	consumers []*Consumer
	active    *Consumer // the only one that works; nil is all of them
	out       outstanding
	// What is counted is 32 bits wide, as there may be millions of queues.
	turn     int32 // whose turn it is
	waiting  int32 // entries in entryWaiting
	rejected int32 // entries in entryRejected
	putOffs  int32 // of the records that are being taken, see putOff
	leasing  int32 // entries in entryLeased
	// left, by lane, is what was passed over; passed the last offset that was
	// not; runs how many runs that is, -1 where they have to be counted.
	runs   int32
	left   []runs
	passed []Offset
	// classes are the consumers by their selectors, selective how many consumers
	// have one, or were denied a topic that others may have. wave counts what may
	// make a consumer want what none wanted before.
	classes   []*class
	wave      uint64
	selective int32
	// doubt is how many of the messages before doubtEnd may have been delivered
	// without the state knowing: the broker was lost.
	doubt    int32
	doubtEnd Offset
	// rewound is how far the queue had been when it was rewound, 0 once it is
	// there again. What was held then stays with who holds it; settled before the
	// queue comes to it, it is noted so among the outstanding, or it would come
	// again.
	rewound Offset
	// keys and keyOf are of ordered queues.
	keys  map[string][]Offset
	keyOf map[Offset]string
	// dues are the outstanding messages by when their lease ends, or when they
	// may go on; waits those that wait and may go, graves those that may go to
	// the dead letters, by their offsets.
	dues, waits, graves agenda
	// alarm is when the timer fires, no later than the first of dues, as now
	// counts; 0 is no timer.
	alarm int64
	timer *time.Timer
	// changes counts those of the definition, saved which of them is durable; 0
	// is none, and the queue gone if the process ends now.
	changes, saved uint64
	// idle is since when there is no consumer; zero while there is one.
	idle   time.Time
	expiry *time.Timer
	// used says that there has been a consumer, bereft that the last run ended
	// with the last of them, or behind it, and none is back. They are of AutoDelete.
	used, bereft bool

	// reach is the durable bound of what may have been delivered, wanted the
	// one that is on its way if reaching is set. Of what was passed over, maybe
	// may have been delivered before the broker was opened.
	reach, wanted Offset
	maybe         runs

	steps *steps // nil while the position is small
	meter meter
	sweep *sweep // nil where nothing is swept
	loans *loans // nil if nobody ever borrowed it
	// owner is the client that an exclusive queue belongs to.
	owner *Client

	touched []*Consumer // the scratch of whoever runs the cursor

	// slack is up to where the log may grow before what waits for the queue can
	// be too much; zero is not known.
	slack slack

	deleted bool
	// dirty says that the position has changed since it was last journaled,
	// undefined that the definition has to be journaled with it.
	dirty, undefined bool
	// unsure says that retained values were put off, and that this may not be
	// durable. It belongs to whoever runs the cursor.
	unsure bool
	// snapshotted says that the state has, or may have, what there is of snapshots.
	snapshotted bool
	// unread says that the keys of what is outstanding are not known yet.
	unread   bool
	reaching bool
	shrinks  bool // it may be over its bounds
}

// The settings' defaults, where 0 is not the default itself.
const (
	defaultAttempts   = 16
	defaultLease      = 5 * time.Minute
	defaultBackoff    = time.Second
	defaultBackoffMax = 5 * time.Minute
)

func (s *QueueSettings) maxAttempts() int {
	switch s.MaxAttempts {
	case 0:
		return defaultAttempts
	case Unlimited:
		return 0
	}
	return s.MaxAttempts
}

func (s *QueueSettings) lease() time.Duration {
	switch s.Lease {
	case 0:
		return defaultLease
	case Unlimited:
		return 0
	}
	return s.Lease
}

// backoff is how long a message waits after that many attempts, with up to a
// fifth more so that what failed together does not come back together.
func (s *QueueSettings) backoff(attempts uint16) time.Duration {
	first, most := s.Backoff, s.BackoffMax
	if first == 0 {
		first = defaultBackoff
	}
	if most == 0 {
		most = defaultBackoffMax
	}
	d := min(first<<min(max(int(attempts), 1)-1, 30), most)
	if d <= 0 {
		d = most
	}
	return d + rand.N(d/5+1)
}

// deadLetter is the queue of a queue's dead letters, "" if it has none. Those of
// a group and of a session go to a queue that can be named: "g.dead" for the
// group g on any filter, "session/s.dead" for the session s.
func (s *QueueSettings) deadLetter(name string) string {
	switch s.DeadLetter {
	case "":
	case NoDeadLetter:
		return ""
	default:
		return s.DeadLetter
	}
	switch kindOf(name) {
	case KindGroup:
		name, _, _ = strings.Cut(strings.TrimPrefix(name, groupPrefix), "/")
	case KindSession:
		name = strings.TrimPrefix(name, "$")
	}
	return wildcards.Replace(name) + ".dead"
}

// wildcards are not allowed in a queue's name.
var wildcards = strings.NewReplacer("+", "_", "#", "_")

// deadLetterSettings are those of a queue of dead letters: they stay until
// somebody settles them.
func deadLetterSettings() QueueSettings {
	return QueueSettings{MaxAttempts: Unlimited, DeadLetter: NoDeadLetter}
}

// keepBatch is how large a batch a consumer keeps between deliveries.
const keepBatch = 16

// deliver hands the consumers' batches to their receivers.
func (q *queue) deliver() {
	for i, k := range q.touched {
		pause.At("about to deliver")
		if !k.deliver(k.batch) {
			q.undelivered(k, k.batch, 0)
		}
		clear(k.batch)
		if k.batch = k.batch[:0]; cap(k.batch) > keepBatch && len(q.b.dispatcher.in) == 0 {
			k.batch = nil
		}
		q.touched[i] = nil
	}
	q.touched = q.touched[:0]
}

// undelivered takes back what a consumer was assigned and never given: it had
// left, or the attempts could not be made durable. It has not had its attempt,
// and what nobody was to settle waits for somebody else; what k still holds goes
// after a delay. Nobody else has been given it yet: that is for the same runner
// to do.
func (q *queue) undelivered(k *Consumer, ds []Delivery, delay time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range ds {
		d := &ds[i]
		k.credit.Bytes += d.Size()
		if !d.Settled {
			k.credit.Messages++
		}
		e := q.out.find(d.Offset)
		if e == nil {
			if d.Settled && !d.Retained && !q.deleted {
				q.putBack(d, delay)
			}
			continue
		}
		e.attempts = max(e.attempts, 1) - 1
		q.touch(e.offset)
		switch {
		case e.state == entryHeld && e.holder == k && e.attempts > 0 && q.out.kept[e.offset] != "":
			// The session may have had it before.
			if e.state, e.holder = entryKept, nil; slices.Contains(q.consumers, k) {
				e.state, e.due = entryWaiting, q.now()+int64(delay)
				q.waiting++
			}
			q.enroll(e)
			q.changed()
		case e.state == entryHeld && e.holder == k:
			q.release(e, delay)
		case e.state == entryRejected && e.reason == reasonAttempts:
			q.rejected--
			q.release(e, 0)
		}
	}
}

// putBack has a delivery wait that was to be accepted as it was handed over.
// cursor.mu is held.
func (q *queue) putBack(d *Delivery, delay time.Duration) {
	e := outEntry{offset: d.Offset, attempts: d.Attempt - 1, state: entryWaiting, size: q.sizeOf(d), ends: q.endOf(d.Envelope)}
	if delay > 0 {
		e.due = q.now() + int64(delay)
	}
	if q.blocked(d.Envelope, d.Offset) {
		e.state = entryParked
	} else {
		q.waiting++
	}
	q.add(e)
	q.follow(d.Envelope, d.Offset)
	q.recount(&e)
	q.changed()
}

func (q *queue) ready() bool {
	if q.reaching || q.full() || q.crowded() {
		return false
	}
	for _, k := range q.consumers {
		if q.works(k) {
			return true
		}
	}
	return false
}

// busy: dead letters to write, messages to deliver again to somebody who can
// take them, or some that were passed over.
func (q *queue) busy() bool {
	if q.toBury() != nil || q.shrinks || q.meter.miscounts || q.sweeps() || q.asked() {
		return true
	}
	if q.waiting == 0 {
		return q.picking()
	}
	credit := false
	for _, k := range q.consumers {
		credit = credit || q.works(k)
	}
	if !credit {
		return false
	}
	return q.anyGoes() || q.picking()
}

// owes: what was passed over, and what is outstanding.
func (q *queue) owes(from, to Offset) bool {
	for _, l := range q.left {
		if r, ok := l.after(from); ok && r.from < to {
			return true
		}
	}
	for i := range q.out.live() {
		if e := &q.out.live()[i]; e.state != entryDone && e.offset >= from && e.offset < to {
			return true
		}
	}
	return false
}

// toBury is the first rejected message that may go to the dead letters now, nil
// if there is none. cursor.mu is held.
func (q *queue) toBury() *outEntry { return q.first(&q.graves, entryRejected) }

// anyGoes reports whether a message waits to be delivered again, and may be now.
// cursor.mu is held.
func (q *queue) anyGoes() bool {
	if q.plain() {
		return q.first(&q.waits, entryWaiting) != nil
	}
	l := q.out.live()
	for i := range l {
		if q.goes(&l[i]) {
			return true
		}
	}
	return false
}

// goes reports whether a message waits to be delivered again, and may be now.
// cursor.mu is held.
func (q *queue) goes(e *outEntry) bool {
	return e.state == entryWaiting && e.due == 0 && (e.seen != q.wave || q.selective == 0 && q.out.kept[e.offset] == "")
}

func (q *queue) missed(g Gap) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.misses(g)
}

func (q *queue) notice(n Notice) {
	q.mu.Lock()
	ks := append([]*Consumer(nil), q.consumers...)
	q.mu.Unlock()
	for _, k := range ks {
		k.notice(n)
	}
}

// laneCount is how many lanes a queue has.
func (s *QueueSettings) laneCount() int {
	if s.Priority {
		return lanes
	}
	return 1
}

// newQueue makes a queue without bindings.
func newQueue(b *Broker, name string, s QueueSettings) *queue {
	q := &queue{name: name, settings: s, idle: time.Now(), left: make([]runs, s.laneCount()), passed: make([]Offset, s.laneCount())}
	q.init(b, q)
	q.keepsExpired = true
	return q
}

// changed notes that the position has to be journaled. cursor.mu is held.
func (q *queue) changed() {
	if !q.dirty && !q.deleted {
		q.dirty = true
		q.b.flusher.add(q)
	}
}

// putPosition adds the queue's position to a commit. The journal is entered, so
// a later position comes behind an earlier one.
func (q *queue) putPosition(p *commit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dirty = false
	if q.deleted {
		return
	}
	q.withdraw()
	if q.undefined {
		if change, err := q.definition(); err == nil {
			q.undefined = false
			p.Changes = append(p.Changes, change)
			q.savedBy(p)
		}
	}
	q.journalPosition(p)
}

// restore takes over what a position says, and reports whether that bounded what
// had been delivered, rather than knowing it. The broker is being opened.
func (q *queue) restore(p *position) (bounded bool) {
	q.next, q.out, q.rejected = p.next, p.out, p.rejected
	q.waiting = int32(q.out.len()-len(q.out.kept)) - q.rejected
	q.awaitDue(p.wall)
	for i, l := range p.left {
		if i < len(q.left) {
			q.left[i] = l
		}
	}
	q.maybe = p.maybe
	_, end := q.b.engine.Bounds()
	if reach := min(p.reach, end); reach > q.next && !q.settings.Priority {
		r := run{q.next, reach}
		q.maybe, q.left[0] = append(q.maybe, r), append(q.left[0], r)
		q.next = reach
	}
	if l := q.out.live(); len(l) > 0 && l[len(l)-1].offset >= p.next { // it had been rewound
		q.rewound = l[len(l)-1].offset + 1
		for i := range l {
			if l[i].offset >= p.next {
				q.left[0].cut(l[i].offset, l[i].offset+1)
			}
		}
	}
	q.runs = -1
	for i := range q.passed {
		q.passed[i] = max(q.next, 1) - 1
	}
	q.unread = q.settings.Ordered && q.out.len() > 0
	if !p.idle.IsZero() {
		// By the clock that cannot be set.
		q.idle = time.Now().Add(-q.b.aging.since(p.idle))
	} else {
		q.used, q.bereft = true, true
	}
	return p.reach != 0
}

// now is what leases and backoffs go by: nanoseconds since the broker was opened,
// by the clock that cannot be set.
func (q *queue) now() int64 { return int64(q.b.aging.seen()) }

// awaitDue turns the times of a position that was read, which are ages of the
// log, or times of the machine's clock, into those of this run. The broker is
// being opened.
func (q *queue) awaitDue(wall bool) {
	for i := range q.out.list {
		e := &q.out.list[i]
		if e.due == 0 {
			continue
		}
		left := q.b.aging.until(time.Duration(e.due))
		if wall {
			left = min(time.Unix(0, e.due).Sub(q.b.aging.wall()), time.Hour)
		}
		if e.due = 0; left > 0 {
			e.due = q.now() + int64(left)
		}
	}
}

// arm sets the timer to fire at a time, if that is earlier than it would.
// cursor.mu is held.
func (q *queue) arm(at int64) {
	if q.alarm != 0 && q.alarm <= at {
		return
	}
	q.alarm = at
	d := time.Duration(at - q.now())
	if q.timer == nil {
		q.timer = time.AfterFunc(d, q.tick)
	} else {
		q.timer.Reset(d)
	}
}

// stopTimers stops what would come back to the queue by itself. cursor.mu is
// held.
func (q *queue) stopTimers() {
	if q.sweep != nil {
		q.sweep.timer.Stop()
	}
	for _, t := range [...]*time.Timer{q.timer, q.expiry} {
		if t != nil {
			t.Stop()
		}
	}
}

// release makes an entry wait for its next delivery, or sends it to the dead
// letters if it has had its attempts. cursor.mu is held.
func (q *queue) release(e *outEntry, delay time.Duration) {
	if most := q.settings.maxAttempts(); most > 0 && int(e.attempts) >= most {
		q.reject(e, reasonAttempts)
		return
	}
	q.unlease(e)
	delete(q.out.kept, e.offset)
	q.changed()
	q.b.stats.Released.Add(1)
	q.waiting++
	q.shrinks = q.shrinks || q.over()
	e.state, e.holder, e.token, e.due = entryWaiting, nil, 0, 0
	if delay > 0 {
		e.due = q.now() + int64(delay)
	}
	if q.behindKey(e.offset) { // it was held when the queue was rewound
		e.state = entryParked
		q.waiting--
		q.unpark(q.keys[q.keyOf[e.offset]][0])
	}
	q.enroll(e)
}

// reasonAttempts is that of a dead letter that has had its attempts.
const reasonAttempts = "attempts"

// reject sends an entry to the dead letters. cursor.mu is held.
func (q *queue) reject(e *outEntry, reason string) {
	q.unlease(e)
	delete(q.out.kept, e.offset)
	q.rejected++
	e.state, e.holder, e.token, e.due, e.reason = entryRejected, nil, 0, 0, reason
	q.enroll(e)
}

// settled removes what was outstanding. cursor.mu is held.
func (q *queue) settled(e *outEntry) {
	q.unlease(e)
	if q.settings.Ordered {
		q.unfollow(e.offset)
	}
	q.uncount(int64(e.size))
	q.touch(e.offset)
	if e.offset >= q.next && e.offset < q.rewound {
		*e = outEntry{offset: e.offset, state: entrySettled}
		delete(q.out.kept, e.offset)
		return
	}
	q.out.settle(e)
}

// settleOne does what an outcome says with an entry. cursor.mu is held.
func (q *queue) settleOne(e *outEntry, o Outcome, opts SettleOptions) {
	switch o {
	case Accepted:
		q.b.stats.Accepted.Add(1)
		q.settled(e)
		q.changed()
		q.wake() // it may have waited for less to be outstanding
	case Released:
		delay := opts.Delay
		if delay == 0 {
			delay = q.settings.backoff(e.attempts)
		}
		q.release(e, delay)
	case Rejected:
		reason := opts.Reason
		if reason == "" {
			reason = "rejected"
		}
		q.reject(e, reason)
	}
}

// settleEntry settles what k holds at an offset, or through it. keyed says that
// this may let the next one of a key go. No lock is held.
func (q *queue) settleEntry(k *Consumer, at Offset, o Outcome, opts SettleOptions) (keyed bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e, err := q.heldBy(k, at)
	if err != nil {
		return false, err
	}
	keyed = len(q.keyOf) > 0
	if !opts.Through {
		q.settleOne(e, o, opts)
		return keyed, nil
	}
	for e := range q.holds(k, 0, at) {
		q.settleOne(e, o, opts)
	}
	return keyed, nil
}

// firstHeld returns the first entry from an offset through another that k holds.
// cursor.mu is held.
func (q *queue) firstHeld(k *Consumer, from, through Offset) *outEntry {
	l := q.out.within(max(from, k.low), min(through, k.high))
	for i := range l {
		if l[i].state == entryHeld && l[i].holder == k {
			return &l[i]
		}
	}
	return nil
}

// holds yields what a consumer holds from an offset through another, in order;
// they may be settled meanwhile, which moves the others. cursor.mu is held.
func (q *queue) holds(k *Consumer, from, through Offset) iter.Seq[*outEntry] {
	return func(yield func(*outEntry) bool) {
		for e := q.firstHeld(k, from, through); e != nil; e = q.firstHeld(k, from, through) {
			if from = e.offset + 1; !yield(e) {
				return
			}
		}
	}
}

func (q *queue) mayCommit(k *Consumer, at Offset) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, err := q.heldBy(k, at)
	return err
}

// heldBy returns the entry at an offset if k holds it. cursor.mu is held.
func (q *queue) heldBy(k *Consumer, at Offset) (*outEntry, error) {
	e := q.out.find(at)
	if e == nil || e.state != entryHeld || e.holder != k {
		return nil, fmt.Errorf("%w: offset %d of queue %q", ErrNotHeld, at, q.name)
	}
	return e, nil
}

// settle is Consumer.Settle.
func (q *queue) settle(k *Consumer, at Offset, o Outcome, opts SettleOptions) error {
	if opts.Receipt != 0 {
		return q.settleConfirmed(k, at, o, opts)
	}
	keyed, err := q.settleEntry(k, at, o, opts)
	if err != nil {
		return err
	}
	pause.At("settled")
	k.Grant(opts.Credit)
	if o != Accepted || keyed {
		q.kick()
	}
	return nil
}

// extend lengthens what is held at an offset, if it is the caller's.
func (q *queue) extend(mine func(*outEntry) bool, at Offset, by time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.out.find(at)
	if e == nil || !mine(e) {
		return fmt.Errorf("%w: offset %d of queue %q", ErrNotHeld, at, q.name)
	}
	e.due = q.now() + int64(by)
	q.enroll(e)
	return nil
}

// leave takes a consumer out. What it holds is released at once, but for what is
// kept for its session.
func (q *queue) leave(k *Consumer) {
	lives := q.b.lives(k.session)
	q.leaveWith(k, lives)
	if lives && !q.b.lives(k.session) {
		q.forsake(k.session) // it ended meanwhile
		q.kick()
	}
}

func (q *queue) leaveWith(k *Consumer, lives bool) {
	d := q.b.dispatcher
	d.mu.Lock()
	q.mu.Lock()
	if q.dismiss(k) || k.retired {
		k.retired = false
		for e := range q.holds(k, 0, k.high) {
			if q.out.kept[e.offset] != "" {
				q.keepLeft(e, lives)
			} else {
				q.release(e, 0)
			}
		}
		if k.session != "" && len(q.out.kept) > 0 {
			for i := range q.out.live() {
				if e := &q.out.live()[i]; e.state == entryWaiting && q.out.kept[e.offset] == k.session {
					q.waiting--
					q.keepLeft(e, lives)
				}
			}
		}
		if !q.isFor(k.session) {
			q.b.keepers.remove(k.session, q)
		}
		q.goOnWithout()
	}
	q.mu.Unlock()
	d.mu.Unlock()
}

// retire takes a consumer out that goes on holding what it holds.
func (q *queue) retire(k *Consumer) {
	d := q.b.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.dismiss(k) {
		k.retired = true
		q.goOnWithout()
	}
}

// dismiss takes a consumer off the list, and reports whether it stood there.
// cursor.mu is held.
func (q *queue) dismiss(k *Consumer) bool {
	i := slices.Index(q.consumers, k)
	if i < 0 {
		return false
	}
	q.consumers = append(q.consumers[:i:i], q.consumers[i+1:]...)
	q.turn = 0
	q.appoint()
	q.quit(k)
	return true
}

// goOnWithout does what is to be done once a consumer has left. Both locks are
// held.
func (q *queue) goOnWithout() {
	if len(q.consumers) > 0 {
		q.unlive()
		if q.reach != 0 {
			q.changed() // what the others have no credit for is not about to be delivered
		}
	} else if q.idle.IsZero() {
		q.detach()
		q.idle = time.Now()
		q.changed()
		q.awaitExpiry()
		q.autoDelete()
	}
	q.wake()
}

// unlease takes note that an entry that is perhaps leased is so no more.
// cursor.mu is held.
func (q *queue) unlease(e *outEntry) {
	if e.state == entryLeased {
		q.unleased(1)
	}
}

// unleased takes note that so many leases have ended. cursor.mu is held.
func (q *queue) unleased(n int) {
	if q.leasing -= int32(n); n > 0 && q.leasing == 0 && len(q.consumers) == 0 {
		q.autoDelete()
	}
}

// autoDelete deletes a queue that nobody works on any more, if it is to be.
// cursor.mu is held.
func (q *queue) autoDelete() {
	if q.settings.AutoDelete && q.leasing == 0 && !q.deleted && !q.b.stopping.Load() {
		q.expiry = time.AfterFunc(0, func() { q.b.expire(q) })
	}
}

// returnTime is how long a queue that is deleted with its last consumer waits for
// one that the end of the last run has taken from it: longer than clients wait
// before they connect again.
const returnTime = 5 * time.Minute

// awaitExpiry starts the clock of a queue without a consumer, or sets it anew.
// One that has long to go needs no timer yet: the reclaimer passes all queues
// before that is too late. cursor.mu is held.
func (q *queue) awaitExpiry() {
	if q.expiry != nil {
		q.expiry.Stop()
		q.expiry = nil
	}
	expires := q.settings.Expires
	if q.settings.AutoDelete && q.bereft && (expires <= 0 || expires > returnTime) {
		expires = returnTime
	}
	if expires <= 0 || q.deleted {
		return
	}
	if left := time.Until(q.idle.Add(expires)); left <= q.b.reclaimer.soon() {
		q.expiry = time.AfterFunc(left, func() { q.b.expire(q) })
	}
}

// enter takes a consumer in; with exclusive, only where there is no other, which
// it reports.
func (q *queue) enter(k *Consumer, exclusive bool) (occupied bool, err error) {
	d := q.b.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted {
		return false, q.wasDeleted()
	}
	if exclusive && len(q.consumers) > 0 {
		return true, nil
	}
	q.consumers = append(q.consumers, k)
	q.appoint()
	q.join(k)
	q.b.keepers.add(k.session, q)
	q.welcome(k.session)
	if q.expiry != nil {
		q.expiry.Stop()
		q.expiry = nil
	}
	q.used, q.bereft = true, false
	if !q.idle.IsZero() {
		q.idle = time.Time{}
		q.changed()
	}
	q.attach()
	return false, nil
}

// A queueState is a queue's definition as the state keeps it.
type queueState struct {
	Settings QueueSettings  `json:"settings"`
	Bindings []bindingState `json:"bindings"`
}

type bindingState struct {
	Filter   Filter `json:"filter,omitempty"`
	Exchange string `json:"exchange,omitempty"`
	Key      string `json:"key,omitempty"`
	Where    string `json:"where,omitempty"`
	// Kind is the exchange's, which may be deleted once the binding has ended,
	// before this says so.
	Kind       ExchangeKind `json:"kind,omitempty"`
	Tag        uint64       `json:"tag,omitempty"`
	Settlement Settlement   `json:"settlement,omitempty"`
	From       Offset       `json:"from,omitempty"`
	Until      Offset       `json:"until,omitempty"`
}

// journalAgain notes that a commit with the queue's position, or with its
// definition, was refused.
func (q *queue) journalAgain(definition bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.undefined = q.undefined || definition
	q.snapshotted = true
	q.meter.counted.owe()
	q.journalWhole()
	q.changed()
}

// savedBy takes note, once a commit is durable, that the definition that it has
// is. cursor.mu is held.
func (q *queue) savedBy(p *commit) {
	n := q.changes
	p.after = append(p.after, func(_ Offset, err error) {
		if err == nil {
			q.mu.Lock()
			q.saved = max(q.saved, n)
			q.mu.Unlock()
		}
	})
}

// durable returns once the queue is, and with all set so is its definition as it
// is now: somebody else may have made or changed it a moment ago.
func (q *queue) durable(ctx context.Context, all bool) error {
	q.mu.Lock()
	is := q.saved > 0 && (!all || q.saved >= q.changes)
	q.mu.Unlock()
	if is {
		return nil
	}
	return q.save(ctx)
}

// definition is the change that makes the queue's definition durable. cursor.mu
// is held.
func (q *queue) definition() (Change, error) {
	s := queueState{Settings: q.settings}
	for _, b := range q.bound() {
		bs := bindingState{
			Filter: b.Filter, Exchange: b.Exchange, Key: b.Key, Where: b.Where, Tag: b.Tag, Settlement: b.Settlement, From: b.from, Until: b.until,
		}
		if b.exchange != nil {
			bs.Kind = b.exchange.Kind
		}
		s.Bindings = append(s.Bindings, bs)
	}
	value, err := json.Marshal(s)
	return Change{Key: keyQueue + q.name, Value: value}, err
}

// save makes the definition and the position durable. They are taken within the
// journal, so later ones come behind earlier ones.
func (q *queue) save(ctx context.Context) error {
	return q.b.journal.commitWith(ctx, func(p *commit) error {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.deleted {
			return q.wasDeleted() // and must not come back
		}
		change, err := q.definition()
		if err != nil {
			return err
		}
		q.dirty = false
		p.Changes = append(p.Changes, change)
		q.journalPosition(p)
		q.savedBy(p)
		return nil
	})
}
