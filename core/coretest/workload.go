package coretest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A Workload drives a broker with all that a client can ask of it, and keeps
// the ledger of it: publishes of every kind, settlements, transactions, session
// changes, retained values, dead letters, leases, delayed messages, messages
// that are published twice, exchanges, wills, and queues that come and go, over a log
// whose retention is at work all the time; messages are browsed, moved, purged
// and cancelled, dead letters sent back. What it does follows from its seed;
// how the broker's goroutines take turns does not.
//
// It has one caller, but for Ledger.
type Workload struct {
	Ledger *Ledger
	// Patience bounds how long a broker that was opened may take to do what was
	// due: to publish delayed messages, to write dead letters.
	Patience time.Duration

	rand    *rand.Rand
	broker  *core.Broker
	client  *core.Client
	workers []*worker
	session *core.Consumer
	// connected are clients whose wills are kept.
	connected []connected
	// refused are wills that there was no room for when they were left.
	refused []int
	stopped atomic.Bool
	failed  atomic.Bool

	mu       sync.Mutex // guards what follows
	receipts map[core.Receipt]func(core.Confirmation)
	receipt  core.Receipt
	last     core.Receipt // of a publish that was confirmed
	settled  *sync.Cond   // signalled when a receipt came
	holders  map[string]map[int]*worker
}

// NewWorkload makes a workload with a ledger: a new one, or that of a broker
// that crashed.
func NewWorkload(seed uint64, l *Ledger) *Workload {
	w := &Workload{Ledger: l, Patience: time.Minute, rand: rand.New(rand.NewPCG(seed, 0xb40c))}
	w.settled = sync.NewCond(&w.mu)
	return w
}

// The queues of the workload, and what leads to them. "work" is addressed, "all"
// has all plain topics and gives up after a few attempts, "keep" holds on to
// messages that no policy keeps, "routed" hangs on an exchange. The first two are
// counted, though they never come to their bounds.
var (
	allFilter   = core.Filter("a/#")
	groupQueue  = core.GroupQueue("g", allFilter)
	sessionName = "s"
	sessionID   = core.SessionQueue(sessionName)
	queues      = []core.QueueDefinition{
		{Name: "work", Settings: core.QueueSettings{MaxLength: boundless}},
		{Name: "all", Bindings: []core.Binding{{Filter: allFilter}}, Settings: core.QueueSettings{MaxAttempts: maxAttempts, MaxBytes: boundless}},
		{Name: "keep", Bindings: []core.Binding{{Filter: "old/kept/#"}}},
		{Name: "routed", Bindings: []core.Binding{{Exchange: "ex", Key: "k.#"}}},
	}
)

const (
	maxAttempts = 3
	boundless   = 1 << 40
)

// fleeting is a queue that is deleted and made again, with consumers and
// messages.
const fleeting = "fleeting"

// movedPrefix begins the names of the queues that messages are moved to, one for
// each that they come from. Nobody consumes them.
const movedPrefix = "moved-from-"

// Open opens the broker on an engine, checks that all is as the ledger has it,
// and goes on from there: what the ledger did not know is now known.
func (w *Workload) Open(ctx context.Context, e core.Engine) (err error) {
	w.broker, err = core.Open(ctx, core.Options{
		Engine:       e,
		ReclaimEvery: 2 * time.Millisecond,
		StepsFrom:    1,
		Policies:     []core.Policy{{Name: "old", Filters: []core.Filter{"old/#"}, Age: time.Millisecond, Bytes: 2 << 10}, {Filters: []core.Filter{"#"}}},
	})
	if err != nil {
		return errors.Join(err, e.Close(ctx))
	}
	w.mu.Lock()
	w.receipts = make(map[core.Receipt]func(core.Confirmation))
	w.holders = make(map[string]map[int]*worker)
	w.mu.Unlock()
	if w.client, err = w.broker.Connect(ctx, core.Credentials{Client: "workload"}, w); err != nil {
		return err
	}
	if err := w.check(ctx, e); err != nil {
		return errors.Join(err, w.Close(ctx))
	}
	return nil
}

// Begin makes the queues and attaches the consumers.
func (w *Workload) Begin(ctx context.Context) error {
	told := w.Ledger.set("exchange ex", "topic")
	if err := w.client.DeclareExchange(ctx, core.ExchangeDefinition{Name: "ex", Kind: core.TopicExchange}); err != nil {
		return err
	}
	told()
	for _, d := range queues {
		d.Settings.Backoff, d.Settings.BackoffMax = 1, 1
		told := w.Ledger.set("queue "+d.Name, "there")
		if err := w.client.DeclareQueue(ctx, d); err != nil {
			return err
		}
		told()
	}
	for _, q := range []string{"work", "all", "all", "keep", "routed", groupQueue} {
		if _, err := w.attach(ctx, q); err != nil {
			return err
		}
	}
	return w.openSession(ctx)
}

// Stop has Run end. It may be called from any goroutine.
func (w *Workload) Stop() { w.stopped.Store(true) }

// Fail says that a call of the file system's has failed: what the broker was to
// do by itself it may do late from now on, and readers may be told of it. It may
// be called from any goroutine.
func (w *Workload) Fail() { w.failed.Store(true) }

// Run takes so many steps, and then waits until all is confirmed, and done that
// could not be at first for want of room. It ends early, with an error, when the
// broker does not go on.
func (w *Workload) Run(ctx context.Context, steps int) error {
	for range steps {
		if w.stopped.Load() {
			return nil
		}
		if err := w.step(ctx); err != nil {
			return err
		}
	}
	if err := w.wait(); err != nil {
		return err
	}
	return w.awaitRefused(ctx)
}

// Close ends the broker. Its confirmations are taken note of.
func (w *Workload) Close(ctx context.Context) error {
	w.workers, w.session, w.connected, w.refused = nil, nil, nil, nil
	return w.broker.Close(ctx)
}

// maxReceipts bounds how much is on its way to be confirmed.
const maxReceipts = 64

func (w *Workload) step(ctx context.Context) error {
	if err := w.broker.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	full := len(w.receipts) >= maxReceipts
	w.mu.Unlock()
	if full {
		if err := w.wait(); err != nil {
			return err
		}
	}
	switch n := w.rand.IntN(100); {
	case n < 53:
		return w.publish(ctx)
	case n < 57:
		return w.commit(ctx)
	case n < 77:
		return w.settle()
	case n < 80:
		return w.will(ctx)
	case n < 84:
		return w.lease(ctx)
	case n < 86:
		return w.reattach(ctx)
	case n < 89:
		return w.changeSession(ctx)
	case n < 91:
		return w.declare(ctx)
	case n < 92:
		return w.forget(ctx)
	case n < 95:
		return w.sift(ctx)
	case n < 96:
		return w.cancel(ctx)
	case n < 98:
		return w.recreate(ctx)
	}
	return w.wait()
}

// wait returns when nothing is waited for any more.
func (w *Workload) wait() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.receipts) > 0 {
		w.settled.Wait()
	}
	return w.broker.Err()
}

// expect returns a receipt whose confirmation calls what is given.
func (w *Workload) expect(told func(core.Confirmation)) core.Receipt {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.receipt++
	w.receipts[w.receipt] = told
	return w.receipt
}

// unexpect forgets a receipt of something that was not even handed in.
func (w *Workload) unexpect(r core.Receipt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.receipts, r)
}

// Confirm implements core.Confirmer.
func (w *Workload) Confirm(cs []core.Confirmation) {
	for _, c := range cs {
		w.mu.Lock()
		told := w.receipts[c.Receipt]
		w.mu.Unlock()
		if told == nil {
			w.fault("receipt %d was confirmed twice, or never asked for", c.Receipt)
			continue
		}
		told(c)
		w.mu.Lock()
		delete(w.receipts, c.Receipt)
		w.mu.Unlock()
	}
	w.settled.Broadcast()
}

// inOrder checks that publishes are confirmed in the order in which they came.
func (w *Workload) inOrder(r core.Receipt) {
	w.mu.Lock()
	early := r < w.last
	w.last = max(w.last, r)
	w.mu.Unlock()
	if early {
		w.fault("receipt %d was confirmed behind a later one", r)
	}
}

func (w *Workload) fault(format string, args ...any) {
	l := w.Ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault(format, args...)
}

func (l *Ledger) fault(format string, args ...any) {
	if len(l.faults) < 20 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// tolerable errors are refusals: the workload goes on and counts on nothing.
func tolerable(err error) error {
	if errors.Is(err, core.ErrStorageFull) {
		return nil
	}
	return err
}

// number reads a message's number from its payload.
func number(payload []byte) (int, bool) {
	head, _, _ := strings.Cut(string(payload), " ")
	n, err := strconv.Atoi(head)
	return n, err == nil && n > 0
}
