package seglog

import (
	"math"
	"time"
)

const (
	// busyFill is how long a segment takes to become full, at the most, where the
	// log is busy.
	busyFill = 30 * time.Second
	// paceLook is how long a log must have been slow at least: a moment does not
	// count.
	paceLook = 5 * time.Second
	// diedLately is how long what was freed counts for what has died lately.
	diedLately = 10 * time.Minute

	// A segment of which less than half is dead is copied for diedShare's sake
	// only as long as there is an allowance for it. So many segments are the most
	// that is put by; it is full after allowanceTime, and earlier where much is
	// freed: each byte earns earnsCopy.
	allowanceSegments = 16
	allowanceTime     = 6 * time.Hour
	earnsCopy         = 2
)

// A pace is how fast the log grows and how much of it has died lately, as the one
// who reclaims sees it, look by look.
//
// A busy log is left alone as far as can be: what retention frees is wanted again
// soon, and what is dead in a segment dies whole before long. Any other gives back
// to the disk what is dead, even where that takes a copy of what is not.
type pace struct {
	segment int64                                        // Options.SegmentBytes
	is      func(bytes int64, passed time.Duration) bool // Options.Busy, or nil

	at        time.Time // of the look that is compared with
	appended  int64     // what the log had got then
	busy      bool
	looked    time.Time // of the last look
	died      float64
	allowance float64 // bytes that may be copied
}

func newPace(o *Options, appended int64) pace {
	// Whether it was busy before it was opened is not known.
	p := pace{segment: o.SegmentBytes, is: o.Busy, at: time.Now(), appended: appended, busy: true}
	p.looked, p.allowance = p.at, p.most()
	return p
}

// isBusy says whether the log is busy that got so many bytes in so long.
func (p *pace) isBusy(bytes int64, passed time.Duration) bool {
	if p.is != nil {
		return p.is(bytes, passed)
	}
	fast := float64(bytes)*busyFill.Seconds() >= float64(p.segment)*max(passed, time.Second).Seconds()
	return fast || p.busy && passed < paceLook
}

// most is the most that may be put by to copy.
func (p *pace) most() float64 { return allowanceSegments * float64(p.segment) }

// appended is how much the log has got, from some time on. It is for the
// committer.
func (l *Log) appended() int64 { return l.filled + l.committer.segment.span.size }

// look takes note of how much the log has got.
func (p *pace) look(now time.Time, appended int64) {
	passed := now.Sub(p.looked)
	p.looked = now
	p.died *= math.Exp(-passed.Seconds() / diedLately.Seconds())
	p.allow(p.most() * passed.Seconds() / allowanceTime.Seconds())
	since := now.Sub(p.at)
	p.busy = p.isBusy(appended-p.appended, since)
	if since >= paceLook {
		p.at, p.appended = now, appended
	}
}

// freed takes note of what was dead and is freed, and of what was copied for it.
func (p *pace) freed(dead, copied int64) {
	p.died += float64(dead)
	p.allow(earnsCopy*float64(dead) - float64(copied))
}

func (p *pace) allow(bytes float64) { p.allowance = min(max(p.allowance+bytes, 0), p.most()) }
