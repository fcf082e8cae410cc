package bench

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

// A load is what one scenario sends and receives over a loop.
type load interface {
	// produce sends what may be sent now. It is called every turn until the
	// time is over.
	produce(now int64) error
	// counts says how many messages have been delivered to receivers, and how
	// many confirmed to publishers.
	counts() (delivered, confirmed uint64)
	// settled says that everything that was sent has been delivered and
	// confirmed.
	settled() bool
	// writeOff gives up what has been sent and not delivered, so that the load
	// goes on. It reports false if there was nothing to give up, as then the
	// server owes something that cannot be given up.
	writeOff() bool
	// begin is called when measuring begins.
	begin()
}

// A measured is what a server did while it was measured, and what it spent.
type measured struct {
	time                 time.Duration
	delivered, confirmed uint64
	server, own, others  time.Duration // processor time; others is all else on the machine
	reads, writes, turns int64         // the generator's
	stalls               int           // times that nothing moved and messages were given up
}

// A span is how long a load runs.
type span struct {
	warm, measure time.Duration
	// patience is how long nothing may move before messages that are not
	// guaranteed are given up; 0 is stallAfter.
	patience time.Duration
}

const (
	// stallAfter is how long nothing may move before messages that are not
	// guaranteed are given up, unless a span says otherwise.
	stallAfter = time.Second
	// hungAfter is how long nothing may move at all.
	hungAfter = time.Minute
)

// drive runs a load over a loop: warms up, measures, and lets what is under way
// arrive.
func drive(ctx context.Context, l *loop, ld load, s span, pid int) (measured, error) {
	var (
		m          measured
		phase      int
		start      = now()
		from, to   snapshot
		moved      = start
		last, hung uint64
	)
	err := l.run(func() (bool, error) {
		if err := ctx.Err(); err != nil {
			return true, err
		}
		elapsed := time.Duration(l.now - start)
		d, c := ld.counts()
		if d+c != last {
			last, moved = d+c, l.now
		} else if still := time.Duration(l.now - moved); still > cmp.Or(s.patience, stallAfter) && !ld.settled() {
			if ld.writeOff() {
				m.stalls++
				moved = l.now
			} else if still > hungAfter {
				hung = d + c
				return true, fmt.Errorf("the server has stopped answering, %d messages into the run", hung)
			}
		}
		var err error
		switch {
		case phase == 0 && elapsed >= s.warm:
			phase = 1
			ld.begin()
			from, err = take(l, ld, pid)
		case phase == 1 && elapsed >= s.warm+s.measure:
			phase = 2
			to, err = take(l, ld, pid)
		}
		if err != nil {
			return true, err
		}
		if phase < 2 {
			return false, ld.produce(l.now)
		}
		return ld.settled(), nil
	})
	m.time = time.Duration(to.at - from.at)
	m.delivered, m.confirmed = to.delivered-from.delivered, to.confirmed-from.confirmed
	m.server, m.own = to.server-from.server, to.own-from.own
	m.others = max(0, to.all-from.all-m.server-m.own)
	m.reads, m.writes, m.turns = to.reads-from.reads, to.writes-from.writes, to.turns-from.turns
	return m, err
}

// A snapshot is the state of the counters at one moment.
type snapshot struct {
	at                   int64
	delivered, confirmed uint64
	server, own, all     time.Duration
	reads, writes, turns int64
}

func take(l *loop, ld load, pid int) (s snapshot, err error) {
	if pid != 0 {
		if s.server, err = cpuOf(pid); err != nil {
			return s, fmt.Errorf("the server has ended: %w", err)
		}
	}
	s.own, s.all, s.at = ownCPU(), busyCPU(), now()
	s.delivered, s.confirmed = ld.counts()
	s.reads, s.writes, s.turns = l.reads, l.writes, l.turns
	return s, nil
}
