package core

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/core/seeded"
)

// chores writes the dead letters that are due and delivers again what waits for
// it. It returns false if it has to come back before the queue reads on.
func (q *queue) chores(p *pump) (done bool) {
	q.mu.Lock()
	waiting, unread, shrinks, sweeps, miscounts := q.waiting > 0, q.unread, q.shrinks, q.sweeps(), q.meter.miscounts
	q.shrinks = false
	q.mu.Unlock()
	if miscounts {
		if err := p.recount(q); err != nil && p.ctx.Err() == nil {
			p.b.log.Error("queue not counted", "queue", q.name, "err", err)
		}
		shrinks = true
	}
	if shrinks {
		p.shrink(q)
	}
	if sweeps {
		p.sweep(q)
	}
	if unread && !p.readKeys(q) {
		return true
	}
	p.bury(q)
	if waiting && !p.redeliver(q) {
		return false
	}
	return p.pick(q)
}

// redeliverRound is how many messages are delivered again in one go.
const redeliverRound = 128

// redeliver delivers what waits and is due, in order, as long as there is
// credit. It returns false if more is due.
func (p *pump) redeliver(q *queue) (done bool) {
	var room [redeliverRound]Offset
	q.mu.Lock()
	due := q.due(room[:0])
	q.mu.Unlock()
	pause.At("due found")
	for i := 0; i < len(due); {
		j := i + 1
		for j < len(due) && due[j]-due[j-1] <= redeliverRound {
			j++
		}
		if !p.redeliverRun(q, due[i:j]) {
			return true // no credit: reading on would find none either
		}
		i = j
	}
	return len(due) < redeliverRound
}

// redeliverRun delivers messages that stand close together and reports whether
// there was credit for all.
func (p *pump) redeliverRun(q *queue, due []Offset) bool {
	next, last := due[0], due[len(due)-1]
	i := 0
	for next <= last {
		p.limit(pumpRecords, pumpBytes)
		after, err := p.b.engine.Read(p.ctx, next, last+1, nil, &p.buf)
		if err != nil {
			p.failed(&q.cursor, next, err)
			return false
		}
		for r := range p.buf.Records {
			rec := &p.buf.Records[r]
			for i < len(due) && due[i] < rec.Offset {
				q.lost(due[i])
				i++
			}
			if i == len(due) || due[i] != rec.Offset {
				continue
			}
			i++
			var e Envelope
			if err := rec.Envelope(&e); err != nil {
				p.b.log.Error("message not readable", "queue", q.name, "offset", rec.Offset, "err", err)
				q.lost(rec.Offset)
				continue
			}
			if q.tooLate(rec.Offset, &e) {
				q.drop(rec.Offset, "expired")
				continue
			}
			d := Delivery{Envelope: &e, Offset: rec.Offset}
			d.Settled = settled(q.tagAgain(&d, rec.Topic), &e)
			if !q.again(d) {
				p.hand(q)
				return false
			}
		}
		p.hand(q)
		if after <= next {
			break
		}
		next = after
	}
	for ; i < len(due); i++ {
		q.lost(due[i])
	}
	return true
}

// tooLate reports whether a message that waits has expired, and is not delivered
// again.
func (q *queue) tooLate(at Offset, e *Envelope) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.expired(e, time.Now()) {
		return false
	}
	o := q.out.find(at)
	return o == nil || !q.isBegun(o)
}

// isBegun reports whether a message that waits has been given to the session that
// alone may have it: its delivery is then completed, although it expires meanwhile.
// cursor.mu is held.
func (q *queue) isBegun(e *outEntry) bool {
	return e.attempts > 0 && (q.settings.Kind == KindSession || q.out.kept[e.offset] != "")
}

// tagAgain sets the tags of a message that waits, and returns how it is to be
// settled. What was given as a retained value is one again. Where the bindings
// that brought it have been replaced since, it comes under those that would bring
// it now.
func (q *queue) tagAgain(d *Delivery, topic string) Settlement {
	q.mu.Lock()
	led := q.out.retained[d.Offset]
	q.mu.Unlock()
	if led != nil {
		d.Tags, d.Retained = append(d.Tags, led.Tag), true
		return led.Settlement
	}
	settlement := SettleNever
	for _, b := range q.bound() {
		if b.matches(topic, d.Offset) && b.holds(d.Envelope, d.Offset) {
			d.Tags = append(d.Tags, b.Tag)
			settlement = max(settlement, b.Settlement)
		}
	}
	if len(d.Tags) > 0 {
		return settlement
	}
	for _, b := range q.bound() {
		if b.until == 0 && b.matches(topic, max(d.Offset, b.from)) && b.holds(d.Envelope, d.Offset) {
			d.Tags = append(d.Tags, b.Tag)
			settlement = max(settlement, b.Settlement)
		}
	}
	return settlement
}

// again gives a waiting message to a consumer and reports whether one had
// credit for it.
func (q *queue) again(d Delivery) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.out.find(d.Offset)
	if e == nil || e.state != entryWaiting {
		return true // settled, deleted or purged in the meantime
	}
	k, v := q.choose(&d, false)
	switch {
	case v == refused:
		q.waiting--
		q.settled(e)
		q.changed()
		return true
	case v == noCredit && q.selective == 0 && q.out.kept[d.Offset] == "":
		return false
	case v != given:
		e.seen = q.wave // others are not held up by it
		return true
	}
	q.waiting--
	d.Attempt = e.attempts + 1
	if d.Attempt == 0 {
		d.Attempt--
	}
	if d.Settled = d.Settled && settled(k.settlement, d.Envelope); d.Settled {
		q.settled(e)
	} else {
		size, ends := e.size, e.ends
		*e = q.held(k, &d)
		e.size, e.ends = size, ends
		q.enroll(e)
	}
	q.give(k, d)
	q.changed()
	if d.Attempt > 1 {
		q.b.stats.Redelivered.Add(1)
	}
	return true
}

// drop settles a waiting message that is not to be delivered any more. With a
// reason it goes to the dead letters, if the queue asks for that.
func (q *queue) drop(at Offset, reason string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.out.find(at)
	if e == nil || e.state != entryWaiting {
		return
	}
	q.waiting--
	q.changed()
	if reason == "expired" {
		if q.settings.DeadLetterExpired {
			q.reject(e, reason)
			return
		}
		q.b.stats.Expired.Add(1)
	}
	q.settled(e)
}

// lost drops a message that the log does not have any more, and tells.
func (q *queue) lost(at Offset) {
	q.b.stats.Unreadable.Add(1)
	q.drop(at, "")
	q.notice(Notice{Kind: NoticeGap, From: at, To: at + 1})
}

// The headers that a dead letter has besides its own. Those of an earlier death,
// or that somebody made up, are not among them.
const (
	headerDead = "dead-letter-"

	HeaderDeadQueue    = "dead-letter-queue"
	HeaderDeadTopic    = "dead-letter-topic"
	HeaderDeadOffset   = "dead-letter-offset"
	HeaderDeadReason   = "dead-letter-reason"
	HeaderDeadAttempts = "dead-letter-attempts"
	HeaderDeadTime     = "dead-letter-time"
)

func isDeadHeader(h Header) bool { return strings.HasPrefix(h.Name, headerDead) }

// bury writes a queue's rejected messages to its dead letters. The dead letter
// and the queue's position without the message are one commit, so there is
// exactly one of each whatever happens in between.
func (p *pump) bury(q *queue) {
	for {
		q.mu.Lock()
		var at Offset
		if e := q.toBury(); e != nil {
			at = e.offset
		}
		dead := q.settings.deadLetter(q.name)
		q.mu.Unlock()
		if at == 0 {
			return
		}
		pause.At("about to bury")
		var letter *Envelope
		if r, err := p.readOne(at); err != nil {
			p.failed(&q.cursor, at, err)
			return
		} else if r != nil && dead != "" {
			letter = new(Envelope)
			if err := r.Envelope(letter); err != nil {
				p.b.log.Error("rejected message not readable", "queue", q.name, "offset", at, "err", err)
				letter = nil
			}
		}
		var to string
		if letter != nil {
			var err error
			if to, err = p.b.grave(dead, letter); err != nil {
				p.b.log.Error("nowhere for dead letters", "queue", q.name, "dead_letter", dead, "err", err)
				letter = nil
			}
		}
		if !p.b.buryOne(q, at, to, letter) {
			return
		}
	}
}

// grave is the topic that a dead letter goes to: of a queue, which it makes if
// there is none, or of an exchange, which must be there.
func (b *Broker) grave(dead string, letter *Envelope) (to string, err error) {
	if _, _, ok := ExchangeOf(dead); !ok {
		_, err := b.ensureQueue(dead, deadLetterSettings())
		return QueueTopic(dead), err
	}
	if err := b.checkAddress(dead); err != nil {
		return "", err
	}
	sent := *letter
	sent.Topic, sent.Mandatory = dead, false
	return b.route(&sent)
}

// buryOne commits one dead letter (nil: the message is dropped) and what
// remains of the queue.
func (b *Broker) buryOne(q *queue, at Offset, to string, letter *Envelope) bool {
	c, err := b.journal.enterUnbounded()
	if err != nil {
		return false
	}
	defer b.journal.leave()
	q.mu.Lock()
	e := q.out.find(at)
	if e == nil || e.state != entryRejected || e.due == never {
		q.mu.Unlock()
		return true // buried already, or part of a transaction
	}
	if letter != nil {
		letter.Headers = append(slices.DeleteFunc(letter.Headers, isDeadHeader),
			Header{HeaderDeadQueue, q.name},
			Header{HeaderDeadTopic, letter.Topic},
			Header{HeaderDeadOffset, strconv.FormatUint(uint64(at), 10)},
			Header{HeaderDeadReason, e.reason},
			Header{HeaderDeadAttempts, strconv.Itoa(int(e.attempts))},
			Header{HeaderDeadTime, time.Now().UTC().Format(time.RFC3339Nano)},
		)
		letter.Topic = to
		letter.Expires, letter.DeliverAt, letter.Retain, letter.ID = time.Time{}, time.Time{}, false, ""
		b.count(c, letter, letter.Topic)
		c.add(letter)
		b.stats.DeadLettered.Add(1)
	} else {
		b.stats.Dropped.Add(1)
	}
	u := &undo{q: q}
	u.keep(e)
	c.undos = append(c.undos, u)
	q.rejected--
	q.settled(e)
	q.mu.Unlock()
	if seeded.On(seeded.DoubleDeadLetter) {
		q.journalAgain(false)
	} else {
		q.putPosition(c)
	}
	c.Sync = true
	return true
}
