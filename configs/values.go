package configs

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A Size is a number of bytes: "4096", "64KiB", "1.5GiB", "10MB".
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// ParseSize reads a number of bytes.
func ParseSize(s string) (Size, error) {
	number, unit := s, int64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			number, unit = strings.TrimSpace(n), u.bytes
			break
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && n >= 0 && n <= math.MaxInt64/unit {
		return Size(n * unit), nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f >= 0) || f*float64(unit) >= math.MaxInt64 || unit == 1 || strings.ContainsAny(number, "eExX_") {
		return 0, fmt.Errorf("%q is not a size: want a number of bytes such as 4096, 64KiB, 1MiB, 8GiB or 10MB", s)
	}
	return Size(f * float64(unit)), nil
}

// String is the shortest exact form.
func (s Size) String() string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; s >= Size(u.bytes) && s%Size(u.bytes) == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalText is ParseSize.
func (s *Size) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSize(string(text))
	return err
}

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Duration is a time span: "500ms", "90s", "5m", "1h30m", "7d", "2w".
type Duration time.Duration

// ParseDuration reads a time span: Go's units, and d and w for days of 24
// hours and weeks of seven days.
func ParseDuration(s string) (Duration, error) {
	if s == "0" {
		return 0, nil
	}
	bad := fmt.Errorf("%q is not a duration: want a number with a unit, such as 500ms, 90s, 5m, 1h30m, 7d or 2w", s)
	var sum time.Duration
	rest := s
	for _, unit := range []struct {
		name string
		span time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		n, after, ok := strings.Cut(rest, unit.name)
		if !ok {
			continue
		}
		count, err := strconv.ParseUint(n, 10, 32)
		if err != nil || time.Duration(count) > (math.MaxInt64-sum)/unit.span {
			return 0, bad
		}
		sum, rest = sum+time.Duration(count)*unit.span, after
	}
	if rest == "" && s != "" {
		return Duration(sum), nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-sum {
		return 0, bad
	}
	return Duration(sum + d), nil
}

// String is a form that ParseDuration reads, without needless units.
func (d Duration) String() string {
	const day = 24 * time.Hour
	v := time.Duration(d)
	if v > 0 && v%day == 0 {
		return strconv.FormatInt(int64(v/day), 10) + "d"
	}
	s := v.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// UnmarshalText is ParseDuration.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// A Who says whom a rule is for: "user:NAME", "role:NAME", "users",
// "anonymous".
type Who string

// UnmarshalText checks the form.
func (w *Who) UnmarshalText(text []byte) error {
	s := string(text)
	kind, name, named := strings.Cut(s, ":")
	switch {
	case named && (kind == "user" || kind == "role") && name != "":
	case s == "users" || s == "anonymous":
	default:
		return fmt.Errorf("%q is nobody: want user:NAME, role:NAME, users or anonymous", s)
	}
	*w = Who(s)
	return nil
}

// An Action is what a rule is about.
type Action string

// UnmarshalText checks the word.
func (a *Action) UnmarshalText(text []byte) error { return setWord(a, text) }

func (Action) words() []string {
	return []string{"publish", "subscribe", "consume", "manage", "all"}
}

// A Pattern is a filter in which %u and %c stand for the user's name and the
// client id.
type Pattern string

// A Network is a range of addresses, such as 10.0.0.0/8.
type Network string

// UnmarshalText checks the form.
func (n *Network) UnmarshalText(text []byte) error {
	if _, err := netip.ParsePrefix(string(text)); err != nil {
		return fmt.Errorf("%q is not a network: want an address and a number of bits, such as 10.0.0.0/8", text)
	}
	*n = Network(text)
	return nil
}

// UnmarshalText checks the filter.
func (p *Pattern) UnmarshalText(text []byte) error {
	s := string(text)
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if i+1 == len(s) || s[i+1] != 'u' && s[i+1] != 'c' {
				return fmt.Errorf("%q: behind a %% want u for the user's name or c for the client id", s)
			}
		}
	}
	if _, err := core.ParseFilter(strings.NewReplacer("%u", "u", "%c", "c").Replace(s)); err != nil {
		return err
	}
	*p = Pattern(s)
	return nil
}

// A CertName is what of a certificate names its user.
type CertName string

// UnmarshalText checks the word.
func (c *CertName) UnmarshalText(text []byte) error { return setWord(c, text) }

func (CertName) words() []string {
	return []string{"cn", "san"}
}

// An ExchangeKind is how an exchange compares keys.
type ExchangeKind string

// UnmarshalText checks the word.
func (e *ExchangeKind) UnmarshalText(text []byte) error { return setWord(e, text) }

func (ExchangeKind) words() []string {
	return []string{string(core.Direct), string(core.Fanout), string(core.TopicExchange), string(core.HeadersExchange)}
}

// An Overflow is what a full queue does.
type Overflow string

// UnmarshalText checks the word.
func (o *Overflow) UnmarshalText(text []byte) error { return setWord(o, text) }

func (Overflow) words() []string {
	return []string{"reject", string(core.OverflowDropOldest)}
}

// A Level is how much is logged.
type Level string

// UnmarshalText checks the word.
func (l *Level) UnmarshalText(text []byte) error { return setWord(l, text) }

func (Level) words() []string {
	return []string{"debug", "info", "warn", "error"}
}

// Slog is the level in the terms of log/slog.
func (l Level) Slog() slog.Level {
	var level slog.Level
	if level.UnmarshalText([]byte(l)) != nil {
		return slog.LevelInfo
	}
	return level
}

// A LogFormat is the form of the log's lines.
type LogFormat string

// UnmarshalText checks the word.
func (l *LogFormat) UnmarshalText(text []byte) error { return setWord(l, text) }

func (LogFormat) words() []string {
	return []string{"auto", "text", "json"}
}

// worded is one of a few words.
type worded interface{ words() []string }

// setWord sets to to text if it is one of its words.
func setWord[T interface {
	~string
	worded
}](to *T, text []byte) error {
	words := (*to).words()
	if !slices.Contains(words, string(text)) {
		return fmt.Errorf("%q is none of %s", text, strings.Join(words, ", "))
	}
	*to = T(text)
	return nil
}
