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
	overflow core.Overflow
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
)

// arguments are those that there are. Those in the second part are settings
// that RabbitMQ has no argument for.
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
}

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
	argument := arguments[h.Name]
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
		if h.Value != "" {
			return unsupported(h.Name, "Leave it empty and name the queue of the dead letters in x-dead-letter-routing-key.")
		}
	case argumentDeadKey:
		s.DeadLetter, s.DeadLetterExpired = strings.Clone(h.Value), true
		err = checkQueue(h.Value)
	case argumentOverflow:
		switch h.Value {
		case "drop-head":
			a.overflow = core.OverflowDropOldest
		case "reject-publish":
			return unsupported(h.Name, "A full queue drops its oldest message: drop-head.")
		default:
			return invalid(h.Name, h.Value, "drop-head")
		}
	case argumentSingle:
		s.SingleActive, err = parseBool(h)
	case argumentOrdered:
		s.Ordered, err = parseBool(h)
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

// done ends the reading: a bound goes with what a full queue does, which is to
// drop its oldest message, as RabbitMQ has it, unless told otherwise.
func (a *queueArguments) done() {
	if a.settings.MaxLength > 0 || a.settings.MaxBytes > 0 {
		a.settings.Overflow = core.OverflowDropOldest
		if a.overflow != "" {
			a.settings.Overflow = a.overflow
		}
	}
}

// name notes that an argument was there.
func (a *queueArguments) name(s string) {
	if a.first == "" {
		a.first = strings.Clone(s)
	}
}
