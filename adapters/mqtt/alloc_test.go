package mqtt

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A sink is a connection that takes everything and says nothing.
type sink struct{ net.Conn }

func (sink) Write(b []byte) (int, error)      { return len(b), nil }
func (sink) SetWriteDeadline(time.Time) error { return nil }
func (sink) SetReadDeadline(time.Time) error  { return nil }
func (sink) Close() error                     { return nil }
func (sink) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// connected is a connection behind CONNECT that writes to a sink, with a
// subscription whose deliveries the test makes up.
func connected(t testing.TB, v version) (*conn, *attachment) {
	t.Helper()
	s := newSite(t, withLimits(func(l *adapters.Limits) { l.PublishInFlight = 1 << 15 }))
	return connectedTo(t, s, v, "a")
}

// connectedTo is connected with others to one site.
func connectedTo(t testing.TB, s *site, v version, id string) (*conn, *attachment) {
	t.Helper()
	c := newConn(s.server, sink{})
	c.ctx, c.cancel = context.WithCancel(t.Context())
	hello := `10 L(s"MQTT" 04 02 0000 s"` + id + `")`
	if v == v5 {
		hello = `10 L(s"MQTT" 05 02 0000 L(21 FFFF) s"` + id + `")`
	}
	if _, err := c.handleAll(bytesOf(t, hello)); err != nil {
		t.Fatal(err)
	}
	a := &attachment{c: c}
	var err error
	if a.k, err = c.client.Subscribe(t.Context(), core.Subscription{}, a); err != nil {
		t.Fatal(err)
	}
	c.main = a
	t.Cleanup(func() {
		c.cancel()
		c.finish(nil)
	})
	return c, a
}

var plainEnvelope = core.Envelope{
	Topic: "plant/3/machine/17/temp", Payload: make([]byte, 100), Guarantee: core.AtLeastOnce, Time: time.UnixMilli(1_700_000_000_000),
}

var onceEnvelope = core.Envelope{
	Topic: "plant/3/machine/17/temp", Payload: make([]byte, 100), Guarantee: core.ExactlyOnce, Time: time.UnixMilli(1_700_000_000_000),
}

var fullEnvelope = core.Envelope{
	Topic: "plant/3/machine/17/temp", Payload: make([]byte, 100), Guarantee: core.AtLeastOnce, Time: time.UnixMilli(1_700_000_000_000),
	Key: "17", ContentType: "application/json", ReplyTo: "re/ply", CorrelationID: []byte("1234"),
	Headers: []core.Header{{Name: "unit", Value: "K"}, {Name: "site", Value: "north"}},
}

// deliverCases are what deliveries come to on the hot path.
var deliverCases = []struct {
	name    string
	v       version
	e       *core.Envelope
	qos     subscriptionOptions
	settled bool
}{
	{"3.1.1,QoS0", v311, &plainEnvelope, 0, true},
	{"3.1.1,QoS1", v311, &plainEnvelope, 1, false},
	{"3.1.1,QoS2", v311, &onceEnvelope, 2, false},
	{"5.0,QoS0", v5, &plainEnvelope, 0, true},
	{"5.0,QoS0,properties", v5, &fullEnvelope, 0, true},
	{"5.0,QoS1,properties", v5, &fullEnvelope, 1, false},
	{"5.0,QoS2", v5, &onceEnvelope, 2, false},
}

// acknowledge ends a delivery's handshake as a client does.
func acknowledge(t testing.TB, c *conn, at core.Offset, qos subscriptionOptions) {
	a := ackPacket{id: naturalID(at)}
	kinds := [][]byte{nil, {typePuback}, {typePubrec, typePubcomp}}[qos]
	for _, kind := range kinds {
		if err := c.handleAck(kind, a); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDeliverDoesNotAllocate(t *testing.T) {
	for _, x := range deliverCases {
		t.Run(x.name, func(t *testing.T) {
			c, a := connected(t, x.v)
			batch := make([]core.Delivery, 16)
			at := core.Offset(1)
			tags := []uint64{tagOf(x.qos, optionNone)}
			run := func() {
				for i := range batch {
					batch[i] = core.Delivery{Envelope: x.e, Offset: at, Attempt: 1, Settled: x.settled, Tags: tags}
					at++
				}
				a.Deliver(batch)
				for i := range batch {
					acknowledge(t, c, batch[i].Offset, x.qos)
				}
			}
			for range 1000 {
				run() // the buffers grow
			}
			// The outbox's buffers come and go with its goroutine, a few
			// times in a thousand batches.
			if n := testing.AllocsPerRun(1000, run); n > 1 {
				t.Errorf("%v allocations for %d deliveries", n, len(batch))
			}
		})
	}
}

func TestPublishDoesNotAllocate(t *testing.T) {
	for _, x := range []struct {
		name, packet string
		v            version
	}{
		{"3.1.1,QoS0", `30 L(s"plant/3/temp" "payload")`, v311},
		{"3.1.1,QoS1", `32 L(s"plant/3/temp" 0001 "payload")`, v311},
		{"5.0,QoS1,properties", `32 L(s"plant/3/temp" 0001 L(03 s"text/plain" 26 s"unit" s"K" 26 s"key" s"7") "payload")`, v5},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := bytesOf(t, x.packet)
			h, _, _ := parseHeader(b)
			var p publishPacket
			var e core.Envelope
			p.decode(h.first&0x0F, b[h.size:], x.v, &e) // its headers grow
			if n := testing.AllocsPerRun(1000, func() {
				if f := p.decode(h.first&0x0F, b[h.size:], x.v, &e); f != nil {
					t.Fatal(f)
				}
				if f := checkTopic(e.Topic); f != nil {
					t.Fatal(f)
				}
			}); n != 0 {
				t.Errorf("%v allocations to decode a PUBLISH", n)
			}
			// On the way to the core the adapter allocates nothing either:
			// with it, as much is allocated as without it.
			c, _ := connected(t, x.v)
			e.Once = ""
			core := testing.AllocsPerRun(2000, func() {
				if err := c.client.Publish(c.ctx, &e, 0); err != nil {
					t.Fatal(err)
				}
			})
			all := testing.AllocsPerRun(2000, func() {
				if err := c.handlePublish(h.first&0x0F, b[h.size:]); err != nil {
					t.Fatal(err)
				}
			})
			if all > core+1 {
				t.Errorf("%v allocations, of which the core's are %v", all, core)
			}
		})
	}
}

func BenchmarkDeliver(b *testing.B) {
	for _, x := range deliverCases {
		b.Run(x.name, func(b *testing.B) {
			c, a := connected(b, x.v)
			batch := make([]core.Delivery, 64)
			tags := []uint64{tagOf(x.qos, optionNone)}
			at := core.Offset(1)
			b.ReportAllocs()
			for i := 0; i < b.N; i += len(batch) {
				for i := range batch {
					batch[i] = core.Delivery{Envelope: x.e, Offset: at, Attempt: 1, Settled: x.settled, Tags: tags}
					at++
				}
				a.Deliver(batch)
				c.out.Wait() // credit would hold the deliveries back
				for i := range batch {
					acknowledge(b, c, batch[i].Offset, x.qos)
				}
			}
		})
	}
}

// From one batch to the acknowledgements of a hundred subscribers.
func BenchmarkFanOut(b *testing.B) {
	for _, x := range deliverCases {
		b.Run(x.name, func(b *testing.B) {
			s := newSite(b, withLimits(func(l *adapters.Limits) { l.PublishInFlight = 1 << 15 }))
			conns, subs := make([]*conn, 100), make([]*attachment, 100)
			for i := range conns {
				conns[i], subs[i] = connectedTo(b, s, x.v, fmt.Sprint("a", i))
			}
			batch := make([]core.Delivery, 32)
			tags := []uint64{tagOf(x.qos, optionNone)}
			at := core.Offset(1)
			b.ReportAllocs()
			for i := 0; i < b.N; i += len(batch) * len(conns) {
				for i := range batch {
					batch[i] = core.Delivery{Envelope: x.e, Offset: at, Attempt: 1, Settled: x.settled, Tags: tags}
					at++
				}
				for n, c := range conns {
					subs[n].Deliver(batch)
					c.out.Wait() // credit would hold the deliveries back
				}
				for _, c := range conns {
					for i := range batch {
						acknowledge(b, c, batch[i].Offset, x.qos)
					}
				}
			}
		})
	}
}

func BenchmarkPublishDecode(b *testing.B) {
	for _, x := range []struct {
		name, packet string
		v            version
	}{
		{"3.1.1", `32 L(s"plant/3/machine/17/temp" 0001 "payload")`, v311},
		{"5.0", `32 L(s"plant/3/machine/17/temp" 0001 00 "payload")`, v5},
		{"5.0,properties", `32 L(s"plant/3/machine/17/temp" 0001 L(03 s"text/plain" 26 s"unit" s"K" 26 s"key" s"7") "payload")`, v5},
	} {
		b.Run(x.name, func(b *testing.B) {
			packet, _, _ := parseBytes(x.packet)
			var p publishPacket
			var e core.Envelope
			b.ReportAllocs()
			for b.Loop() {
				h, _, _ := parseHeader(packet)
				if f := p.decode(h.first&0x0F, packet[h.size:], x.v, &e); f != nil {
					b.Fatal(f)
				}
				if f := checkTopic(e.Topic); f != nil {
					b.Fatal(f)
				}
			}
		})
	}
}

// From a packet's bytes into the core, which keeps what it is given in memory.
func BenchmarkPublish(b *testing.B) {
	c, _ := connected(b, v311)
	packet, _, _ := parseBytes(`30 L(s"plant/3/machine/17/temp" "payload")`)
	var many []byte
	for range 64 {
		many = append(many, packet...)
	}
	b.ReportAllocs()
	for i := 0; i < b.N; i += 64 {
		if _, err := c.handleAll(many); err != nil {
			b.Fatal(err)
		}
	}
}

// From CONNECT to a session that ends with the connection.
func BenchmarkConnect(b *testing.B) {
	for _, v := range []version{v311, v5} {
		b.Run(fmt.Sprint("level ", v), func(b *testing.B) {
			s := newSite(b)
			hello, _, _ := parseBytes(`10 L(s"MQTT" 04 02 003C s"client-17")`)
			if v == v5 {
				hello, _, _ = parseBytes(`10 L(s"MQTT" 05 02 003C L(21 FFFF) s"client-17")`)
			}
			b.ReportAllocs()
			for b.Loop() {
				c := newConn(s.server, sink{})
				c.ctx, c.cancel = context.WithCancel(b.Context())
				if _, err := c.handleAll(hello); err != nil {
					b.Fatal(err)
				}
				c.cancel()
				c.finish(nil)
			}
		})
	}
}
