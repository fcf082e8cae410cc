package adapters

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

func burstOf(from core.Offset, n int) []core.Delivery {
	batch := make([]core.Delivery, n)
	for i := range batch {
		batch[i] = core.Delivery{Envelope: &core.Envelope{Payload: fmt.Append(nil, "message ", int(from)+i)}, Offset: from + core.Offset(i), Attempt: 1}
	}
	return batch
}

// TestBursts: a batch is encoded for the first two subscribers of a kind and
// copied for all others, and never for one that gets something else.
func TestBursts(t *testing.T) {
	var b Bursts
	encoded := 0
	out := make([]byte, 0, 4096)
	send := func(batch []core.Delivery, variant string) (times int) {
		t.Helper()
		before := encoded
		encode := func(dst []byte) []byte {
			encoded++
			for i := range batch {
				dst = fmt.Appendf(dst, "%s %s %t %d;", variant, batch[i].Payload, batch[i].Settled, batch[i].Attempt)
			}
			return dst
		}
		want := encode(nil)
		encoded--
		if out = b.Append(append(out[:0], "before"...), batch, []byte(variant), encode); !bytes.Equal(out[6:], want) || string(out[:6]) != "before" {
			t.Fatalf("got %q, want %q", out, want)
		}
		return encoded - before
	}
	shared := func(what string, batch []core.Delivery, variant string, want bool) {
		t.Helper()
		send(batch, variant)
		send(batch, variant)
		if got := send(batch, variant) == 0; got != want {
			t.Errorf("%s: shared is %t, want %t", what, got, want)
		}
	}
	batch := burstOf(100, 20)
	if n := send(batch, "a") + send(batch, "a") + send(batch, "a") + send(batch, "a"); n != 2 {
		t.Errorf("encoded %d times for four subscribers", n)
	}
	// Other kinds take turns with it.
	for range 3 {
		send(batch, "b")
		send(batch[1:], "a")
		send(batch[:19], "a")
	}
	if n := send(batch, "a") + send(batch, "b") + send(batch[1:], "a") + send(batch[:19], "a"); n != 0 {
		t.Errorf("encoded %d times where all kinds had been", n)
	}
	// The same places with something else in the middle.
	other := append([]core.Delivery(nil), batch...)
	other[7] = burstOf(500, 1)[0]
	send(other, "a")
	other[7] = batch[7]
	other[7].Settled = true
	send(other, "a")
	other[7].Envelope = &core.Envelope{Payload: []byte("another message at the same offset")}
	send(other, "a")

	shared("plain", burstOf(1000, 3), "a", true)
	for what, change := range map[string]func(*core.Delivery){
		"come again": func(d *core.Delivery) { d.Attempt = 2 },
		"retained":   func(d *core.Delivery) { d.Retained = true },
		"expires":    func(d *core.Delivery) { d.Expires = time.Now().Add(time.Hour) },
	} {
		batch := burstOf(2000, 3)
		shared(what+", before", batch, "a", true)
		change(&batch[1])
		if what != "expires" { // an envelope never changes
			shared(what, batch, "a", false)
		}
		batch = burstOf(3000, 3)
		change(&batch[1])
		shared(what, batch, "a", false)
	}
	shared("nothing", nil, "a", false)
}

// TestBurstsDoNotAllocate pins what sharing costs.
func TestBurstsDoNotAllocate(t *testing.T) {
	var b Bursts
	variant := []byte("a")
	encode := func(dst []byte) []byte { return append(dst, "what is sent"...) }
	batches := [][]core.Delivery{burstOf(1, 64), burstOf(100, 64), burstOf(200, 10), burstOf(300, 64), burstOf(400, 64)}
	out := make([]byte, 0, 4096)
	run := func() {
		for _, batch := range batches {
			for range 3 {
				out = b.Append(out[:0], batch, variant, encode)
			}
		}
	}
	for range burstSlots {
		run() // what is kept grows
	}
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
	// A large one is not kept.
	large := burstOf(1, 2)
	grow := func(dst []byte) []byte { return append(dst, make([]byte, maxBurst+1)...) }
	for range 3 {
		b.Append(nil, large, variant, grow)
	}
	for i := range b.slot {
		if cap(b.slot[i].bytes) > maxBurst {
			t.Errorf("%d bytes are kept", cap(b.slot[i].bytes))
		}
	}
}
