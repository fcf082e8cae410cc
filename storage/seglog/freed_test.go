package seglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// thinned is a log of many segments that retention has been at: it begins at a
// later one, some in the middle were freed and some put together. What it holds
// is with it. Where closed is not set, its process is killed.
func thinned(t testing.TB, closed bool) (*vfs.Memory, map[core.Offset]string) {
	t.Helper()
	ctx := context.Background()
	memory := vfs.NewMemory()
	o := tiny(memory)
	l, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	add := func(records int, topic func(int) string) {
		b := &core.Batch{Time: int64(1000 * n), Sync: true}
		if n%4 == 0 {
			b.Changes = []core.Change{{Key: fmt.Sprint("k", n%16), Value: fmt.Append(nil, "v", n)}}
		}
		for k := range records {
			b.Buf = core.AppendRecord(b.Buf, &core.Envelope{Topic: topic(k), Payload: fmt.Append(nil, "payload ", n*n, " ", k, strings.Repeat("x", 100))})
			b.Ends = append(b.Ends, uint32(len(b.Buf)))
		}
		appendWait(t, l, b)
		n++
	}
	reclaim := func(drop string) {
		t.Helper()
		indexAll(t, l)
		if _, err := l.Reclaim(ctx, core.Retention{Policies: []core.Policy{{Filters: []core.Filter{core.Filter(drop)}, Age: time.Second}}, Now: time.UnixMilli(1 << 50)}); err != nil {
			t.Fatal(err)
		}
	}
	seal := func() {
		if err := l.request(ctx, l.seal); err != nil {
			t.Fatal(err)
		}
	}
	// Segments of one topic each, and some of two.
	for i := range 24 {
		name := map[bool]string{true: "drop", false: "keep"}[i < 3 || i == 8 || i == 12 || i == 13]
		mixed := i == 5 || i == 6
		for range 1 + i%2 {
			add(9, func(k int) string {
				if mixed && k > 0 {
					return "drop"
				}
				return name
			})
		}
		seal()
	}
	reclaim("drop")
	for i := range 6 {
		add(3, func(int) string { return map[bool]string{true: "late", false: "keep"}[i%3 == 0] })
		seal()
	}
	reclaim("late")
	add(5, func(int) string { return "keep" })
	records, _, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	image := memory
	if !closed {
		// What the state knows reaches the disk by itself, but not at once.
		if err := l.state.sync(); err != nil {
			t.Fatal(err)
		}
		image = memory.Crash(vfs.CrashKind)
	}
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return image, contents(records)
}

// A lost segment is one whose file is taken away, with what it held.
type lostSegment struct {
	sequence, through uint64
	name              string
	span
}

// segmentsOf are the segments of a log that is not open.
func segmentsOf(t testing.TB, image *vfs.Memory) (all []lostSegment) {
	t.Helper()
	l, err := Open(context.Background(), tiny(image.Crash(vfs.CrashKind)))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range l.segmentsNow() {
		if _, err := image.Stat(path.Join(l.dir, s.name)); err == nil {
			all = append(all, lostSegment{s.sequence, s.through, s.name, s.view().span})
		}
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestMissingSegment takes away one segment's file after the other, and two
// neighbours, and pairs that are apart: doctor says which, and the offsets; a
// broker that is started says so, too; readers are told that what they held is
// lost, and of the rest what was removed; and it is told again at each start,
// whether doctor has mended the directory or the broker found it itself.
func TestMissingSegment(t *testing.T) {
	for _, closed := range []bool{true, false} {
		memory, want := thinned(t, closed)
		there := segmentsOf(t, memory)
		if len(there) < 8 || there[0].sequence == 1 || there[len(there)-1].sequence < 20 {
			t.Fatalf("%d segments: %+v", len(there), there)
		}
		for i := range there {
			for _, with := range []int{0, 1, 3} {
				if i+with >= len(there) {
					continue
				}
				take := []lostSegment{there[i]}
				if with > 0 {
					take = append(take, there[i+with])
				}
				for _, indexed := range []bool{true, false}[:2-min(with, 1)] {
					if err := missing(t, memory, want, there, take, indexed); err != nil {
						t.Errorf("closed %v, indexed %v, without %s and %s: %v", closed, indexed, take[0].name, take[len(take)-1].name, err)
					}
				}
			}
		}
	}
}

// missing takes files away and looks what is said of it.
func missing(t testing.TB, memory *vfs.Memory, want map[core.Offset]string, there, take []lostSegment, indexed bool) error {
	t.Helper()
	ctx := context.Background()
	image := memory.Crash(vfs.CrashKind)
	gone := make(map[core.Offset]bool)
	for _, s := range take {
		for at := range want {
			if s.first <= at && at < s.next {
				gone[at] = true
			}
		}
		if err := image.Remove(path.Join("/data/log", s.name)); err != nil {
			return err
		}
	}
	names, err := image.List("/data/log")
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, indexSuffix) && !indexed {
			if err := image.Remove(path.Join("/data/log", name)); err != nil {
				return err
			}
		}
	}
	o := tiny(image)
	x, err := Examine(ctx, o, Progress{})
	if err != nil {
		return err
	}
	newest := there[len(there)-1].name
	for _, s := range take {
		tail := s.name == newest || len(take) > 1 && take[1].name == newest && take[0].name == there[len(there)-2].name
		if !slices.ContainsFunc(x.Findings, func(f Finding) bool {
			named := f.File == path.Join(logDir, s.name) || len(take) > 1 && f.File == path.Join(logDir, take[0].name)
			return f.Severity == Loss && (named || tail) && f.First <= s.first && s.next <= f.End
		}) {
			return fmt.Errorf("doctor does not find %s, %d to %d: %+v", s.name, s.first, s.next, x.Findings)
		}
	}
	mended := image.Crash(vfs.CrashKind)
	om := tiny(mended)
	done, err := Mend(ctx, om, nil, Progress{})
	if err != nil {
		return err
	}
	if x, err := Examine(ctx, om, Progress{}); err != nil || !x.Healthy() || len(done) == 0 {
		return fmt.Errorf("mended, did %q, found %+v, %v", done, x, err)
	}
	for k, o := range []Options{o, om, o, om} {
		heard := &listener{}
		o.Logger = slog.New(heard)
		l, err := Open(ctx, o)
		if err != nil {
			return err
		}
		err = readMissing(l, want, gone)
		if err == nil && k == 0 && !slices.ContainsFunc(heard.lines(), func(line string) bool { return strings.Contains(line, "from=") }) {
			err = fmt.Errorf("the operator was not told; it said %q", heard.lines())
		}
		if err == nil && k < 2 {
			appendWait(t, l, batchOf(true, "after"))
		}
		if cerr := l.Close(ctx); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("opened %d times, did %q: %w", k+1, done, err)
		}
	}
	return nil
}

// readMissing reads all that there ever was: what is gone is told as lost, and
// nothing else that there was.
func readMissing(l *Log, want map[core.Offset]string, gone map[core.Offset]bool) error {
	buf := core.ReadBuffer{MaxRecords: 20, MaxBytes: 1 << 20}
	have := make(map[core.Offset]bool)
	lost := make(map[core.Offset]bool)
	_, end := l.Bounds()
	for from := core.Offset(1); from < end; {
		next, err := l.Read(context.Background(), from, 0, nil, &buf)
		if err != nil {
			return err
		}
		for _, r := range buf.Records {
			have[r.Offset] = true
			if r.Topic != "after" && want[r.Offset] != r.Topic+" "+string(r.Body) {
				return fmt.Errorf("record %d is not what it was", r.Offset)
			}
		}
		for _, g := range buf.Gaps {
			for at := range want {
				if g.Lost && g.From <= at && at < g.To {
					lost[at] = true
				}
			}
			if g.Lost && !slices.ContainsFunc(slices.Collect(maps.Keys(gone)), func(at core.Offset) bool { return g.From <= at && at < g.To }) {
				return fmt.Errorf("%v is said to be lost, and nothing is", g)
			}
		}
		if next <= from {
			return fmt.Errorf("reading at %d goes on at %d", from, next)
		}
		from = next
	}
	for at := range want {
		if have[at] == gone[at] || lost[at] != gone[at] {
			return fmt.Errorf("record %d was taken away: %v; it is there: %v, said to be lost: %v", at, gone[at], have[at], lost[at])
		}
	}
	return nil
}

// TestFreedBeforeNotes: in a directory of a version that made no notes, what is
// missing was freed; from the first start on, what goes missing is lost.
func TestFreedBeforeNotes(t *testing.T) {
	ctx := context.Background()
	memory, want := thinned(t, true)
	there := segmentsOf(t, memory)
	l, err := Open(ctx, tiny(memory))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.state.db.Delete(freedKey, nil), l.Close(ctx)); err != nil {
		t.Fatal(err)
	}
	if x, err := Examine(ctx, tiny(memory), Progress{}); err != nil || !x.Healthy() {
		t.Fatalf("%+v, %v", x, err)
	}
	heard := &listener{}
	o := tiny(memory)
	o.Logger = slog.New(heard)
	if l, err = Open(ctx, o); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(readMissing(l, want, nil), l.Close(ctx)); err != nil || len(heard.lines()) > 0 {
		t.Fatalf("%v; it said %q", err, heard.lines())
	}
	for i := range there {
		if err := missing(t, memory, want, there, there[i:i+1], i%2 == 0); err != nil {
			t.Errorf("without %s: %v", there[i].name, err)
		}
	}
}

// TestLossOutlived: what was lost is told until retention has freed what stood
// behind it, at the log's beginning, and then no more; and what is noted does not
// grow with what was freed.
func TestLossOutlived(t *testing.T) {
	ctx := context.Background()
	memory, want := thinned(t, true)
	there := segmentsOf(t, memory)
	lost := there[3]
	if err := memory.Remove(path.Join("/data/log", lost.name)); err != nil {
		t.Fatal(err)
	}
	told := true
	for round := range 4 {
		heard := &listener{}
		o := tiny(memory)
		o.Logger = slog.New(heard)
		l, err := Open(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		told = slices.ContainsFunc(heard.lines(), func(line string) bool { return strings.Contains(line, "from=") })
		if told != (round < 3) {
			t.Errorf("round %d: it said %q", round, heard.lines())
		}
		buf := core.ReadBuffer{MaxRecords: 1, MaxBytes: 1 << 20}
		if _, err := l.Read(ctx, lost.first, 0, nil, &buf); err != nil || len(buf.Gaps) == 0 || buf.Gaps[0].From != lost.first || buf.Gaps[0].Lost != told {
			t.Errorf("round %d: at %d the gaps are %v, %v", round, lost.first, buf.Gaps, err)
		}
		if round > 0 {
			// What is in front of the lost one goes; then what is behind it;
			// then another one.
			indexAll(t, l)
			if _, err := l.Reclaim(ctx, core.Retention{
				Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Second}},
				Before:   []core.Offset{0, lost.first, there[5].first, there[7].first}[round],
				Now:      time.UnixMilli(1 << 50),
			}); err != nil {
				t.Fatal(err)
			}
		}
		if ranges, _ := l.noteFreed(nil); len(ranges) > len(there)/4 {
			t.Errorf("round %d: the note has %d ranges: %+v", round, len(ranges), l.freed)
		}
		if err := l.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if len(want) == 0 || told {
		t.Error("the loss is still told")
	}
}

// TestSnapshotOfFreed: a copy of a log that retention has been at is healthy, and
// in it, too, a segment that goes missing is found.
func TestSnapshotOfFreed(t *testing.T) {
	ctx := context.Background()
	memory, want := thinned(t, true)
	l, err := Open(ctx, tiny(memory))
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	restored := vfs.NewMemory()
	for _, dir := range []string{"/data/log", "/data/state"} {
		if err := restored.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	for i := range s.Files {
		var b bytes.Buffer
		if err := s.Copy(&b, &s.Files[i]); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(restored, path.Join("/data", s.Files[i].Name), b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(writeFile(restored, "/data/"+RestoredName, nil), s.Close(), l.Close(ctx)); err != nil {
		t.Fatal(err)
	}
	heard := &listener{}
	o := tiny(restored)
	o.Logger = slog.New(heard)
	if l, err = Open(ctx, o); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(readMissing(l, want, nil), l.Close(ctx)); err != nil || len(heard.lines()) > 0 {
		t.Fatalf("%v; it said %q", err, heard.lines())
	}
	there := segmentsOf(t, restored)
	if err := missing(t, restored, want, there, there[4:5], true); err != nil {
		t.Error(err)
	}
}

// TestMissingSecondReader: the second reader tells the same of a segment that is
// missing.
func TestMissingSecondReader(t *testing.T) {
	t.Parallel()
	needPython(t)
	ctx := context.Background()
	memory, _ := thinned(t, true)
	there := segmentsOf(t, memory)
	if err := memory.Remove(path.Join("/data/log", there[2].name)); err != nil {
		t.Fatal(err)
	}
	l, err := Open(ctx, tiny(memory))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "data")
	export(t, memory, "/data", data)
	if _, lost, _, err := second(t, data); err != nil || len(lost) != 1 || lost[0] != (core.Gap{From: there[2].first, To: there[2].next, Lost: true}) {
		t.Errorf("without %d to %d the second reader says %v, %v", there[2].first, there[2].next, lost, err)
	}
	compareReaders(t, data, false)
}
