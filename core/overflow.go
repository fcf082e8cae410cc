package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// check says what is wrong with a queue's settings. The error wraps ErrInvalid,
// or ErrInvalidTopic for the name of the dead letters.
func (s *QueueSettings) check() error {
	if s.Overflow == overflowReject {
		s.Overflow = OverflowReject
	}
	switch {
	case s.Priority && s.Ordered:
		return fmt.Errorf("%w: a queue is delivered by priority, or ordered by key, not both", ErrInvalid)
	case s.Overflow != OverflowReject && s.Overflow != OverflowDropOldest:
		return fmt.Errorf("%w: overflow is %q or %q, not %q", ErrInvalid, overflowReject, OverflowDropOldest, s.Overflow)
	case s.MaxLength < 0 || s.MaxBytes < 0 || s.TTL < 0 || s.Expires < 0 || s.DedupWindow < 0:
		return fmt.Errorf("%w: max_length, max_bytes, ttl, expires and dedup_window are not negative", ErrInvalid)
	case s.MaxAttempts < Unlimited || s.Lease < Unlimited || s.Backoff < Unlimited || s.BackoffMax < Unlimited:
		return fmt.Errorf("%w: max_attempts, lease, backoff and backoff_max are not negative, but for -1, which is without bound", ErrInvalid)
	}
	if s.DeadLetter == "" || s.DeadLetter == NoDeadLetter {
		return nil
	}
	if name, _, ok := ExchangeOf(s.DeadLetter); ok {
		if err := CheckExchangeName(name); err != nil {
			return err
		}
		return CheckTopic(s.DeadLetter)
	}
	return CheckQueueName(s.DeadLetter)
}

// over reports whether a queue's own time to live of a message is over.
func (s *QueueSettings) over(e *Envelope, now time.Time) bool {
	return s.TTL > 0 && now.Sub(e.Time) >= s.TTL
}

// trimTime bounds how long one pass over the queues takes; the next one goes on
// where it ended.
const trimTime = 2 * time.Second

// trim drops the oldest messages of sessions that nobody consumes and that have
// become longer than their settings allow. It works through the queues whose
// names come after a name and returns where to go on.
func (b *Broker) trim(ctx context.Context, after string) (next string) {
	b.tellCounted(false)
	b.mu.RLock()
	queues := slices.Collect(maps.Values(b.queues))
	b.mu.RUnlock()
	var names []string
	for _, q := range queues {
		q.mu.Lock()
		if q.name > after && q.settings.Overflow == OverflowDropOldest && !q.settings.metered() {
			names = append(names, q.name)
		}
		if !q.idle.IsZero() && q.expiry == nil {
			q.awaitExpiry()
		}
		q.mu.Unlock()
	}
	slices.Sort(names)
	start := time.Now()
	buf := newestBuffer()
	for _, name := range names {
		if q := b.queue(name); q != nil {
			if err := b.trimQueue(ctx, q, buf); err != nil {
				b.log.Error("queue not trimmed", "queue", name, "err", err)
			}
		}
		if time.Since(start) > trimTime || ctx.Err() != nil {
			return name
		}
	}
	return ""
}

// A slack is how far the log may grow, to which offset and to how many bytes,
// before what waits for a session can be more than its settings allow, whatever
// is published: before that there is no need to look.
type slack struct {
	end   Offset
	bytes uint64
}

// trimQueue drops the oldest messages of a session's queue that is longer than its
// settings allow. A queue that is being delivered from is left alone: it is
// getting shorter by itself, or is at the log's end. buf is [newestBuffer]'s.
func (b *Broker) trimQueue(ctx context.Context, q *queue, buf *ReadBuffer) error {
	grown := b.dispatcher.grown.Load()
	end := b.dispatcher.end()
	q.mu.Lock()
	next, length, bytes := q.next, q.settings.MaxLength, q.settings.MaxBytes
	idle := !q.settings.metered() && q.state == cursorIdle && !q.feeding.Load() && q.settings.Overflow == OverflowDropOldest
	if !idle || length == 0 && bytes == 0 || next >= end || end <= q.slack.end && grown <= q.slack.bytes || bytes == 0 && end-next <= Offset(length) {
		q.mu.Unlock()
		return nil
	}
	bindings, filters := q.bindings.Load(), q.filterSet()
	q.mu.Unlock()
	var e Envelope
	keep, kept, err := b.newest(ctx, buf, filters, length, bytes, next, end, func(r *Record) bool { return q.matchesRecord(*bindings, r, &e) })
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state != cursorIdle || q.feeding.Load() || q.next != next || q.bindings.Load() != bindings || q.settings.MaxLength != length || q.settings.MaxBytes != bytes {
		return nil
	}
	q.slack = slack{^Offset(0), ^uint64(0)}
	if length > 0 {
		q.slack.end = end + Offset(length-kept.count)
	}
	if bytes > 0 {
		q.slack.bytes = grown + uint64(bytes-kept.bytes)
	}
	if keep > next {
		q.next = keep
		q.changed()
		b.stats.Overflowed.Add(1)
	}
	return nil
}

// A tally is so many records with so many bytes.
type tally struct{ count, bytes int64 }

func (t *tally) add(o tally) {
	t.count += o.count
	t.bytes += o.bytes
}

// newestBuffer is what [Broker.newest] reads into, which may be used again: an
// engine unpacks what it reads there.
func newestBuffer() *ReadBuffer { return &ReadBuffer{MaxRecords: 1024, MaxBytes: 1 << 20} }

// newest returns the offset of the oldest of the newest records, between first
// and end, that are together at most n and at most so many bytes; 0 is no
// bound. It reads windows that double backwards from the end, or grow fourfold as
// long as there is nothing in them, each part of the log once at the most. kept
// is what these records are together. buf is [newestBuffer]'s.
func (b *Broker) newest(ctx context.Context, buf *ReadBuffer, filters *FilterSet, n, bytes int64, first, end Offset, matches func(*Record) bool) (oldest Offset, kept tally, err error) {
	type item struct {
		at   Offset
		size int64
	}
	oldest = end
	window := Offset(4096)
	for hi := end; hi > first; window *= 2 {
		if kept.count == 0 && hi < end {
			window *= 2 // there is little of it: most sessions have nothing
		}
		lo := first
		if hi-first > window {
			lo = hi - window
		}
		var here []item
		for next := lo; next < hi; {
			buf.Reset()
			after, err := b.engine.Read(ctx, next, hi, filters, buf)
			if err != nil {
				return 0, kept, err
			}
			for i := range buf.Records {
				if r := &buf.Records[i]; matches == nil || matches(r) {
					here = append(here, item{r.Offset, int64(len(r.Topic) + len(r.Body))})
				}
			}
			if most := n + 1; n > 0 && int64(len(here)) > 2*most {
				here = here[:copy(here, here[int64(len(here))-most:])]
			}
			if after <= next {
				break
			}
			next = after
		}
		for _, it := range slices.Backward(here) {
			if n > 0 && kept.count == n || bytes > 0 && kept.bytes+it.size > bytes {
				return oldest, kept, nil
			}
			kept.count++
			kept.bytes += it.size
			oldest = it.at
		}
		hi = lo
	}
	return first, kept, nil
}
