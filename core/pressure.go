package core

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Resources are what is left of the machine, as whoever runs the broker
// measures it now and then. A total of 0 is not known and bounds nothing.
type Resources struct {
	// DiskFree and DiskTotal are of the log's file system, in bytes.
	DiskFree, DiskTotal uint64
	// MemoryUsed and MemoryTotal are the process's, in bytes.
	MemoryUsed, MemoryTotal uint64
}

// pressure is how hard publishers are held back.
type pressure struct{ level atomic.Uint32 }

const (
	// pressureSlow: each publish waits for throttleDelay first.
	pressureSlow = 1 << iota
	// pressureNoDisk: publishes are refused, for want of disk.
	pressureNoDisk
	// pressureNoNew: publishes of clients that have not published yet are
	// refused, for want of memory.
	pressureNoNew
	// pressureNoMemory: publishes are refused, for want of memory, and slow
	// clients are ended.
	pressureNoMemory
)

// throttleDelay is what a publish waits while the disk is low: a connection
// then publishes at most a thousand messages a second.
const throttleDelay = time.Millisecond

// memoryRelief is by how many percent the use of memory must have come below a
// limit before that holds no more, so that it does not come and go.
const memoryRelief = 5

// SetResources tells the broker what is left. Publishes are slowed down, or
// refused, while too little is, and for want of memory the clients that read
// too slowly are ended; reads go on. It does not block, and its calls must not
// overlap.
func (b *Broker) SetResources(r Resources) {
	l := &b.limits
	level, was := uint32(0), b.pressure.level.Load()
	low := func(percent int, bytes int) bool {
		return r.DiskTotal > 0 && r.DiskFree < uint64(bytes) && float64(r.DiskFree)*100 < float64(r.DiskTotal)*float64(percent)
	}
	switch {
	case low(l.DiskFull, l.DiskFullBytes):
		level |= pressureNoDisk
	case low(l.DiskLow, l.DiskLowBytes):
		level |= pressureSlow
	}
	used := func(percent int, holds bool) bool {
		if holds {
			percent -= memoryRelief
		}
		return r.MemoryTotal > 0 && float64(r.MemoryUsed)*100 > float64(r.MemoryTotal)*float64(percent)
	}
	switch {
	case used(l.MemoryFull, was&pressureNoMemory != 0):
		level |= pressureNoMemory
	case used(l.MemoryHigh, was&(pressureNoNew|pressureNoMemory) != 0):
		level |= pressureNoNew
	}
	b.pressure.level.Store(level)
	if level&pressureNoMemory != 0 {
		b.shed(r.MemoryUsed - min(r.MemoryUsed, r.MemoryTotal/100*uint64(max(l.MemoryFull-memoryRelief, 0))))
	} else {
		b.shedder.calm()
	}
	if was != level {
		b.log.Warn("resources", "publishes_slowed", level&pressureSlow != 0,
			"publishes_refused", level&(pressureNoDisk|pressureNoMemory) != 0, "new_publishers_refused", level&pressureNoNew != 0,
			"disk_free", r.DiskFree, "memory_used", r.MemoryUsed)
	}
}

// yield holds a publish back, or refuses it, while resources are short.
func (c *Client) yield(ctx context.Context) error {
	level := c.broker.pressure.level.Load()
	if level == 0 {
		c.publishing = true
		return nil
	}
	switch {
	case level&pressureNoDisk != 0:
		return fmt.Errorf("%w: less than %d%% of the disk is free", ErrStorageFull, c.broker.limits.DiskFull)
	case level&pressureNoMemory != 0:
		return fmt.Errorf("%w: more than %d%% of the memory is in use", ErrLimit, c.broker.limits.MemoryFull)
	case level&pressureNoNew != 0 && !c.publishing:
		return fmt.Errorf("%w: more than %d%% of the memory is in use, nobody new may publish", ErrLimit, c.broker.limits.MemoryHigh)
	case level&pressureSlow != 0:
		c.broker.stats.Throttled.Add(1)
		t := time.NewTimer(throttleDelay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.publishing = true
	return nil
}
