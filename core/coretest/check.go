package coretest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// What a check sees of a broker that was opened after a crash.
type sight struct {
	records map[int][]sighting     // of each message, under its own topic
	delayed map[int]bool           // messages that wait to be due
	letters map[place]int          // dead letters
	pending map[place][]uint16     // what queues have not settled, with its attempts
	values  map[string]string      // of the registers
	lost    []core.Gap             // what the log says it has lost
	counts  []string               // what bounded queues count wrong
	at      map[core.Offset]string // what stands at each offset
}

type sighting struct {
	offset         core.Offset
	topic, payload string
}

// A place is a message in a queue.
type place struct {
	queue  string
	number int
}

// check compares the broker with the ledger, and has the ledger go on from what
// it sees.
func (w *Workload) check(ctx context.Context, e core.Engine) error {
	l := w.Ledger
	for deadline := time.Now().Add(w.Patience); ; time.Sleep(time.Millisecond) {
		s, err := w.look(ctx, e)
		if err != nil {
			return err
		}
		l.mu.Lock()
		wrong, waiting := l.compare(s)
		if w.failed.Load() {
			waiting = nil
		}
		if len(wrong) == 0 && len(waiting) > 0 && time.Now().Before(deadline) {
			l.mu.Unlock()
			continue
		}
		for _, f := range append(wrong, waiting...) {
			l.fault("%s", f)
		}
		l.resolve(s)
		l.mu.Unlock()
		return nil
	}
}

// look reads all that there is.
func (w *Workload) look(ctx context.Context, e core.Engine) (*sight, error) {
	s := &sight{
		records: make(map[int][]sighting), delayed: make(map[int]bool), letters: make(map[place]int),
		pending: make(map[place][]uint16), values: make(map[string]string), at: make(map[core.Offset]string),
	}
	dead := make(map[string]bool)
	// What is published meanwhile is in both.
	for m, err := range w.client.Delayed(ctx, core.Selection{}, "") {
		if err != nil {
			return nil, err
		}
		if n, ok := number(m.Payload); ok {
			s.delayed[n] = true
		}
	}
	first, end := e.Bounds()
	buf := core.ReadBuffer{MaxRecords: 1000, MaxBytes: 1 << 20}
	for next := first; next < end; {
		buf.Reset()
		after, err := e.Read(ctx, next, end, nil, &buf)
		if err != nil {
			return nil, err
		}
		if after <= next {
			return nil, fmt.Errorf("reading at %d goes on at %d", next, after)
		}
		next = after
		for _, g := range buf.Gaps {
			if g.Lost {
				s.lost = append(s.lost, g)
			}
		}
		for i := range buf.Records {
			var e core.Envelope
			r := &buf.Records[i]
			if err := r.Envelope(&e); err != nil {
				return nil, fmt.Errorf("record %d: %w", r.Offset, err)
			}
			n, ok := number(e.Payload)
			if !ok {
				return nil, fmt.Errorf("record %d is %q to %s, which was never published", r.Offset, e.Payload, e.Topic)
			}
			s.at[r.Offset] = fmt.Sprint("message ", n)
			if queue, is := core.QueueOf(e.Topic); is && strings.HasPrefix(queue, movedPrefix) {
				continue // it is looked for in the queue
			} else if is && strings.HasSuffix(queue, ".dead") {
				s.letters[place{header(&e, core.HeaderDeadQueue), n}]++
				dead[strings.Clone(queue)] = true
			} else if !strings.HasPrefix(e.Topic, core.DelayedPrefix) {
				s.records[n] = append(s.records[n], sighting{r.Offset, strings.Clone(e.Topic), string(e.Payload)})
			}
		}
	}
	buried := 0
	for q := range w.client.Queues("") {
		s.values["queue "+q.Name] = "there"
		if err := w.browse(ctx, q.Name, s.pending); err != nil {
			return nil, err
		}
		if q.Name == sessionID {
			s.values["session "+sessionName] = string(q.Settings.Meta)
			for _, b := range q.Bindings {
				s.values["binding "+string(b.Filter)] = "bound"
			}
		}
		if err := w.broker.Miscounts(ctx, q.Name); err != nil {
			s.counts = append(s.counts, err.Error())
		}
		if dead[q.Name] {
			buried++
		}
	}
	for name := range dead {
		if s.values["queue "+name] == "" {
			return nil, fmt.Errorf("there are dead letters for %s, but not the queue", name)
		}
	}
	for x := range w.client.Exchanges() {
		s.values["exchange "+x.Name] = string(x.Kind)
	}
	for d, err := range w.client.Retained(ctx, "r/#", "") {
		if err != nil {
			return nil, err
		}
		n, _ := number(d.Payload)
		s.values["retained "+d.Topic] = fmt.Sprint(n)
	}
	return s, nil
}

func header(e *core.Envelope, name string) string {
	for _, h := range e.Headers {
		if h.Name == name {
			return strings.Clone(h.Value)
		}
	}
	return ""
}

// browse reads what a queue has not settled.
func (w *Workload) browse(ctx context.Context, queue string, into map[place][]uint16) error {
	q := core.ReadRequest{Limit: 1000, From: core.Earliest}
	for {
		page, err := w.client.Browse(ctx, queue, q)
		if err != nil {
			return err
		}
		for _, d := range page.Messages {
			n, ok := number(d.Payload)
			if !ok {
				return fmt.Errorf("%s has %q, which was never published", queue, d.Payload)
			}
			into[place{queue, n}] = append(into[place{queue, n}], d.Attempt)
		}
		if !page.More {
			return nil
		}
		q.From = core.FromOffset(page.Next)
	}
}

// compare says what is wrong, and what would be if it stayed so. l.mu is held.
func (l *Ledger) compare(s *sight) (wrong, waiting []string) {
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	wait := func(format string, args ...any) { waiting = append(waiting, fmt.Sprintf(format, args...)) }
	for _, g := range s.lost {
		bad("the log says that %d to %d were lost", g.From, g.To)
	}
	for _, c := range s.counts {
		wait("%s", c) // unless something came meanwhile
	}
	last := core.Offset(0)
	parts := make([]struct{ there, missing int }, len(l.transactions)+1)
	for i := range l.messages {
		m := &l.messages[i]
		there := s.records[m.number]
		for _, r := range there {
			if r.topic != m.topic || r.payload != m.payload {
				bad("message %d is %.20q to %s, want %.20q to %s", m.number, r.payload, r.topic, m.payload, m.topic)
			}
		}
		if m.left.session != "" {
			l.compareWill(m, s, len(there), bad, wait)
			continue
		}
		switch {
		case len(there) > 1:
			bad("message %d is there %d times", m.number, len(there))
		case (m.gone || m.repeats != 0) && (len(there) > 0 || s.delayed[m.number]):
			bad("message %d, which repeats %d or was not there when the broker was opened at %d, is there (%s)", m.number, m.repeats, m.missed, l.tale(m, s))
		case m.gone || m.repeats != 0:
		case m.cancel.told != 0 && (len(there) > 0 || s.delayed[m.number]):
			bad("message %d was cancelled and is there", m.number)
		case m.cancel.asked != 0 && len(there) == 0:
		case m.delayed && m.due && !m.mayGo && len(there) == 0 && s.delayed[m.number]:
			wait("message %d is due and still waits", m.number)
		case m.delayed && !m.due && len(there) > 0:
			bad("message %d was delivered before it was due", m.number)
		case m.told != 0 && m.durable && !m.mayGo && len(there) == 0 && !s.delayed[m.number]:
			bad("message %d to %s was confirmed at offset %d and is lost", m.number, m.topic, m.offset)
		}
		if m.transaction != 0 && !m.mayGo {
			if len(there) > 0 {
				parts[m.transaction].there++
			} else {
				parts[m.transaction].missing++
			}
		}
		if m.delayed || len(there) != 1 {
			continue
		}
		if m.offset != 0 && there[0].offset != m.offset {
			bad("message %d was confirmed at offset %d and is at %d", m.number, m.offset, there[0].offset)
		}
		if there[0].offset <= last {
			bad("message %d is at %d, before one that was published earlier", m.number, there[0].offset)
		}
		last = there[0].offset
	}
	for tx, p := range parts {
		if p.there > 0 && p.missing > 0 {
			bad("transaction %d is there in part: %d messages are, %d are not", tx, p.there, p.missing)
		}
	}
	for at, n := range l.offsets {
		if is := s.at[at]; is != "" && is != fmt.Sprint("message ", n) && !l.messages[n-1].delayed {
			bad("offset %d was told of message %d and is %s", at, n, is)
		}
	}
	l.compareQueues(s, bad, wait)
	for name, settings := range l.registers {
		if strings.HasPrefix(name, "once ") {
			continue
		}
		has, may := s.values[name], l.may(name)
		if has == "" && slices.Contains(may, unbound) {
			continue
		}
		if !slices.Contains(may, has) {
			bad("%s is %q, want one of %q (%d changes)", name, has, may, len(settings))
		}
	}
	return wrong, waiting
}

// compareQueues looks at each message in each queue that must have it: until it
// is settled it waits there, once; rejected, it is a dead letter, once.
func (l *Ledger) compareQueues(s *sight, bad, wait func(string, ...any)) {
	type fate struct{ accepted, rejected, acceptTold, rejectTold, moved, moveTold bool }
	fates := make(map[place]*fate)
	flushed := make(map[string]Moment) // up to when the attempts of a queue are durable
	parts := make(map[int]fate)        // of the settlements of a transaction, whether some are and some are not
	// What did not get through in a transaction may have been settled later,
	// alone or in another one, have been given out once too often, or have gone
	// with its queue: that says nothing of the transaction.
	once := make(map[place]int)
	for _, t := range l.settlings {
		if t.outcome != core.Released {
			once[place{t.queue, t.number}]++
		}
	}
	for _, d := range l.deliveries {
		if d.attempt >= maxAttempts {
			delete(once, place{d.queue, d.number})
		}
	}
	for _, d := range l.deletions {
		for p := range once {
			if p.queue == d.queue && p.number <= d.through {
				delete(once, p)
			}
		}
	}
	for _, t := range l.settlings {
		p := place{t.queue, t.number}
		f := fates[p]
		if f == nil {
			f = new(fate)
			fates[p] = f
		}
		if t.told != 0 {
			flushed[t.queue] = max(flushed[t.queue], t.asked)
		}
		switch {
		case t.to != "":
			f.moved, f.moveTold = true, f.moveTold || t.told != 0
		case t.outcome == core.Accepted:
			f.accepted, f.acceptTold = true, f.acceptTold || t.told != 0
		case t.outcome == core.Rejected:
			f.rejected, f.rejectTold = true, f.rejectTold || t.told != 0
		}
		if t.transaction != 0 && once[p] == 1 && len(s.records[t.number]) > 0 {
			tx := parts[t.transaction]
			if len(s.pending[p]) > 0 {
				tx.rejected = true
			} else {
				tx.accepted = true
			}
			parts[t.transaction] = tx
		}
	}
	for tx, f := range parts {
		if f.accepted && f.rejected {
			wait("of transaction %d some settlements are in effect, and others are not", tx)
		}
	}
	attempts := make(map[place]int)
	for _, d := range l.deliveries {
		p := place{d.queue, d.number}
		if d.at < flushed[d.queue] {
			attempts[p] = max(attempts[p], int(d.attempt))
		}
	}
	for p, n := range s.letters {
		if n > 1 {
			bad("message %d of %s is a dead letter %d times", p.number, p.queue, n)
		}
	}
	for p, has := range s.pending {
		if len(has) > 1 && !strings.HasSuffix(p.queue, ".dead") {
			bad("message %d waits in %s %d times", p.number, p.queue, len(has))
		}
		if f := fates[p]; f != nil && (f.acceptTold || f.rejectTold || f.moveTold) {
			bad("message %d of %s was settled and is back (%s)", p.number, p.queue, l.story(p.queue, p.number))
		}
		if p.queue == fleeting && l.deletedWith(p) {
			bad("message %d of %s was deleted with the queue and is back", p.number, p.queue)
		}
		if least := attempts[p]; int(has[0]) < least {
			bad("message %d of %s has had %d attempts and knows of %d", p.number, p.queue, least, has[0])
		}
	}
	for p, f := range fates {
		in, waits := len(s.pending[place{movedPrefix + p.queue, p.number}]), len(s.pending[p])
		switch {
		case in > 0 && waits > 0:
			bad("message %d is both in %s and where it was moved to (%s)", p.number, p.queue, l.story(p.queue, p.number))
		case f.moveTold && in == 0:
			bad("message %d was moved from %s and is not there (%s)", p.number, p.queue, l.story(p.queue, p.number))
		case in > 0 && !f.moved:
			bad("message %d of %s was moved, and nobody asked for that", p.number, p.queue)
		case f.moved && in+waits == 0 && strings.HasSuffix(p.queue, ".dead") && !f.accepted:
			bad("dead letter %d is neither in %s nor where it was moved to (%s)", p.number, p.queue, l.story(p.queue, p.number))
		}
	}
	for i := range l.messages {
		m := &l.messages[i]
		missing := len(s.records[m.number]) == 0
		if missing && (!m.mayGo || m.told == 0 || m.delayed || !m.durable) || m.gone || m.repeats != 0 {
			continue
		}
		for _, q := range m.queues {
			p := place{q, m.number}
			f := fates[p]
			if f == nil {
				f = new(fate)
			}
			if f.moved && len(s.pending[place{movedPrefix + q, m.number}]) > 0 {
				continue
			}
			waits, letters := len(s.pending[p]), s.letters[p]
			switch {
			case waits > 0 && letters > 0:
				bad("message %d is both in %s and a dead letter of it (%s)", m.number, q, l.story(q, m.number))
			case f.acceptTold && letters > 0 && !f.rejected:
				bad("message %d of %s was accepted and is a dead letter", m.number, q)
			case waits+letters == 0 && f.rejectTold && !f.acceptTold:
				wait("message %d of %s was rejected and is no dead letter (%s)", m.number, q, l.story(q, m.number))
			case waits+letters == 0 && !f.accepted:
				wait("message %d is not in %s, where nobody settled it (%s; the log has it: %t)", m.number, q, l.story(q, m.number), !missing)
			}
		}
	}
}

// resolve has the ledger go on from what is there: what was not known to have
// happened now is known to have, or not to have. l.mu is held.
func (l *Ledger) resolve(s *sight) {
	l.lives++
	l.now++
	l.opened = l.now
	for i := range l.messages {
		m := &l.messages[i]
		there := s.records[m.number]
		if m.left.session != "" && len(there) == 0 && !m.gone && m.cancel.told == 0 {
			continue // it may wait
		}
		if len(there) == 0 && !s.delayed[m.number] {
			if !m.gone {
				m.gone, m.missed = true, l.opened
			}
			continue
		}
		m.cancel = fact{}
		if m.left.session != "" && len(there) > 0 {
			m.due = true // though its session, which was about to end, is there again
		}
		if m.told == 0 {
			m.told = l.now
		}
		m.durable = true
		if m.offset == 0 && !m.delayed && len(there) == 1 {
			m.offset = there[0].offset
			l.offsets[m.offset] = m.number
		}
	}
	// What was rejected in vain, as there was no room for it, may have been given
	// out once more and accepted.
	accepted := make(map[place]bool)
	for _, t := range l.settlings {
		if t.outcome == core.Accepted {
			accepted[place{t.queue, t.number}] = true
		}
	}
	var settlings []settling
	for _, t := range l.settlings {
		if p := (place{t.queue, t.number}); t.to != "" && len(s.pending[place{t.to, t.number}]) == 0 ||
			t.told == 0 && t.outcome == core.Accepted && s.letters[p] > 0 {
			continue // it was something else that took it away
		}
		if len(s.pending[place{t.queue, t.number}]) == 0 && t.outcome != core.Released {
			// Of the queue that gives up after a few attempts, it may have been
			// given up instead, and its dead letter is yet to be written.
			again := t.outcome == core.Rejected && accepted[place{t.queue, t.number}]
			if t.told == 0 && !again && (t.queue != "all" || t.outcome != core.Accepted) {
				t.told = l.now
			}
			settlings = append(settlings, t)
		}
	}
	l.settlings = settlings
	for _, d := range l.deletions { // nobody knows how far it had come
		for i := range min(d.through, len(l.messages)) {
			m := &l.messages[i]
			m.queues = slices.DeleteFunc(slices.Clone(m.queues), func(q string) bool { return q == d.queue })
		}
	}
	l.deletions = slices.DeleteFunc(l.deletions, func(d deletion) bool { return d.told == 0 })
	l.deliveries = nil
	for p, has := range s.pending {
		if has[0] > 0 {
			l.deliveries = append(l.deliveries, delivery{at: l.now, queue: p.queue, number: p.number, attempt: has[0]})
		}
	}
	for name := range l.registers {
		if strings.HasPrefix(name, "once ") {
			continue
		}
		l.registers[name] = []setting{{fact{l.now, l.now}, s.values[name]}}
	}
}

// deletedWith reports whether a message's queue was deleted, and confirmed to be,
// with the message in it. One that was delayed may have come later. l.mu is held.
func (l *Ledger) deletedWith(p place) bool {
	return slices.ContainsFunc(l.deletions, func(d deletion) bool {
		return d.queue == p.queue && d.told != 0 && p.number <= d.through && !l.messages[p.number-1].delayed
	})
}

// tale is what is known of a message itself. l.mu is held.
func (l *Ledger) tale(m *message, s *sight) string {
	return fmt.Sprintf("published to %s at moment %d in transaction %d, confirmed at %d with offset %d, delayed %t, may go %t, durable %t, cancelled at %d; at offsets %v, waits %t; opened at %d, now %d",
		m.topic, m.asked, m.transaction, m.told, m.offset, m.delayed, m.mayGo, m.durable, m.cancel.asked, s.records[m.number], s.delayed[m.number], l.opened, l.now)
}

// story is what is known of a message in a queue, for whoever has to find out
// what went wrong. l.mu is held.
func (l *Ledger) story(queue string, number int) string {
	m := &l.messages[number-1]
	var b strings.Builder
	fmt.Fprintf(&b, "published to %s at moment %d, confirmed at %d with offset %d", m.topic, m.asked, m.told, m.offset)
	for _, d := range l.deliveries {
		if d.queue == queue && d.number == number {
			fmt.Fprintf(&b, "; delivered at %d, attempt %d", d.at, d.attempt)
		}
	}
	for _, t := range l.settlings {
		if t.queue == queue && t.number == number {
			fmt.Fprintf(&b, "; settled at %d with outcome %d in transaction %d, confirmed at %d", t.asked, t.outcome, t.transaction, t.told)
		}
	}
	fmt.Fprintf(&b, "; opened at %d, now %d", l.opened, l.now)
	return b.String()
}
