package stomp

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// queueArguments are the x- headers that settle what a queue is, as RabbitMQ's
// clients write them.
type queueArguments struct {
	settings core.QueueSettings
	// deadExchange and deadKey say together where dead letters go.
	deadExchange, deadKey string
	// refuses says that a full queue refuses messages.
	refuses bool
	// first is the name of the first one that was there.
	first string
	seen  fields
}

// An argument's number in arguments.
const (
	argumentTTL field = iota
	argumentExpires
	argumentLength
	argumentBytes
	argumentPriority
	argumentDeadExchange
	argumentDeadKey
	argumentOverflow
	argumentSingle
	argumentType
	argumentDeliveries
	argumentAttempts
	argumentLease
	argumentBackoff
	argumentBackoffMax
	argumentOrdered
	argumentDedup
	argumentAutoDelete
	argumentExclusive
)

// arguments are those that settle what a queue is. Those in the second part are
// settings that RabbitMQ has no argument for.
var arguments = map[string]field{
	"x-message-ttl":             argumentTTL,
	"x-expires":                 argumentExpires,
	"x-max-length":              argumentLength,
	"x-max-length-bytes":        argumentBytes,
	"x-max-priority":            argumentPriority,
	"x-dead-letter-exchange":    argumentDeadExchange,
	"x-dead-letter-routing-key": argumentDeadKey,
	"x-overflow":                argumentOverflow,
	"x-single-active-consumer":  argumentSingle,
	"x-queue-type":              argumentType,
	"x-delivery-limit":          argumentDeliveries,
	"x-consumer-timeout":        argumentLease,

	"x-max-attempts": argumentAttempts,
	"x-lease":        argumentLease,
	"x-backoff":      argumentBackoff,
	"x-backoff-max":  argumentBackoffMax,
	"x-ordered":      argumentOrdered,
	"x-dedup-window": argumentDedup,
}

// declarations are arguments whose names say nothing of a queue: on a SEND they
// are that only where it goes to one.
var declarations = map[string]field{"auto-delete": argumentAutoDelete, "exclusive": argumentExclusive}

// read takes one of the arguments. Times are in milliseconds.
func (a *queueArguments) read(h *core.Header) (err error) {
	number := func(most int64) (n int64) {
		if n, err = strconv.ParseInt(h.Value, 10, 64); err != nil || n < 1 || n > most {
			err = invalid(h.Name, h.Value, fmt.Sprintf("a number from 1 to %d", most))
		}
		return n
	}
	duration := func() time.Duration {
		const century = 100 * 365 * 24 * 3600 * 1000
		return time.Duration(number(century)) * time.Millisecond
	}
	argument, ok := arguments[h.Name]
	if !ok {
		argument = declarations[h.Name]
	}
	if argument.repeats(&a.seen) {
		return nil
	}
	s := &a.settings
	switch argument {
	case argumentTTL:
		s.TTL = duration()
	case argumentExpires:
		s.Expires = duration()
	case argumentLength:
		s.MaxLength = number(1 << 62)
	case argumentBytes:
		s.MaxBytes = number(1 << 62)
	case argumentPriority:
		// There are the priorities 0 to 9, whatever the most is; RabbitMQ's
		// have up to 255.
		number(255)
		s.Priority = true
	case argumentDeadExchange:
		if a.deadExchange = strings.Clone(h.Value); h.Value != "" {
			err = core.CheckExchangeName(h.Value)
		}
	case argumentDeadKey:
		a.deadKey = strings.Clone(h.Value)
	case argumentOverflow:
		switch h.Value {
		case "drop-head":
		case "reject-publish":
			a.refuses = true
		default:
			return invalid(h.Name, h.Value, "drop-head or reject-publish")
		}
	case argumentSingle:
		s.SingleActive, err = parseBool(h)
	case argumentOrdered:
		s.Ordered, err = parseBool(h)
	case argumentDedup:
		s.DedupWindow = duration()
	case argumentAutoDelete:
		if s.AutoDelete, err = parseBool(h); !s.AutoDelete {
			return err // as if it were not there
		}
	case argumentExclusive:
		if s.Exclusive, err = parseBool(h); !s.Exclusive {
			return err
		}
	case argumentDeliveries:
		// RabbitMQ counts the deliveries that failed before the last one.
		s.MaxAttempts = int(number(1000)) + 1
	case argumentAttempts:
		s.MaxAttempts = int(number(1000))
	case argumentLease:
		s.Lease = duration()
	case argumentBackoff:
		s.Backoff = duration()
	case argumentBackoffMax:
		s.BackoffMax = duration()
	case argumentType:
		if h.Value != "classic" && h.Value != "quorum" {
			return invalid(h.Name, h.Value, "classic or quorum; a stream is a topic read with from")
		}
		// Both name what every queue here is.
		return nil
	}
	a.name(h.Name)
	return err
}

// of returns the settings of a queue. A bound goes with what a full queue does:
// it drops its oldest message, as RabbitMQ has it, unless it is to refuse new
// ones. Dead letters go to the exchange, under the key or else the queue's name;
// without an exchange, to the queue that the key names.
func (a *queueArguments) of(queue string) core.QueueSettings {
	s := a.settings
	if (s.MaxLength > 0 || s.MaxBytes > 0) && !a.refuses {
		s.Overflow = core.OverflowDropOldest
	}
	switch {
	case a.deadExchange != "" && a.deadKey != "":
		s.DeadLetter = core.ExchangeTopic(a.deadExchange, a.deadKey)
	case a.deadExchange != "":
		s.DeadLetter = core.ExchangeTopic(a.deadExchange, queue)
	default:
		s.DeadLetter = a.deadKey
	}
	// RabbitMQ buries what has expired, where it buries at all.
	s.DeadLetterExpired = s.DeadLetter != ""
	return s
}

// name notes that an argument was there.
func (a *queueArguments) name(s string) {
	if a.first == "" {
		a.first = strings.Clone(s)
	}
}
