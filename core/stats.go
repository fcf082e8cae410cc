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
	// Shed clients were ended because they read too slowly while the memory was
	// short.
	Shed atomic.Uint64
	// SessionsExpired were deleted because their clients did not come back in
	// time.
	SessionsExpired atomic.Uint64
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

// Attendance tells who is there.
type Attendance struct {
	// Clients are connected, over all protocols; Away are the sessions whose
	// clients are not.
	Clients, Away int
	// Subscriptions are the filters of readers, sessions and groups.
	Subscriptions int
	// Shared are those of them that are groups'.
	Shared int
}

// Attendance counts, one by one: it is not for every message.
func (b *Broker) Attendance() Attendance {
	clients := b.connected.all()
	a := Attendance{Clients: len(clients)}
	for _, c := range clients {
		c.mu.Lock()
		for _, k := range c.consumers {
			if k.queue == nil {
				a.Subscriptions += k.cursor.count()
			}
		}
		c.mu.Unlock()
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, q := range b.queues {
		kind := kindOf(q.name)
		if kind == KindQueue {
			continue
		}
		filters := q.count()
		a.Subscriptions += filters
		if kind == KindGroup {
			a.Shared += filters
		}
		q.mu.Lock()
		if kind == KindSession && len(q.consumers) == 0 {
			a.Away++
		}
		q.mu.Unlock()
	}
	return a
}

// CountFull counts the queues, sessions and groups that are at Limits.Outstanding:
// they read on when something of them is settled. It looks at one by one.
func (b *Broker) CountFull() (n int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, q := range b.queues {
		q.mu.Lock()
		if q.full() {
			n++
		}
		q.mu.Unlock()
	}
	return n
}

// CountRetained counts the topics that have a retained value. It blocks for the
// disk, the longer the more there are.
func (b *Broker) CountRetained() (n int, err error) {
	for _, err := range b.engine.State(keyRetained, "") {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
