package core

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicemq/sluice/core/pause"
	"github.com/sluicemq/sluice/core/seeded"
)

// Options are what a broker is made of.
type Options struct {
	// Engine keeps the log; the broker closes it.
	Engine Engine
	// Authorizer says who may do what; nil is AllowAll.
	Authorizer Authorizer
	// Policies of retention, first match wins; none keeps everything.
	Policies []Policy
	// ReclaimEvery is how often space is reclaimed if the engine does not ask
	// for it sooner; 0 is every 15 seconds.
	ReclaimEvery time.Duration
	// TrustClock takes the machine's clock at its word: time that it says has
	// passed while the broker was stopped makes messages and queues older at
	// once, however much it is. Otherwise see the package's aging.
	TrustClock bool
	// Wall is the machine's clock, for tests that set it; nil is time.Now.
	Wall func() time.Time
	// StepsFrom is from how many bytes on the position of a queue is journaled
	// in steps, and of how many offsets at the least what leads to a bounded one
	// is counted together, for tests that want that of a small one; 0 is 1 KiB.
	StepsFrom int
	// Limits; a zero field is the default's.
	Limits Limits
	// Logger; nil discards.
	Logger *slog.Logger
}

// Keys of the state. Each is followed by a name.
const (
	keyQueue    = "q/" // a queue's definition, JSON
	keyPosition = "p/" // a queue's position
	keyStep     = "s/" // a step of a queue's position, by queue and number
	keyExchange = "x/" // an exchange's definition, JSON
	keyRetained = "r/" // a topic's retained value: its offset
	keyDelayed  = "t/" // a delayed message: its offset, by due time
	keyAge      = "a/" // an age of the log: which times belong to it
	keyClosed   = "c/" // stands alone: the broker was closed, not lost, and at which offset the log ended
	keyWill     = "w/" // a will, by whose it is ([willValue])
	keyID       = "d/" // a message ID: its time and offset, by topic
	keyOnce     = "o/" // Envelope.Once: its time and offset
	// What a queue has of snapshots, JSON ([snapshotState]).
	keySnapshots = "v/"
)

// A Broker routes, queues and delivers.
type Broker struct {
	engine     Engine
	connected  connected
	reporter   atomic.Pointer[reporter]
	authorizer Authorizer
	open       bool // nobody has to be asked
	limits     Limits
	policies   []Policy
	log        *slog.Logger
	stats      Stats
	pressure   pressure
	shedder    shedder
	refusals   refusals
	undone     atomic.Uint64 // how many commits' settlements were taken back
	stopping   atomic.Bool

	aging      *aging
	journal    *journal
	dispatcher *dispatcher
	pumps      *pumpPool
	flusher    *flusher
	delayed    *delayed
	meters     meters
	keepers    keepers
	reclaimer  *reclaimer

	// freeing has one place, which is taken while space is reclaimed, and by
	// [Broker.keepLog].
	freeing chan struct{}

	// declaring is held while an exchange is made or deleted, until that is
	// durable; the first mutex to be taken.
	declaring sync.Mutex

	// mu guards queues and exchanges. It may be held while the journal is
	// entered and while a queue's mutex is taken, not while the dispatcher's
	// is.
	mu        sync.RWMutex
	queues    map[string]*queue
	exchanges map[string]*exchange

	stepsFrom int      // Options.StepsFrom
	followed  []string // the keys of steps that were read; Open's own

	orphans []string // exclusive queues, which ended with their connections; Open's own
	bounded []*queue // whose positions are journaled anew; Open's own
}

// Open recovers the broker from its engine's log and state and starts it. It
// blocks for the disk. If it fails, or ctx ends meanwhile, nothing of the broker
// goes on, and the engine is left to the caller.
func Open(ctx context.Context, o Options) (*Broker, error) {
	b := &Broker{
		engine: o.Engine, authorizer: o.Authorizer, limits: withDefaults(o.Limits), policies: o.Policies, log: o.Logger,
		stepsFrom: o.StepsFrom, queues: make(map[string]*queue), exchanges: make(map[string]*exchange), freeing: make(chan struct{}, 1),
	}
	if b.stepsFrom == 0 {
		b.stepsFrom = stepsFrom
	}
	if b.authorizer == nil {
		b.authorizer, b.open = AllowAll{}, true
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.aging = newAging(b, o.Wall, o.TrustClock)
	b.dispatcher = newDispatcher(b)
	_, end := o.Engine.Bounds()
	b.dispatcher.position.Store(uint64(end))
	b.journal = newJournal(o.Engine, b.limits, b.aging.wall, b.dispatcher)
	b.pumps = newPumpPool()
	b.flusher = newFlusher(b)
	b.delayed = newDelayed(b)
	b.reclaimer = newReclaimer(b, o.ReclaimEvery)
	var p Progress
	told := p.Tell(b.log, "broker is being recovered")
	err := b.load(&p)
	if told(); err != nil {
		return nil, err
	}
	if value, err := b.engine.Get(keyClock); err != nil {
		return nil, err
	} else {
		b.delayed.clock.load(value)
	}
	b.journal.start()
	if p, err := b.journal.enterUnbounded(); err == nil {
		for _, name := range b.orphans {
			p.Changes = append(p.Changes, Change{Key: keyQueue + name}, Change{Key: keyPosition + name})
		}
		for _, key := range b.followed {
			p.Changes = append(p.Changes, Change{Key: key})
		}
		b.followed = nil
		// Before anything is published that the last run cannot have delivered.
		for _, q := range b.bounded {
			q.putPosition(p)
		}
		b.journal.leave()
	}
	b.dispatcher.start()
	queues := slices.Collect(maps.Values(b.queues)) // the pumps may make others
	b.pumps.start(b)
	b.flusher.start()
	b.delayed.start()
	b.reclaimer.start()
	// The mark goes before anything is delivered.
	if err := b.journal.change(ctx, Change{Key: keyClosed}); err != nil {
		b.log.Error("state not changed", "err", err)
	}
	if err := b.inheritWills(ctx); err != nil {
		b.log.Error("wills of the last run stay until the next start", "err", err)
	}
	for _, q := range queues {
		q.mu.Lock()
		q.wake() // for dead letters that the last run did not come to write, and what is too much
		q.mu.Unlock()
	}
	if err := ctx.Err(); err != nil {
		b.stop(context.WithoutCancel(ctx))
		return nil, err
	}
	return b, nil
}

// wasClosed reports whether the broker was closed, and not lost, and the log is
// as it was then: where there was no room to remove the mark, it is still there,
// but the log goes on elsewhere.
func (b *Broker) wasClosed() (bool, error) {
	v, err := b.engine.Get(keyClosed)
	_, end := b.engine.Bounds()
	// Once, the mark had no offset.
	return err == nil && v != nil && (len(v) != 8 || Offset(binary.BigEndian.Uint64(v)) == end), err
}

// load makes the exchanges and queues that the state knows.
func (b *Broker) load(p *Progress) error {
	p.Begin("loading queues and sessions", 0)
	if err := b.aging.load(b.engine); err != nil {
		return err
	}
	if err := b.loadTime(); err != nil {
		return err
	}
	if err := b.loadExchanges(); err != nil {
		return err
	}
	definitions := newPlainReader[queueState]()
	var d queueState
	for s, err := range b.engine.State(keyQueue, "") {
		if err != nil {
			return err
		}
		if err := definitions.read(s.Value, &d); err != nil {
			return fmt.Errorf("state %q: %w: %w", s.Key, ErrCorrupt, err)
		}
		if err := b.loadQueue(s.Key[len(keyQueue):], &d); err != nil {
			return fmt.Errorf("state %q: %w", s.Key, err)
		}
	}
	steps, err := b.loadSteps()
	if err != nil {
		return err
	}
	for s, err := range b.engine.State(keyPosition, "") {
		if err != nil {
			return err
		}
		q := b.queues[s.Key[len(keyPosition):]]
		if q == nil {
			continue
		}
		pos, err := parsePosition(s.Value)
		if err != nil {
			return fmt.Errorf("state %q: %w", s.Key, err)
		}
		if values := steps[q.name]; pos.id != 0 && len(values) > 0 {
			if err := followSteps(&pos, values); err != nil {
				return fmt.Errorf("state %q: a step: %w", s.Key, err)
			}
		}
		if bounded := q.restore(&pos); bounded || pos.id != 0 {
			b.bounded = append(b.bounded, q)
		}
	}
	if err := b.loadSnapshots(); err != nil {
		return err
	}
	closed, err := b.wasClosed()
	if err != nil {
		return err
	}
	first, end := b.engine.Bounds()
	var metered []*queue
	unread := int64(0) // offsets that metered queues have to be counted of
	for _, q := range b.queues {
		q.mu.Lock()
		if !closed && q.settings.Kind == KindSession {
			q.doubt, q.doubtEnd = int32(b.limits.MaxInFlight), end
			for i := range q.out.list {
				// Given back unsent, and perhaps sent since.
				q.out.list[i].attempts = max(q.out.list[i].attempts, 1)
			}
		}
		for i := range q.out.list {
			q.enroll(&q.out.list[i])
		}
		q.awaitExpiry()
		q.sweepLater()
		if q.settings.metered() {
			metered = append(metered, q)
			unread += int64(end - min(max(q.floor(), first), end))
		}
		q.mu.Unlock()
		if w := q.settings.DedupWindow; w > 0 {
			b.journal.memory.setWindow(QueueTopic(q.name), w)
		}
	}
	p.Begin("counting what bounded queues hold", unread)
	for _, q := range metered {
		stands := q.stands()
		n, err := b.holds(context.Background(), q, &stands, end, &p.Done)
		if err != nil {
			return err
		}
		q.meter.length.Store(n.count)
		q.meter.bytes.Store(n.bytes)
		q.meter.counted.lost = stands.lost
		q.meter.miscounts = len(stands.gone) > 0
		q.shrinks = q.over()
	}
	p.Begin("loading message ids", 0)
	b.findKept()
	return b.journal.memory.load(b.engine, b.aging.since)
}

// loadQueue makes a queue of its definition, whose strings become the queue's.
func (b *Broker) loadQueue(name string, s *queueState) error {
	if s.Settings.Exclusive {
		b.orphans = append(b.orphans, name)
		return nil
	}
	q := newQueue(b, name, s.Settings)
	bs, all := make([]*bound, len(s.Bindings)), make([]bound, len(s.Bindings))
	for i, bd := range s.Bindings {
		exchanges := b.exchanges
		if bd.Exchange != "" && bd.Until == 0 && exchanges[bd.Exchange] == nil {
			// It was deleted once the binding had ended, which was not yet
			// written down.
			_, bd.Until = b.engine.Bounds()
		}
		if bd.Until != 0 && bd.Exchange != "" {
			exchanges = map[string]*exchange{bd.Exchange: b.exchangeOnce(bd.Exchange, bd.Kind)}
		}
		nb := &all[i]
		nb.Binding = Binding{Filter: bd.Filter, Exchange: bd.Exchange, Key: bd.Key, Where: bd.Where, Tag: bd.Tag, Settlement: bd.Settlement}
		nb.from, nb.until = bd.From, bd.Until
		if err := nb.find(exchanges); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if bs[i] = nb; bd.Until == 0 {
			nb.register(true)
		}
		if i == 0 || bd.From < q.next {
			q.next = bd.From
		}
	}
	q.setBindings(bs)
	q.saved = q.changes
	b.queues[name] = q
	return nil
}

// Limits are the limits in force.
func (b *Broker) Limits() Limits { return b.limits }

// Stopping says that the broker is about to be closed, before its connections are:
// a consumer that leaves from now on comes back to the next run, so no AutoDelete
// queue ends with it.
func (b *Broker) Stopping() { b.stopping.Store(true) }

// Close stops the broker: what was handed in is made durable and confirmed,
// the engine is closed. Adapters have been closed before.
func (b *Broker) Close(ctx context.Context) error {
	b.stop(ctx)
	return b.engine.Close(ctx)
}

// stop ends all that the broker does, and hands the engine the last of it.
func (b *Broker) stop(ctx context.Context) {
	b.shedder.close()
	b.reclaimer.close()
	b.age(true)
	b.delayed.close()
	b.pumps.close()
	doubt := false
	b.mu.RLock()
	for _, q := range b.queues {
		q.rest()
		q.mu.Lock()
		doubt = doubt || q.doubt > 0 && q.next < q.doubtEnd
		q.mu.Unlock()
	}
	b.mu.RUnlock()
	b.flusher.close()
	// What a loss before this run left in doubt is so for the next one, too.
	b.journal.catchUp(ctx)
	if !doubt {
		if p, err := b.journal.enterUnbounded(); err == nil {
			_, end := b.engine.Bounds()
			p.Changes = append(p.Changes, Change{Key: keyClosed, Value: binary.BigEndian.AppendUint64(nil, uint64(end)+uint64(len(p.Ends)))})
			b.journal.leave()
		}
	}
	b.journal.close()
	b.dispatcher.stopped.Wait()
}

// Err says why nothing can be published any more: the log has failed. It is nil
// as long as all is well.
func (b *Broker) Err() error {
	b.journal.mu.Lock()
	defer b.journal.mu.Unlock()
	return b.journal.failed
}

// withDefaults fills in what is zero.
func withDefaults(l Limits) Limits {
	d := DefaultLimits()
	for _, f := range []struct{ v, d *int }{
		{&l.MessageBytes, &d.MessageBytes},
		{&l.HeaderCount, &d.HeaderCount},
		{&l.HeaderBytes, &d.HeaderBytes},
		{&l.Subscriptions, &d.Subscriptions},
		{&l.InFlight, &d.InFlight},
		{&l.MaxInFlight, &d.MaxInFlight},
		{&l.SessionMessages, &d.SessionMessages},
		{&l.SessionBytes, &d.SessionBytes},
		{&l.Outstanding, &d.Outstanding},
		{&l.PendingBytes, &d.PendingBytes},
		{&l.Queues, &d.Queues},
		{&l.Exchanges, &d.Exchanges},
		{&l.DedupIDs, &d.DedupIDs},
		{&l.DiskLow, &d.DiskLow},
		{&l.DiskFull, &d.DiskFull},
		{&l.DiskLowBytes, &d.DiskLowBytes},
		{&l.DiskFullBytes, &d.DiskFullBytes},
		{&l.MemoryHigh, &d.MemoryHigh},
		{&l.MemoryFull, &d.MemoryFull},
	} {
		if *f.v == 0 {
			*f.v = *f.d
		}
	}
	if l.DedupWindow == 0 {
		l.DedupWindow = d.DedupWindow
	}
	return l
}

// A reclaimer drops, now and then, what is too much for its queue, and frees
// what nobody needs any more.
type reclaimer struct {
	b       *Broker
	every   time.Duration
	stop    chan struct{}
	stopped sync.WaitGroup
}

func newReclaimer(b *Broker, every time.Duration) *reclaimer {
	if every <= 0 {
		every = 15 * time.Second
	}
	return &reclaimer{b: b, every: every, stop: make(chan struct{})}
}

// soon is more time than passes between two rounds.
func (r *reclaimer) soon() time.Duration { return 2 * max(r.every, reclaimRest) }

func (r *reclaimer) start() {
	r.stopped.Go(func() {
		t := time.NewTimer(r.every)
		defer t.Stop()
		trimmed := ""
		var rested time.Time
		for {
			select {
			case <-r.stop:
				return
			case <-r.b.engine.Sealed():
				// What is freed now can be written over before long, which
				// costs less than to write to a new file.
				t.Reset(time.Until(rested))
				continue
			case <-t.C:
			}
			began := time.Now()
			trimmed = r.b.trim(r.b.pumps.ctx, trimmed)
			r.b.age(false)
			if len(r.b.policies) > 0 {
				r.reclaim()
			}
			// However much there is to look at, it takes a small share of the
			// time, as long as nothing that has died waits for it too long.
			took := time.Since(began)
			rest := min(reclaimShare*took, max(reclaimWait, 2*took), reclaimRest)
			rested = time.Now().Add(rest)
			t.Reset(max(r.every, rest))
		}
	})
}

const (
	// reclaimShare bounds the time that goes into reclaiming, to one part in so
	// many.
	reclaimShare = 20
	// reclaimWait bounds how long that leaves it at rest, unless it takes half of
	// that.
	reclaimWait = 30 * time.Second
	// reclaimRest bounds it in any case: it may have waited for a disk that stood
	// still.
	reclaimRest = 5 * time.Minute
)

func (r *reclaimer) reclaim() {
	b := r.b
	got, err := b.reclaim(b.pumps.ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		b.log.Error("space not reclaimed", "err", err)
	} else if got.Records > 0 {
		b.stats.ReclaimedBytes.Add(uint64(got.Bytes))
		b.log.Info("space reclaimed", "records", got.Records, "bytes", got.Bytes, "first", uint64(got.First))
	}
}

func (r *reclaimer) close() {
	close(r.stop)
	r.stopped.Wait()
}

// keepLog blocks while space is being reclaimed, and has nothing freed until done
// is called: for whoever is about to need what nobody does, so that it is still
// there once it is needed.
func (b *Broker) keepLog(ctx context.Context) (done func(), err error) {
	select {
	case b.freeing <- struct{}{}:
		return func() { <-b.freeing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// reclaim frees what nobody needs any more. What the queues have let go of may
// go only once that they have is durable: a crash before would bring the need
// back without the record.
func (b *Broker) reclaim(ctx context.Context) (Reclaimed, error) {
	done, err := b.keepLog(ctx)
	if err != nil {
		return Reclaimed{}, err
	}
	defer done()
	undone := b.undone.Load()
	// What comes from here on, needs does not know: nor, perhaps, what is in the
	// log and not yet dispatched, for the state may not show it yet.
	before := b.dispatcher.end()
	needs, err := b.needs()
	if err != nil {
		return Reclaimed{}, err
	}
	if seeded.On(seeded.ReclaimedEarly) {
		return b.engine.Reclaim(ctx, Retention{Policies: b.policies, Needs: needs, Now: time.Now()})
	}
	pause.At("needs known")
	b.flusher.flush()
	if err := b.journal.change(ctx); err != nil || b.undone.Load() != undone {
		return Reclaimed{}, err
	}
	now := time.UnixMilli(b.journal.now())
	got, err := b.engine.Reclaim(ctx, Retention{Policies: b.aging.policies(b.policies, now), Needs: needs, Before: before, Now: now})
	if got.Records > 0 {
		b.recountUnpinned()
	}
	return got, err
}
