package core

import (
	"math"
	"time"
)

// Limits are the bounds that the core keeps, the same on every door. What a
// zero means, DefaultLimits replaces: there is no way to say "without bound".
type Limits struct {
	// MessageBytes bounds a payload.
	MessageBytes int
	// HeaderCount and HeaderBytes bound an envelope's headers.
	HeaderCount, HeaderBytes int
	// Subscriptions bounds the bindings of one consumer.
	Subscriptions int
	// InFlight is the credit in messages that a consumer has unless it asks,
	// MaxInFlight the most that it may ask for.
	InFlight, MaxInFlight int
	// SessionMessages and SessionBytes bound what waits for a session whose
	// client is away; the oldest messages make room.
	SessionMessages, SessionBytes int
	// Outstanding bounds what is held or waits for redelivery in one queue;
	// at the bound it dispatches nothing further.
	Outstanding int
	// PendingBytes bounds what publishers have handed in and the log has not
	// yet taken; at the bound Publish blocks.
	PendingBytes int
	// Queues and Exchanges bound how many there are.
	Queues, Exchanges int
	// DedupWindow is for how long a message ID is remembered, DedupIDs how
	// many are at the most.
	DedupWindow time.Duration
	DedupIDs    int
	// Publishes are slowed down while less than DiskLow percent of the disk,
	// and less than DiskLowBytes, is free, and refused below DiskFull and
	// DiskFullBytes: a large disk is not full as soon as a small share is left.
	DiskLow, DiskFull           int
	DiskLowBytes, DiskFullBytes int
	// Publishes of clients that have not published yet are refused while more
	// than MemoryHigh percent of the memory is in use, all above MemoryFull.
	MemoryHigh, MemoryFull int
}

// DefaultLimits is the table's core part as documented.
func DefaultLimits() Limits {
	return Limits{
		MessageBytes:    1 << 20,
		HeaderCount:     64,
		HeaderBytes:     64 << 10,
		Subscriptions:   1000,
		InFlight:        32,
		MaxInFlight:     1024,
		SessionMessages: 100_000,
		SessionBytes:    256 << 20,
		Outstanding:     100_000,
		PendingBytes:    1 << 20,
		Queues:          1_000_000,
		Exchanges:       10_000,
		DedupWindow:     10 * time.Minute,
		DedupIDs:        1_000_000,
		DiskLow:         10,
		DiskFull:        5,
		DiskLowBytes:    min(4<<30, math.MaxInt),
		DiskFullBytes:   min(2<<30, math.MaxInt),
		MemoryHigh:      75,
		MemoryFull:      85,
	}
}
