package seglog

import (
	"context"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// onDisk is what the log takes of the disk, what it keeps to be used again
// included.
func onDisk(t *testing.T, fs vfs.FS) (bytes int64) {
	t.Helper()
	names, err := fs.List("/data/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		info, err := fs.Stat(path.Join("/data/log", name))
		if err != nil {
			t.Fatal(err)
		}
		bytes += info.Size
	}
	return bytes
}

// Where one message that is still needed pins each segment, the space of the
// others is freed: at least nine tenths of it by the second look, of which there
// are four a minute. The active segment is no exception.
func TestPinnedSegmentsAreFreed(t *testing.T) {
	fs := vfs.NewMemory()
	o := small(fs)
	o.SegmentBytes = 64 << 10
	l, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	pinned := make(map[core.Offset]bool)
	sequence := uint64(0)
	for i := 0; len(l.segmentsNow()) < 40; i++ {
		first := appendWait(t, l, batchOf(false, "t", "t", "t", "t", "t", "t", "t", "t"))
		if s := l.active().sequence; s != sequence {
			sequence = s
			pinned[first+1] = true
		}
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	_, end := l.Bounds()
	before := onDisk(t, fs)
	r := core.Retention{
		Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Hour}},
		Needs:    needsOf(func(at core.Offset) bool { return pinned[at] }),
		Before:   end, Now: time.UnixMilli(1 << 50),
	}
	for range 2 {
		if _, err := l.Reclaim(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		// What the first look has closed gets its index beside it.
		for _, s := range l.segmentsNow()[:len(l.segmentsNow())-1] {
			if err := l.ensureIndex(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	after := onDisk(t, fs)
	t.Logf("%d bytes of %d are left, in %d segments", after, before, len(l.segmentsNow()))
	if dead := before * int64(int(end)-len(pinned)) / int64(end); before-after < dead*9/10 {
		t.Errorf("%d bytes were dead, %d were freed", dead, before-after)
	}
	records, gaps, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	for at := range pinned {
		if _, ok := records[at]; !ok {
			t.Errorf("%d was needed and is gone", at)
		}
	}
	if len(records) != len(pinned) {
		t.Errorf("%d records are left, %d were needed", len(records), len(pinned))
	}
	for _, g := range gaps {
		if g.Lost {
			t.Errorf("%d to %d are said to be lost", g.From, g.To)
		}
	}
	// Nothing more to do is found out without looking at topics.
	seen := 0
	r.Needs = needsOf(func(core.Offset) bool { seen++; return true })
	r.Now = time.UnixMilli(0)
	if got, err := l.Reclaim(context.Background(), r); err != nil || got.Records != 0 || seen != 0 {
		t.Errorf("reclaimed %+v, asked %d times: %v", got, seen, err)
	}
	if strings.Contains(strings.Join(l.mustList(t), " "), temporarySuffix) {
		t.Error("a temporary file was left")
	}
}

func (l *Log) mustList(t *testing.T) []string {
	t.Helper()
	names, err := l.fs.List(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

type needsOf func(core.Offset) bool

func (n needsOf) Of(string) func(core.Offset) bool { return n }

// What is in the active segment counts for a policy that keeps so many bytes: all
// that is in front of as many goes, but for what is needed. Where the log is busy
// it goes later, by whole segments.
func TestBytesOfTheActiveSegmentCount(t *testing.T) {
	busy := false
	o := quiet(vfs.NewMemory(), &busy)
	o.SegmentBytes = 64 << 10
	l, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	r := core.Retention{
		Policies: []core.Policy{{Filters: []core.Filter{"#"}, Bytes: 4 << 10}},
		Needs:    needsOf(func(at core.Offset) bool { return at == 3 }),
	}
	add := func(records int) {
		for range records {
			b := &core.Batch{Time: 1, Sync: true}
			b.Buf = core.AppendRecord(nil, &core.Envelope{Topic: "t", Payload: make([]byte, 500)})
			b.Ends = []uint32{uint32(len(b.Buf))}
			appendWait(t, l, b)
		}
	}
	left := func() int {
		t.Helper()
		aMinute(t, l, r)
		records, _, err := everything(l)
		if _, ok := records[3]; err != nil || !ok {
			t.Errorf("what was needed is there: %v, %v", ok, err)
		}
		newest(t, l, r.Policies, records)
		return len(records)
	}
	for len(l.segmentsNow()) < 6 {
		add(1)
	}
	busy = true
	if n := left(); n < 60 || n > 200 {
		t.Errorf("a busy log with little in the active segment has %d records left", n)
	}
	busy = false
	if n := left(); n > 40 {
		t.Errorf("with little in the active segment %d records are left", n)
	}
	add(60)
	active := l.active()
	if n := left(); n > 40 || l.active() == active {
		t.Errorf("%d records are left, and the active segment was sealed: %v", n, l.active() != active)
	}
}
