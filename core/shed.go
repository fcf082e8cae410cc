package core

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ErrShed is why a client is ended that reads too slowly while the memory is
// short. It may come again at once.
var ErrShed = fmt.Errorf("%w: memory is short and this connection reads too slowly", ErrLimit)

// A Buffer is where what is on its way to a client's peer waits to be written.
type Buffer interface {
	// Buffered is how many bytes wait. It must neither block nor call the core.
	Buffered() int
}

// Buffers tells the broker where what the client was given waits for its peer.
// The adapter calls it once, before the client is given anything; a client
// without a buffer is never shed. WhenExpired gets ErrShed when it is.
func (c *Client) Buffers(b Buffer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buffer = b
}

// A shedder ends, while the memory is short, the clients that hold the most of
// it. What they were given and had not read is delivered again, where it is
// anybody's to lose.
type shedder struct {
	mu   sync.Mutex // guards what follows
	held map[*Client]int
	last time.Time
	// ending are those that are being ended.
	ending sync.WaitGroup
	closed bool
}

const (
	// shedLeast is what a client must hold to be called slow.
	shedLeast = 16 << 10
	// shedPause is how long what was freed has time to show before more clients
	// are shed: it does only once the runtime has collected it.
	shedPause = 15 * time.Second
)

// calm forgets who held what: the memory is no longer short.
func (s *shedder) calm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = nil
}

// shed ends the slowest clients: those with the most bytes waiting for them, as
// many as hold what is too much. A client counts by what it held at this look
// and at the one before, whichever is less, so that nobody is ended for a burst
// that it was just about to read.
func (b *Broker) shed(tooMuch uint64) {
	s := &b.shedder
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.held
	s.held = make(map[*Client]int)
	type holder struct {
		client *Client
		bytes  int
	}
	var slow []holder
	for _, c := range b.connected.all() {
		c.mu.Lock()
		buffer := c.buffer
		c.mu.Unlock()
		if buffer == nil {
			continue
		}
		now := buffer.Buffered()
		if now < shedLeast {
			continue
		}
		s.held[c] = now
		if n := min(now, before[c]); n >= shedLeast {
			slow = append(slow, holder{c, n})
		}
	}
	if s.closed || len(slow) == 0 || !s.last.IsZero() && time.Since(s.last) < shedPause {
		return
	}
	slices.SortFunc(slow, func(x, y holder) int { return cmp.Compare(y.bytes, x.bytes) })
	n, bytes := 0, uint64(0)
	for ; n < len(slow) && bytes < tooMuch; n++ {
		bytes += uint64(slow[n].bytes)
	}
	s.last = time.Now()
	b.log.Warn("slow clients are ended for want of memory", "clients", n, "bytes", bytes)
	// The adapters may want their locks for it.
	s.ending.Go(func() {
		for _, h := range slow[:n] {
			if h.client.turnAway(ErrShed) {
				b.stats.Shed.Add(1)
			}
		}
	})
}

// close waits for the clients that are being ended.
func (s *shedder) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.ending.Wait()
}
