package mqtt

import (
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
}

type flightState uint8

const (
	flightPuback  flightState = iota // PUBACK is awaited
	flightPubrec                     // PUBREC is awaited
	flightSettled                    // PUBREC came; PUBREL waits for the settlement to be durable
	flightPubcomp                    // PUBREL is sent, PUBCOMP is awaited
)

// flights are the messages on their way to one client.
//
// A packet id is the message's offset modulo 65,535, plus 1, or the next one
// that is free: so it is the same whenever the message is sent again, over
// reconnects and restarts, without anything being kept. Where another message
// had the id, the one it got instead is kept while the broker runs ([keptIDs]).
type flights struct {
	mu    sync.Mutex // guards what follows
	byID  flightTable
	moved map[sending]uint16 // ids to use again that are not the natural ones
	// permits is how many more may be on their way (the client's receive
	// maximum). Beyond it packets are held, which happens only where several
	// consumers feed one connection; each has credit for no more than the
	// maximum.
	permits int
	held    []heldPacket
}

// A sending is what a session is sent: one message by one of its consumers, as an
// attachment's filter names it.
type sending struct {
	by string
	at core.Offset
}

type heldPacket struct{ bytes []byte }

const idCount = 65535

func naturalID(at core.Offset) uint16 { return uint16(uint64(at)%idCount) + 1 }

// add gives a message a packet id. ok is false if all are in use.
func (f *flights) add(to *attachment, at core.Offset, qos byte, twin bool) (id uint16, ok bool) {
	if f.byID.len() >= idCount {
		return 0, false
	}
	id = naturalID(at)
	what := sending{to.filter, at}
	if f.moved != nil {
		if m, is := f.moved[what]; is {
			id = m
			delete(f.moved, what)
		}
	}
	for {
		if f.byID.find(id) == nil && !f.reserved(id, what) {
			break
		}
		if id++; id == 0 {
			id = 1
		}
	}
	f.byID.put(flight{to: to, offset: at, id: id, state: awaits(qos), twin: twin})
	return id, true
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
	if len(f.moved) > 0 || len(f.held) > 0 {
		return false
	}
	for i := range batch {
		d := &batch[i]
		if d.Settled {
			continue
		}
		id := naturalID(d.Offset)
		if f.permits <= 0 || f.byID.find(id) != nil {
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

// reserved reports whether another message was sent under the id before the
// client reconnected, and will be again.
func (f *flights) reserved(id uint16, what sending) bool {
	for o, m := range f.moved {
		if m == id && o != what {
			return true
		}
	}
	return false
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
	if f.permits > 0 {
		f.permits--
		return true
	}
	return false
}

// release gives a permit back, or takes the packet that waited for it.
func (f *flights) release() (next heldPacket, ok bool) {
	if len(f.held) == 0 {
		f.permits++
		return heldPacket{}, false
	}
	next = f.held[0]
	f.held[0] = heldPacket{}
	if f.held = f.held[1:]; len(f.held) == 0 {
		f.held = nil
	}
	return next, true
}

// keptIDs are what the broker keeps, while it runs, of a session that has no
// connection, besides what the core keeps.
type keptIDs struct {
	// moved are packet ids that do not follow from offsets.
	moved map[sending]uint16
	// incoming are the client's publishes whose PUBREL has not come.
	incoming map[uint16]incoming
	until    time.Time
}

// keep returns the packet ids that do not follow from offsets.
func (f *flights) keep() map[sending]uint16 {
	f.mu.Lock()
	defer f.mu.Unlock()
	for x := range f.byID.all() {
		if x.state <= flightPubrec && x.to.keeps(x.state) && x.id != naturalID(x.offset) && !x.twin {
			if f.moved == nil {
				f.moved = make(map[sending]uint16)
			}
			f.moved[sending{x.to.filter, x.offset}] = x.id
		}
	}
	return f.moved
}

// resume takes over the packet ids that the session's messages had.
func (f *flights) resume(moved map[sending]uint16) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moved = moved
}

// complete takes over a message that the client has and whose handshake is not
// over. It takes a permit.
func (f *flights) complete(r release, to *attachment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byID.put(flight{to: to, offset: r.Offset, id: r.ID, state: flightPubcomp})
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
