package core

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/sluicemq/sluice/core/pause"
)

// The journal is where publishers meet the engine: it gathers what they hand in
// while the engine makes the previous batch durable (group commit), so one sync
// serves all who waited for it. One commit is outstanding at a time. With two,
// whoever came during the first would wait for the second's sync as well as for
// its own; measured, that only makes confirms later.
type journal struct {
	engine     Engine
	memory     *memory // guarded by mu
	dispatcher *dispatcher
	maxBytes   int
	wall       func() time.Time // the machine's clock

	mu      sync.Mutex // guards what follows; may be held while a queue's is taken
	room    sync.Cond  // signalled when pending was taken, or closed
	pending *commit
	spare   []*commit
	closed  bool
	failed  error           // why nothing more is durable
	owed    []*queue        // what was refused of them goes into the next commit
	ended   map[string]bool // keys whose end was refused; likewise
	time    int64           // of the last batch
	at      time.Time       // when that was, by the clock that cannot be set
	size    int             // what batches lately came to
	chunk   []byte          // for batches to come

	taken   uint64 // how many commits were; the pending one is the next
	done    uint64 // how many of them are dispatched
	unasked uint64 // the last one with a publish that nobody is told of
	busy    bool   // one is outstanding; what is pending is taken behind it

	outstanding *commit       // what the engine has; of the one who took it
	gathering   gathering     // of the same
	wake        chan struct{} // there is something pending, and perhaps nobody who takes it
	stopped     sync.WaitGroup
}

// A commit is a batch on its way: what it appends, and whom to tell.
type commit struct {
	Batch
	entries []entry
	// undos are what it settles.
	undos []*undo
	// after runs on the dispatcher once the batch is durable, or has failed.
	after []func(first Offset, err error)
	// remembered are the publishes that others may turn out to repeat.
	remembered []*remembered
	// forgotten are those of them that are not to be known any more, expired those
	// that made room for others or are too old.
	forgotten, expired []*remembered

	first Offset
	err   error
}

// An entry is one confirmation that a commit owes.
type entry struct {
	client  *Client
	receipt Receipt
	record  int         // index of its record; -1 is none
	repeats *remembered // the publish that it repeats
	err     error       // why it was refused
}

// maxRecords bounds the records of one batch.
const maxRecords = 1 << 16

func newJournal(e Engine, l Limits, wall func() time.Time, d *dispatcher) *journal {
	j := &journal{engine: e, wall: wall, at: time.Now(), memory: newMemory(l, wall), dispatcher: d, maxBytes: l.PendingBytes, pending: new(commit), ended: make(map[string]bool), wake: make(chan struct{}, 1)}
	j.room.L = &j.mu
	j.gathering.yield = runtime.Gosched
	return j
}

func (j *journal) start() { j.stopped.Go(j.run) }

// enter locks the journal once it has room for more, and returns what is
// pending. The caller adds to it and calls leave, whatever happens.
func (j *journal) enter(ctx context.Context) (*commit, error) {
	j.mu.Lock()
	if len(j.pending.Buf) >= j.maxBytes || len(j.pending.Ends) >= maxRecords {
		stop := context.AfterFunc(ctx, func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.room.Broadcast()
		})
		defer stop()
		for (len(j.pending.Buf) >= j.maxBytes || len(j.pending.Ends) >= maxRecords) && !j.closed && ctx.Err() == nil {
			j.room.Wait()
		}
		if err := ctx.Err(); err != nil {
			j.mu.Unlock()
			return nil, err
		}
	}
	if j.closed {
		j.mu.Unlock()
		return nil, ErrClosed
	}
	return j.pending, nil
}

// enterSure is enter for messages that are published all or none: it waits for
// what they repeat that is still on its way, as that may yet be refused.
func (j *journal) enterSure(ctx context.Context, es []*Envelope) (*commit, error) {
	for {
		p, err := j.enter(ctx)
		if err != nil || !slices.ContainsFunc(es, func(e *Envelope) bool { return j.memory.unsure(p, e) }) {
			return p, err
		}
		j.leave()
		if err := j.catchUp(ctx); err != nil {
			return nil, err
		}
	}
}

// leave ends what enter began: what is pending goes to the engine as soon as
// nothing is outstanding. Others may have come until then.
func (j *journal) leave() { j.leaveFor(false) }

// leaveFor is leave for somebody who may be alone, waiting for the pending commit
// and doing nothing else meanwhile: where nothing is outstanding, it is durable and
// dispatched on return, if the engine can do that here.
func (j *journal) leaveFor(alone bool) {
	busy := j.busy
	here := alone && !busy && !j.pending.empty() && j.failed == nil && len(j.owed) == 0
	if here {
		j.busy, j.pending.Here = true, true
	}
	j.mu.Unlock()
	pause.At("journal left")
	switch {
	case here:
		if j.proceed() {
			j.rouse() // run has to see it
		}
	case !busy:
		j.rouse()
	}
}

// handedIn notes that a client has something in the pending commit, of which it is
// told if there is a receipt. The journal is entered.
func (j *journal) handedIn(c *Client, r Receipt) {
	c.handed = j.taken + 1
	if r == 0 {
		j.unasked = c.handed
	}
}

// rouse has the journal look for what is pending.
func (j *journal) rouse() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// enterUnbounded is enter for the core's own bookkeeping, which must go on so
// that room can come: it does not wait.
func (j *journal) enterUnbounded() (*commit, error) {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil, ErrClosed
	}
	return j.pending, nil
}

// change makes changes to the state durable and returns when they are.
func (j *journal) change(ctx context.Context, changes ...Change) error {
	return j.changeBy(ctx, func() ([]Change, error) { return changes, nil })
}

// changeBy is change with changes that are made once the journal is entered.
func (j *journal) changeBy(ctx context.Context, what func() ([]Change, error)) error {
	return j.commitWith(ctx, func(c *commit) error {
		changes, err := what()
		c.Changes = append(c.Changes, changes...)
		return err
	})
}

// commitWith has add add to the pending commit and returns when it is durable.
// Where add fails, it has added nothing.
func (j *journal) commitWith(ctx context.Context, add func(*commit) error) error {
	c, err := j.enter(ctx)
	if err != nil {
		return err
	}
	if err := add(c); err != nil {
		j.leave()
		return err
	}
	done := make(chan error, 1)
	c.Sync = true
	c.after = append(c.after, func(_ Offset, err error) { done <- err })
	j.leave()
	return <-done
}

// The room for a record as large as the last one is prefetched, if that was at least
// prefetchFrom bytes long, up to prefetchMost.
const (
	prefetchFrom = 256
	prefetchMost = 2048
)

// add appends a record and returns its index in the commit.
func (c *commit) add(e *Envelope) int {
	if c.Buf == nil {
		c.Buf = make([]byte, 0, firstBuf)
	}
	n := len(c.Buf)
	c.Buf = AppendRecord(c.Buf, e)
	if n = len(c.Buf) - n; n >= prefetchFrom {
		// The chunk has not been used for long, so the memory is far away, and who
		// leaves the journal would wait until all that he wrote has arrived there.
		if room := c.Buf[len(c.Buf):cap(c.Buf)]; len(room) > 0 {
			prefetch(unsafe.Pointer(unsafe.SliceData(room)), uintptr(min(n, len(room), prefetchMost)))
		}
	}
	c.Ends = append(c.Ends, uint32(len(c.Buf)))
	return len(c.Ends) - 1
}

// The buffers of batches are cut from chunks, one behind the other: what a batch
// has left of its chunk is the next one's. The engine keeps batches for readers at
// the log's tail, so a chunk is never used again.
const (
	// firstBuf is the smallest chunk.
	firstBuf = 4 << 10
	// leastRest is how much of a chunk is worth to begin a batch in.
	leastRest = 256
	// batchesInChunk is for how many batches a chunk has room, up to
	// mostChunk; a larger one has room for one batch.
	batchesInChunk = 8
	mostChunk      = 1 << 20
	// mostSpare bounds the chunk that is made before it is needed, and that an
	// idle journal keeps.
	mostSpare = 2 << 20
)

// wanted is how much room the next batch is given: it will be about as large as
// the last ones were.
func (j *journal) wanted() int {
	most := min(j.size, j.maxBytes)
	return max(most+most/8, leastRest)
}

// newChunk makes a chunk; nil where batches are so small that add may.
func newChunk(wanted int) []byte {
	if wanted <= firstBuf {
		return nil
	}
	return unzeroed(max(wanted, min(batchesInChunk*wanted, mostChunk)))
}

// unzeroed makes an empty slice with room for n bytes, which are anything: all of
// them are about to be written. Only a string builder gets such memory from the
// runtime; its string is not used.
func unzeroed(n int) []byte {
	var b strings.Builder
	b.Grow(n)
	b.WriteByte(0)
	return unsafe.Slice(unsafe.StringData(b.String()), b.Cap())[:0]
}

// cut gives the pending commit its buffer, now that c was taken. The journal is
// entered.
func (j *journal) cut(c *commit) {
	n := len(c.Buf)
	rest := c.Buf[n:]
	c.Buf = c.Buf[:n:n]
	j.size = max(n, j.size-j.size/4)
	switch wanted := j.wanted(); {
	case cap(rest) >= wanted:
		j.pending.Buf = rest
	case cap(j.chunk) >= wanted:
		j.pending.Buf, j.chunk = j.chunk, nil
	default:
		j.pending.Buf = newChunk(wanted)
	}
}

func (c *commit) empty() bool { return len(c.Ends) == 0 && len(c.Changes) == 0 }

// idle reports whether nobody waits for the commit.
func (c *commit) idle() bool { return c.empty() && len(c.entries)+len(c.undos)+len(c.after) == 0 }

// catchUp blocks until what was handed in before has been dispatched, or has
// failed. It makes nothing durable, and does not wait where there is nothing.
func (j *journal) catchUp(ctx context.Context) error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return ErrClosed
	}
	if j.done == j.taken && j.pending.idle() {
		j.mu.Unlock()
		return nil
	}
	done := make(chan struct{})
	j.pending.after = append(j.pending.after, func(Offset, error) { close(done) })
	j.leave()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// catchUpWith is catchUp for what a client has handed in, and for what nobody is
// told of.
func (j *journal) catchUpWith(ctx context.Context, c *Client) error {
	j.mu.Lock()
	behind := max(c.handed, j.unasked) > j.done
	j.mu.Unlock()
	if !behind {
		return nil
	}
	return j.catchUp(ctx)
}

// run takes what is pending while nothing is outstanding, until close. What
// comes meanwhile is taken by the engine's goroutine, as soon as it has made
// durable what was.
func (j *journal) run() {
	defer close(j.dispatcher.in)
	for range j.wake {
		j.mu.Lock()
		busy := j.busy
		j.busy = true
		j.mu.Unlock()
		if !busy && j.proceed() {
			return
		}
	}
}

// proceed hands what is pending to the engine. It says whether the journal is
// closed and nothing is left. The caller is the one who made the journal busy.
func (j *journal) proceed() (over bool) {
	for {
		c, closed := j.take()
		if c == nil {
			return closed
		}
		if c.err == nil && (!c.empty() || c.Sync) {
			j.outstanding = c
			j.gathering.begin()
			j.engine.Append(&c.Batch, j.written)
			return false
		}
		if j.handOn(c) {
			return false
		}
	}
}

// written is called by the engine with what became of the outstanding commit,
// and hands it the next one.
func (j *journal) written(_ *Batch, first Offset, err error) {
	j.gathering.end()
	c := j.outstanding
	c.first = first
	if err != nil {
		c.err = fmt.Errorf("%w: %w", ErrStorage, err)
	}
	pause.At("commit written")
	confirmed := len(c.entries)
	if !(j.alone(c) && j.dispatcher.here(c)) && j.handOn(c) {
		return
	}
	j.gather(confirmed)
	if j.proceed() {
		j.rouse() // run has to see it
	}
}

// few is how many records and confirmations a commit may have that is dispatched
// where it was written.
const few = 16

// alone reports whether a durable commit is so small that to hand it on costs
// more than to dispatch it, and nobody waits for the next one.
func (j *journal) alone(c *commit) bool {
	if c.err != nil || c.Len() > few || len(c.entries) > few {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.pending.idle()
}

// handOn gives a commit that is durable, or has failed, to the dispatcher. After
// one that was refused it says that the dispatcher will go on, once that was
// taken back.
func (j *journal) handOn(c *commit) (refused bool) {
	refused = noRoom(c.err)
	j.dispatcher.give(c)
	return refused
}

// goOn takes what is pending again, after a refused commit was taken back.
func (j *journal) goOn() {
	j.mu.Lock()
	j.busy = false
	j.mu.Unlock()
	j.rouse()
}

// take swaps the pending commit for an empty one. Where nothing is pending, the
// journal is not busy any more.
func (j *journal) take() (c *commit, closed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c = j.pending
	if c.idle() {
		j.busy = false
		return nil, j.closed
	}
	j.taken++
	if !c.empty() || c.Sync {
		for _, q := range j.owed {
			q.putPosition(c)
		}
		j.owed = nil
		j.putEnded(c)
	}
	if n := len(j.spare); n > 0 {
		j.pending, j.spare = j.spare[n-1], j.spare[:n-1]
	} else {
		j.pending = new(commit)
	}
	j.cut(c)
	j.room.Broadcast()
	c.Time = j.tick()
	c.err = j.failed
	return c, false
}

// tick is the time of records taken now: that of the machine's clock, or, where
// that was set back, as much later than the time before as has passed since. The
// journal is entered.
func (j *journal) tick() int64 {
	now := time.Now()
	if wall := j.wall().UnixMilli(); wall >= j.time {
		j.time, j.at = wall, now
		return wall
	}
	passed := now.Sub(j.at).Truncate(time.Millisecond)
	j.time += passed.Milliseconds()
	j.at = j.at.Add(passed)
	return j.time
}

// divide is a time that is later than those of all records taken so far, and not
// later than those of the ones to come. The journal is entered.
func (j *journal) divide() int64 {
	j.tick()
	j.time++
	return j.time
}

// now is the time that records taken now get.
func (j *journal) now() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.tick()
}

// recycle takes back a commit that nobody needs any more.
func (j *journal) recycle(c *commit) {
	clear(c.entries)
	clear(c.undos)
	clear(c.after)
	clear(c.remembered)
	clear(c.forgotten)
	clear(c.expired)
	clear(c.Changes)
	*c = commit{
		Batch:   Batch{Ends: c.Ends[:0], Changes: c.Changes[:0]},
		entries: c.entries[:0], undos: c.undos[:0], after: c.after[:0], remembered: c.remembered[:0], forgotten: c.forgotten[:0], expired: c.expired[:0],
	}
	j.mu.Lock()
	j.done++
	wanted, has := j.wanted(), cap(j.chunk)
	j.mu.Unlock()
	var chunk []byte
	if has < wanted && wanted <= mostSpare {
		chunk = newChunk(wanted) // here, where no publisher waits for it
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if cap(chunk) > cap(j.chunk) {
		j.chunk = chunk
	}
	if len(j.spare) < 4 {
		j.spare = append(j.spare, c)
	}
}

// close commits what is pending and ends the journal. What comes later is
// ErrClosed.
func (j *journal) close() {
	j.mu.Lock()
	j.closed = true
	j.room.Broadcast()
	j.mu.Unlock()
	j.rouse()
	j.stopped.Wait()
}
