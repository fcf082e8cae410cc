package seglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// TestGathered compares the indexes made of what was gathered while the segments
// were written, without reading them, with those made by reading them.
func TestGathered(t *testing.T) {
	ctx := t.Context()
	for _, life := range []string{"new", "closed before", "killed before"} {
		t.Run(life, func(t *testing.T) {
			memory := vfs.NewMemory()
			var reads sync.Map // how often each segment was read
			var full atomic.Bool
			fs := &vfs.Faulty{
				FS: memory,
				Inject: func(op vfs.Op) *vfs.Fault {
					if full.Load() && op.Kind == vfs.KindWrite && strings.HasSuffix(op.Name, segmentSuffix) {
						return &vfs.Fault{Err: syscall.ENOSPC, Short: op.Bytes / 2}
					}
					return nil
				},
				Read: func(name string, at int64) *vfs.Fault {
					if at == segmentHeaderSize {
						reads.Store(path.Base(name), true)
					}
					return nil
				},
			}
			random := rand.New(rand.NewPCG(1, 2))
			fill := func(l *Log, commits int) {
				for i := range commits {
					b := &core.Batch{Time: 1_000_000 + int64(i)*10, Sync: random.IntN(2) == 0}
					most := []int{300, 5 * largeRecord}[i%2]
					for range random.IntN(40) {
						b.Buf = core.AppendRecord(b.Buf, &core.Envelope{
							Topic: fmt.Sprintf("topic/%d", random.IntN(30)), Payload: bytes.Repeat([]byte("p"), random.IntN(most)),
						})
						b.Ends = append(b.Ends, uint32(len(b.Buf)))
					}
					if random.IntN(4) == 0 {
						b.Changes = []core.Change{{Key: "key", Value: []byte("value")}}
					}
					full.Store(random.IntN(10) == 0)
					if _, err := appendBatch(l, b); err != nil && !errors.Is(err, core.ErrStorageFull) {
						t.Fatal(err)
					}
					full.Store(false)
				}
			}
			o := small(fs)
			o.DirectBytes = -1 // it reads, too
			if life != "new" {
				l, err := Open(ctx, o)
				if err != nil {
					t.Fatal(err)
				}
				fill(l, 10)
				if life == "killed before" {
					fs.FS = memory.Crash(vfs.CrashKind)
				}
				if err := l.Close(ctx); err != nil {
					t.Fatal(err)
				}
			}
			l, err := Open(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close(ctx)
			first := len(l.segmentsNow()) - 1
			if life == "closed before" {
				first++ // whose first records were there before
			}
			fill(l, 200)
			if err := l.Seal(ctx); err != nil {
				t.Fatal(err)
			}
			segments := l.segmentsNow()
			if len(segments) < first+5 {
				t.Fatalf("%d segments", len(segments))
			}
			for _, s := range segments[first : len(segments)-1] {
				if _, read := reads.Load(spareName(s.generation)); read { // which it was made as
					t.Errorf("%s was read", s.name)
				}
				made := content(t, fs.FS, "/data/log/"+indexName(s.name))
				b := newIndexBuilder(l, s)
				if err := b.scan(); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(made, b.encode()) {
					t.Errorf("%s: the index is another one than that of the file", s.name)
				}
			}
		})
	}
}

// TestIdleGivesBack: a log that is idle after much was written keeps neither what
// was gathered for the index nor room for a large commit.
func TestIdleGivesBack(t *testing.T) {
	ctx := context.Background()
	o := small(vfs.NewMemory())
	o.SegmentBytes, o.DirectBytes = 64<<20, 64<<10
	busy := true
	o.Busy = func(int64, time.Duration) bool { return busy }
	l, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(ctx)
	publish := func(size int) {
		t.Helper()
		b := &core.Batch{Time: time.Now().Add(-2 * gatherTime * time.Millisecond).UnixMilli(), Sync: true}
		b.Buf = core.AppendRecord(nil, &core.Envelope{Topic: "t", Payload: make([]byte, size)})
		b.Ends = []uint32{uint32(len(b.Buf))}
		appendWait(t, l, b)
	}
	publish(2 * maxIdleBuffer)
	c := &l.committer
	look := func() (gathering bool, room int) {
		t.Helper()
		if _, err := l.Reclaim(ctx, core.Retention{Now: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if err := l.request(ctx, func() error { gathering = c.gathering != nil; return nil }); err != nil {
			t.Fatal(err)
		}
		for range cap(l.free) {
			p := <-l.free
			room = max(room, cap(p.frames.all))
			l.free <- p
		}
		return gathering, room
	}
	if gathering, room := look(); !gathering || room < 2*maxIdleBuffer {
		t.Fatalf("while it is busy: %v, %d", gathering, room)
	}
	busy = false
	if gathering, room := look(); gathering || room > maxIdleBuffer {
		t.Errorf("it still gathers: %v, and has room for %d bytes", gathering, room)
	}
}
