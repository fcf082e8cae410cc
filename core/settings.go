package core

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// QueueSettings are a queue's settings. The zero value of a field means the
// default that its comment names.
type QueueSettings struct {
	// MaxAttempts is how often a message is delivered before it goes to the
	// dead letters; 0 is 16, Unlimited is no bound.
	MaxAttempts int `json:"max_attempts,omitempty"`
	// Lease is how long a consumer may hold a message; 0 is 5 minutes,
	// Unlimited as long as it is connected.
	Lease time.Duration `json:"lease,omitempty"`
	// Backoff before the first redelivery, doubling up to BackoffMax; 0 is 1
	// second and 5 minutes.
	Backoff    time.Duration `json:"backoff,omitempty"`
	BackoffMax time.Duration `json:"backoff_max,omitempty"`
	// DeadLetter is the queue of dead letters, or the address of an exchange
	// (ExchangeTopic), which must be there; empty is the queue of the name
	// followed by ".dead", NoDeadLetter drops them.
	DeadLetter string `json:"dead_letter,omitempty"`
	// DeadLetterExpired sends what has expired to the dead letters.
	DeadLetterExpired bool `json:"dead_letter_expired,omitempty"`
	// TTL is the longest life of a message; its own expiry holds where it is
	// earlier. 0 is without end.
	TTL time.Duration `json:"ttl,omitempty"`
	// MaxLength and MaxBytes bound what is not settled, held messages
	// included; 0 is no bound. A session's bounds are seen to when its client
	// returns and, while it is away, every minute; all others hold at every
	// publish. What is delayed, and dead letters, are let in beyond them.
	MaxLength int64    `json:"max_length,omitempty"`
	MaxBytes  int64    `json:"max_bytes,omitempty"`
	Overflow  Overflow `json:"overflow,omitempty"`
	// Priority delivers higher priorities first; what has none counts as 4.
	// What has been released comes before what was never delivered.
	Priority bool `json:"priority,omitempty"`
	// Ordered gives the messages of one key to one consumer at a time, in
	// order: each once the one before it has been settled.
	Ordered bool `json:"ordered,omitempty"`
	// SingleActive lets one consumer work; the others wait to take over when it
	// goes, or when a lease of its ends. Who took leases works until they end.
	SingleActive bool `json:"single_active,omitempty"`
	// Expires deletes the queue when it has had no consumer for so long; 0 is
	// never.
	Expires time.Duration `json:"expires,omitempty"`
	// AutoDelete deletes the queue when its last consumer leaves and nothing
	// is leased; where it was the broker that ended, five minutes after the next
	// start, if no consumer is back.
	AutoDelete bool `json:"auto_delete,omitempty"`
	// Exclusive lets nobody consume the queue but the client that declared it,
	// with which it ends.
	Exclusive bool `json:"exclusive,omitempty"`
	// DedupWindow is for how long the message IDs of publishes to the queue
	// itself are remembered; 0 is the limit of the same name.
	DedupWindow time.Duration `json:"dedup_window,omitempty"`
	// Unpinned leaves it to the topics' policies how long messages are kept;
	// otherwise what the queue has not settled is kept.
	Unpinned bool `json:"unpinned,omitempty"`
	// Kind says what the queue is to its users.
	Kind QueueKind `json:"kind,omitempty"`
	// Owner is the principal that a session belongs to; the core sets it.
	Owner string `json:"owner,omitempty"`
	// Once begins the names of Envelope.Once that are forgotten when the queue
	// ends; empty is none.
	Once []byte `json:"once,omitempty"`
	// Meta is the adapter's own, kept with the queue.
	Meta []byte `json:"meta,omitempty"`
}

// String lists the settings that are not the defaults, for people.
func (s QueueSettings) String() string {
	var parts []string
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		f := v.Field(i)
		if f.IsZero() || name == "kind" || name == "owner" || name == "once" || name == "meta" {
			continue
		}
		value := f.Interface()
		if d, ok := value.(time.Duration); ok && d == Unlimited {
			value = "unlimited"
		}
		parts = append(parts, fmt.Sprintf("%s=%v", name, value))
	}
	if len(parts) == 0 {
		return "the defaults"
	}
	return strings.Join(parts, " ")
}

// effective are the settings of a queue of that name with defaults left out
// that were written out.
func (s QueueSettings) effective(name string, l *Limits) QueueSettings {
	blank := func(d *time.Duration, is time.Duration) {
		if *d == is {
			*d = 0
		}
	}
	blank(&s.Lease, defaultLease)
	blank(&s.Backoff, defaultBackoff)
	blank(&s.BackoffMax, defaultBackoffMax)
	blank(&s.DedupWindow, l.DedupWindow)
	if s.MaxAttempts == defaultAttempts {
		s.MaxAttempts = 0
	}
	if plain := (&QueueSettings{}); s.DeadLetter == plain.deadLetter(name) {
		s.DeadLetter = ""
	}
	return s
}

// Unlimited stands for "no bound" where 0 stands for the default.
const Unlimited = -1

// NoDeadLetter as QueueSettings.DeadLetter drops what is rejected.
const NoDeadLetter = "-"

// Overflow says what a full queue does.
type Overflow string

const (
	// OverflowReject refuses the publish; it is the default.
	OverflowReject Overflow = ""
	overflowReject Overflow = "reject" // which may be written out
	// OverflowDropOldest settles the oldest message.
	OverflowDropOldest Overflow = "drop-oldest"
)

// A QueueKind says what a queue is to its users; the core treats all alike.
type QueueKind string

const (
	KindQueue   QueueKind = ""
	KindGroup   QueueKind = "group"
	KindSession QueueKind = "session"
)

// A QueueDefinition is what DeclareQueue makes.
type QueueDefinition struct {
	Name     string
	Settings QueueSettings
	Bindings []Binding
	// From is where the bindings begin.
	From From
}

// An ExchangeKind says how an exchange compares keys.
type ExchangeKind string

const (
	// Direct: the keys are equal.
	Direct ExchangeKind = "direct"
	// Fanout: every binding matches.
	Fanout ExchangeKind = "fanout"
	// TopicExchange: the binding's key is a pattern of words between dots;
	// "*" stands for one word, "#" for any number, none included.
	TopicExchange ExchangeKind = "topic"
	// HeadersExchange: a binding's condition alone says what matches
	// ([MatchHeaders]).
	HeadersExchange ExchangeKind = "headers"
)

// An ExchangeDefinition is what DeclareExchange makes.
type ExchangeDefinition struct {
	Name string       `json:"name"`
	Kind ExchangeKind `json:"kind"`
	// Alternate is the exchange that gets what no binding matches, under its
	// own name and the same key; empty is none.
	Alternate string `json:"alternate,omitempty"`
}

// QueueInfo describes a queue at one moment.
type QueueInfo struct {
	Name     string
	Settings QueueSettings
	Bindings []Binding
	// Position is the offset up to which the queue has looked at the log.
	Position Offset
	// Lag is how many messages wait behind Position, Held how many consumers
	// have, Waiting how many wait for redelivery, or behind another one of their
	// key. Lag is -1 where it has not been counted.
	Lag, Held, Waiting int
	// Oldest is when the oldest message that Lag counts was published; zero
	// where there is none, or it was not counted.
	Oldest    time.Time
	Consumers int
}

// GroupQueue is the name of the queue of a group on a filter.
func GroupQueue(group string, f Filter) string { return groupPrefix + group + "/" + string(f) }

// GroupQueuePrefix is what the names of groups' queues begin with.
const GroupQueuePrefix = "$share/"

// GroupOf returns the group and the filter that the name of a queue stands for,
// if it is a group's.
func GroupOf(queue string) (group string, f Filter, ok bool) {
	rest, ok := strings.CutPrefix(queue, groupPrefix)
	if !ok {
		return "", "", false
	}
	group, filter, _ := strings.Cut(rest, "/")
	return group, Filter(filter), true
}

// SessionName is a session's name for what clients call it: what a queue's name
// may not hold, or would mean levels, is escaped.
func SessionName(s string) string { return sessionNames.Replace(s) }

var sessionNames = strings.NewReplacer("%", "%25", "+", "%2B", "#", "%23", "/", "%2F")

// SessionQueue is the name of the queue of an adapter's session.
func SessionQueue(session string) string { return sessionPrefix + session }

const (
	groupPrefix   = GroupQueuePrefix
	sessionPrefix = "$session/"
)

// kindOf tells a queue's kind from its name.
func kindOf(queue string) QueueKind {
	switch {
	case strings.HasPrefix(queue, groupPrefix):
		return KindGroup
	case strings.HasPrefix(queue, sessionPrefix):
		return KindSession
	}
	return KindQueue
}

// DefaultGroupSettings are those of a group made by its first member: it keeps
// its position for a week without members and pins nothing. A member that wants
// the messages of each key in order makes it Ordered.
func DefaultGroupSettings() QueueSettings {
	return QueueSettings{Kind: KindGroup, Expires: 7 * 24 * time.Hour, Unpinned: true}
}

// CheckQueueName says what is wrong with the name of a queue that a user
// declares or addresses. The error wraps [ErrInvalidTopic]. Names with a
// leading dollar sign belong to groups and sessions.
func CheckQueueName(name string) error {
	if name == "" {
		return fmt.Errorf("%w: the queue has no name", ErrInvalidTopic)
	}
	if strings.HasPrefix(name, "$") {
		return fmt.Errorf("%w: the queue name %q begins with a dollar sign", ErrInvalidTopic, name)
	}
	return CheckTopic(QueueTopic(name))
}

// CheckExchangeName says what is wrong with the name of an exchange. The error
// wraps [ErrInvalidTopic].
func CheckExchangeName(name string) error {
	if name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("%w: the exchange name %q is empty or contains a slash", ErrInvalidTopic, name)
	}
	return CheckTopic(ExchangeTopic(name, ""))
}
