package seglog

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// TestStartWithoutRoom starts a broker, of one that was closed and of one that
// was killed, while one kind of file cannot grow: it says so at once, or runs and
// what is there can be read. Once there is room it starts, with all there was.
func TestStartWithoutRoom(t *testing.T) {
	const messages = 60
	for _, killed := range []bool{true, false} {
		for kind, is := range kindsOfFiles {
			ctx := t.Context()
			memory := vfs.NewMemory()
			var full atomic.Bool
			browse := func(fs vfs.FS) (int, error) {
				b, c, _, err := openBroker(ctx, small(fs))
				if err != nil {
					return 0, err
				}
				defer b.Close(ctx)
				page, err := c.Browse(ctx, "q", core.ReadRequest{Limit: 2 * messages})
				full.Store(false)
				return len(page.Messages), err
			}
			b, c, me, err := openBroker(ctx, small(memory))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.DeclareQueue(ctx, core.QueueDefinition{Name: "q"}); err != nil {
				t.Fatal(err)
			}
			for i := range core.Receipt(messages) {
				if err := c.Publish(ctx, &core.Envelope{Topic: core.QueueTopic("q"), Payload: []byte(strings.Repeat("x", 900)), Guarantee: core.AtLeastOnce}, i+1); err != nil {
					t.Fatal(err)
				}
				if err := me.confirmed(i + 1); err != nil {
					t.Fatal(err)
				}
			}
			image := memory.Crash(vfs.CrashKind)
			if err := b.Close(ctx); err != nil {
				t.Fatal(err)
			}
			if !killed {
				image = memory
			}
			full.Store(true)
			n, err := browse(&vfs.Faulty{FS: image, Inject: func(op vfs.Op) *vfs.Fault {
				if full.Load() && (op.Kind == vfs.KindWrite || op.Kind == vfs.KindCreate) && is(op.Name) {
					return &vfs.Fault{Err: syscall.ENOSPC}
				}
				return nil
			}})
			if err == nil && n != messages || err != nil && (!errors.Is(err, core.ErrStorageFull) || !strings.Contains(err.Error(), "make room")) || err != nil && kind == "indexes" {
				t.Errorf("killed %v, no room for %s: %d messages, %v", killed, kind, n, err)
			}
			if n, err := browse(image); err != nil || n != messages {
				t.Errorf("killed %v, with room for %s again: %d messages, %v", killed, kind, n, err)
			}
		}
	}
}

// TestClosedMarkStays: a broker that was closed is started, finds no room to take
// note that it runs, and delivers; what it had delivered when it is killed counts
// as delivered.
func TestClosedMarkStays(t *testing.T) {
	ctx := t.Context()
	memory := vfs.NewMemory()
	var full atomic.Bool
	fs := &vfs.Faulty{FS: memory, Inject: func(op vfs.Op) *vfs.Fault {
		if full.Load() && (op.Kind == vfs.KindWrite || op.Kind == vfs.KindCreate) && strings.HasPrefix(op.Name, "/data/log/") {
			return &vfs.Fault{Err: syscall.ENOSPC}
		}
		return nil
	}}
	session := core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settlement: core.SettleAlways, Settings: &core.QueueSettings{Kind: core.KindSession}, Bindings: []core.Binding{{Filter: "t"}}}
	// run is one life of the broker: its session is given the message.
	run := func(fs vfs.FS, began func(*core.Client)) (core.Delivery, *core.Broker) {
		t.Helper()
		e, err := Open(ctx, small(fs))
		if err != nil {
			t.Fatal(err)
		}
		if began == nil {
			full.Store(fs != vfs.FS(memory))
		}
		b, err := core.Open(ctx, core.Options{Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		me := newTaker()
		c, err := b.Connect(ctx, core.Credentials{}, me)
		if err != nil {
			t.Fatal(err)
		}
		k, err := c.Consume(ctx, session, me)
		if err != nil {
			t.Fatal(err)
		}
		if began != nil {
			began(c)
			if err := me.confirmed(1); err != nil {
				t.Fatal(err)
			}
			return core.Delivery{}, b
		}
		k.Grant(core.Credit{Messages: 1, Bytes: 1 << 20})
		return <-me.held, b
	}
	_, b := run(fs, func(c *core.Client) {
		if err := c.Publish(ctx, &core.Envelope{Topic: "t", Guarantee: core.AtLeastOnce}, 1); err != nil {
			t.Fatal(err)
		}
	})
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
	first, b := run(fs, nil)
	image := memory.Crash(vfs.CrashKind)
	full.Store(false)
	b.Close(ctx)
	memory = image
	again, b := run(memory, nil)
	defer b.Close(ctx)
	if first.Attempt != 1 || again.Attempt < 2 {
		t.Errorf("the attempts are %d and, after a kill, %d", first.Attempt, again.Attempt)
	}
}
