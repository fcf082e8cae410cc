package seglog

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// layered is a closed log of segments that each have a topic of their own, seg/0
// and so on, and every third besides it a topic "drop" with most of its bytes.
func layered(t testing.TB, segments int) (*vfs.Memory, map[core.Offset]string) {
	t.Helper()
	memory := vfs.NewMemory()
	l, err := Open(context.Background(), tiny(memory))
	if err != nil {
		t.Fatal(err)
	}
	for i := range segments {
		for n := range 3 {
			b := &core.Batch{Time: int64(1000 * i), Sync: true}
			for k := range 9 {
				topic := fmt.Sprint("seg/", i)
				if i%3 == 2 && k > 0 {
					topic = "drop"
				}
				b.Buf = core.AppendRecord(b.Buf, &core.Envelope{Topic: topic, Payload: fmt.Append(nil, "payload ", i*i, n, k, strings.Repeat("x", 100))})
				b.Ends = append(b.Ends, uint32(len(b.Buf)))
			}
			appendWait(t, l, b)
		}
		if err := l.request(context.Background(), l.seal); err != nil {
			t.Fatal(err)
		}
	}
	appendWait(t, l, batchOf(true, "end"))
	indexAll(t, l)
	records, _, err := everything(l)
	if err := errors.Join(err, l.Close(context.Background())); err != nil {
		t.Fatal(err)
	}
	return memory, contents(records)
}

// lostOf are the offsets of what there was that readers are told are lost,
// whether they read from the beginning on or come to one place after the other.
func lostOf(l *Log, want map[core.Offset]string) (lost []core.Offset, err error) {
	_, end := l.Bounds()
	read := func(from core.Offset, records int) (told map[core.Offset]bool, next core.Offset, err error) {
		buf := core.ReadBuffer{MaxRecords: records, MaxBytes: 1 << 20}
		if next, err = l.Read(context.Background(), from, 0, nil, &buf); err == nil && next <= from {
			err = fmt.Errorf("reading at %d goes on at %d", from, next)
		}
		told = make(map[core.Offset]bool)
		for _, g := range buf.Gaps {
			for at := range want {
				if g.Lost && g.From <= at && at < g.To {
					told[at] = true
				}
			}
		}
		return told, next, err
	}
	all := make(map[core.Offset]bool)
	for from := core.Offset(1); from < end; {
		told, next, err := read(from, 20)
		if err != nil {
			return nil, err
		}
		for at := range told {
			all[at] = true
		}
		from = next
	}
	for at := range want {
		told, _, err := read(at, 1)
		if err != nil {
			return nil, err
		}
		if told[at] != all[at] {
			return nil, fmt.Errorf("who begins at %d is told that it is lost: %v; who comes by: %v", at, told[at], all[at])
		}
		if all[at] {
			lost = append(lost, at)
		}
	}
	slices.Sort(lost)
	return lost, nil
}

// TestLossBeforeFreed takes segments away, and has retention free, thin out and
// put together others around them, while the log is open: what was lost is told
// as long as anything in front of it is left, at once as after the next start.
func TestLossBeforeFreed(t *testing.T) {
	ctx := context.Background()
	memory, want := layered(t, 14)
	there := segmentsOf(t, memory)
	if len(there) != 15 {
		t.Fatalf("%d segments", len(there))
	}
	of := func(segments ...int) (fs []core.Filter) {
		for _, i := range segments {
			fs = append(fs, core.Filter(fmt.Sprint("seg/", i)))
		}
		return fs
	}
	for _, trial := range []struct {
		name      string
		taken     []int           // segments whose files are taken away
		freed     [][]core.Filter // what retention lets go, one call after the other
		forgotten int             // the call after which nothing in front of it is left; 0 is none
	}{
		{"the one behind", []int{3}, [][]core.Filter{of(4)}, 0},
		{"two behind, in one call", []int{3}, [][]core.Filter{of(4, 6)}, 0},
		{"two behind, in two calls", []int{3}, [][]core.Filter{of(4), append(of(5), "drop")}, 0},
		{"both around it", []int{3}, [][]core.Filter{of(1, 4)}, 0},
		{"losses on both sides", []int{3, 6}, [][]core.Filter{of(4), of(7)}, 0},
		{"losses on both sides of two", []int{3, 6}, [][]core.Filter{of(4), append(of(5, 7), "drop")}, 0},
		{"thinned out", []int{4}, [][]core.Filter{{"drop"}}, 0},
		{"thinned out, then freed", []int{4}, [][]core.Filter{{"drop"}, of(5)}, 0},
		{"put together", []int{4, 6}, [][]core.Filter{{"drop"}, append(of(0, 1, 2, 3, 7, 8), "drop")}, 0},
		{"put together across it", []int{3, 4}, [][]core.Filter{{"drop"}}, 0},
		{"put together across it, then freed", []int{3, 4}, [][]core.Filter{append(of(1), "drop"), of(6, 7)}, 0},
		{"two calls put together", []int{7}, [][]core.Filter{append(of(6), "drop"), of(9, 10)}, 0},
		{"all in front of it, and what is behind", []int{3}, [][]core.Filter{append(of(0, 1, 2, 4), "drop")}, 0},
		{"what is behind is freed when it is first", []int{3}, [][]core.Filter{append(of(0, 1, 2), "drop"), of(4), of(5, 6), of(7)}, 2},
		{"the first one", []int{0}, [][]core.Filter{of(1), append(of(2), "drop"), of(3), of(4)}, 1},
	} {
		image := memory.Crash(vfs.CrashKind)
		for _, i := range trial.taken {
			if err := image.Remove(path.Join("/data/log", there[i].name)); err != nil {
				t.Fatal(err)
			}
		}
		l, err := Open(ctx, tiny(image))
		if err != nil {
			t.Fatal(err)
		}
		for n, filters := range trial.freed {
			indexAll(t, l)
			got, err := l.Reclaim(ctx, core.Retention{Policies: []core.Policy{{Filters: filters, Age: time.Second}}, Now: time.UnixMilli(1 << 50)})
			if err != nil {
				t.Fatal(err)
			}
			if got.Records == 0 {
				t.Errorf("%s: call %d frees nothing", trial.name, n)
			}
			now, err := lostOf(l, want)
			if err != nil {
				t.Errorf("%s: after call %d: %v", trial.name, n, err)
			}
			all := 27 * len(trial.taken)
			if trial.forgotten > 0 && n >= trial.forgotten {
				all = 0
			}
			if len(now) != all {
				t.Errorf("%s: after call %d readers are told that %d are lost, %d are", trial.name, n, len(now), all)
			}
			for k, image := range []*vfs.Memory{image.Crash(vfs.CrashKind), image.Crash(vfs.CrashKind)} {
				if k > 0 {
					names, err := image.List("/data/log")
					if err != nil {
						t.Fatal(err)
					}
					for _, name := range names {
						if strings.HasSuffix(name, indexSuffix) {
							if err := image.Remove(path.Join("/data/log", name)); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
				m, err := Open(ctx, tiny(image))
				if err != nil {
					t.Fatal(err)
				}
				then, err := lostOf(m, want)
				if err := errors.Join(err, m.Close(ctx)); err != nil {
					t.Errorf("%s: after call %d and a start: %v", trial.name, n, err)
				}
				if !slices.Equal(now, then) {
					t.Errorf("%s: after call %d, without indexes %v: at once %v are lost, after a start %v", trial.name, n, k > 0, now, then)
				}
			}
		}
		if err := l.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEmptiedSegment cuts one segment's file after the other behind its header:
// what it held is told to be lost, and everything else can be read, also where it
// had been copied.
func TestEmptiedSegment(t *testing.T) {
	ctx := context.Background()
	for _, copied := range []bool{false, true} {
		memory, want := layered(t, 10)
		if copied {
			l, err := Open(ctx, tiny(memory))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Reclaim(ctx, core.Retention{Policies: []core.Policy{{Filters: []core.Filter{"drop"}, Age: time.Second}}, Now: time.UnixMilli(1 << 50)}); err != nil {
				t.Fatal(err)
			}
			records, _, err := everything(l)
			if err := errors.Join(err, l.Close(ctx)); err != nil {
				t.Fatal(err)
			}
			want = contents(records)
		}
		there := segmentsOf(t, memory)
		for _, s := range there[:len(there)-1] {
			image := memory.Crash(vfs.CrashKind)
			edit(t, image, path.Join("/data/log", s.name), func(b []byte) []byte { return b[:segmentHeaderSize] })
			if err := image.Remove(path.Join("/data/log", indexName(s.name))); err != nil {
				t.Fatal(err)
			}
			gone := make(map[core.Offset]bool)
			for at := range want {
				if s.first <= at && at < s.next {
					gone[at] = true
				}
			}
			for range 2 {
				l, err := Open(ctx, tiny(image))
				if err != nil {
					t.Fatal(err)
				}
				if err := readMissing(l, want, gone); err != nil {
					t.Errorf("copied %v, without %s: %v", copied, s.name, err)
				}
				if _, err := lostOf(l, want); err != nil {
					t.Errorf("copied %v, without %s: %v", copied, s.name, err)
				}
				if err := l.Close(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if err := reclaimAround(image, want, s.name); err != nil {
				t.Errorf("copied %v, without %s: %v", copied, s.name, err)
			}
		}
	}
}

// reclaimAround has retention free all but the newest of what is around a segment
// of which nothing is left, whose file stays.
func reclaimAround(image *vfs.Memory, want map[core.Offset]string, name string) error {
	ctx := context.Background()
	l, err := Open(ctx, tiny(image))
	if err != nil {
		return err
	}
	for range 2 {
		segments := l.segmentsNow()
		for _, s := range segments[:len(segments)-1] {
			if err := l.ensureIndex(s); err != nil {
				return errors.Join(err, l.Close(ctx))
			}
		}
		if _, err := l.Reclaim(ctx, core.Retention{Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Second}}, Now: time.UnixMilli(1 << 50)}); err != nil {
			return errors.Join(err, l.Close(ctx))
		}
	}
	records, _, err := everything(l)
	if n := len(l.segmentsNow()); err == nil && (n > 2 || len(records) > 0) {
		err = fmt.Errorf("%d segments are left, and %d records", n, len(records))
	}
	now, lerr := lostOf(l, want)
	if err := errors.Join(err, lerr, l.Close(ctx)); err != nil {
		return err
	}
	if _, err := image.Stat(path.Join("/data/log", name)); err != nil {
		return err
	}
	if l, err = Open(ctx, tiny(image)); err != nil {
		return err
	}
	then, err := lostOf(l, want)
	if err := errors.Join(err, l.Close(ctx)); err != nil {
		return err
	}
	if !slices.Equal(now, then) {
		return fmt.Errorf("at once %v are lost, after a start %v", now, then)
	}
	return nil
}
