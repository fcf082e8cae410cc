package seglog

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

func batchOf(sync bool, topics ...string) *core.Batch {
	b := &core.Batch{Time: time.Now().UnixMilli(), Sync: sync}
	for _, t := range topics {
		b.Buf = core.AppendRecord(b.Buf, &core.Envelope{Topic: t, Payload: []byte("payload of " + t)})
		b.Ends = append(b.Ends, uint32(len(b.Buf)))
	}
	return b
}

func appendWait(t testing.TB, l *Log, b *core.Batch) core.Offset {
	t.Helper()
	var wg sync.WaitGroup
	wg.Add(1)
	var at core.Offset
	l.Append(b, func(_ *core.Batch, first core.Offset, err error) {
		if err != nil {
			t.Error(err)
		}
		at = first
		wg.Done()
	})
	wg.Wait()
	return at
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	next := core.Offset(1)
	for round := range 4 {
		l, err := Open(context.Background(), Options{Dir: dir, SegmentBytes: 64 << 10, TailBytes: 4 << 10})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			var topics []string
			for k := range i % 40 {
				topics = append(topics, fmt.Sprintf("r%d/i%d/k%d", round, i, k))
			}
			b := batchOf(i%2 == 0, topics...)
			if i%10 == 1 && i > 1 {
				b.Changes = []core.Change{{Key: fmt.Sprint("k", i), Value: []byte{1}, OffsetOf: 1}, {Key: "gone"}}
			}
			if at := appendWait(t, l, b); at != next {
				t.Fatalf("offset %d, want %d", at, next)
			}
			next += core.Offset(len(topics))
		}
		first, end := l.Bounds()
		if first != 1 || end != next {
			t.Fatal(first, end)
		}
		var n int
		buf := core.ReadBuffer{MaxRecords: 100, MaxBytes: 1 << 20}
		for at := core.Offset(1); at < end; {
			got, err := l.Read(context.Background(), at, 0, nil, &buf)
			if err != nil {
				t.Fatal(err)
			}
			if len(buf.Gaps) > 0 {
				t.Fatal(buf.Gaps)
			}
			for i, r := range buf.Records {
				if r.Offset != at+core.Offset(i) {
					t.Fatal(r.Offset, at, i)
				}
				n++
			}
			at = got
		}
		if n != int(next-1) {
			t.Fatal(n, next)
		}
		v, err := l.Get("k191")
		if err != nil || len(v) != 9 {
			t.Fatal(v, err)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReopenAfterKill(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(context.Background(), Options{Dir: dir, SegmentBytes: 64 << 10, TailBytes: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	for i := range 100 {
		b := batchOf(i%2 == 0, fmt.Sprint("a/", i), fmt.Sprint("b/", i))
		if i%3 == 0 {
			b.Changes = []core.Change{{Key: fmt.Sprint("k", i), Value: []byte{}, OffsetOf: 2}}
		}
		appendWait(t, l, b)
	}
	copied := t.TempDir()
	if err := os.CopyFS(copied+"/x", os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	m, err := Open(context.Background(), Options{Dir: copied + "/x", Logger: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(context.Background())
	first, end := m.Bounds()
	if first != 1 || end != 201+crashSkip {
		t.Fatal(first, end)
	}
	buf := core.ReadBuffer{MaxRecords: 1000, MaxBytes: 1 << 20}
	next, err := m.Read(context.Background(), 1, 0, core.NewFilterSet("b/+"), &buf)
	if err != nil || next != end || len(buf.Records) != 100 || len(buf.Gaps) > 0 {
		t.Fatal(next, err, len(buf.Records), buf.Gaps)
	}
	n := 0
	for s, err := range m.State("k", "") {
		if len(s.Value) != 8 || err != nil {
			t.Fatal(s, err)
		}
		n++
	}
	if n != 34 {
		t.Fatal(n)
	}
	if at := appendWait(t, m, batchOf(true, "z")); at != end {
		t.Fatal(at, end)
	}
	if _, err := Open(context.Background(), Options{Dir: dir}); err == nil {
		t.Fatal("opened twice")
	} else {
		t.Log(err)
	}
}

// TestAllocations pins what the hot paths may allocate.
func TestAllocations(t *testing.T) {
	l, err := Open(context.Background(), Options{Dir: t.TempDir(), TailBytes: 1 << 20, ZeroBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	payloads := payloads(100)
	done := make(chan error, 1)
	var fixed core.Batch
	fill(&fixed, 100, 0, payloads)
	call := func(_ *core.Batch, _ core.Offset, err error) { done <- err }
	appends := testing.AllocsPerRun(1000, func() {
		l.Append(&fixed, call)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
	// The positions that the tail remembers, and now and then a larger table.
	if appends > 2 {
		t.Errorf("%v allocations to append", appends)
	}
	first, end := l.Bounds()
	for name, from := range map[string]core.Offset{"segment": first, "tail": end - 1000} {
		for _, filters := range []*core.FilterSet{nil, core.NewFilterSet(core.Filter(benchTopics[3]))} {
			buf := core.ReadBuffer{MaxRecords: 500, MaxBytes: 64 << 10}
			reads := testing.AllocsPerRun(100, func() {
				if _, err := l.Read(context.Background(), from, from+900, filters, &buf); err != nil {
					t.Fatal(err)
				}
			})
			if reads > 0 {
				t.Errorf("%v allocations to read from the %s", reads, name)
			}
		}
	}
}

// TestLastCommitOfManyFrames: the newest commit is there whole after a kill,
// also when the state knows of it and it stands in several frames.
func TestLastCommitOfManyFrames(t *testing.T) {
	memory := vfs.NewMemory()
	l, err := Open(context.Background(), small(memory))
	if err != nil {
		t.Fatal(err)
	}
	b := ledgerBatch{sync: true, changes: []core.Change{{Key: "k", Value: []byte("v")}}}
	for range 200 {
		b.topics = append(b.topics, "t")
	}
	g := new(ledger)
	if err := g.append(l, b); err != nil {
		t.Fatal(err)
	}
	if err := l.state.sync(); err != nil {
		t.Fatal(err)
	}
	killed := memory.Crash(vfs.CrashKind)
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := g.recover(killed, g.batches, 0, vfs.CrashKind); err != nil {
		t.Fatal(err)
	}
}

// The log says when a segment was sealed and has its index: then Reclaim finds
// it.
func TestSealedIsTold(t *testing.T) {
	ctx := context.Background()
	l, err := Open(ctx, small(vfs.NewMemory()))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(ctx)
	select {
	case <-l.Sealed():
		t.Fatal("told before anything was sealed")
	default:
	}
	appendWait(t, l, batchOf(true, "a"))
	if err := l.request(ctx, l.retire); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.Sealed():
	case <-time.After(time.Minute):
		t.Fatal("not told that a segment was sealed")
	}
	got, err := l.Reclaim(ctx, core.Retention{Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Nanosecond}}, Now: time.Now().Add(time.Hour)})
	if err != nil || got.Records != 1 {
		t.Errorf("reclaimed %+v, %v; want the one record", got, err)
	}
}
