package core

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Schedule has a message published again and again. It is durable: its
// occurrences go on after a restart. Those that were missed because the broker
// did not run, or was busy, are made up for by one.
type Schedule struct {
	// Cron says when a round begins: minute, hour, day of the month, month,
	// day of the week, as in crontab(5), in the machine's time zone. Without
	// it there is one round, which begins at the envelope's DeliverAt, or
	// after one Period.
	Cron string
	// Delay is how long after the moment that Cron names its round begins.
	Delay time.Duration
	// Repeat is how often, after the first time, the message comes within a
	// round, Period how long after each other; Repeat Unlimited is for ever.
	Repeat int
	Period time.Duration

	left int // of the round, -1 without end
}

// Left is how often the message comes in its round after the next time;
// Unlimited is for ever.
func (s *Schedule) Left() int { return s.left }

// MinPeriod is the shortest Period.
const MinPeriod = 100 * time.Millisecond

// begin checks a schedule and returns when the message is published first.
func (s *Schedule) begin(at, now time.Time) (time.Time, error) {
	switch {
	case s.Repeat < Unlimited || s.Delay < 0 || s.Period < 0:
		return at, fmt.Errorf("%w: a schedule's delay, period and repeat are not negative", ErrInvalid)
	case s.Repeat != 0 && s.Period < MinPeriod:
		return at, fmt.Errorf("%w: a message repeats after %v at the least, not %v", ErrInvalid, MinPeriod, s.Period)
	case s.Repeat == Unlimited && s.Cron != "":
		return at, fmt.Errorf("%w: a schedule repeats by cron, or for ever, not both", ErrInvalid)
	}
	s.left = s.Repeat
	if s.Cron == "" {
		if at.IsZero() {
			at = now.Add(s.Period)
		}
		return at, nil
	}
	c, err := parseCron(s.Cron)
	if err != nil {
		return at, err
	}
	tick, ok := c.after(now)
	if !ok {
		return at, fmt.Errorf("%w: cron %q never comes", ErrInvalid, s.Cron)
	}
	return tick.Add(s.Delay), nil
}

// next returns when the message that was due then is due again, and the
// schedule for that; false if it is not.
func (s *Schedule) next(due, now time.Time) (time.Time, *Schedule, bool) {
	after := *s
	if s.left != 0 {
		missed := 0
		if late := now.Sub(due); late > s.Period {
			missed = int(late / s.Period)
		}
		if s.left < 0 || missed < s.left {
			if s.left > 0 {
				after.left -= missed + 1
			}
			return due.Add(time.Duration(missed+1) * s.Period), &after, true
		}
	}
	if s.Cron == "" {
		return time.Time{}, nil, false
	}
	c, err := parseCron(s.Cron)
	if err != nil {
		return time.Time{}, nil, false // it was checked when it came
	}
	after.left = s.Repeat
	tick, ok := c.after(now)
	return tick.Add(s.Delay), &after, ok
}

// appendSchedule appends a schedule to a record's body: cron as a string, then
// as uvarints delay and period in milliseconds, and repeat and what is left of
// the round, both one more, so that 0 is without end.
func appendSchedule(dst []byte, s *Schedule) []byte {
	dst = appendString(dst, s.Cron)
	dst = binary.AppendUvarint(dst, uint64(s.Delay.Milliseconds()))
	dst = binary.AppendUvarint(dst, uint64(s.Period.Milliseconds()))
	dst = binary.AppendUvarint(dst, uint64(s.Repeat+1))
	return binary.AppendUvarint(dst, uint64(s.left+1))
}

func (d *bodyDecoder) schedule() *Schedule {
	s := &Schedule{Cron: d.string()}
	s.Delay = time.Duration(d.uvarint()) * time.Millisecond
	s.Period = time.Duration(d.uvarint()) * time.Millisecond
	s.Repeat, s.left = int(d.uvarint())-1, int(d.uvarint())-1
	return s
}

// A cron is what parseCron reads: for each field a set of values.
type cron struct {
	minute, hour, day, month, weekday uint64
	// anyDay and anyWeekday say that the field is "*": where both are named,
	// one of them is enough.
	anyDay, anyWeekday bool
}

// parseCron reads five fields of numbers, ranges (1-5), lists (1,3), steps
// (*/15) and "*"; months and days of the week have their English names, too,
// and Sunday is 0 or 7.
func parseCron(s string) (c cron, err error) {
	fields := strings.Fields(s)
	if len(fields) != 5 {
		return c, fmt.Errorf("%w: cron %q has %d fields, not 5: minute hour day month weekday", ErrInvalid, s, len(fields))
	}
	months := []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	days := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	for i, f := range []struct {
		to        *uint64
		low, high int
		names     []string
	}{{&c.minute, 0, 59, nil}, {&c.hour, 0, 23, nil}, {&c.day, 1, 31, nil}, {&c.month, 1, 12, months}, {&c.weekday, 0, 7, days}} {
		if *f.to, err = parseCronField(fields[i], f.low, f.high, f.names); err != nil {
			return c, fmt.Errorf("%w: cron %q: %w", ErrInvalid, s, err)
		}
	}
	if c.weekday&(1<<7) != 0 {
		c.weekday |= 1
	}
	c.anyDay, c.anyWeekday = fields[2] == "*", fields[4] == "*"
	return c, nil
}

func parseCronField(s string, low, high int, names []string) (set uint64, err error) {
	number := func(s string) (int, error) {
		for i, n := range names {
			if strings.EqualFold(s, n) {
				return i + low, nil
			}
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < low || n > high {
			return 0, fmt.Errorf("%q is not from %d to %d", s, low, high)
		}
		return n, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 {
				return 0, fmt.Errorf("%q is no step", stepText)
			}
		}
		from, to := low, high
		if span != "*" {
			first, last, ranged := strings.Cut(span, "-")
			if from, err = number(first); err != nil {
				return 0, err
			}
			switch {
			case ranged:
				if to, err = number(last); err != nil {
					return 0, err
				}
			case !stepped:
				to = from
			}
			if to < from {
				return 0, fmt.Errorf("%q goes backwards", span)
			}
		}
		for n := from; n <= to; n += step {
			set |= 1 << n
		}
	}
	return set, nil
}

// cronYears bounds how far ahead a moment is looked for: a 29th of February may
// be eight years away.
const cronYears = 9

// after returns the first moment behind t.
func (c cron) after(t time.Time) (time.Time, bool) {
	at := time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), 0, 0, t.Location()).Add(time.Minute)
	for end := t.AddDate(cronYears, 0, 0); at.Before(end); {
		switch {
		case c.month&(1<<int(at.Month())) == 0:
			at = time.Date(at.Year(), at.Month()+1, 1, 0, 0, 0, 0, at.Location())
		case !c.onDay(at):
			at = time.Date(at.Year(), at.Month(), at.Day()+1, 0, 0, 0, 0, at.Location())
		case c.hour&(1<<at.Hour()) == 0:
			at = at.Truncate(time.Minute).Add(time.Duration(60-at.Minute()) * time.Minute)
		case c.minute&(1<<at.Minute()) == 0:
			at = at.Add(time.Minute)
		default:
			return at, true
		}
	}
	return time.Time{}, false
}

func (c cron) onDay(t time.Time) bool {
	day, weekday := c.day&(1<<t.Day()) != 0, c.weekday&(1<<int(t.Weekday())) != 0
	if c.anyDay || c.anyWeekday {
		return day && weekday
	}
	return day || weekday
}
