package seglog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// What retention has removed is told as removed for ever, also once the log was
// opened again, with the indexes that it had and without them; what was lost is
// still told as lost.
func TestReopenAfterCopying(t *testing.T) {
	fs := vfs.NewMemory()
	open := func() *Log {
		t.Helper()
		l, err := Open(context.Background(), small(fs))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	var kept []core.Offset
	for i := range 300 {
		topics := []string{"gone", "gone", "gone", "gone"}
		if i%3 == 2 {
			topics[3] = fmt.Sprint("kept/", i)
		}
		first := appendWait(t, l, batchOf(true, topics...))
		if i%3 == 2 {
			kept = append(kept, first+3)
		}
	}
	if err := l.request(context.Background(), l.retire); err != nil {
		t.Fatal(err)
	}
	copied := func() (n int) {
		for _, s := range l.segmentsNow() {
			if s.rewritten {
				n++
			}
		}
		return n
	}
	for _, s := range l.segmentsNow()[:len(l.segmentsNow())-1] {
		if err := l.ensureIndex(s); err != nil {
			t.Fatal(err)
		}
	}
	r := core.Retention{Policies: []core.Policy{{Filters: []core.Filter{"kept/+"}}, {Filters: []core.Filter{"#"}, Age: time.Nanosecond}}, Now: time.UnixMilli(1 << 50)}
	// Each by itself, as they are when their time comes.
	for _, s := range l.segmentsNow()[:len(l.segmentsNow())-1] {
		p, err := newLook(l, &r).judge(context.Background(), s)
		if err != nil {
			t.Fatal(err)
		}
		replacement, err := l.rewrite(context.Background(), p)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.replace(p.segments, replacement); err != nil {
			t.Fatal(err)
		}
	}
	if n := copied(); n < 3 {
		t.Fatalf("%d segments were copied", n)
	}
	check := func(what string) {
		t.Helper()
		records, gaps, err := everything(l)
		if err != nil {
			t.Fatal(what, err)
		}
		for _, g := range gaps {
			if g.Lost {
				t.Errorf("%s: %d to %d are said to be lost", what, g.From, g.To)
			}
		}
		for _, at := range kept {
			if _, ok := records[at]; !ok {
				t.Errorf("%s: %d is not there", what, at)
			}
		}
		if first, _ := l.Bounds(); len(records) != len(kept) || first != kept[0] {
			t.Errorf("%s: %d records from %d on, want %d from %d on", what, len(records), first, len(kept), kept[0])
		}
	}
	check("at once")
	closeAndOpen := func() {
		t.Helper()
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		l = open()
	}
	closeAndOpen()
	check("opened again")
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("/data/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, indexSuffix) {
			if err := fs.Remove("/data/log/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	l = open()
	check("without indexes")
	closeAndOpen()
	check("with new indexes")
	// They are written in the background, and a copy's says where it ended.
	for _, s := range l.segmentsNow()[:len(l.segmentsNow())-1] {
		if err := l.ensureIndex(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}

	// A copy whose end is lost.
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, segmentSuffix) })
	f, err := fs.Open("/data/log/" + names[1])
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size / 2); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fs.Remove("/data/log/" + indexName(names[1])); err != nil {
		t.Fatal(err)
	}
	l = open()
	defer l.Close(context.Background())
	records, gaps, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range kept {
		_, ok := records[at]
		if !ok && !slices.ContainsFunc(gaps, func(g core.Gap) bool { return g.Lost && g.From <= at && at < g.To }) {
			t.Errorf("%d is lost, and nothing says so: %v", at, gaps)
		}
	}
	if len(records) == len(kept) {
		t.Error("nothing was lost")
	}
}

// A copy that loses its end before it has an index has lost what stood there.
func TestCopyLosesItsEnd(t *testing.T) {
	ctx := context.Background()
	fs := vfs.NewMemory()
	l, err := Open(ctx, small(fs))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(ctx)
	for i := range 100 {
		appendWait(t, l, batchOf(true, "gone", fmt.Sprint("kept/", i), "gone"))
	}
	if err := l.request(ctx, l.retire); err != nil {
		t.Fatal(err)
	}
	indexAll(t, l)
	s := l.segmentsNow()[0]
	r := core.Retention{Policies: []core.Policy{{Filters: []core.Filter{"kept/+"}}, {Filters: []core.Filter{"#"}, Age: time.Nanosecond}}, Now: time.UnixMilli(1 << 50)}
	p, err := newLook(l, &r).judge(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	replacement, err := l.rewrite(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	// Behind its first frame, which says where it begins.
	sc := newScanner(replacement.file, replacement.generation, segmentHeaderSize, replacement.view().size)
	if _, ok, err := sc.next(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	edit(t, fs, "/data/log/"+replacement.name, func(data []byte) []byte { return data[:sc.pos] })
	if err := l.replace(p.segments, replacement); err != nil {
		t.Fatal(err)
	}
	records, gaps, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for i := range core.Offset(100) {
		at := 3*i + 2
		of := slices.IndexFunc(gaps, func(g core.Gap) bool { return g.From <= at && at < g.To })
		switch _, ok := records[at]; {
		case ok:
		case of < 0 || !gaps[of].Lost:
			t.Errorf("%d is lost, and the gaps are %v", at, gaps)
		default:
			lost++
		}
	}
	if lost == 0 {
		t.Error("nothing was lost")
	}
}
