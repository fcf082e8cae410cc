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

// A pipeSite serves clients whose connections hold nothing that is not read; it is
// for tests in a bubble of testing/synctest.
type pipeSite struct {
	t         *testing.T
	broker    *core.Broker
	server    *Server
	publisher *core.Client
}

func newPipeSite(t *testing.T) *pipeSite {
	ctx := context.Background()
	broker, err := core.Open(ctx, core.Options{Engine: coretest.NewEngine()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close(ctx) })
	publisher, err := broker.Connect(ctx, core.Credentials{Protocol: "test", Client: "p"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { publisher.Close() })
	limits := adapters.DefaultLimits()
	return &pipeSite{t: t, broker: broker, publisher: publisher, server: New(broker, Options{
		Limits: limits, Gate: adapters.NewGate(limits), Metrics: adapters.NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler),
	})}
}

// connect enters as client c, with a session, and sends packets besides. The
// channel tells how it ended.
func (p *pipeSite) connect(packets string) (net.Conn, <-chan error) {
	c, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- adapters.ServeConn(context.Background(), p.server, theirs) }()
	go c.Write([]byte("\x10\x13\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x0e\x10\x00\x01c" + packets))
	return c, served
}

// take reads a packet of one type, and returns what follows its length.
func (p *pipeSite) take(c net.Conn, packet byte) (body []byte) {
	p.t.Helper()
	var first [1]byte
	if _, err := io.ReadFull(c, first[:]); err != nil {
		p.t.Fatal(err)
	}
	n, shift := 0, 0
	for {
		var b [1]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			p.t.Fatal(err)
		}
		n |= int(b[0]&0x7f) << shift
		if shift += 7; b[0] < 0x80 {
			break
		}
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(c, body); err != nil {
		p.t.Fatal(err)
	}
	if first[0]&0xF0 != packet {
		p.t.Fatalf("got a packet %x of %d bytes, want %x", first, n, packet)
	}
	return body
}

// backlog is how many messages a client that is overrun has not read.
const backlog = 20

// overrun connects a client that subscribes to t with QoS 1 and reads none of the
// backlog: messages of 8 KiB, each published when all is done that the one before
// brought about.
func (p *pipeSite) overrun() (net.Conn, <-chan error) {
	p.t.Helper()
	c, served := p.connect("\x82\x07\x00\x01\x00\x00\x01t\x01")
	p.take(c, typeConnack<<4)
	p.take(c, typeSuback<<4)
	for range backlog {
		if err := p.publisher.Publish(context.Background(), &core.Envelope{Topic: "t", Payload: make([]byte, 8<<10), Guarantee: core.AtLeastOnce}, 0); err != nil {
			p.t.Fatal(err)
		}
		synctest.Wait()
	}
	return c, served
}

// resume connects the client again, which must find its session.
func (p *pipeSite) resume() (net.Conn, <-chan error) {
	p.t.Helper()
	c, served := p.connect("")
	if connack := p.take(c, typeConnack<<4); connack[0] != 1 {
		p.t.Error("the session is gone")
	}
	return c, served
}

// takeBacklog reads the backlog.
func (p *pipeSite) takeBacklog(c net.Conn) {
	p.t.Helper()
	for range backlog {
		p.take(c, typePublish<<4)
	}
}

// A client that does not read while the memory is short gets DISCONNECT with
// 0x89 behind what was on its way, and not behind all that it did not read; its
// session has the rest.
func TestSlowClientIsShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeSite(t)
		c, served := p.overrun()
		for range 2 {
			time.Sleep(time.Second)
			p.broker.SetResources(core.Resources{MemoryUsed: 90 << 20, MemoryTotal: 100 << 20})
			synctest.Wait()
		}
		p.take(c, typePublish<<4)
		if d := p.take(c, typeDisconnect<<4); d[0] != codeBusy || !bytes.Contains(d, []byte("come again")) {
			t.Errorf("DISCONNECT %q", d)
		}
		c.Close()
		<-served
		c, served = p.resume()
		p.takeBacklog(c)
		c.Close()
		<-served
	})
}

// A client whose old connection takes nothing any more, as its network is gone, is
// served on a new one at once, and not when the old one has been told.
func TestTakeoverOfWhoDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipeSite(t)
		old, oldServed := p.overrun()
		begun := time.Now()
		c, served := p.resume()
		if d := time.Since(begun); d > 2*lastTime+takeoverTime {
			t.Errorf("the new connection waited %v", d)
		}
		<-oldServed
		p.takeBacklog(c)
		c.Close()
		<-served
		old.Close()
	})
}
