package stomp

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluicemq/sluice/adapters"
)

// heartBeats are one connection's (STOMP 1.2 "Heart-beating"). What the peer
// promised is the read deadline's matter; what was promised to it needs a
// timer, which a connection without heart-beats does not have.
type heartBeats struct {
	// expected is how long the peer may be silent: twice what was agreed. 0
	// is for ever.
	expected time.Duration

	mu      sync.Mutex // guards what follows
	timer   *time.Timer
	stopped bool
}

const (
	// fastestBeat is the shortest interval of heart-beats, either way.
	fastestBeat = time.Second
	// beatTolerance is how many intervals the peer may be silent.
	beatTolerance = 2
)

// A beatOffer is a heart-beat header: what the sender can do, and what it
// would like. 0 is none.
type beatOffer struct{ can, wants time.Duration }

// parseBeats parses the header of a CONNECT.
func parseBeats(s string) (o beatOffer, ok bool) {
	a, b, found := strings.Cut(s, ",")
	can, ok1 := parseBeat(a)
	wants, ok2 := parseBeat(b)
	return beatOffer{can, wants}, found && ok1 && ok2
}

// parseBeat parses one of its numbers; one beyond 24 days is that long.
func parseBeat(s string) (time.Duration, bool) {
	ms, err := strconv.ParseUint(strings.TrimSpace(s), 10, 31)
	return time.Duration(ms) * time.Millisecond, err == nil || errors.Is(err, strconv.ErrRange)
}

// answer is the broker's offer to a client's: as often as the client likes, at
// the fastest every second. A client that promises less than the limit's
// longest interval is not asked to beat; its connection is watched by TCP.
func (o beatOffer) answer(l adapters.Limits) (server beatOffer) {
	if o.wants > 0 {
		server.can = max(o.wants, fastestBeat)
	}
	if o.can > 0 && o.can <= l.KeepAlive {
		server.wants = max(o.can, fastestBeat)
	}
	return server
}

func (o beatOffer) String() string {
	return strconv.FormatInt(o.can.Milliseconds(), 10) + "," + strconv.FormatInt(o.wants.Milliseconds(), 10)
}

// start begins beating for the agreement of two offers. send appends one line
// end to the outbox; it is called a little before each interval has passed.
func (h *heartBeats) start(client, server beatOffer, send func()) {
	if client.can > 0 && server.wants > 0 {
		h.expected = beatTolerance * max(client.can, server.wants)
	}
	if server.can == 0 || client.wants == 0 {
		return
	}
	interval := max(server.can, client.wants) * 9 / 10
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(interval, func() {
		send()
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.stopped {
			h.timer.Reset(interval)
		}
	})
}

// stop ends the beating.
func (h *heartBeats) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	if h.timer != nil {
		h.timer.Stop()
	}
}
