package core

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Prefixes of topics that address something other than a plain topic. Every
// address is a topic, so the log, the authorizer and reply-to know one
// namespace: "a/b" is a topic, "$queue/q" the queue q, "$exchange/e/k" the
// exchange e with the key k, "$inbox/x" a reply inbox. A wildcard in a filter's
// first level never matches a topic that begins with a dollar sign.
const (
	QueuePrefix    = "$queue/"
	ExchangePrefix = "$exchange/"
	InboxPrefix    = "$inbox/"
	DelayedPrefix  = "$delayed/"
	// SysPrefix begins the topics in which the broker tells of itself; see
	// [Broker.Report].
	SysPrefix = "$SYS/"
	// PeersPrefix begins those of them in which other brokers, which are clients
	// of this one, tell whether they are connected. Any client that has the right
	// may publish there.
	PeersPrefix = SysPrefix + "broker/connection/"
)

// own reports whether a topic or filter is no plain one: its first level is the
// broker's, one of those above or one by which adapters tell what else a
// subscription asks for. Any other topic that begins with a dollar sign is a
// topic like all, but that a wildcard in a filter's first level does not match
// it.
func own(topic string) bool {
	if topic == "" || topic[0] != '$' {
		return false
	}
	switch level, _, _ := strings.Cut(topic, "/"); level {
	case "$queue", "$exchange", "$inbox", "$delayed", "$SYS", "$share", "$session", "$replay", "$meta":
		return true
	}
	return false
}

// QueueTopic is the topic that addresses the queue of that name.
func QueueTopic(queue string) string { return QueuePrefix + queue }

// ExchangeTopic is the topic that addresses an exchange with a key, which may
// be empty.
func ExchangeTopic(exchange, key string) string {
	return ExchangePrefix + exchange + "/" + key
}

// QueueOf returns the queue that a topic addresses, if it addresses one.
func QueueOf(topic string) (queue string, ok bool) {
	return strings.CutPrefix(topic, QueuePrefix)
}

// ExchangeOf returns the exchange and the key that a topic addresses, if it
// addresses an exchange.
func ExchangeOf(topic string) (exchange, key string, ok bool) {
	rest, ok := strings.CutPrefix(topic, ExchangePrefix)
	if !ok {
		return "", "", false
	}
	exchange, key, _ = strings.Cut(rest, "/")
	return exchange, key, true
}

// MaxTopicBytes and MaxTopicLevels bound every topic and filter.
const (
	MaxTopicBytes  = 1024
	MaxTopicLevels = 32
)

// CheckTopic says what is wrong with a topic that somebody wants to publish
// to: it is empty, too long, has too many levels, is not UTF-8, or contains a
// NUL or a wildcard. The error wraps [ErrInvalidTopic]. Levels may be empty
// ([MQTT-4.7.1-1], [MQTT-4.7.3-1], [MQTT-4.7.3-2]).
func CheckTopic(topic string) error {
	i, err := checkLevels("topic", topic)
	if err != nil {
		return err
	}
	if i >= 0 {
		return fmt.Errorf("%w: %q contains the wildcard %q at byte %d", ErrInvalidTopic, topic, topic[i], i)
	}
	return nil
}

// checkLevels also returns where the first wildcard is, -1 if there is none.
func checkLevels(what, s string) (wildcard int, err error) {
	if s == "" {
		return -1, fmt.Errorf("%w: the %s is empty", ErrInvalidTopic, what)
	}
	if len(s) > MaxTopicBytes {
		return -1, fmt.Errorf("%w: the %s has %d bytes, at most %d are allowed", ErrInvalidTopic, what, len(s), MaxTopicBytes)
	}
	levels, ascii := 1, true
	wildcard = -1
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '/':
			levels++
		case c == 0:
			return -1, fmt.Errorf("%w: the %s %q contains a NUL byte", ErrInvalidTopic, what, s)
		case c >= utf8.RuneSelf:
			ascii = false
		case wildcard < 0 && (c == '+' || c == '#'):
			wildcard = i
		}
	}
	if levels > MaxTopicLevels {
		return -1, fmt.Errorf("%w: the %s has %d levels, at most %d are allowed", ErrInvalidTopic, what, levels, MaxTopicLevels)
	}
	if !ascii && !utf8.ValidString(s) {
		return -1, fmt.Errorf("%w: the %s %q is not valid UTF-8", ErrInvalidTopic, what, s)
	}
	return wildcard, nil
}

// A Filter names a set of topics: a "+" level stands for any one level, a
// final "#" level for any number of further levels, none included. Levels are
// compared byte by byte. [ParseFilter] makes one; the zero Filter matches
// nothing.
type Filter string

// ParseFilter checks a filter ([MQTT-4.7.1-2], [MQTT-4.7.1-3]). The error wraps
// [ErrInvalidTopic].
func ParseFilter(s string) (Filter, error) {
	if i, err := checkLevels("filter", s); err != nil {
		return "", err
	} else if i < 0 {
		return Filter(s), nil
	}
	for rest, more := s, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case level == "+":
		case level == "#" && more:
			return "", fmt.Errorf("%w: the filter %q goes on behind its %q", ErrInvalidTopic, s, "#")
		case level == "#":
		case strings.ContainsAny(level, "+#"):
			return "", fmt.Errorf("%w: in the filter %q a wildcard shares the level %q; it must stand alone", ErrInvalidTopic, s, level)
		}
	}
	return Filter(s), nil
}

// Exact reports whether the filter has no wildcard and so names one topic.
func (f Filter) Exact() bool { return !strings.ContainsAny(string(f), "+#") }

// Prefix is the part of the filter in front of its first wildcard: every topic
// that the filter matches begins with it, but for the separator in front of a
// final "#", which the parent level lacks.
func (f Filter) Prefix() string {
	i := strings.IndexAny(string(f), "+#")
	if i < 0 {
		return string(f)
	}
	if f[i] == '#' && i > 0 {
		i--
	}
	return string(f[:i])
}

// Match reports whether the filter matches a topic ([MQTT-4.7.2-1] for topics
// that begin with a dollar sign). It does not allocate.
func (f Filter) Match(topic string) bool {
	s := string(f)
	if s == "" || topic == "" {
		return false
	}
	if topic[0] == '$' && (s[0] == '+' || s[0] == '#') {
		return false
	}
	for {
		if s == "#" {
			return true
		}
		level, filterRest, filterMore := strings.Cut(s, "/")
		name, topicRest, topicMore := strings.Cut(topic, "/")
		if level != "+" && level != name {
			return false
		}
		if !topicMore {
			return !filterMore || filterRest == "#"
		}
		if !filterMore {
			return false
		}
		s, topic = filterRest, topicRest
	}
}

// HashTopic is the FNV-1a hash of a topic that stands in every record, so that
// an engine can skip records of other topics without parsing them.
func HashTopic(topic string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(topic); i++ {
		h ^= uint64(topic[i])
		h *= 1099511628211
	}
	return h
}
