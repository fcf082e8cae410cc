package seglog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// kindsOfFiles are sets of files, by their names.
var kindsOfFiles = map[string]func(name string) bool{
	"segments": func(n string) bool {
		return strings.HasPrefix(n, "/data/log/") && !strings.Contains(n, indexSuffix)
	},
	"indexes": func(n string) bool { return strings.Contains(n, indexSuffix) },
	"state":   func(n string) bool { return strings.HasPrefix(n, "/data/state") },
	"all":     func(string) bool { return true },
}

// TestNoRoomForAKindOfFile: while one kind of file cannot grow, publishes are
// confirmed or refused for lack of room, and consumers go on with what they
// hold; when it can again, all goes on by itself, and nothing that was confirmed
// is missing.
func TestNoRoomForAKindOfFile(t *testing.T) {
	for kind, is := range kindsOfFiles {
		t.Run(kind, func(t *testing.T) {
			ctx := t.Context()
			var full atomic.Bool
			fs := &vfs.Faulty{FS: vfs.NewMemory(), Inject: func(op vfs.Op) *vfs.Fault {
				if full.Load() && (op.Kind == vfs.KindWrite || op.Kind == vfs.KindCreate) && is(op.Name) {
					return &vfs.Fault{Err: syscall.ENOSPC}
				}
				return nil
			}}
			b, c, me, err := openBroker(ctx, small(fs))
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close(context.WithoutCancel(ctx))
			receiver := newTaker()
			k, err := c.Consume(ctx, core.Consumption{Queue: "q", Create: true, Settlement: core.SettleAlways}, receiver)
			if err != nil {
				t.Fatal(err)
			}
			k.Grant(core.Credit{Messages: 1 << 20, Bytes: 1 << 30})
			receipt := core.Receipt(0)
			confirmed := make(map[string]bool)
			publish := func() error {
				receipt++
				s := fmt.Sprint("message ", receipt)
				// With an id and a retained value: each has its part of the state.
				env := &core.Envelope{Topic: core.QueueTopic("q"), Payload: []byte(s), Guarantee: core.AtLeastOnce, ID: s, Headers: []core.Header{{Name: "fill", Value: strings.Repeat("x", 900)}}}
				if err := c.Publish(ctx, env, receipt); err != nil {
					t.Fatal(err)
				}
				err := me.confirmed(receipt)
				if err == nil {
					confirmed[s] = true
				} else if !errors.Is(err, core.ErrStorageFull) {
					t.Fatalf("%s: %v", s, err)
				}
				return err
			}
			for range 20 {
				if err := publish(); err != nil {
					t.Fatal(err)
				}
			}
			first := <-receiver.held
			delete(confirmed, string(first.Payload))
			full.Store(true)
			// The state has its changes in memory for a while. An index that
			// cannot be written is missed by nobody.
			refused := 0
			for range 2000 {
				if publish() != nil {
					refused++
				}
				if refused == 20 || kind == "indexes" && receipt == 60 {
					break
				}
			}
			if kind != "indexes" && refused < 20 || kind == "indexes" && refused > 0 {
				t.Errorf("%d publishes were refused", refused)
			}
			// What is held can be settled and what is there can be read.
			if err := k.Settle(first.Offset, core.Accepted, core.SettleOptions{}); err != nil {
				t.Error(err)
			}
			if page, err := c.Browse(ctx, "q", core.ReadRequest{Limit: 5}); err != nil || len(page.Messages) == 0 {
				t.Errorf("%d messages can be read: %v", len(page.Messages), err)
			}
			full.Store(false)
			for deadline := time.Now().Add(time.Minute); publish() != nil; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("publishes are still refused")
				}
			}
			for len(confirmed) > 0 {
				select {
				case d := <-receiver.held:
					delete(confirmed, string(d.Payload))
				case <-time.After(time.Minute):
					t.Fatalf("%d messages were confirmed and do not come", len(confirmed))
				}
			}
			if err := b.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReclaimWithoutRoom: where nothing can be copied and no segment begun, as
// the disk is full, what is to be freed whole is.
func TestReclaimWithoutRoom(t *testing.T) {
	ctx := t.Context()
	var full atomic.Bool
	fs := &vfs.Faulty{FS: vfs.NewMemory(), Inject: func(op vfs.Op) *vfs.Fault {
		if full.Load() && (op.Kind == vfs.KindWrite || op.Kind == vfs.KindCreate) && strings.HasPrefix(op.Name, "/data/log/") {
			return &vfs.Fault{Err: syscall.ENOSPC}
		}
		return nil
	}}
	l, err := Open(ctx, small(fs))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.WithoutCancel(ctx))
	const pinned = 2
	for len(l.segmentsNow()) < 12 {
		appendWait(t, l, batchOf(false, "t", "t", "t", "t", "t", "t", "t", "t"))
	}
	for _, s := range l.segmentsNow()[:11] {
		if err := l.ensureIndex(s); err != nil {
			t.Fatal(err)
		}
	}
	_, end := l.Bounds()
	r := core.Retention{
		Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Hour}},
		Needs:    needsOf(func(at core.Offset) bool { return at == pinned }),
		Before:   end, Now: time.UnixMilli(1 << 50),
	}
	full.Store(true)
	if got, err := l.Reclaim(ctx, r); err != nil || got.Records == 0 {
		t.Errorf("%d records were freed: %v", got.Records, err)
	}
	if n := len(l.segmentsNow()); n != 2 {
		t.Errorf("%d segments are left", n)
	}
	if _, err := l.Reclaim(ctx, r); !isFull(err) {
		t.Errorf("with nothing to free: %v", err)
	}
	full.Store(false)
	for range 2 {
		if _, err := l.Reclaim(ctx, r); err != nil {
			t.Error(err)
		}
		if err := l.Seal(ctx); err != nil {
			t.Fatal(err)
		}
	}
	records, _, err := everything(l)
	if _, there := records[pinned]; err != nil || len(records) != 1 || !there {
		t.Errorf("%d records are left, %v", len(records), err)
	}
}
