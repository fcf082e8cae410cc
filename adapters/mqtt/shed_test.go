package mqtt

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A client that does not read while the memory is short gets DISCONNECT with
// 0x89 behind what was on its way, and not behind all that it did not read; its
// session has the rest.
func TestSlowClientIsShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		limits, gate := adapters.DefaultLimits(), adapters.NewGate(adapters.DefaultLimits())
		broker, err := core.Open(ctx, core.Options{Engine: coretest.NewEngine()})
		if err != nil {
			t.Fatal(err)
		}
		defer broker.Close(ctx)
		s := New(broker, Options{Limits: limits, Gate: gate, Metrics: adapters.NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler)})
		// connect enters with a session, and sends packets besides.
		connect := func(packets string) (c net.Conn, served chan error) {
			c, theirs := net.Pipe()
			served = make(chan error, 1)
			go func() { served <- adapters.ServeConn(ctx, s, theirs) }()
			go c.Write([]byte("\x10\x13\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x0e\x10\x00\x01c" + packets))
			return c, served
		}
		take := func(c net.Conn, packet byte) (body []byte) {
			t.Helper()
			var first [1]byte
			if _, err := io.ReadFull(c, first[:]); err != nil {
				t.Fatal(err)
			}
			n, shift := 0, 0
			for {
				var b [1]byte
				if _, err := io.ReadFull(c, b[:]); err != nil {
					t.Fatal(err)
				}
				n |= int(b[0]&0x7f) << shift
				if shift += 7; b[0] < 0x80 {
					break
				}
			}
			body = make([]byte, n)
			if _, err := io.ReadFull(c, body); err != nil {
				t.Fatal(err)
			}
			if first[0]&0xF0 != packet {
				t.Fatalf("got a packet %x of %d bytes, want %x", first, n, packet)
			}
			return body
		}
		c, served := connect("\x82\x07\x00\x01\x00\x00\x01t\x01") // SUBSCRIBE t, QoS 1
		take(c, typeConnack<<4)
		take(c, typeSuback<<4)
		publisher, err := broker.Connect(ctx, core.Credentials{Protocol: "test", Client: "p"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer publisher.Close()
		const messages = 20
		for range messages {
			if err := publisher.Publish(ctx, &core.Envelope{Topic: "t", Payload: make([]byte, 8<<10), Guarantee: core.AtLeastOnce}, 0); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for range 2 {
			time.Sleep(time.Second)
			broker.SetResources(core.Resources{MemoryUsed: 90 << 20, MemoryTotal: 100 << 20})
			synctest.Wait()
		}
		take(c, typePublish<<4)
		if d := take(c, typeDisconnect<<4); d[0] != codeBusy || !bytes.Contains(d, []byte("come again")) {
			t.Errorf("DISCONNECT %q", d)
		}
		c.Close()
		<-served
		c, served = connect("")
		if connack := take(c, typeConnack<<4); connack[0] != 1 {
			t.Error("the session is gone")
		}
		for range messages {
			take(c, typePublish<<4)
		}
		c.Close()
		<-served
	})
}
