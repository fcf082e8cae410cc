package core

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A From says where in the log a reader begins. One grammar holds on every
// protocol: "earliest", "latest", an offset "1042", the last n messages
// "-100", a time ago "@2h", a moment "@2026-11-01T08:00:00Z". The zero From is
// the latest: only what comes.
type From struct {
	kind   fromKind
	offset Offset
	last   int
	at     time.Time
}

type fromKind uint8

const (
	fromLatest fromKind = iota
	fromEarliest
	fromOffset
	fromLast
	fromTime
)

// The starts that need no argument.
var (
	Latest   = From{kind: fromLatest}
	Earliest = From{kind: fromEarliest}
)

// FromOffset begins at an offset.
func FromOffset(o Offset) From { return From{kind: fromOffset, offset: o} }

// FromLast begins n matching messages before the log's end.
func FromLast(n int) From { return From{kind: fromLast, last: n} }

// FromTime begins with the first message taken at or after t.
func FromTime(t time.Time) From { return From{kind: fromTime, at: t} }

// MaxFromLast bounds how many of the last messages a From may ask for.
const MaxFromLast = 1_000_000

// ParseFrom parses the grammar above; now is what a time ago is counted from.
// The error wraps [ErrInvalidFrom] and names the valid forms.
func ParseFrom(s string, now time.Time) (From, error) {
	bad := func() (From, error) {
		return From{}, fmt.Errorf("%w %q: want earliest, latest, an offset (1042), the last n (-100), a time ago (@2h) or a moment (@2026-11-01T08:00:00Z)", ErrInvalidFrom, s)
	}
	switch {
	case s == "earliest":
		return Earliest, nil
	case s == "latest":
		return Latest, nil
	case strings.HasPrefix(s, "-"):
		n, err := strconv.ParseUint(s[1:], 10, 31)
		if err != nil || n == 0 || n > MaxFromLast {
			return bad()
		}
		return FromLast(int(n)), nil
	case strings.HasPrefix(s, "@"):
		if d, err := time.ParseDuration(s[1:]); err == nil {
			if d < 0 {
				return bad()
			}
			return FromTime(now.Add(-d)), nil
		}
		t, err := time.Parse(time.RFC3339, s[1:])
		if err != nil {
			return bad()
		}
		return FromTime(t), nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return bad()
	}
	return FromOffset(Offset(n)), nil
}

// String is the form that ParseFrom reads.
func (f From) String() string {
	switch f.kind {
	case fromEarliest:
		return "earliest"
	case fromOffset:
		return strconv.FormatUint(uint64(f.offset), 10)
	case fromLast:
		return "-" + strconv.Itoa(f.last)
	case fromTime:
		return "@" + f.at.UTC().Format(time.RFC3339Nano)
	}
	return "latest"
}
