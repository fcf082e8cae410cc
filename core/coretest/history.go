package coretest

import (
	"fmt"
	"sync"
)

// A History records what was done with one queue, by any number of clients over
// any protocol and over kills of the broker, and judges it: a message has one
// holder at a time; each of its deliveries has the attempt that comes after the
// ones before it; of one key only the first that is not settled is delivered;
// what was settled and confirmed as such does not come again; and in the end
// every message is settled or a dead letter, once.
//
// Clients record what they are about to do before they do it, and what happened
// to them when they see it. All methods may be called from several goroutines.
type History struct {
	// Ordered says that the queue keeps the order of keys.
	Ordered bool

	mu       sync.Mutex // guards what follows
	messages map[string]*past
	keys     map[string][]*past
	held     map[string]map[*past]bool // by consumer
	faults   []string
}

// A past is what happened to one message.
type past struct {
	name, key  string
	deliveries int
	attempt    int    // the last one's
	unseen     int    // how many more there may have been, which nobody saw
	holder     string // "" is nobody
	settling   bool   // accepted or rejected, perhaps
	settled    bool   // and confirmed
	dead       int
}

// NewHistory makes an empty one.
func NewHistory() *History {
	return &History{messages: make(map[string]*past), keys: make(map[string][]*past), held: make(map[string]map[*past]bool)}
}

func (h *History) fault(format string, args ...any) {
	if len(h.faults) < 20 {
		h.faults = append(h.faults, fmt.Sprintf(format, args...))
	}
}

// Published records a message that was confirmed, in the order of its key.
func (h *History) Published(message, key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &past{name: message, key: key}
	h.messages[message] = p
	if key != "" {
		h.keys[key] = append(h.keys[key], p)
	}
}

// Delivered records that a consumer got a message.
func (h *History) Delivered(consumer, message string, attempt int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.messages[message]
	switch {
	case p == nil:
		h.fault("%s came, which nobody published", message)
		return
	case p.settled:
		h.fault("%s came again after it was settled", message)
	case p.holder != "":
		h.fault("%s came to %s while %s held it", message, consumer, p.holder)
	}
	if attempt <= p.attempt {
		h.fault("%s came with attempt %d after attempt %d", message, attempt, p.attempt)
	}
	if most := p.deliveries + 1 + p.unseen; attempt > most {
		h.fault("%s came with attempt %d, and had at most %d", message, attempt, most-1)
	}
	if h.Ordered && p.key != "" {
		for _, o := range h.keys[p.key] {
			if o == p {
				break
			}
			if !o.settling && !o.settled {
				h.fault("%s came before %s, which has the same key", message, o.name)
			}
		}
	}
	p.deliveries++
	p.unseen = max(p.unseen, attempt-p.deliveries)
	p.attempt, p.holder, p.settling = attempt, consumer, false
	if h.held[consumer] == nil {
		h.held[consumer] = make(map[*past]bool)
	}
	h.held[consumer][p] = true
}

func (h *History) free(p *past) {
	delete(h.held[p.holder], p)
	p.holder = ""
}

// Settling records that a message is about to be accepted or rejected (final),
// or released.
func (h *History) Settling(message string, final bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.messages[message]; p != nil {
		p.settling = final
		h.free(p)
	}
}

// Settled records that the broker confirmed that a message is accepted.
func (h *History) Settled(message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.messages[message]; p != nil {
		p.settled = true
	}
}

// Left records that a consumer is about to go, with whatever was on its way to
// it: what it held is free.
func (h *History) Left(consumer string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := range h.held[consumer] {
		h.free(p)
	}
	for _, p := range h.messages {
		p.unseen++ // it may have been on its way
	}
}

// Dead records a dead letter.
func (h *History) Dead(message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.messages[message]
	if p == nil {
		h.fault("%s is a dead letter, and nobody published it", message)
		return
	}
	if p.dead++; p.dead > 1 {
		h.fault("%s is a dead letter %d times", message, p.dead)
	}
	if p.settled {
		h.fault("%s is a dead letter, and was accepted", message)
	}
}

// End judges once all has been drained: rest is what is still in the queue.
func (h *History) End(rest ...string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	left := make(map[string]bool)
	for _, m := range rest {
		left[m] = true
	}
	for _, p := range h.messages {
		switch {
		case left[p.name] && (p.settled || p.dead > 0):
			h.fault("%s is still there, and was settled", p.name)
		case !left[p.name] && !p.settling && !p.settled && p.dead == 0:
			h.fault("%s is lost", p.name)
		}
	}
	return h.faults
}
