package seglog

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// TestLeftoverBeforeNextSegment: a batch that was refused for lack of room left
// whole frames in its segment, and the next one goes to another segment before the
// process is killed. What was confirmed is there, at its offsets.
func TestLeftoverBeforeNextSegment(t *testing.T) {
	needPython(t)
	ctx := t.Context()
	for _, c := range []struct {
		how     string
		records int // of the batch that is refused
		short   func(bytes int) int
		mark    bool // the segment is sealed by itself
	}{
		{"one frame", 1, func(n int) int { return n - 1 }, false},
		{"the first of some frames", 40, func(n int) int { return n / 2 }, false},
		{"all of some frames", 40, func(n int) int { return n - 1 }, false},
		{"one frame, and the segment is sealed", 1, func(n int) int { return n - 1 }, true},
		{"the first of some frames, and the segment is sealed", 40, func(n int) int { return n / 2 }, true},
	} {
		t.Run(c.how, func(t *testing.T) {
			memory := vfs.NewMemory()
			var full atomic.Bool
			fs := &vfs.Faulty{FS: memory, Inject: func(op vfs.Op) *vfs.Fault {
				if strings.Contains(op.Name, indexSuffix) {
					return &vfs.Fault{Err: syscall.ENOSPC}
				}
				if full.Load() && op.Kind == vfs.KindWrite && strings.HasPrefix(op.Name, "/data/log/") {
					return &vfs.Fault{Err: syscall.ENOSPC, Short: c.short(op.Bytes)}
				}
				return nil
			}}
			o := small(fs)
			o.SegmentBytes, o.ZeroBytes = 256<<10, -1
			l, err := Open(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close(context.WithoutCancel(ctx))
			type told struct {
				at    core.Offset
				topic string
			}
			var confirmed []told
			publish := func(topic string, records, size int) error {
				at, err := publishBatch(l, topic, records, size, true)
				for i := range records {
					if err == nil {
						confirmed = append(confirmed, told{at + core.Offset(i), topic})
					}
				}
				return err
			}
			for _, topic := range []string{"one", "two", "three"} {
				if err := publish(topic, 1, 40<<10); err != nil {
					t.Fatal(err)
				}
			}
			full.Store(true)
			if err := publish("refused", c.records, 2000); !errors.Is(err, core.ErrStorageFull) {
				t.Fatalf("with no room: %v", err)
			}
			full.Store(false)
			segments := len(l.segmentsNow())
			if c.mark {
				if err := l.request(ctx, l.retire); err != nil {
					t.Fatal(err)
				}
			}
			for _, topic := range []string{"four", "five"} {
				if err := publish(topic, 1, 200<<10); err != nil {
					t.Fatal(err)
				}
			}
			if len(l.segmentsNow()) == segments {
				t.Fatal("all is in one segment")
			}
			killed := memory.Crash(vfs.CrashKind)
			data := filepath.Join(t.TempDir(), "data")
			export(t, killed, "/data", data)
			compareReaders(t, data, false)
			after, err := Open(ctx, small(killed))
			if err != nil {
				t.Fatal(err)
			}
			defer after.Close(ctx)
			records, gaps, err := everything(after)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range confirmed {
				if r, there := records[c.at]; !there || r.Topic != c.topic {
					t.Errorf("%s was confirmed at %d, where %q is", c.topic, c.at, r.Topic)
				}
			}
			for _, g := range gaps {
				if g.Lost {
					t.Errorf("%d to %d are said to be lost", g.From, g.To)
				}
			}
		})
	}
}

// publishBatch appends a batch of equal records.
func publishBatch(l *Log, topic string, records, size int, sync bool) (at core.Offset, err error) {
	b := &core.Batch{Time: time.Now().UnixMilli(), Sync: sync}
	for range records {
		b.Buf = core.AppendRecord(b.Buf, &core.Envelope{Topic: topic, Payload: []byte(strings.Repeat("payload ", size/8))})
		b.Ends = append(b.Ends, uint32(len(b.Buf)))
	}
	return appendBatch(l, b)
}

// TestLeftoverIsNotJoined: a batch that was refused for lack of room is written
// over by one of the same size, and a power cut leaves the first frame of the one
// and the others of the other. Neither is there, since neither was whole.
func TestLeftoverIsNotJoined(t *testing.T) {
	needPython(t)
	ctx := t.Context()
	memory := vfs.NewMemory()
	var full atomic.Bool
	fs := &vfs.Faulty{FS: memory, Inject: func(op vfs.Op) *vfs.Fault {
		if full.Load() && op.Kind == vfs.KindWrite && strings.HasPrefix(op.Name, "/data/log/") {
			return &vfs.Fault{Err: syscall.ENOSPC, Short: op.Bytes - 1}
		}
		return nil
	}}
	o := small(fs)
	o.SegmentBytes = 1 << 20
	l, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.WithoutCancel(ctx))
	if _, err := publishBatch(l, "confirmed", 1, 100, true); err != nil {
		t.Fatal(err)
	}
	at := l.committer.segment.span.size
	full.Store(true)
	if _, err := publishBatch(l, "refused", 40, 2000, true); !errors.Is(err, core.ErrStorageFull) {
		t.Fatalf("with no room: %v", err)
	}
	refused := memory.Crash(vfs.CrashKind)
	full.Store(false)
	if _, err := publishBatch(l, "pending", 40, 2000, false); err != nil {
		t.Fatal(err)
	}
	cut := memory.Crash(vfs.CrashKind)

	name := "/data/log/" + l.committer.segment.name
	old, now := content(t, refused, name)[at:], content(t, cut, name)[at:]
	was, is := decodeFrameHeader(old), decodeFrameHeader(now)
	if was.commit != is.commit || was.base != is.base || was.size() != is.size() || was.flags&flagMore == 0 {
		t.Fatalf("not the frames of two batches that are alike: %+v and %+v", was, is)
	}
	edit(t, cut, name, func(data []byte) []byte {
		copy(data[at:], old[:was.size()])
		return data
	})
	data := filepath.Join(t.TempDir(), "data")
	export(t, cut, "/data", data)
	compareReaders(t, data, false)
	after, err := Open(ctx, small(cut))
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close(ctx)
	records, _, err := everything(after)
	if err != nil {
		t.Fatal(err)
	}
	for at, r := range records {
		if r.Topic != "confirmed" {
			t.Errorf("at %d is a record of %q", at, r.Topic)
		}
	}
	if len(records) != 1 {
		t.Errorf("%d records, want 1", len(records))
	}
}

// TestRefusedHaveTheirOwnTimes: of commits that the disk had no room for, in the same
// place and one directly after the other, no two have the same time, nor has the
// one that is written over them: a power cut may leave frames of each.
func TestRefusedHaveTheirOwnTimes(t *testing.T) {
	ctx := t.Context()
	memory := vfs.NewMemory()
	full := true
	var times []int64
	fs := &vfs.Faulty{FS: memory}
	o := small(fs)
	o.SegmentBytes, o.ZeroBytes = 1<<20, -1
	var l *Log
	fs.Inject = func(op vfs.Op) *vfs.Fault {
		if op.Kind == vfs.KindWrite && strings.HasPrefix(op.Name, "/data/log/") && l != nil && full {
			times = append(times, l.committer.time)
			return &vfs.Fault{Err: syscall.ENOSPC, Short: op.Bytes - 1}
		}
		return nil
	}
	opened, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close(ctx)
	batches := make([]*core.Batch, 20)
	for i := range batches {
		// Some are written past the cache, which is at once.
		b := &core.Batch{Time: 1000, Sync: true, Buf: core.AppendRecord(nil, &core.Envelope{Topic: "t", Payload: make([]byte, 100+i%2*8000)})}
		b.Ends = []uint32{uint32(len(b.Buf))}
		batches[i] = b
	}
	l = opened
	for i, b := range batches {
		full = i < len(batches)-1
		if _, err := appendBatch(l, b); full != errors.Is(err, core.ErrStorageFull) {
			t.Fatalf("append %d: %v", i, err)
		}
	}
	times = append(times, l.committer.time)
	if len(times) != len(batches) {
		t.Fatalf("%d writes, want %d", len(times), len(batches))
	}
	for i := range times[1:] {
		if times[i+1] <= times[i] {
			t.Fatalf("the times are %d", times)
		}
	}
}
