package seglog

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// TestFaultEverywhere lets one call after the other fail, in each of the ways it
// can, and then cuts the power: whatever was confirmed must be there.
func TestFaultEverywhere(t *testing.T) {
	ops := 0
	if err := new(ledger).script(&vfs.Faulty{FS: vfs.NewMemory(), Inject: func(vfs.Op) *vfs.Fault { ops++; return nil }}); err != nil {
		t.Fatal(err)
	}
	faults := []vfs.Fault{{Err: syscall.EIO}, {Err: syscall.ENOSPC}, {Err: syscall.ENOSPC, Short: 100}, {Err: syscall.EIO, Short: 100}}
	every := 1
	if *crashImages > 0 {
		every = max(ops*len(faults) / *crashImages, 1)
	}
	for n := 0; n < ops*len(faults); n += every {
		index, fault := n/len(faults)+1, faults[n%len(faults)]
		memory := vfs.NewMemory()
		var hit atomic.Pointer[vfs.Op]
		g := new(ledger)
		err := g.script(&vfs.Faulty{FS: memory, Inject: func(o vfs.Op) *vfs.Fault {
			if o.Index == index {
				hit.Store(&o)
				return &fault
			}
			return nil
		}})
		where := "never reached"
		if o := hit.Load(); o != nil {
			where = fmt.Sprintf("%s %s", o.Kind, o.Name)
		}
		if err := g.recover(memory.Crash(vfs.CrashStrict), slices.Clone(g.batches), g.reclaims, vfs.CrashStrict); err != nil {
			t.Errorf("%v at call %d, %s (short %d): %v", fault.Err, index, where, fault.Short, err)
		}
		if err != nil && !errors.Is(err, fault.Err) && !errors.Is(err, core.ErrStorage) && !errors.Is(err, core.ErrStorageFull) {
			t.Errorf("%v at call %d, %s: the script ended with %v", fault.Err, index, where, err)
		}
	}
}

// TestFailedSync: after a sync that failed nothing is confirmed, whatever the
// disk does then, and the sync is not tried again.
func TestFailedSync(t *testing.T) {
	var fail, syncs atomic.Int64
	fs := &vfs.Faulty{FS: vfs.NewMemory(), Inject: func(o vfs.Op) *vfs.Fault {
		if o.Kind == vfs.KindSync && path.Dir(o.Name) == "/data/log" && fail.Load() > 0 {
			syncs.Add(1)
			if fail.Add(-1) == 0 {
				return &vfs.Fault{Err: syscall.EIO}
			}
		}
		return nil
	}}
	o := small(fs)
	o.SegmentBytes = 1 << 20
	l, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	g := new(ledger)
	if err := g.append(l, ledgerBatch{topics: []string{"a"}, sync: true}); err != nil {
		t.Fatal(err)
	}
	fail.Store(1)
	for range 3 {
		err := g.append(l, ledgerBatch{topics: []string{"a"}, sync: true})
		if !errors.Is(err, core.ErrStorage) || !errors.Is(err, syscall.EIO) {
			t.Errorf("append after a failed sync: %v", err)
		}
	}
	if _, end := l.Bounds(); end != 2 {
		t.Errorf("the log ends at %d", end)
	}
	if err := l.Close(context.Background()); !errors.Is(err, core.ErrStorage) {
		t.Errorf("close: %v", err)
	}
	if n := syncs.Load(); n != 1 {
		t.Errorf("%d syncs", n)
	}
}

// TestFull: while there is no room, appends are refused and reads go on; when
// there is again, the log goes on by itself and without a gap.
func TestFull(t *testing.T) {
	memory := vfs.NewMemory()
	l, err := Open(context.Background(), small(memory))
	if err != nil {
		t.Fatal(err)
	}
	appended := 0
	fill := func() (full error) {
		for range 200 {
			b := &core.Batch{Time: 1, Sync: true}
			b.Buf = core.AppendRecord(nil, &core.Envelope{Topic: "t", Payload: make([]byte, 700)})
			b.Ends = []uint32{uint32(len(b.Buf))}
			at, err := appendBatch(l, b)
			if err != nil {
				return err
			}
			if appended++; at != core.Offset(appended) {
				t.Fatalf("record %d is at %d", appended, at)
			}
		}
		return nil
	}
	memory.Limit(64 << 10)
	for range 3 {
		if err := fill(); !errors.Is(err, core.ErrStorageFull) {
			t.Fatalf("appending to a full disk: %v", err)
		}
	}
	if appended < 20 {
		t.Fatalf("full after %d records", appended)
	}
	if records, _, err := everything(l); err != nil || len(records) != appended {
		t.Fatalf("%d records of %d, %v", len(records), appended, err)
	}
	memory.Limit(0)
	if err := fill(); err != nil {
		t.Fatalf("appending when there is room again: %v", err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(context.Background(), small(memory)); err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	if records, gaps, err := everything(l); err != nil || len(records) != appended || len(gaps) > 0 {
		t.Fatalf("%d records of %d, gaps %v, %v", len(records), appended, gaps, err)
	}
}

// TestSyncDelay: what nobody waits for is synced after a while.
func TestSyncDelay(t *testing.T) {
	memory := vfs.NewMemory()
	o := small(memory)
	o.SyncDelay = time.Millisecond
	l, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	if err := new(ledger).append(l, ledgerBatch{topics: strings.Fields("a b c")}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		m, err := Open(context.Background(), small(memory.Crash(vfs.CrashStrict)))
		if err != nil {
			t.Fatal(err)
		}
		records, _, err := everything(m)
		m.Close(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 3 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d records are durable", len(records))
		}
	}
}
