package adapters

import (
	"bytes"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

// TestFanOutAllocations: what many subscribers are sent is encoded once, is the
// same for all but for its subscription, and is not allocated.
func TestFanOutAllocations(t *testing.T) {
	encode := func(dst []byte, d *core.Delivery, now time.Time) ([]byte, int) {
		return AppendJSONDelivery(dst, d, now), 7
	}
	b := &Bodies{Encode: encode}
	d := &core.Delivery{Offset: 9, Attempt: 1, Envelope: &core.Envelope{
		Topic: "plant/3/temp", Payload: []byte(`{"celsius":21.5}`), ContentType: "application/json",
		Publisher: core.Publisher{Client: "a", Protocol: "mqtt"}, Time: time.Now(), Expires: time.Now().Add(time.Hour),
	}}
	now := time.Now()
	want, members := encode(nil, d, now)
	out := make([]byte, 0, 1024)
	encoded := 0
	var n int
	deliver := func() {
		if out, n = b.Append(out[:0], d, now); !bytes.Equal(out, want) || n != members {
			t.Fatalf("got %q, want %q", out, want)
		}
		if b.slot[9].encoded {
			encoded++
		}
	}
	deliver() // alone, nothing is kept
	if encoded != 0 {
		t.Error("what one subscriber is sent is kept")
	}
	deliver()
	if allocs := testing.AllocsPerRun(100, deliver); allocs != 0 {
		t.Errorf("a delivery allocates %v times", allocs)
	}
	// From here on only what was kept is sent.
	d.Envelope.Payload = []byte("changed")
	deliver()
	want, members = encode(nil, d, now.Add(time.Second))
	if out, _ = b.Append(out[:0], d, now.Add(time.Second)); !bytes.Equal(out, want) {
		t.Errorf("with another ttl: %q", out)
	}
	// The same place holds another message later; a redelivery is itself.
	for _, other := range []*core.Delivery{{Offset: 9 + bodySlots, Attempt: 1, Envelope: d.Envelope}, {Offset: 9, Attempt: 2, Envelope: d.Envelope}, {Offset: 9, Attempt: 1, Retained: true, Envelope: d.Envelope}} {
		want, members = encode(nil, other, now)
		for range 3 {
			if out, n = b.Append(out[:0], other, now); !bytes.Equal(out, want) || n != members {
				t.Errorf("%+v came as %q", other, out)
			}
		}
	}
	// What is kept is bounded.
	for i := range 2 * bodySlots {
		large := &core.Delivery{Offset: core.Offset(i), Attempt: 1, Envelope: &core.Envelope{Topic: "t", Payload: bytes.Repeat([]byte("x"), 200<<10)}}
		for range 2 {
			out, _ = b.Append(out[:0], large, now)
		}
		if b.size > maxBodies {
			t.Fatalf("%d bytes are kept", b.size)
		}
	}
}
