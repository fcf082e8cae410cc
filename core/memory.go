package core

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core/seeded"
)

// The memory of publishes that must not happen twice: by message ID within a
// window, and by Envelope.Once until it is forgotten. Its truth is the state;
// the maps are guarded by the journal's mutex.
type memory struct {
	wall   func() time.Time // the machine's clock
	window time.Duration
	// windows are those of topics that have their own, longest the longest of
	// all there have been.
	windows map[string]time.Duration
	longest time.Duration
	max     int
	ids     map[string]*remembered // by state key
	once    map[string]*remembered
	queue   []*remembered // of ids, oldest first
	// leaving are those that a commit forgets that is not done, by state key.
	leaving map[string]*remembered
}

// A remembered publish.
type remembered struct {
	key    string
	at     time.Time
	offset Offset // set by the dispatcher before it confirms
	record int    // its index within its commit
	err    error
	// leaving is how many commits forget it that are not done; gone says that one
	// was, so that it does not come back where others are refused.
	leaving int
	gone    bool
}

func newMemory(l Limits, wall func() time.Time) *memory {
	return &memory{wall: wall, window: l.DedupWindow, longest: l.DedupWindow, windows: make(map[string]time.Duration), max: l.DedupIDs, ids: make(map[string]*remembered), once: make(map[string]*remembered), leaving: make(map[string]*remembered)}
}

func idKey(e *Envelope) string   { return keyID + e.Topic + "\x00" + e.ID }
func onceKey(once string) string { return keyOnce + once }

// setWindow gives a topic a window of its own; 0 takes it back.
func (m *memory) setWindow(topic string, w time.Duration) {
	if w == 0 {
		delete(m.windows, topic)
		return
	}
	m.windows[topic] = w
	m.longest = max(m.longest, w)
}

func (m *memory) windowOf(topic string) time.Duration {
	if w, ok := m.windows[topic]; ok {
		return w
	}
	return m.window
}

// repeats returns the publish that the envelope repeats, if it repeats one.
func (m *memory) repeats(e *Envelope) *remembered {
	if e.Once != "" {
		if r := m.once[onceKey(e.Once)]; r != nil {
			return r
		}
	}
	if e.ID == "" {
		return nil
	}
	if r := m.ids[idKey(e)]; r != nil && time.Since(r.at) < m.windowOf(e.Topic) {
		return r
	}
	return nil
}

// unsure reports whether an envelope repeats a publish of an earlier commit, of
// which it is not known yet whether it is refused.
func (m *memory) unsure(p *commit, e *Envelope) bool {
	if e.ID == "" && e.Once == "" {
		return false
	}
	r := m.repeats(e)
	return r != nil && r.offset == 0 && !slices.Contains(p.remembered, r)
}

// remember adds a publish with its state changes to a commit.
func (m *memory) remember(p *commit, e *Envelope, record int) {
	now, wall := time.Now(), m.wall().UnixMilli()
	add := func(key string) *remembered {
		r := &remembered{key: key, at: now, record: record}
		p.remembered = append(p.remembered, r)
		p.Changes = append(p.Changes, Change{Key: key, Value: binary.BigEndian.AppendUint64(nil, uint64(wall)), OffsetOf: record + 1})
		return r
	}
	if e.Once != "" {
		m.once[onceKey(e.Once)] = add(onceKey(e.Once))
	}
	if e.ID != "" {
		r := add(idKey(e))
		m.ids[r.key] = r
		m.queue = append(m.queue, r)
		m.expire(p, now)
	}
}

// expire drops IDs that are out of the window or too many.
func (m *memory) expire(p *commit, now time.Time) {
	n := 0
	for n < len(m.queue) && (now.Sub(m.queue[n].at) >= m.longest || len(m.queue)-n > m.max) {
		r := m.queue[n]
		if m.ids[r.key] == r {
			delete(m.ids, r.key)
			p.expired = append(p.expired, r)
			p.Changes = append(p.Changes, Change{Key: r.key})
		}
		m.queue[n] = nil
		n++
	}
	m.queue = m.queue[n:]
}

func (m *memory) forget(p *commit, once string) {
	key := onceKey(once)
	r := m.once[key]
	if r == nil {
		// Where the commit that forgets it already is refused, this one does.
		r = m.leaving[key]
	}
	if r != nil {
		delete(m.once, r.key)
		m.leave(p, r)
	}
}

// leave adds to a commit that a publish is forgotten.
func (m *memory) leave(p *commit, r *remembered) {
	r.leaving++
	m.leaving[r.key] = r
	p.forgotten = append(p.forgotten, r)
	p.Changes = append(p.Changes, Change{Key: r.key})
}

// left takes note that a commit is done, or was refused, that forgets a publish.
func (m *memory) left(r *remembered) {
	if r.leaving--; r.leaving == 0 && m.leaving[r.key] == r {
		delete(m.leaving, r.key)
	}
}

// forgetID ends the memory of a message ID's key, if it stands for what was
// published at an offset or before it.
func (m *memory) forgetID(p *commit, key string, at Offset) {
	if r := m.ids[key]; r != nil && r.offset != 0 && r.offset <= at {
		delete(m.ids, key)
		m.leave(p, r)
	}
}

// forgetAll ends the memory of what begins with a prefix.
func (m *memory) forgetAll(p *commit, prefix string) {
	prefix = onceKey(prefix)
	for key := range m.once {
		if strings.HasPrefix(key, prefix) {
			delete(m.once, key)
			p.Changes = append(p.Changes, Change{Key: key})
		}
	}
	for key, r := range m.leaving {
		if strings.HasPrefix(key, prefix) {
			r.gone = true
			p.Changes = append(p.Changes, Change{Key: key})
		}
	}
}

// done takes note of what a durable commit has remembered and forgotten.
func (m *memory) done(c *commit) {
	for _, r := range c.remembered {
		r.offset = c.first + Offset(r.record)
	}
	for _, r := range c.forgotten {
		r.gone = true
		m.left(r)
	}
}

// failed takes back what a commit that failed had remembered, and forgotten: the
// state still has that, and would know it again after a restart.
func (m *memory) failed(c *commit) {
	ids := 0
	for _, r := range c.remembered {
		r.err = c.err
		if strings.HasPrefix(r.key, keyID) {
			ids++
		}
		if m.ids[r.key] == r {
			delete(m.ids, r.key)
		}
		if m.once[r.key] == r {
			delete(m.once, r.key)
		}
	}
	for _, r := range c.forgotten {
		of := m.once
		if strings.HasPrefix(r.key, keyID) {
			of = m.ids
		}
		if m.left(r); m.leaving[r.key] == nil && !r.gone && of[r.key] == nil && r.err == nil {
			of[r.key] = r
		}
	}
	tail := len(m.queue) // from where on all are that the commit had
	for ; ids > 0 && tail > 0; tail-- {
		if m.queue[tail-1].err != nil {
			ids--
		}
	}
	m.queue = append(m.queue[:tail], slices.DeleteFunc(m.queue[tail:], func(r *remembered) bool { return r.err != nil })...)
	var back []*remembered
	for _, r := range c.expired {
		if m.ids[r.key] == nil && r.err == nil {
			m.ids[r.key] = r
			back = append(back, r)
		}
	}
	if len(back) > 0 {
		m.queue = append(back, m.queue...)
	}
}

// load reads the memory back from the state.
func (m *memory) load(e Engine, since func(time.Time) time.Duration) error {
	read := func(prefix string, into map[string]*remembered) ([]*remembered, error) {
		var all []*remembered
		if prefix == keyID && seeded.On(seeded.DedupForgotten) || prefix == keyOnce && seeded.On(seeded.OnceForgotten) {
			return nil, nil
		}
		for s, err := range e.State(prefix, "") {
			if err != nil {
				return nil, err
			}
			if len(s.Value) != 16 {
				continue
			}
			r := &remembered{
				key:    s.Key,
				at:     time.UnixMilli(int64(binary.BigEndian.Uint64(s.Value))),
				offset: Offset(binary.BigEndian.Uint64(s.Value[8:])),
			}
			into[s.Key] = r
			all = append(all, r)
		}
		return all, nil
	}
	if _, err := read(keyOnce, m.once); err != nil {
		return err
	}
	var err error
	m.queue, err = read(keyID, m.ids)
	slices.SortFunc(m.queue, func(a, b *remembered) int { return a.at.Compare(b.at) })
	// By the clock that cannot be set.
	for _, r := range m.queue {
		r.at = time.Now().Add(-since(r.at))
	}
	return err
}
