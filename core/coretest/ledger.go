package coretest

import (
	"slices"
	"sync"

	"github.com/sluicemq/sluice/core"
)

// A Moment is a place in the order of what a ledger has been told; later ones
// are greater.
type Moment int

// A fact is something that was asked of the broker, and when the broker said
// that it is so. A moment of 0 is never.
type fact struct{ asked, told Moment }

// A Ledger records what a workload asked of a broker and what it was told, in
// one order, so that it can say for any moment what a crash then may take and
// what it may not. All methods may be called from several goroutines.
type Ledger struct {
	mu           sync.Mutex // guards what follows
	now          Moment
	messages     []message // by number, from 1
	transactions []fact    // likewise
	settlings    []settling
	deletions    []deletion
	deliveries   []delivery
	registers    map[string][]setting
	offsets      map[core.Offset]int // which message was told which offset
	faults       []string
	lives        int    // how often a broker was opened after a crash
	opened       Moment // when that was last
}

// A message is one publish.
type message struct {
	fact
	number      int
	topic       string
	payload     string
	id, once    string
	offset      core.Offset // as it was told
	durable     bool        // its confirmation means that it is on disk
	mayGo       bool        // retention may take it
	delayed     bool        // it is published again when it is due
	due         bool        // which is at once, as far as tests are concerned
	transaction int         // 0 is none
	repeats     int         // the message whose publish this one repeats; 0 is none
	queues      []string    // that must get it
	cancel      fact        // that it was taken out of what is delayed
	left        left        // of a will
	// gone: it was not there after a crash, and must not come back.
	gone   bool
	missed Moment // when the broker had been opened whose log did not have it
}

// A settling is one settlement.
type settling struct {
	fact
	queue       string
	number      int
	outcome     core.Outcome
	transaction int
	// to is the queue that the message was moved to by it; empty is nowhere.
	to string
}

// A deletion is the end of a queue, with all that was published by then.
type deletion struct {
	fact
	queue   string
	through int // the last of its messages
}

// A delivery is one message in the hands of a consumer of a queue.
type delivery struct {
	at      Moment
	queue   string
	number  int
	attempt uint16
}

// A setting is one value that something named was given: a topic's retained
// value, the settings of a session, a queue that is there or not.
type setting struct {
	fact
	value string
}

// NewLedger makes an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{now: 1, registers: make(map[string][]setting), offsets: make(map[core.Offset]int)}
}

// Now is the present moment.
func (l *Ledger) Now() Moment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// After is the ledger of a broker that crashed at some time between two moments:
// what it was told before the first it may rely on, what was asked before the
// second may have happened or not, and nothing else has.
func (l *Ledger) After(first, second Moment) *Ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	cut := func(f *fact) {
		if f.told > first {
			f.told = 0
		}
	}
	n := &Ledger{now: second, lives: l.lives, opened: l.opened, registers: make(map[string][]setting, len(l.registers)), offsets: make(map[core.Offset]int)}
	n.messages = slices.Clone(l.messages)
	for i := range n.messages {
		m := &n.messages[i]
		if m.asked > second {
			m.gone = true
		}
		for _, f := range []*fact{&m.cancel, &m.left.taken} {
			if cut(f); f.asked > second {
				*f = fact{}
			}
		}
		if cut(&m.fact); m.told == 0 {
			m.offset = 0
		} else if m.offset != 0 {
			n.offsets[m.offset] = m.number
		}
	}
	n.transactions = slices.Clone(l.transactions)
	for i := range n.transactions {
		cut(&n.transactions[i])
	}
	for _, s := range l.settlings {
		if s.asked <= second {
			cut(&s.fact)
			n.settlings = append(n.settlings, s)
		}
	}
	for _, d := range l.deletions {
		if d.asked <= second {
			cut(&d.fact)
			n.deletions = append(n.deletions, d)
		}
	}
	for _, d := range l.deliveries {
		if d.at <= second {
			n.deliveries = append(n.deliveries, d)
		}
	}
	for name, settings := range l.registers {
		for _, s := range settings {
			if s.asked <= second {
				cut(&s.fact)
				n.registers[name] = append(n.registers[name], s)
			}
		}
	}
	n.faults = slices.Clone(l.faults)
	return n
}

// ask takes note of something that is asked; l.mu is held.
func (l *Ledger) ask(f *fact) {
	l.now++
	f.asked = l.now
}

// tell takes note that something is so; l.mu is held.
func (l *Ledger) tell(f *fact) {
	l.now++
	f.told = l.now
}

// set asks for a value of something named and returns what to call when the
// broker says that it has it.
func (l *Ledger) set(name, value string) (told func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := setting{value: value}
	l.ask(&s.fact)
	l.registers[name] = append(l.registers[name], s)
	asked := s.asked
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i := range l.registers[name] {
			if s := &l.registers[name][i]; s.asked == asked {
				l.tell(&s.fact)
			}
		}
	}
}

// latest is the last value that something named was given, and whether that was
// confirmed.
func (l *Ledger) latest(name string) (value string, told bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.registers[name]
	if len(s) == 0 {
		return "", false
	}
	last := s[len(s)-1]
	return last.value, last.told != 0
}

// may are the values that something named may have: the last that was
// confirmed, and those that were asked for after it. l.mu is held.
func (l *Ledger) may(name string) []string {
	values := []string{""}
	for _, s := range l.registers[name] {
		if s.told != 0 {
			values = values[:0]
		}
		values = append(values, s.value)
	}
	return values
}

// Confirms counts what was confirmed: publishes, settlements and changes.
func (l *Ledger) Confirms() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	count := func(f fact) {
		if f.told != 0 {
			n++
		}
	}
	for i := range l.messages {
		count(l.messages[i].fact)
	}
	for i := range l.settlings {
		count(l.settlings[i].fact)
	}
	for _, settings := range l.registers {
		for _, s := range settings {
			count(s.fact)
		}
	}
	return n
}

// Faults are what was seen to be wrong, the first twenty.
func (l *Ledger) Faults() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.faults)
}

// Fault takes note of something that is wrong.
func (l *Ledger) Fault(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault("%s", what)
}
