package mqtt

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

// TestSharedDeliveries: subscribers that get the same packets get them encoded
// once, and each gets what it would get alone, whoever had the batch before it.
func TestSharedDeliveries(t *testing.T) {
	first, v3 := connected(t, v311)
	_, v5s := connected(t, v5)
	_, bridge := connected(t, v311)
	v5s.c.s, bridge.c.s = first.s, first.s // one server's
	bridge.c.bridge = true
	share := tagOf(0, optionNone)
	kinds := []struct {
		name   string
		of     *attachment
		change func(*attachment)
		tag    uint64
		alike  bool
	}{
		{"3.1.1", v3, func(*attachment) {}, share, true},
		{"5.0", v5s, func(*attachment) {}, share, true},
		{"5.0 with meta", v5s, func(a *attachment) { a.meta = true }, share, true},
		{"5.0 with an identifier", v5s, func(*attachment) {}, tagOf(5<<optionID, optionNone), true},
		{"5.0 with another identifier", v5s, func(*attachment) {}, tagOf(6<<optionID, optionNone), true},
		{"5.0, retain as published", v5s, func(*attachment) {}, tagOf(optionRAP, optionNone), true},
		{"5.0, a filter's own", v5s, func(a *attachment) { a.filter, a.options = "x", 7<<optionID }, share, true},
		{"3.1.1, retain as published", v3, func(*attachment) {}, tagOf(optionRAP, optionNone), true},
		{"a bridge", bridge, func(*attachment) {}, tagOf(optionRAP, optionNone), true},
		{"3.1.1 and as $meta", v3, func(*attachment) {}, tagOf(0, 0), false},
		{"5.0, no local", v5s, func(*attachment) {}, tagOf(optionNoLocal, optionNone), false},
	}
	retained := plainEnvelope
	retained.Retain = true
	now := time.Now()
	at := core.Offset(1)
	for round := range 3 {
		batch := make([]core.Delivery, 20)
		tags := make([]uint64, 1)
		for i := range batch {
			e := &plainEnvelope
			if i%3 == round {
				e = &retained
			}
			batch[i] = core.Delivery{Envelope: e, Offset: at, Attempt: 1, Settled: true, Tags: tags}
			at++
		}
		for range 4 {
			for _, k := range kinds {
				a := &attachment{c: k.of.c, k: k.of.k}
				k.change(a)
				tags[0] = k.tag
				if _, got := a.alike(batch); got != k.alike {
					t.Errorf("%s: alike is %t", k.name, got)
				}
				want, wanted := a.encodeEach(nil, batch, now)
				got, sent := a.encodeAll([]byte("before"), batch, now)
				if !bytes.Equal(got, append([]byte("before"), want...)) || sent != wanted {
					t.Errorf("%s: %d packets that differ from the %d it gets alone", k.name, sent, wanted)
				}
			}
		}
	}
	// What is the connection's own is not shared.
	tags := []uint64{share}
	one := func(change func(*core.Delivery)) []core.Delivery {
		d := core.Delivery{Envelope: &plainEnvelope, Offset: at, Attempt: 1, Settled: true, Tags: tags}
		change(&d)
		return []core.Delivery{d}
	}
	same := func(*core.Delivery) {}
	for name, alike := range map[string]bool{
		"settled by itself": isAlike(v3, one(func(d *core.Delivery) { d.Settled = false })),
		"come again": isAlike(v3, one(func(d *core.Delivery) {
			d.Settled, d.Attempt, d.Tags = false, 2, []uint64{tagOf(1, optionNone)}
		})),
		"two bindings":     isAlike(v3, one(func(d *core.Delivery) { d.Tags = []uint64{share, share} })),
		"lost in 3.1.1":    isAlike(v3, one(func(d *core.Delivery) { d.Envelope = &fullEnvelope })),
		"aliases":          withConn(v5s, func(c *conn) { c.aliasMax = 1 }, one(same)),
		"the largest":      withConn(v5s, func(c *conn) { c.maxOut = 1000 }, one(same)),
		"had them already": withConn(v5s, func(c *conn) { c.has = map[sending]bool{} }, one(same)),
	} {
		if alike {
			t.Errorf("%s: shared", name)
		}
	}
	if !isAlike(v3, one(same)) {
		t.Error("nothing is shared")
	}
}

// withConn says whether a batch would be shared if the connection were another
// one.
func withConn(a *attachment, change func(*conn), batch []core.Delivery) bool {
	c := &conn{s: a.c.s, v: a.c.v}
	change(c)
	return isAlike(&attachment{c: c}, batch)
}

func isAlike(a *attachment, batch []core.Delivery) bool {
	_, alike := a.alike(batch)
	return alike
}

// A batch is encoded for the first two subscribers of a kind and copied for all
// others, at every QoS; and each gets the packets that it would get alone.
func TestBatchIsEncodedOnceForAll(t *testing.T) {
	for _, v := range []version{v311, v5} {
		for qos := range subscriptionOptions(3) {
			t.Run(fmt.Sprintf("level %d, QoS %d", v, qos), func(t *testing.T) {
				s := newSite(t)
				options := qos
				if v == v5 {
					options |= 300 << optionID // a subscription identifier
				}
				batch := make([]core.Delivery, 5)
				for i := range batch {
					e := onceEnvelope
					e.Guarantee, e.Payload = core.Guarantee(i%3), []byte(fmt.Sprint("message ", i))
					batch[i] = core.Delivery{
						Envelope: &e, Offset: core.Offset(70_000 + i), Attempt: 1, Tags: []uint64{tagOf(options, optionNone)},
						Settled: qos == 0 || e.Guarantee == core.AtMostOnce,
					}
				}
				var first []byte
				for i := range 4 {
					c, a := connectedTo(t, s, v, fmt.Sprint("a", i))
					if i == 0 {
						// One by one, as for who shares nothing.
						for i := range batch {
							first = a.encode(first, &batch[i], time.Time{})
						}
						continue
					}
					if i == 3 {
						batch[0].Payload[0] = 'M' // which nobody looks at any more
					}
					got, sent := a.encodeAll(nil, batch, time.Time{})
					if sent != len(batch) || !bytes.Equal(got, first) {
						t.Errorf("the packets of subscriber %d are % x, want % x", i, got, first)
					}
					for at := range batch {
						if !batch[at].Settled {
							acknowledge(t, c, batch[at].Offset, min(qos, subscriptionOptions(batch[at].Guarantee)))
						}
					}
					if n := c.flights.byID.len(); n != 0 {
						t.Errorf("%d messages are still on their way to subscriber %d", n, i)
					}
				}
			})
		}
	}
}
