package seglog

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"runtime"
	"slices"
	"testing"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// picked reads what filters match of a log from an offset, so many records and
// bytes at a time, on one processor or on two.
func picked(t *testing.T, l *Log, processors int, filters *core.FilterSet, from core.Offset, records, most int) (all []string, gaps []gap, halves bool) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
	buf := core.ReadBuffer{MaxRecords: records, MaxBytes: most}
	_, end := l.Bounds()
	for at := from; at < end; {
		next, err := l.Read(context.Background(), at, 0, filters, &buf)
		if err != nil || next <= at {
			t.Fatalf("from %d to %d: %v", at, next, err)
		}
		size := 0
		for i := range buf.Records {
			r := &buf.Records[i]
			if r.Offset < at || r.Offset >= next {
				t.Fatalf("%d in a read from %d to %d", r.Offset, at, next)
			}
			size += core.RecordHeaderSize + len(r.Topic) + len(r.Body)
			all = append(all, fmt.Sprint(r.Offset, r.Time, r.Topic, string(r.Body)))
		}
		if n := len(buf.Records); records > 0 && n > records || most > 0 && n > 1 && size > most {
			t.Fatalf("%d records with %d bytes are more than %d with %d", n, size, records, most)
		}
		for _, g := range buf.Gaps {
			if g.From < at || g.To > next {
				t.Fatalf("%v in a read from %d to %d", g, at, next)
			}
			gaps = addGap(gaps, g)
		}
		at = next
	}
	return all, inOne(gaps), buf.Scratch.(*scratch).ahead != nil
}

// inOne makes one gap of those that stand side by side: where a read ends
// divides them.
func inOne(gaps []gap) (all []gap) {
	for _, g := range gaps {
		if n := len(all); n > 0 && all[n-1].To == g.From && all[n-1].Lost == g.Lost {
			all[n-1].To = g.To
		} else {
			all = append(all, g)
		}
	}
	return all
}

// What two goroutines pick out of a segment is what one does, in order, within
// the read's bounds, and so is what it tells of damage.
func TestPickedTogether(t *testing.T) {
	memory := vfs.NewMemory()
	o := Options{Dir: "/data", FS: memory, SegmentBytes: 8 << 20, TailBytes: 1, ZeroBytes: -1}
	l, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	p := payloads(100)
	const each, batches = 250, 60
	for i := range batches {
		b := &core.Batch{Time: int64(i)}
		for k := range each {
			payload := p[(i*each+k)%len(p)]
			if k%97 == 0 {
				payload = bytes.Repeat(payload, 40)
			}
			b.Buf = core.AppendRecord(b.Buf, &core.Envelope{Topic: fmt.Sprint("t/", k%25), Payload: payload})
			b.Ends = append(b.Ends, uint32(len(b.Buf)))
		}
		appendWait(t, l, b)
	}
	if err := l.Seal(context.Background()); err != nil {
		t.Fatal(err)
	}
	compare := func(what string, l *Log) {
		t.Helper()
		for _, f := range [][]core.Filter{{"t/7"}, {"t/3", "t/24"}} {
			filters := core.NewFilterSet(f...)
			for _, bounds := range [][2]int{{0, 0}, {64, 0}, {65, 0}, {200, 0}, {1000, 20_000}, {0, 3000}, {300, 100_000}} {
				for _, from := range []core.Offset{1, 1500, 7 + each*20} {
					want, lost, halves := picked(t, l, 1, filters, from, bounds[0], bounds[1])
					if halves {
						t.Fatal("a second goroutine on one processor")
					}
					got, gone, halves := picked(t, l, 2, filters, from, bounds[0], bounds[1])
					if !slices.Equal(got, want) || !slices.Equal(gone, lost) {
						t.Errorf("%s, %v from %d, bounds %v: %d records of %d, gaps %v, not %v", what, f, from, bounds, len(got), len(want), gone, lost)
					}
					if tight := bounds[1] > 0 && bounds[1] < 5000; halves == tight {
						t.Errorf("%s, %v from %d, bounds %v: a second goroutine: %v", what, f, from, bounds, halves)
					}
				}
			}
		}
	}
	compare("whole", l)
	segments := l.segmentsNow()
	name, blocks := segments[0].name, segments[0].view()
	places := []int64{blocks.block(10).pos + 100, blocks.block(blocks.numBlocks()/2).pos + 100, blocks.block(blocks.numBlocks()/2+1).pos + 5, blocks.block(blocks.numBlocks()-2).pos + 100}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	edit(t, memory, path.Join("/data", logDir, name), func(data []byte) []byte {
		for _, at := range places {
			for i := range int64(40) {
				data[at+i] ^= 0xff
			}
		}
		return data
	})
	if l, err = Open(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	compare("damaged", l)
	if _, lost, _ := picked(t, l, 2, core.NewFilterSet("t/7"), 1, 0, 0); len(lost) == 0 {
		t.Error("the damage is not told")
	}
}
