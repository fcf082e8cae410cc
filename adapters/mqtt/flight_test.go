package mqtt

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/core"
)

// A flightTable is a map by packet id.
func TestFlightTableIsAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, ids := range []int{1, 7, 40, 3000, idCount} {
		t.Run(fmt.Sprint(ids), func(t *testing.T) {
			var table flightTable
			model := map[uint16]flight{}
			for step := range 8 * min(ids, 20_000) {
				id := uint16(random.IntN(ids)) + 1
				if ids < idCount {
					id = id*64 + 63 // what collides in a table of few slots, and wraps
				}
				if id == 0 {
					continue
				}
				if random.IntN(2) == 0 {
					x := flight{id: id, offset: core.Offset(step)}
					table.put(x)
					model[id] = x
				} else {
					table.remove(id)
					delete(model, id)
				}
				if x, is := model[id]; is != (table.find(id) != nil) || is && *table.find(id) != x {
					t.Fatalf("step %d: id %d is not as it should be", step, id)
				}
				if table.len() != len(model) {
					t.Fatalf("step %d: %d flights, not %d", step, table.len(), len(model))
				}
			}
			all := map[uint16]flight{}
			for x := range table.all() {
				all[x.id] = x
			}
			if !maps.Equal(all, model) {
				t.Error("the flights are not those that were put")
			}
			for id, x := range model {
				if y := table.find(id); y == nil || *y != x {
					t.Errorf("id %d is not found", id)
				}
			}
		})
	}
}

// All packet ids fit, and one is found at once where they come in strides.
func TestFlightTableSpreads(t *testing.T) {
	var full flightTable
	for id := range idCount {
		full.put(flight{id: uint16(id + 1)})
	}
	if full.len() != idCount {
		t.Errorf("%d ids fit", full.len())
	}
	for stride := 1; stride <= 256; stride *= 2 {
		var table flightTable
		for i := range 200 {
			table.put(flight{id: uint16(i*stride) + 1})
		}
		for x := range table.all() {
			if i := table.place(x.id); table.slots[i].id != x.id {
				t.Errorf("with a stride of %d, id %d stands where another should", stride, x.id)
			}
		}
	}
}

// Of a batch all messages get the packet ids of their offsets, or none gets any.
func TestAddAll(t *testing.T) {
	a := new(attachment)
	batch := make([]core.Delivery, 10)
	for i := range batch {
		batch[i] = core.Delivery{Envelope: &onceEnvelope, Offset: core.Offset(100 + i), Settled: i == 4}
	}
	for _, x := range []struct {
		name    string
		prepare func(f *flights)
		want    bool
	}{
		{"free", func(*flights) {}, true},
		{"just enough permits", func(f *flights) { f.permits = 9 }, true},
		{"too few permits", func(f *flights) { f.permits = 8 }, false},
		{"more on its way than permitted", func(f *flights) { f.permits = -3 }, false},
		{"an id in use", func(f *flights) { f.byID.put(flight{id: naturalID(107)}) }, false},
		{"the id of a message that takes none", func(f *flights) { f.byID.put(flight{id: naturalID(104)}) }, true},
		{"an id that is another's", func(f *flights) { f.resume([]movedID{{ID: 3, Offset: 50}}) }, false},
		{"an id that the disk still names", func(f *flights) { f.spend(naturalID(109), sending{at: 109}) }, false},
		{"one that the save under way takes out", func(f *flights) { f.spend(naturalID(100), sending{at: 100}); f.save() }, false},
		{"one that was taken out", func(f *flights) { f.spend(naturalID(100), sending{at: 100}); f.save(); f.saved() }, true},
		{"others wait", func(f *flights) { f.held = []heldPacket{{}} }, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			f := &flights{permits: 20}
			x.prepare(f)
			n, permits := f.byID.len(), f.permits
			if got := f.addAll(a, batch, 1); got != x.want {
				t.Fatalf("added: %t", got)
			}
			if x.want {
				n, permits = n+9, permits-9
				for i := range batch {
					d := &batch[i]
					y := f.byID.find(naturalID(d.Offset))
					if want := (flight{to: a, offset: d.Offset, id: naturalID(d.Offset), state: flightPuback}); !d.Settled && *y != want {
						t.Errorf("offset %d has the flight %+v", d.Offset, *y)
					}
				}
			}
			if f.byID.len() != n || f.permits != permits {
				t.Errorf("%d flights and %d permits, want %d and %d", f.byID.len(), f.permits, n, permits)
			}
		})
	}
}

// An id that comes round to a message, while the session on disk still names it
// for another one, is not used: after a crash the client, which was sent the
// message under it, would be told to forget it.
func TestPacketIDsComeRound(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.dial(), s.dial()
	s.say(a, `10 L(s"MQTT" 04 00 003C s"a") 82 L(0001 s"t" 02)`)
	s.hear(a, `20 02 00 00 90 L(0001 02)`)
	s.say(b, `10 L(s"MQTT" 04 02 003C s"b") 34 L(s"t" 0001 "x")`)
	s.hear(b, `20 02 00 00 50 02 0001`)
	s.hear(a, `34 L(s"t" 0002 "x")`)
	s.say(a, `50 02 0002`)
	s.hear(a, `62 02 0002`)
	s.say(a, `70 02 0002`)
	s.settled("a")
	s.say(b, strings.Repeat(`30 L(s"u") `, idCount-1)+`34 L(s"t" 0002 "y")`)
	s.hear(b, `50 02 0002`)
	s.hear(a, `34 L(s"t" 0003 "y")`)
	s.kill()
	a = s.dial()
	s.say(a, `10 L(s"MQTT" 04 00 003C s"a")`)
	s.hear(a, `20 02 01 00 3C L(s"t" 0003 "y")`)
	s.say(a, `50 02 0003`)
	s.hear(a, `62 02 0003`)
}

// A message for which no packet id is left ends the connection, and is not lost:
// it comes when the client is back.
func TestNoPacketIDIsLeft(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.dial(), s.dial()
	s.say(a, `10 L(s"MQTT" 05 00 003C L(11 0000003C) s"a") 82 L(0001 00 s"t" 01)`)
	s.hear(a, `20 L(00 00 L(21 0400 22 0040 27 00110000)) 90 L(0001 00 01)`)
	c := s.conn("a")
	c.flights.mu.Lock()
	for id := range idCount {
		c.flights.byID.put(flight{to: c.main, id: uint16(id + 1)})
	}
	c.flights.mu.Unlock()
	s.say(b, `10 L(s"MQTT" 04 02 003C s"b") 32 L(s"t" 0001 "x")`)
	s.hear(b, `20 02 00 00 40 02 0001`)
	s.hear(a, `E0 L(97 L(1F s"more messages wait to be acknowledged than there are packet identifiers"))`)
	s.hear(a, "close")
	s.poll("it is not counted", func() bool { return s.refusals()["packet_ids"] == 1 })
	a = s.dial()
	s.say(a, `10 L(s"MQTT" 05 00 003C L(11 0000003C) s"a")`)
	s.hear(a, `20 L(01 00 L(21 0400 22 0040 27 00110000)) 3A L(s"t" 0002 00 "x")`)
}
