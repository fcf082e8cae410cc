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
	// first is the name of the first one that was there.
	first string
}

const (
	argumentTTL          = "x-message-ttl"
	argumentExpires      = "x-expires"
	argumentLength       = "x-max-length"
	argumentBytes        = "x-max-length-bytes"
	argumentPriority     = "x-max-priority"
	argumentDeadExchange = "x-dead-letter-exchange"
	argumentDeadKey      = "x-dead-letter-routing-key"
	argumentOverflow     = "x-overflow"
	argumentSingle       = "x-single-active-consumer"
	argumentType         = "x-queue-type"
)

// read takes one of the arguments.
func (a *queueArguments) read(h *core.Header) error {
	number := func(most int64) (int64, error) {
		n, err := strconv.ParseInt(h.Value, 10, 64)
		if err != nil || n < 1 || n > most {
			return 0, invalid(h.Name, h.Value, fmt.Sprintf("a number from 1 to %d", most))
		}
		return n, nil
	}
	const century = 100 * 365 * 24 * 3600 * 1000
	var n int64
	var err error
	switch h.Name {
	case argumentTTL:
		n, err = number(century)
		a.settings.TTL = time.Duration(n) * time.Millisecond
	case argumentExpires:
		n, err = number(century)
		a.settings.Expires = time.Duration(n) * time.Millisecond
	case argumentLength:
		a.settings.MaxLength, err = number(1 << 62)
		a.settings.Overflow = core.OverflowDropOldest // as RabbitMQ does, unless told
	case argumentBytes:
		a.settings.MaxBytes, err = number(1 << 62)
		a.settings.Overflow = core.OverflowDropOldest
	case argumentPriority:
		return unsupported(h.Name, "Queues deliver in the order of publishing; leave it out.")
	case argumentDeadExchange:
		if h.Value != "" {
			return unsupported(h.Name, "Leave it empty and name the queue of the dead letters in x-dead-letter-routing-key.")
		}
	case argumentDeadKey:
		a.settings.DeadLetter = strings.Clone(h.Value)
		err = checkQueue(h.Value)
	case argumentOverflow:
		switch h.Value {
		case "drop-head":
			a.settings.Overflow = core.OverflowDropOldest
		case "reject-publish":
			return unsupported(h.Name, "A full queue drops its oldest message: drop-head.")
		default:
			return invalid(h.Name, h.Value, "drop-head")
		}
	case argumentSingle:
		a.settings.SingleActive, err = parseBool(h)
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

// name notes that an argument was there.
func (a *queueArguments) name(s string) {
	if a.first == "" {
		a.first = strings.Clone(s)
	}
}
