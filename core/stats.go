package core

import "sync/atomic"

// Stats are the broker's counters since it was opened.
type Stats struct {
	// Published records, refused publishes, publishes found to be repetitions.
	Published, Refused, Duplicates atomic.Uint64
	// Throttled publishes had to wait because the disk was low.
	Throttled atomic.Uint64
	// Delivered counts deliveries, Redelivered those of them that are not a
	// message's first.
	Delivered, Redelivered atomic.Uint64
	// How deliveries were settled. LeasesExpired counts those released because
	// their time was over, Dropped the rejected ones without a dead letter.
	Accepted, Released, DeadLettered, Dropped, LeasesExpired atomic.Uint64
	// Expired messages that were not delivered, Withheld ones for lack of a
	// right, Unreadable ones because the log does not have them any more.
	Expired, Withheld, Unreadable atomic.Uint64
	// Overflowed counts how often a queue's oldest messages made room.
	Overflowed atomic.Uint64
	// StorageFailures counts commits that were not made durable.
	StorageFailures atomic.Uint64
	ReclaimedBytes  atomic.Uint64
}

// Stats are the broker's counters; they go on counting.
func (b *Broker) Stats() *Stats { return &b.stats }

// Sizes tells how much there is of what the broker holds.
type Sizes struct {
	Queues, Exchanges int
	// First and End are the log's bounds.
	First, End Offset
}

// Sizes counts.
func (b *Broker) Sizes() Sizes {
	b.mu.RLock()
	s := Sizes{Queues: len(b.queues), Exchanges: len(b.exchanges)}
	b.mu.RUnlock()
	s.First, _ = b.engine.Bounds()
	s.End = b.dispatcher.end()
	return s
}
