package coretest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A left is what becomes of a message that is a session's will. Where the client
// is lost, and so where the broker is, it is published: a moment later where it is
// due, otherwise when its session ends, of which the register of its queue tells.
type left struct {
	session string
	taken   fact // that its delay was ended
}

// willMoment is the delay of a will that is due.
const willMoment = time.Millisecond

// A connected client is one whose will is kept.
type connected struct {
	number int
	will   core.Will
}

// will keeps a will for a session of its own, or has something become of one.
func (w *Workload) will(ctx context.Context) error {
	if n := len(w.connected); n > 0 && w.rand.IntN(2) == 0 {
		i := w.rand.IntN(n)
		c := w.connected[i]
		w.connected = slices.Delete(w.connected, i, i+1)
		return w.disconnect(ctx, c)
	}
	if w.rand.IntN(2) == 0 {
		return w.endWill(ctx)
	}
	l := w.Ledger
	l.mu.Lock()
	m := message{durable: true, delayed: true, due: w.rand.IntN(3) == 0, number: len(l.messages) + 1, topic: "will"}
	m.left.session = fmt.Sprint("of", m.number)
	m.payload = fmt.Sprint(m.number, " will")
	n := l.publish(m).number
	l.mu.Unlock()
	c := connected{n, core.Will{Envelope: &core.Envelope{Topic: m.topic, Payload: []byte(m.payload), Guarantee: core.AtLeastOnce}, Delay: time.Hour}}
	if m.due {
		c.will.Delay = willMoment
	}
	if w.rand.IntN(4) == 0 {
		c.will.Later = willMoment
	}
	if w.rand.IntN(4) > 0 { // a client without a session has a will, too
		if err := w.beginSession(ctx, m.left.session); err != nil {
			return tolerable(err)
		}
	}
	if err := w.client.KeepWill(ctx, m.left.session, c.will); err != nil {
		return tolerable(err)
	}
	l.mu.Lock()
	l.tell(&l.messages[n-1].fact)
	l.mu.Unlock()
	w.connected = append(w.connected, c)
	return nil
}

// beginSession makes a session that nobody is attached to.
func (w *Workload) beginSession(ctx context.Context, session string) error {
	queue := core.SessionQueue(session)
	told := w.Ledger.set("queue "+queue, "there")
	k, err := w.client.Consume(ctx, core.Consumption{Queue: queue, Create: true, Settings: &core.QueueSettings{Kind: core.KindSession}}, idleReceiver{})
	if err != nil {
		return err
	}
	told()
	k.Close()
	return nil
}

// disconnect has a client take its leave, or be lost.
func (w *Workload) disconnect(ctx context.Context, c connected) error {
	session := w.Ledger.of(c.number).session
	if w.rand.IntN(4) > 0 {
		err := w.client.LeaveWill(ctx, session, c.will)
		if errors.Is(err, core.ErrStorageFull) {
			w.refused = append(w.refused, c.number)
		}
		return tolerable(err)
	}
	told := w.Ledger.withdraw(c.number)
	if err := w.client.DropWill(session); err != nil {
		return err
	}
	// It does not wait; whatever is durable behind it says that it is so.
	err := w.beginSession(ctx, session+"-dropped")
	if err == nil {
		told()
		err = w.endSession(ctx, session+"-dropped")
	}
	return tolerable(err)
}

// endWill ends the session of a will, or its delay.
func (w *Workload) endWill(ctx context.Context) error {
	l := w.Ledger
	l.mu.Lock()
	var open []int
	for i := range l.messages {
		m := &l.messages[i]
		if s := l.registers["queue "+core.SessionQueue(m.left.session)]; m.left.session != "" && len(s) > 0 && s[len(s)-1].value != "" && s[len(s)-1].told != 0 {
			open = append(open, m.number)
		}
	}
	l.mu.Unlock()
	if len(open) == 0 {
		return nil
	}
	n := open[w.rand.IntN(len(open))]
	session := l.of(n).session
	is := slices.ContainsFunc(w.connected, func(c connected) bool { return c.number == n })
	switch how := w.rand.IntN(4); {
	case how < 2 || is:
		return tolerable(w.endSession(ctx, session))
	case how == 2:
		told := l.take(n)
		err := w.client.TakeWill(ctx, session, false)
		if err == nil {
			told()
		}
		return tolerable(err)
	}
	// It may have been published: then that was all.
	l.withdraw(n)
	return tolerable(w.client.TakeWill(ctx, session, true))
}

// awaitRefused waits until the wills are published, by the broker as it runs, that
// there was no room for at first.
func (w *Workload) awaitRefused(ctx context.Context) error {
	for deadline := time.Now().Add(w.Patience); len(w.refused) > 0 && !w.stopped.Load(); time.Sleep(10 * time.Millisecond) {
		published := make(map[int]bool)
		q := core.ReadRequest{Filters: []core.Filter{"will"}, From: core.Earliest, Limit: 1000}
		for more := true; more; {
			page, err := w.client.Read(ctx, q)
			if err != nil {
				return err
			}
			for _, d := range page.Messages {
				n, _ := number(d.Payload)
				published[n] = true
			}
			q.From, more = core.FromOffset(page.Next), page.More
		}
		w.refused = slices.DeleteFunc(w.refused, func(n int) bool { return published[n] || !w.isDue(n) })
		if len(w.refused) > 0 && time.Now().After(deadline) {
			w.fault("the wills %d, which there was no room for at first, are not published", w.refused)
			return nil
		}
		// The disk is full for a number of calls.
		if err := w.publish(ctx); err != nil {
			return err
		}
		if err := w.wait(); err != nil {
			return err
		}
	}
	return nil
}

// isDue reports whether a will that was left must be published by now.
func (w *Workload) isDue(n int) bool {
	l := w.Ledger
	session := l.of(n).session
	value, told := l.latest("queue " + core.SessionQueue(session))
	l.mu.Lock()
	defer l.mu.Unlock()
	m := &l.messages[n-1]
	return m.told != 0 && m.cancel.asked == 0 && (m.due || value == "" && told || m.left.taken.told != 0)
}

// ended reports whether a will's session was to end. l.mu is held.
func (l *Ledger) ended(m *message) bool {
	return slices.ContainsFunc(l.registers["queue "+core.SessionQueue(m.left.session)], func(s setting) bool { return s.value == "" })
}

// endSession ends a session.
func (w *Workload) endSession(ctx context.Context, session string) error {
	told := w.Ledger.set("queue "+core.SessionQueue(session), "")
	err := w.client.DeleteQueue(ctx, core.SessionQueue(session))
	if err == nil {
		told()
	}
	return err
}

// of is what becomes of a will.
func (l *Ledger) of(number int) left {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.messages[number-1].left
}

// withdraw asks that a will is not published, and returns what to call when the
// broker says so.
func (l *Ledger) withdraw(number int) (told func()) {
	return l.askOf(number, func(m *message) *fact { return &m.cancel })
}

// take asks that a will is published at once, likewise.
func (l *Ledger) take(number int) (told func()) {
	return l.askOf(number, func(m *message) *fact { return &m.left.taken })
}

func (l *Ledger) askOf(number int, what func(*message) *fact) (told func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ask(what(&l.messages[number-1]))
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.tell(what(&l.messages[number-1]))
	}
}

// compareWill looks at a will, which was published so often. l.mu is held.
func (l *Ledger) compareWill(m *message, s *sight, published int, bad, wait func(string, ...any)) {
	lives := s.values["queue "+core.SessionQueue(m.left.session)] != ""
	switch {
	case published > 1:
		bad("the will %d was published %d times", m.number, published)
	case published == 1 && m.gone:
		bad("the will %d, which was not kept, was published", m.number)
	case published == 1 && m.cancel.told != 0:
		bad("the will %d was withdrawn and is published", m.number)
	case published == 1 && lives && !m.due && m.left.taken.asked == 0 && !l.ended(m):
		bad("the will %d was published before its session ended", m.number)
	case published == 0 && m.told != 0 && m.cancel.asked == 0 && (m.due || !lives || m.left.taken.told != 0):
		wait("the will %d is not published; its session is there: %t", m.number, lives)
	}
}
