package stomp_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/adapters/stomp"
	"github.com/sluicemq/sluice/core"
)

// A slowDisk is an engine that makes nothing durable until it is told to.
type slowDisk struct {
	core.Engine
	mu    sync.Mutex // guards what follows
	held  bool
	full  bool
	waits []func()
}

func (d *slowDisk) Append(b *core.Batch, done func(*core.Batch, core.Offset, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	write := func() { d.Engine.Append(b, done) }
	if d.full {
		write = func() { done(b, 0, core.ErrStorageFull) }
	}
	if d.held {
		d.waits = append(d.waits, write)
		return
	}
	write()
}

// hold holds writes back, or lets them go.
func (d *slowDisk) hold(held bool) {
	d.mu.Lock()
	d.held = held
	waits := d.waits
	d.waits = nil
	d.mu.Unlock()
	for _, write := range waits {
		write()
	}
}

func onSlowDisk(t *testing.T, test func(g *gateway, d *slowDisk)) {
	d := new(slowDisk)
	bubble(t, func(g *gateway) {
		defer d.hold(false)
		test(g, d)
	}, func(_ *stomp.Options, o *core.Options) {
		d.Engine = o.Engine
		o.Engine = d
	})
}

// Whatever asks for a receipt gets it once what it did is on disk, and in
// order; what did nothing durable waits for what came before it.
func TestReceiptsFollowTheSync(t *testing.T) {
	t.Parallel()
	onSlowDisk(t, func(g *gateway, d *slowDisk) {
		p := g.connect("1.2")
		p.subscribe("0", "/queue/q", "ack:client-individual")
		for i := range 3 {
			p.send("SEND", "destination:/queue/q", fmt.Sprint(" ", i))
		}
		rs := p.messages(3)
		for _, f := range [][]string{
			{"SEND", "destination:/topic/a"},
			{"SEND", "destination:/topic/a", "persistent:false"},
			{"SEND", "destination:/topic/a,/queue/other"},
			{"ACK", "id:" + rs[0].header("ack")},
			{"NACK", "id:" + rs[1].header("ack"), "requeue:false"},
			{"SUBSCRIBE", "id:new", "destination:/queue/new"},
		} {
			synctest.Wait()
			d.hold(true)
			p.send(f[0], append(f[1:], "receipt:r")...)
			if f[0] != "SUBSCRIBE" { // which does not read on until the queue is there
				p.send("BEGIN", "transaction:t", "receipt:after")
				p.send("ABORT", "transaction:t")
			}
			p.quiet(calm)
			d.hold(false)
			p.expect("RECEIPT\nreceipt-id:r\n")
			if f[0] != "SUBSCRIBE" {
				p.expect("RECEIPT\nreceipt-id:after\n")
			}
		}
	})
}

// An acknowledgement whose receipt is refused because the disk is full has not
// happened, cumulative ones as a whole: all comes again.
func TestRefusedAcknowledgement(t *testing.T) {
	t.Parallel()
	for _, ack := range [][]string{
		{"client", "ACK"},
		{"client", "NACK", "requeue:false"},
		{"client-individual", "ACK"},
		{"client-individual", "NACK", "requeue:false"},
	} {
		onSlowDisk(t, func(g *gateway, d *slowDisk) {
			p := g.connect("1.2")
			p.subscribe("0", "/queue/q", "ack:"+ack[0])
			for i := range 3 {
				p.publish("/queue/q", fmt.Sprint(i))
			}
			rs := p.messages(3)
			time.Sleep(time.Second)
			synctest.Wait()
			full := func(is bool) {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.full = is
			}
			full(true)
			p.send(ack[1], append(ack[2:], "id:"+rs[2].header("ack"), "receipt:r")...)
			p.expect("ERROR\n", "storage full", "receipt-id:r\n")
			full(false)
			p = g.connect("1.2")
			p.subscribe("0", "/queue/q", "ack:"+ack[0])
			for i, r := range p.messages(3) {
				if r.body != fmt.Sprint(i) || r.header("redelivered") != "true" {
					t.Errorf("%v: %s", ack, r)
				}
			}
			p.subscribe("1", "/queue/q.dead", "ack:auto")
			p.quiet(calm)
		})
	}
}

// COMMIT's receipt says that all of the transaction is on disk, in one write:
// a crash before leaves nothing of it, one after leaves all.
func TestCommitsAreDurable(t *testing.T) {
	t.Parallel()
	onSlowDisk(t, func(g *gateway, d *slowDisk) {
		p := g.connect("1.2")
		p.subscribe("0", "/queue/in", "ack:client-individual")
		p.publish("/queue/in", "x")
		r := p.expect("MESSAGE\n")
		p.send("BEGIN", "transaction:t")
		for _, queue := range []string{"a", "b"} {
			p.send("SEND", "transaction:t", "destination:/queue/"+queue, " x")
		}
		p.acks("ACK", "1.2", r, "transaction:t")
		synctest.Wait()
		d.hold(true)
		_, before := d.Bounds()
		p.send("COMMIT", "transaction:t", "receipt:r")
		p.quiet(calm)
		if _, end := d.Bounds(); end != before {
			t.Errorf("%d messages on disk", end-before)
		}
		d.mu.Lock()
		writes := len(d.waits)
		d.mu.Unlock()
		if writes != 1 {
			t.Errorf("%d writes", writes)
		}
		d.hold(false)
		p.expect("RECEIPT\nreceipt-id:r\n")
		if _, end := d.Bounds(); end != before+2 {
			t.Errorf("%d messages on disk", end-before)
		}
	})
}
