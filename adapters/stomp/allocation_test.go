package stomp_test

import (
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
)

// A message costs no allocation on its way from a SEND to its receipt, to a
// MESSAGE, and to its ACK: what there are come with batches.
func TestMessagesDoNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	onSlowDisk(t, func(g *gateway, d *slowDisk) {
		// As many as a connection keeps room for while nothing is outstanding.
		const n, rounds = 50, 20
		p, s := g.connect("1.2"), g.connect("1.2")
		s.subscribe("0", "/queue/q", "ack:client-individual", "prefetch-count:1000")
		sends := []byte(strings.Repeat("SEND\ndestination:/queue/q\ncontent-type:text/plain\nreceipt:12345\ntrace:abc\npriority:4\ncorrelation-id:77\n\nsome payload\x00", n))
		var acks []byte
		total := make(map[string]uint64)
		for round := range rounds + 3 {
			d.hold(true)
			send := allocations(func() {
				p.conn.Write(sends)
				synctest.Wait()
			})
			deliver := allocations(func() {
				d.hold(false)
				synctest.Wait()
			})
			acks = acks[:0]
			for range n {
				m := s.expect("MESSAGE\n")
				acks = append(append(append(acks, "ACK\nid:"...), m.header("ack")...), "\n\n\x00"...)
				p.expect("RECEIPT\n")
			}
			ack := allocations(func() {
				s.conn.Write(acks)
				synctest.Wait()
			})
			if round >= 3 { // by then buffers have grown to their sizes
				total["SEND"] += send
				total["MESSAGE and RECEIPT"] += deliver
				total["ACK"] += ack
			}
		}
		for what, count := range total {
			t.Logf("%d allocations for %d times %s", count, rounds*n, what)
			if count >= rounds*n {
				t.Errorf("%d allocations for %d times %s: want some for each batch, none for each message", count, rounds*n, what)
			}
		}
	})
}

// allocations are those of everything that happens meanwhile.
func allocations(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}
