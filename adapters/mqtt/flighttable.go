package mqtt

import (
	"iter"
	"math/bits"
)

// A flightTable holds flights by packet id. Packet ids follow from offsets, so
// they come in sequence or in even strides, which place spreads without a
// collision; a map of Go's takes several times as long, for each message twice.
// Where ids do collide, those stand first that belong first (Robin Hood
// hashing), so that a search ends early and nothing is left behind of what was
// removed. Its zero value is empty and takes no room.
type flightTable struct {
	slots []flight // a power of two of them, at most half of them taken; an id of 0 is none
	n     int
}

const minFlightSlots = 16

func (t *flightTable) len() int { return t.n }

// place is where a flight stands if nothing stands in its way: a sequence half as
// long as the table has places of its own, and so has one with a stride that is a
// power of two.
func (t *flightTable) place(id uint16) int {
	size := uint32(len(t.slots))
	round := uint32(id) >> bits.TrailingZeros32(size)
	return int((uint32(id) + round*nextRound) & (size - 1))
}

// nextRound takes a stride's next round through the table to other places than
// the last. It is odd.
const nextRound uint32 = 0x9E3779B1

// away is how far behind its place the flight in a slot stands.
func (t *flightTable) away(slot int) int {
	return (slot - t.place(t.slots[slot].id)) & (len(t.slots) - 1)
}

// search returns the slot of an id, or the one where it would have to be put
// and how far that is behind its place.
func (t *flightTable) search(id uint16) (slot, away int, found bool) {
	for slot = t.place(id); t.slots[slot].id != id; slot = (slot + 1) & (len(t.slots) - 1) {
		if t.slots[slot].id == 0 || t.away(slot) < away {
			return slot, away, false
		}
		away++
	}
	return slot, away, true
}

// find returns the flight of an id, nil if there is none. It is valid until the
// next put or remove.
func (t *flightTable) find(id uint16) *flight {
	if t.n == 0 {
		return nil
	}
	if slot, _, found := t.search(id); found {
		return &t.slots[slot]
	}
	return nil
}

// put adds a flight, or replaces the one with its id.
func (t *flightTable) put(x flight) {
	if 2*(t.n+1) > len(t.slots) {
		old := t.slots
		t.slots, t.n = make([]flight, max(minFlightSlots, 2*len(old))), 0
		for _, x := range old {
			if x.id != 0 {
				t.put(x)
			}
		}
	}
	slot, away, found := t.search(x.id)
	if found {
		t.slots[slot] = x
		return
	}
	t.n++
	for ; t.slots[slot].id != 0; slot = (slot + 1) & (len(t.slots) - 1) {
		if other := t.away(slot); other < away {
			x, t.slots[slot] = t.slots[slot], x
			away = other
		}
		away++
	}
	t.slots[slot] = x
}

// remove takes the flight of an id out, if it is there.
func (t *flightTable) remove(id uint16) {
	if t.n == 0 {
		return
	}
	slot, _, found := t.search(id)
	if !found {
		return
	}
	t.n--
	for {
		next := (slot + 1) & (len(t.slots) - 1)
		if t.slots[next].id == 0 || t.away(next) == 0 {
			break
		}
		t.slots[slot] = t.slots[next]
		slot = next
	}
	t.slots[slot] = flight{}
}

// all are the flights, in no order; none may be put or removed meanwhile.
func (t *flightTable) all() iter.Seq[flight] {
	return func(yield func(flight) bool) {
		for _, x := range t.slots {
			if x.id != 0 && !yield(x) {
				return
			}
		}
	}
}
