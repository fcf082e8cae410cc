package mqtt

import (
	"encoding/binary"
	"maps"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A flight is one QoS 1 or 2 message on its way to the client.
type flight struct {
	to     *attachment
	offset core.Offset
	id     uint16 // the packet id, never 0
	state  flightState
	// twin says that the message is on its way twice: as it is, and as JSON.
	// It is settled when both are acknowledged.
	twin bool
	json bool // it is the one as JSON
}

func (x *flight) sending() sending { return sending{x.to.filter, x.offset, x.json} }

type flightState uint8

const (
	flightPuback  flightState = iota // PUBACK is awaited
	flightPubrec                     // PUBREC is awaited
	flightSettled                    // PUBREC came; PUBREL waits for the settlement to be durable
	flightPubcomp                    // PUBREL is sent, PUBCOMP is awaited
)

// flights are the messages on their way to one client.
//
// A packet id is the message's offset modulo 65,535, plus 1: so it is the same
// whenever the message is sent again, over reconnects and restarts, without
// anything being kept. Where another message has that id, or will have it, the
// message is moved to the next one that is free. A lasting session keeps such an
// id, and the message waits until it does ([conn.save]): a client that has a QoS
// 2 message would take it for a new one under another id.
type flights struct {
	mu   sync.Mutex // guards what follows
	byID flightTable
	// moved are the ids of messages that were moved and would come again.
	moved map[sending]uint16
	// awaited are those of moved's ids that are yet to be used again.
	awaited map[uint16]bool
	// spent are ids whose handshakes are over, and which the session's state on
	// disk still names; those of leaving it does not name any more once the
	// save that is under way is done. A message has none of them: after a crash
	// the id would be taken for the other one's. Likewise what had such an id, where
	// it is sent anew because it is retained, waits until it is not named any more.
	spent, leaving map[uint16]sending
	// permits is how many more may be on their way (the client's receive
	// maximum). Beyond it packets are held, which happens only where several
	// consumers feed one connection; each has credit for no more than the
	// maximum.
	permits int
	held    []heldPacket
	saving  int // how many of held wait for the save that is under way
	// expired are messages that were held for too long, and are to be settled.
	expired []flight
}

// A sending is what a session is sent: one message by one of its consumers, as an
// attachment's filter names it, as it is or as JSON.
type sending struct {
	by   string
	at   core.Offset
	json bool
}

// A heldPacket waits for a permit, or for its id to be kept, or behind one that
// does.
type heldPacket struct {
	bytes   []byte
	unsaved bool
	of      flight
	// expires is when its message does; zero is never. One that was sent before is
	// sent nevertheless ([MQTT-4.3.3-7]).
	expires time.Time
	again   bool
	// interval is where in bytes the message expiry interval stands; 0 is nowhere.
	interval int
}

// refresh brings the message expiry interval up to date, as the time that the
// packet has waited counts ([MQTT-3.3.2-6]). It reports whether the message has
// expired instead, and is not to be sent any more ([MQTT-3.3.2-5]).
func (p *heldPacket) refresh() (expired bool) {
	if p.expires.IsZero() {
		return false
	}
	left := time.Until(p.expires)
	if left <= 0 && !p.again {
		return true
	}
	if p.interval > 0 {
		binary.BigEndian.PutUint32(p.bytes[p.interval:], expiryInterval(left))
	}
	return false
}

const idCount = 65535

func naturalID(at core.Offset) uint16 { return uint16(uint64(at)%idCount) + 1 }

// add gives a message a packet id. unsaved says that the session is to keep the
// id before the message is sent; ok is false if all are in use.
func (f *flights) add(x flight) (id uint16, unsaved, ok bool) {
	if f.byID.len()+len(f.awaited)+len(f.spent)+len(f.leaving) >= idCount {
		return 0, false, false
	}
	natural := naturalID(x.offset)
	x.id = natural
	if len(f.moved) > 0 {
		if m, is := f.moved[x.sending()]; is && f.byID.find(m) == nil {
			delete(f.awaited, m)
			x.id = m
			f.byID.put(x)
			return m, false, true
		}
	}
	for !f.free(x.id) {
		if x.id++; x.id == 0 {
			x.id = 1
		}
	}
	f.byID.put(x)
	if x.id == natural || !x.to.keeps(x.state) {
		return x.id, false, true
	}
	if f.moved == nil {
		f.moved = make(map[sending]uint16)
	}
	f.moved[x.sending()] = x.id
	return x.id, true, true
}

// free reports whether a new message may have an id.
func (f *flights) free(id uint16) bool {
	if f.byID.find(id) != nil || len(f.awaited) > 0 && f.awaited[id] {
		return false
	}
	if len(f.spent)+len(f.leaving) == 0 {
		return true
	}
	_, spent := f.spent[id]
	_, leaving := f.leaving[id]
	return !spent && !leaving
}

// named reports whether the session's state on disk still names an id that a
// message had before.
func (f *flights) named(what sending) bool {
	for _, ids := range []map[uint16]sending{f.spent, f.leaving} {
		for _, had := range ids {
			if had == what {
				return true
			}
		}
	}
	return false
}

// spend notes that an id that a message had is not needed any more, which the
// state on disk is yet to be told.
func (f *flights) spend(id uint16, what sending) {
	if f.spent == nil {
		f.spent = make(map[uint16]sending)
	}
	f.spent[id] = what
}

// forget lets go of the id of a message that was moved and does not come again.
func (f *flights) forget(x *flight) (was bool) {
	if len(f.moved) == 0 {
		return false
	}
	what := x.sending()
	if m, is := f.moved[what]; !is || m != x.id {
		return false
	}
	delete(f.moved, what)
	f.spend(x.id, what)
	return true
}

// awaits is the state of a message that was just sent.
func awaits(qos byte) flightState {
	if qos == 2 {
		return flightPubrec
	}
	return flightPuback
}

// addAll gives the messages of a batch that are to be acknowledged the packet
// ids that follow from their offsets, with a permit for each, or none of them
// anything, which it reports.
func (f *flights) addAll(to *attachment, batch []core.Delivery, qos byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.awaited) > 0 || len(f.held) > 0 {
		return false
	}
	for i := range batch {
		d := &batch[i]
		if d.Settled {
			continue
		}
		id := naturalID(d.Offset)
		if f.permits <= 0 || !f.free(id) || d.Retained && len(f.spent)+len(f.leaving) > 0 {
			for _, d := range batch[:i] {
				if !d.Settled {
					f.byID.remove(naturalID(d.Offset))
					f.permits++
				}
			}
			return false
		}
		f.permits--
		f.byID.put(flight{to: to, offset: d.Offset, id: id, state: awaits(min(qos, byte(d.Guarantee)))})
	}
	return true
}

// hasTwin reports whether another flight carries the same message.
func (f *flights) hasTwin(x flight) bool {
	if !x.twin {
		return false
	}
	for o := range f.byID.all() {
		if o.to == x.to && o.offset == x.offset && (o.state == flightPuback || o.state == flightPubrec) {
			return true
		}
	}
	return false
}

// permit asks whether one more may be sent now.
func (f *flights) permit() bool {
	if f.permits > 0 && len(f.held) == 0 {
		f.permits--
		return true
	}
	return false
}

// release gives a permit back, or takes the packet that waited for it.
func (f *flights) release() (next heldPacket, ok bool) {
	f.permits++
	return f.unhold()
}

// unhold takes the next packet that was held and may be sent now, with its
// permit. What has expired meanwhile is put into expired.
func (f *flights) unhold() (next heldPacket, ok bool) {
	for f.permits > 0 && len(f.held) > 0 && !f.held[0].unsaved {
		next = f.held[0]
		f.held[0] = heldPacket{}
		if f.held = f.held[1:]; len(f.held) == 0 {
			f.held = nil
		}
		if !next.refresh() {
			f.permits--
			return next, true
		}
		f.byID.remove(next.of.id)
		f.forget(&next.of)
		if !f.hasTwin(next.of) { // or the other one settles
			f.expired = append(f.expired, next.of)
		}
	}
	return heldPacket{}, false
}

// takeExpired returns what is to be settled because it was held for too long.
func (f *flights) takeExpired() []flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	expired := f.expired
	f.expired = nil
	return expired
}

// save returns the ids that the session is to keep. A save follows that saved
// tells of, before the next one.
func (f *flights) save() (moved []movedID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for what, id := range f.moved {
		moved = append(moved, movedID{ID: id, By: what.by, Offset: what.at, JSON: what.json})
	}
	f.saving = 0
	for i := range f.held {
		if f.held[i].unsaved {
			f.saving++
		}
	}
	if f.leaving == nil {
		f.leaving = f.spent
	} else { // the last save failed
		maps.Copy(f.leaving, f.spent)
	}
	f.spent = nil
	return moved
}

// saved notes that the ids which save returned are kept, and reports whether
// packets may be sent for it.
func (f *flights) saved() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaving = nil
	for i := 0; i < len(f.held) && f.saving > 0; i++ {
		if f.held[i].unsaved {
			f.held[i].unsaved = false
			f.saving--
		}
	}
	f.saving = 0
	return len(f.held) > 0
}

// sendable appends the held packets that may be sent now.
func (f *flights) sendable(b []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	for next, ok := f.unhold(); ok; next, ok = f.unhold() {
		b = append(b, next.bytes...)
	}
	return b
}

// keptIDs are what the broker keeps, while it runs, of a session that has no
// connection, besides what the core keeps.
type keptIDs struct {
	// incoming are the client's publishes whose PUBREL has not come.
	incoming map[uint16]incoming
	until    time.Time
}

// resume takes over the packet ids that the session kept.
func (f *flights) resume(moved []movedID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moved, f.awaited = nil, nil
	for _, m := range moved {
		if f.moved == nil {
			f.moved, f.awaited = make(map[sending]uint16), make(map[uint16]bool)
		}
		f.moved[sending{m.By, m.Offset, m.JSON}] = m.ID
		f.awaited[m.ID] = true
	}
}

// prune lets go of ids whose messages do not come again, and reports whether
// there were some.
func (f *flights) prune(comes func(sending) bool) (some bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for what, id := range f.moved {
		if !comes(what) {
			delete(f.moved, what)
			delete(f.awaited, id)
			f.spend(id, what)
			some = true
		}
	}
	return some
}

// complete takes over a message that the client has and whose handshake is not
// over. It takes a permit.
func (f *flights) complete(r release, to *attachment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byID.put(flight{to: to, offset: r.Offset, id: r.ID, state: flightPubcomp, json: r.JSON})
	f.permits--
}

// with reports whether messages of an attachment's are on their way.
func (f *flights) with(a *attachment) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for x := range f.byID.all() {
		if x.to == a {
			return true
		}
	}
	return false
}

// keep remembers what the core does not keep of a session that outlives its
// connection.
func (s *Server) keep(id string, k *keptIDs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) > 0 && len(s.kept)%1024 == 0 {
		now := time.Now()
		for id, k := range s.kept {
			if now.After(k.until) {
				delete(s.kept, id)
			}
		}
	}
	s.kept[id] = k
}

func (s *Server) takeKept(id string) *keptIDs {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept[id]
	delete(s.kept, id)
	return k
}
