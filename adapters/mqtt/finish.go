package mqtt

import (
	"context"
	"errors"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluicemq/sluice/adapters"
)

// The times that the end of a connection may take.
const (
	drainTime  = 2 * time.Second
	flushTime  = 2 * time.Second
	lingerTime = time.Second

	// takeoverTime is flushTime where the client is waiting for its session on
	// another connection, and has perhaps lost this one.
	takeoverTime = 250 * time.Millisecond
)

// finish says goodbye where there is somebody to say it to, publishes the will,
// and frees what the connection holds. lingers says that the connection is
// closed but for what the peer still sends.
func (c *conn) finish(cause error) (lingers bool) {
	var f *fault
	peer := errors.As(cause, &f) // the server ends it: the peer listens still
	c.closeConsumers()
	c.savers.Wait()
	if c.connected && cause == errShutdown {
		c.drain()
	}
	if peer {
		c.sayWhy(f)
	}
	flush := flushTime
	if f == errTakenOver || c.superseded.Load() {
		flush = takeoverTime
	}
	ctx, cancel := context.WithTimeout(context.Background(), flush)
	if !peer && !c.left {
		cancel() // nobody reads any more
	}
	c.out.Close(ctx)
	cancel()
	if lingers = peer && c.v != 0 && cause != errShutdown && adapters.CloseWrite(c.nc); !lingers {
		c.nc.Close()
	}
	if c.connected {
		c.endSession()
		return lingers
	}
	if c.client != nil {
		c.client.Close()
	}
	c.s.leave(c)
	return lingers
}

// drain waits until the publishes that came are confirmed, so that the client
// need not send them again.
func (c *conn) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.room.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.waiting > 0 && ctx.Err() == nil {
		c.room.Wait()
	}
}

// sayWhy sends DISCONNECT with the reason (MQTT 5), or CONNACK if the client
// still waits for it.
func (c *conn) sayWhy(f *fault) {
	if f.code < 0x80 || c.v == 0 {
		return
	}
	if !c.connected {
		c.refuseConnect(f)
		return
	}
	if c.v != v5 {
		return
	}
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: typeDisconnect}, ProtocolVersion: byte(v5), ReasonCode: f.code,
		Properties: packets.Properties{ReasonString: f.text},
		Mods:       packets.Mods{MaxSize: uint32(c.maxOut)},
	}
	c.send(encodeControl(&pk))
}
