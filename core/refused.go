package core

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A commit that the log has no room for is refused, and the next one may
// succeed. What it had of a queue is taken back then (undo), and that has to be
// durable no later than anything that comes behind: the next commit may have a
// position of the queue that was taken while the refused one was still on its
// way. So the journal waits until the dispatcher has dealt with a refused
// commit, and the positions and definitions that it had go into the next one
// once more, as they are then (owe).

// noRoom says that a commit did not happen because there was no room for it.
func noRoom(err error) bool { return errors.Is(err, ErrStorageFull) }

// refusals tell of commits that there was no room for.
type refusals struct {
	// full says that the last commit was one.
	full atomic.Bool

	// What follows is the dispatcher's.

	warned time.Time // when the log was told last
	since  int       // how many there have been since
}

const (
	// refusedRetry is how long what is owed waits for room before it is tried
	// again.
	refusedRetry = 250 * time.Millisecond
	// warnEvery bounds how often the log, perhaps on the same disk, is told.
	warnEvery = 10 * time.Second
)

// storageFailed is told of a commit that was not made durable. Publishers are
// told by their confirmations.
func (b *Broker) storageFailed(c *commit) {
	n := b.stats.StorageFailures.Add(1)
	switch {
	case noRoom(c.err):
		r := &b.refusals
		r.full.Store(true)
		if r.since++; time.Since(r.warned) >= warnEvery {
			b.log.Warn("log full, commits are refused", "commits", r.since, "err", c.err)
			r.warned, r.since = time.Now(), 0
		}
	case n == 1:
		b.log.Error("log failed, nothing is confirmed until it is opened anew", "err", c.err)
	}
}

// owe has what the broker itself had in a refused commit journaled again: in
// any case with the next commit, and soon even where nobody else makes one. What
// the commit had settled has been taken back.
func (b *Broker) owe(c *commit) {
	queues := make(map[*queue]bool) // whether a definition is owed, too
	var ended []string
	for _, change := range c.Changes {
		isPosition, isDefinition := strings.HasPrefix(change.Key, keyPosition), strings.HasPrefix(change.Key, keyQueue)
		switch {
		case strings.HasPrefix(change.Key, keyStep):
			if q := b.queue(queueOfStep(change.Key)); q == nil {
				ended = append(ended, change.Key)
			} else if change.Value != nil {
				queues[q] = queues[q] || isDefinition
			}
		case change.Value == nil && (isPosition || isDefinition || strings.HasPrefix(change.Key, keyCounted) || strings.HasPrefix(change.Key, keySnapshots) || strings.HasPrefix(change.Key, keyOnce) || change.Key == keyClosed):
			ended = append(ended, change.Key)
		case isPosition, isDefinition:
			if q := b.queue(change.Key[len(keyQueue):]); q != nil {
				queues[q] = queues[q] || isDefinition
			}
		case strings.HasPrefix(change.Key, keyExchange):
			b.flusher.addExchange(change.Key[len(keyExchange):])
		}
	}
	for q, definition := range queues {
		q.journalAgain(definition)
		// What else there is of it comes with its position.
		ended = slices.DeleteFunc(ended, func(key string) bool { return key == keyCounted+q.name || key == keySnapshots+q.name })
	}
	j := b.journal
	j.mu.Lock()
	j.owed = slices.AppendSeq(j.owed, maps.Keys(queues))
	for _, key := range ended {
		// Who asked for a publish to be forgotten was told that it is not.
		if r := j.memory.once[key]; r == nil || r.offset == 0 {
			j.ended[key] = true
		}
	}
	j.mu.Unlock()
	if len(ended) > 0 {
		b.flusher.addEnded()
	}
}

// putEnded adds to a commit what has ended in refused ones. It comes first: what
// the commit has of the same name has begun anew. The journal is entered.
func (j *journal) putEnded(p *commit) {
	if len(j.ended) == 0 {
		return
	}
	var changes []Change
	for _, key := range slices.Sorted(maps.Keys(j.ended)) {
		changes = append(changes, Change{Key: key})
	}
	p.Changes = slices.Insert(p.Changes, 0, changes...)
	clear(j.ended)
}
