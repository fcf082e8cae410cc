package bench

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A traffic is a load of senders and receivers in groups: every receiver of a
// group gets every message of the group's senders.
type traffic struct {
	loop    *loop
	groups  []group
	noise   noise
	deliver *hdrhistogram.Histogram // from publish to delivery, µs
	confirm *hdrhistogram.Histogram // from publish to confirmation, µs
	exact   bool                    // time every message, not one of each read
}

type group struct {
	senders   []*sender
	receivers []*ledger
	// one says that each message goes to one of the receivers, which keep
	// one ledger together.
	one *shares
}

func newTraffic(l *loop, groups int) *traffic {
	return &traffic{loop: l, groups: make([]group, groups), noise: 0x9e3779b97f4a7c15,
		deliver: newHistogram(), confirm: newHistogram()}
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 60_000_000, 3) }

// note counts a delivered message that was sent at a time; first says that it
// is the first one of a read, whose delay is taken down for all of them.
func (t *traffic) note(at int64, first *bool) {
	t.loop.handled++
	if t.exact {
		t.deliver.RecordValue(max(1, (now()-at)/1000))
	} else if *first {
		*first = false
		t.deliver.RecordValue(max(1, (t.loop.now-at)/1000))
	}
}

func (t *traffic) produce(now int64) error {
	for i := range t.groups {
		g := &t.groups[i]
		for _, s := range g.senders {
			g.advance(s)
			if err := s.produce(now); err != nil {
				return err
			}
		}
	}
	return nil
}

// advance notes how far the slowest receiver has got with a sender.
func (g *group) advance(s *sender) {
	if g.one != nil {
		s.arrived = g.one.got[s.index]
		return
	}
	s.arrived = s.sent
	for _, l := range g.receivers {
		s.arrived = min(s.arrived, l.next[s.index])
	}
}

func (t *traffic) counts() (delivered, confirmed uint64) {
	for i := range t.groups {
		g := &t.groups[i]
		for _, l := range g.receivers {
			delivered += l.got
		}
		if g.one != nil {
			delivered += g.one.all
		}
		for _, s := range g.senders {
			confirmed += s.confirmed
		}
	}
	return delivered, confirmed
}

// delivers says that there are receivers.
func (t *traffic) delivers() bool {
	for _, g := range t.groups {
		if g.one != nil || len(g.receivers) > 0 {
			return true
		}
	}
	return false
}

func (t *traffic) settled() bool {
	for i := range t.groups {
		g := &t.groups[i]
		for _, s := range g.senders {
			g.advance(s)
			if !s.idle() || s.arrived < s.sent || s.flight > 0 && s.confirmed < s.sent {
				return false
			}
		}
	}
	return true
}

func (t *traffic) writeOff() (some bool) {
	for i := range t.groups {
		for _, s := range t.groups[i].senders {
			for _, l := range t.groups[i].receivers {
				if s.idle() && s.flight == 0 && l.next[s.index] < s.sent {
					some = true
					l.writeOff(s.index, s.sent)
				}
			}
		}
	}
	return some
}

func (t *traffic) begin() {
	t.deliver.Reset()
	t.confirm.Reset()
}

// A verdict says how a load's messages fared over its whole run.
type verdict struct {
	expected, got        uint64
	lost, late, disorder uint64
}

func (t *traffic) verdict() (v verdict) {
	for _, g := range t.groups {
		copies := uint64(len(g.receivers))
		if g.one != nil {
			copies = 1
			v.got += g.one.all
			v.late += g.one.again
		}
		for _, s := range g.senders {
			v.disorder += s.disorder
			v.expected += s.sent * copies
		}
		for _, l := range g.receivers {
			v.got += l.got
			v.lost += l.lost
			v.late += l.late
		}
	}
	return v
}

// faults are what was wrong with a run, empty if nothing was.
func (v verdict) faults(stalls int) (f []string) {
	if v.lost > 0 || v.got < v.expected {
		f = append(f, fmt.Sprintf("lost %d of %d messages", max(v.lost, sub(v.expected, v.got)), v.expected))
	}
	if v.late > 0 {
		f = append(f, fmt.Sprintf("%d messages repeated or out of order", v.late))
	}
	if v.disorder > 0 {
		f = append(f, fmt.Sprintf("%d confirmations out of order", v.disorder))
	}
	if stalls > 0 {
		f = append(f, fmt.Sprintf("stood still %d times for %v", stalls, stallAfter))
	}
	return f
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
