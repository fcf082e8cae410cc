package seglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// reference is a file system with a log of several segments, sealed and indexed
// but for the last, that was closed; and what the log holds.
func reference(t testing.TB) (*vfs.Memory, map[core.Offset]string) {
	t.Helper()
	memory := vfs.NewMemory()
	o := small(memory)
	o.ZeroBytes = -1
	l, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 150 {
		b := &core.Batch{Time: int64(i), Sync: true, Changes: []core.Change{{Key: fmt.Sprint(i), Value: []byte("v")}}}
		for k := range 1 + 30*(i%3) {
			b.Buf = core.AppendRecord(b.Buf, &core.Envelope{Topic: fmt.Sprintf("t/%d", k%7), Payload: fmt.Append(nil, "payload ", i*i, k)})
			b.Ends = append(b.Ends, uint32(len(b.Buf)))
		}
		appendWait(t, l, b)
	}
	indexAll(t, l)
	records, _, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return memory, contents(records)
}

// indexAll builds the indexes of all sealed segments.
func indexAll(t testing.TB, l *Log) {
	t.Helper()
	segments := l.segmentsNow()
	for _, s := range segments[:len(segments)-1] {
		if err := l.ensureIndex(s); err != nil {
			t.Fatal(err)
		}
	}
}

func contents(records map[core.Offset]core.Record) map[core.Offset]string {
	all := make(map[core.Offset]string)
	for at, r := range records {
		all[at] = r.Topic + " " + string(r.Body)
	}
	return all
}

func edit(t testing.TB, fs vfs.FS, name string, change func(data []byte) []byte) {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, size)
	if _, err := readFull(f, data, 0); err != nil {
		t.Fatal(err)
	}
	data = change(data)
	if err := f.Truncate(int64(len(data))); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data, 0); err != nil && len(data) > 0 {
		t.Fatal(err)
	}
}

// TestIndexRebuilt: a log does as well without its indexes, and makes them anew.
func TestIndexRebuilt(t *testing.T) {
	memory, want := reference(t)
	names, err := memory.List("/data/log")
	if err != nil {
		t.Fatal(err)
	}
	removed := 0
	for _, name := range names {
		if strings.HasSuffix(name, indexSuffix) {
			removed++
			if err := memory.Remove(path.Join("/data/log", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if removed < 2 {
		t.Fatalf("%d indexes", removed)
	}
	l, err := Open(context.Background(), small(memory))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	if records, gaps, err := everything(l); err != nil || len(gaps) > 0 || len(records) != len(want) {
		t.Errorf("%d records of %d, gaps %v, %v", len(records), len(want), gaps, err)
	}
	indexAll(t, l)
	for i, s := range l.segmentsNow()[:removed] {
		if s.view().index == nil {
			t.Errorf("segment %d has no index", i)
		}
	}
	if records, gaps, err := everything(l); err != nil || len(gaps) > 0 || len(records) != len(want) {
		t.Errorf("%d records of %d, gaps %v, %v", len(records), len(want), gaps, err)
	}
}

// TestNewerVersion: a directory that a newer version wrote is refused and not
// touched.
func TestNewerVersion(t *testing.T) {
	for _, suffix := range []string{segmentSuffix, indexSuffix} {
		memory, _ := reference(t)
		names, err := memory.List("/data/log")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, suffix) {
				edit(t, memory, path.Join("/data/log", name), func(b []byte) []byte {
					b[8]++
					size := map[string]int{segmentSuffix: segmentHeaderUsed, indexSuffix: indexHeaderSize}[suffix]
					binary.LittleEndian.PutUint32(b[12:], headerChecksum(b[:size]))
					return b
				})
				break
			}
		}
		fs := &vfs.Faulty{FS: memory, Inject: func(o vfs.Op) *vfs.Fault {
			t.Errorf("%s: %s %s", suffix, o.Kind, o.Name)
			return nil
		}}
		_, err = Open(context.Background(), small(fs))
		if !errors.As(err, new(errVersion)) {
			t.Errorf("%s: opened with %v", suffix, err)
		}
	}
}

// TestLocked: a directory is one process's.
func TestLocked(t *testing.T) {
	for _, o := range []Options{{Dir: t.TempDir()}, small(vfs.NewMemory())} {
		l, err := Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(context.Background(), o); !errors.Is(err, vfs.ErrLocked) || !strings.Contains(err.Error(), o.Dir) {
			t.Errorf("opened twice: %v", err)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if l, err = Open(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecycled: freed files are used again, and their old frames are never
// taken for new ones, not even after a crash.
func TestRecycled(t *testing.T) {
	memory := vfs.NewMemory()
	o := small(memory)
	l, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	g := new(ledger)
	for round := range 6 {
		for range 80 {
			if err := g.append(l, ledgerBatch{topics: strings.Fields("a b c d e f g h"), sync: true}); err != nil {
				t.Fatal(err)
			}
		}
		indexAll(t, l)
		got, err := l.Reclaim(context.Background(), core.Retention{
			Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Second}},
			Now:      time.UnixMilli(1 << 50),
		})
		if err != nil {
			t.Fatal(err)
		}
		first, end := l.Bounds()
		if got.Records < 300 || got.First != first || end-first > 640 {
			t.Fatalf("round %d: reclaimed %+v, the log is %d to %d", round, got, first, end)
		}
		names, err := memory.List("/data/log")
		if err != nil {
			t.Fatal(err)
		}
		if len(names) > 8 {
			t.Fatalf("round %d: files %q", round, names)
		}
		records, gaps, err := everything(l)
		if err != nil || core.Offset(len(records)) != end-first || len(gaps) > 0 {
			t.Fatalf("round %d: %d records from %d to %d, gaps %v, %v", round, len(records), first, end, gaps, err)
		}
		m, err := Open(context.Background(), small(memory.Crash(vfs.CrashStrict)))
		if err != nil {
			t.Fatal(err)
		}
		if after, gaps, err := everything(m); err != nil || len(after) != len(records) || len(gaps) > 0 {
			t.Errorf("round %d: %d records after a crash, %d before, gaps %v, %v", round, len(after), len(records), gaps, err)
		}
		if err := m.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestCopyForward: what is needed of old segments is copied, keeps its offsets
// and outlives a restart, with and without the index; the rest is freed.
func TestCopyForward(t *testing.T) {
	memory := vfs.NewMemory()
	l, err := Open(context.Background(), small(memory))
	if err != nil {
		t.Fatal(err)
	}
	g := new(ledger)
	for i := range 300 {
		if err := g.append(l, ledgerBatch{topics: []string{"t/0", fmt.Sprint("t/", i), "x"}, sync: true}); err != nil {
			t.Fatal(err)
		}
	}
	indexAll(t, l)
	before := len(l.segmentsNow())
	size := func() (n int64) {
		for _, s := range l.segmentsNow() {
			n += s.view().size
		}
		return n
	}
	full := size()
	kept := map[core.Offset]bool{4: true, 100: true, 101: false, 103: true}
	for range 2 {
		if _, err := l.Reclaim(context.Background(), core.Retention{
			Policies: []core.Policy{{Filters: []core.Filter{"t/0", "t/+"}, Age: time.Second}, {Filters: []core.Filter{"x"}, Age: time.Second}},
			Needs:    keepNeeds(kept),
			Now:      time.UnixMilli(1 << 50),
		}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.segmentsNow()); n >= before || size() > full/3 {
		t.Errorf("%d segments of %d are left, %d bytes of %d", n, before, size(), full)
	}
	check := func(l *Log, when string) {
		t.Helper()
		records, gaps, err := everything(l)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		for at, is := range kept {
			if _, ok := records[at]; ok != is {
				t.Errorf("%s: record %d is there: %v; gaps %v", when, at, ok, gaps)
			}
		}
		if first, _ := l.Bounds(); first != 4 {
			t.Errorf("%s: the log begins at %d", when, first)
		}
		for _, g := range gaps {
			if g.Lost {
				t.Errorf("%s: %+v", when, g)
			}
		}
		if at, err := l.OffsetAt(time.UnixMilli(1000 * 34)); err != nil || at != 100 {
			t.Errorf("%s: offset at the time of record 100: %d, %v", when, at, err)
		}
	}
	check(l, "at once")
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	names, err := memory.List("/data/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"opened again", "without indexes"} {
		if l, err = Open(context.Background(), small(memory)); err != nil {
			t.Fatal(err)
		}
		check(l, when)
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, indexSuffix) {
				if err := memory.Remove(path.Join("/data/log", name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		names = nil
	}
}

type keepNeeds map[core.Offset]bool

func (k keepNeeds) Of(string) func(core.Offset) bool {
	return func(at core.Offset) bool { return k[at] }
}

// TestOldActive: what has become old goes even where too little comes to fill a
// segment, and the log goes on where it was.
func TestOldActive(t *testing.T) {
	memory := vfs.NewMemory()
	o := small(memory)
	l, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	appendWait(t, l, batchOf(true, "a", "b", "c"))
	retention := core.Retention{
		Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Hour}},
		Now:      time.Now().Add(2 * time.Hour),
	}
	for range 2 {
		if _, err := l.Reclaim(context.Background(), retention); err != nil {
			t.Fatal(err)
		}
		indexAll(t, l)
	}
	if first, end := l.Bounds(); first != 4 || end != 4 {
		t.Errorf("the log is %d to %d", first, end)
	}
	for _, image := range []*vfs.Memory{memory.Crash(vfs.CrashStrict), memory} {
		if image == memory {
			if err := l.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		m, err := Open(context.Background(), small(image))
		if err != nil {
			t.Fatal(err)
		}
		want := core.Offset(4)
		if image != memory {
			want += crashSkip
		}
		if at := appendWait(t, m, batchOf(true, "d")); at != want {
			t.Errorf("the next record is at %d, want %d", at, want)
		}
		buf := core.ReadBuffer{MaxRecords: 10, MaxBytes: 1000}
		if _, err := m.Read(context.Background(), 1, 0, nil, &buf); err != nil || len(buf.Records) != 1 || len(buf.Gaps) != 1 || buf.Gaps[0].Lost {
			t.Errorf("read %v, %v", buf, err)
		}
		if err := m.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// The last commit of a log whose process was killed was confirmed, and what is
// damaged right in front of it does not cost it.
func TestDamageBeforeTheLastCommit(t *testing.T) {
	for _, n := range []int{1, 2} {
		memory := vfs.NewMemory()
		o := tiny(memory)
		l, err := Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		var at []int64
		var last core.Offset
		for range 6 {
			at = append(at, l.active().view().size)
			last = appendWait(t, l, batchOf(true, "t"))
		}
		name := path.Join(l.dir, l.active().name)
		o.FS = memory.Crash(vfs.CrashStrict)
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		edit(t, o.FS, name, func(data []byte) []byte {
			for i := range n {
				data[at[4-i]+frameHeaderSize] ^= 1
			}
			return data
		})
		x, err := Examine(context.Background(), o, Progress{})
		if err != nil {
			t.Fatal(err)
		}
		if x.Problems() == 0 {
			t.Errorf("%d damaged: doctor finds %+v", n, x.Findings)
		}
		m, err := Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		records, gaps, err := everything(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := records[last]; !ok || len(records) != 6-n {
			t.Errorf("%d damaged: %d records are left, the last one among them: %v", n, len(records), ok)
		}
		if want := []core.Gap{{From: last - core.Offset(n), To: last, Lost: true}}; len(gaps) == 0 || gaps[0] != want[0] {
			t.Errorf("%d damaged: the gaps are %v, want %v", n, gaps, want)
		}
		if err := m.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}
