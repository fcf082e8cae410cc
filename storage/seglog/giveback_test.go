package seglog

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// quiet are options of a log that is not busy but while busy says so. All is a
// 256th of what it is by default.
func quiet(fs vfs.FS, busy *bool) Options {
	o := small(fs)
	o.SegmentBytes, o.ZeroBytes = 1<<20, 4<<10
	o.Busy = func(int64, time.Duration) bool { return busy != nil && *busy }
	return o
}

// fillRandom appends so many bytes of payloads that cannot be packed, each to the
// topic that is told of its number, and calls at with each number and offset.
func fillRandom(t *testing.T, l *Log, payloads int, topic func(i int) string, at func(i int, offset core.Offset)) {
	t.Helper()
	rnd := rand.NewChaCha8([32]byte{byte(payloads >> 10)})
	const each = 1 << 10
	for i := 0; i < payloads/each; {
		b := &core.Batch{Time: 1, Sync: true}
		for range 10 {
			payload := make([]byte, each)
			rnd.Read(payload)
			b.Buf = core.AppendRecord(b.Buf, &core.Envelope{Topic: topic(i + len(b.Ends)), Payload: payload})
			b.Ends = append(b.Ends, uint32(len(b.Buf)))
		}
		first := appendWait(t, l, b)
		for k := range b.Ends {
			if at != nil {
				at(i+k, first+core.Offset(k))
			}
		}
		i += len(b.Ends)
	}
}

// aMinute is what is looked at within a minute.
func aMinute(t *testing.T, l *Log, r core.Retention) {
	t.Helper()
	for range 4 {
		if _, r.Before = l.Bounds(); r.Now.IsZero() {
			r.Now = time.UnixMilli(1)
		}
		if _, err := l.Reclaim(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		indexAll(t, l)
	}
}

// Of all that is dead, nine tenths are given back to the disk within a minute,
// however much there is and wherever it stands.
func TestDeadIsGivenBack(t *testing.T) {
	plain := func(int) string { return "t" }
	const policy = 40 << 10
	for _, c := range []struct {
		name  string
		bytes []int
		topic func(i int) string
		// Dead is a share of what is more than is kept.
		kept, share float64
		policies    []core.Policy
		needed      func(i int) bool
	}{
		{"beyond a policy's bytes", []int{5600 << 10, 2000 << 10, 600 << 10, 240 << 10}, plain, policy, 1, []core.Policy{{Filters: []core.Filter{"#"}, Bytes: policy}}, nil},
		{"one message pins it", []int{5600 << 10, 600 << 10, 240 << 10}, plain, 0, 1, []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Millisecond}}, func(i int) bool { return i == 5 }},
		{"one message pins it, by bytes", []int{5600 << 10, 600 << 10, 240 << 10}, plain, policy, 1, []core.Policy{{Filters: []core.Filter{"#"}, Bytes: policy}}, func(i int) bool { return i == 5 }},
		{"a third of each segment", []int{5600 << 10, 600 << 10}, func(i int) string { return []string{"kept", "t", "kept"}[i%3] }, 0, 1. / 3, []core.Policy{{Filters: []core.Filter{"kept"}}, {Filters: []core.Filter{"t"}, Age: time.Millisecond}}, nil},
		{"a tenth of each segment, and some more in one", []int{5600 << 10}, plain, 0, 0.1 + 0.05*0.9, []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Millisecond}}, func(i int) bool { return i%10 != 0 && i > 5600/20 }},
		{"much is kept, and little of it is dead", []int{5600 << 10}, plain, 4000 << 10, 1, []core.Policy{{Filters: []core.Filter{"#"}, Bytes: 4000 << 10}}, nil},
		{"half is pinned", []int{2000 << 10}, plain, policy, 0.5, []core.Policy{{Filters: []core.Filter{"#"}, Bytes: policy}}, func(i int) bool { return i%2 == 0 }},
	} {
		for _, bytes := range c.bytes {
			for _, began := range []string{"busy", "quiet"} {
				t.Run(fmt.Sprint(c.name, "/", bytes>>10, "/", began), func(t *testing.T) {
					fs, busy := vfs.NewMemory(), began == "busy"
					l, err := Open(context.Background(), quiet(fs, &busy))
					if err != nil {
						t.Fatal(err)
					}
					defer l.Close(context.Background())
					empty := onDisk(t, fs)
					pinned := make(map[core.Offset]bool)
					fillRandom(t, l, bytes, c.topic, func(i int, at core.Offset) {
						if c.needed != nil && c.needed(i) {
							pinned[at] = true
						}
					})
					r := core.Retention{Policies: c.policies, Needs: needsOf(func(at core.Offset) bool { return pinned[at] }), Now: time.UnixMilli(1 << 50)}
					indexAll(t, l)
					full := onDisk(t, fs)
					if busy {
						aMinute(t, l, r)
						busy = false
					}
					aMinute(t, l, r)
					left := onDisk(t, fs)
					dead := (float64(bytes) - c.kept) * c.share
					t.Logf("%d bytes of %d are left, %.0f were dead", left, full, dead)
					if freed := float64(full - left); freed < dead*0.9 {
						t.Errorf("%.0f bytes of %.0f that were dead were freed, %.3f of them", freed, dead, freed/dead)
					}
					records, _, err := everything(l)
					if err != nil {
						t.Fatal(err)
					}
					for at := range pinned {
						if _, ok := records[at]; !ok {
							t.Fatalf("%d was needed and is gone", at)
						}
					}
					if most := empty + int64(bytes); left > most {
						t.Errorf("%d bytes are left of a log of %d", left, most)
					}
					newest(t, l, c.policies, records)
				})
			}
		}
	}
}

// newest checks that as many of the newest bytes are there as the policies keep.
func newest(t *testing.T, l *Log, policies []core.Policy, records map[core.Offset]core.Record) {
	t.Helper()
	_, end := l.Bounds()
	for _, p := range policies {
		bytes := int64(0)
		for at := end - 1; p.Bytes > 0 && at > 0 && bytes < p.Bytes; at-- {
			r, ok := records[at]
			if !ok {
				t.Fatalf("%d is gone, though only %d bytes are newer", at, bytes)
			}
			bytes += int64(core.RecordHeaderSize + len(r.Topic) + len(r.Body))
		}
	}
}

// What a busy log keeps to write over is given back once it is not busy, and kept
// before: the spare files, the rest of the active one, and the one made ready. So
// is the rest of a file that was used before, and was left at a crash.
func TestSparesAreGivenBack(t *testing.T) {
	ctx := context.Background()
	fs, busy := vfs.NewMemory(), true
	open := func() *Log {
		t.Helper()
		l, err := Open(ctx, quiet(fs, &busy))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	plain := func(int) string { return "t" }
	bound := core.Retention{Policies: []core.Policy{{Filters: []core.Filter{"#"}, Bytes: 600 << 10}}}
	for range 3 {
		fillRandom(t, l, 3<<20, plain, nil)
		indexAll(t, l)
		aMinute(t, l, bound)
	}
	spares := func() int { return strings.Count(strings.Join(l.mustList(t), " "), sparePrefix) }
	if spares() != maxSpares {
		t.Fatalf("a busy log keeps %d spare files", spares())
	}
	// Until the next segment is made ready of one.
	for l.active().view().size < 820<<10 {
		fillRandom(t, l, 20<<10, plain, nil)
	}
	if err := l.request(ctx, func() error {
		next := <-l.committer.ready
		l.committer.ready <- next
		return next.err
	}); err != nil {
		t.Fatal(err)
	}
	none := core.Retention{Policies: []core.Policy{{Filters: []core.Filter{"#"}}}}
	before := onDisk(t, fs)
	aMinute(t, l, none)
	if after := onDisk(t, fs); after != before {
		t.Errorf("a busy log gave back %d bytes", before-after)
	}
	busy = false
	aMinute(t, l, none)
	held := func() (bytes int64) {
		for _, s := range l.segmentsNow() {
			bytes += s.view().size
			if x := s.view().index; x != nil {
				bytes += int64(len(x.data))
			}
		}
		return bytes
	}
	// Zeros ahead, the header of the next one, and pages that are filled up.
	if after := onDisk(t, fs); spares() != 0 || after > held()+6*vfs.Page {
		t.Errorf("%d spare files and %d bytes are left, %d are used", spares(), after, held())
	}
	// It goes on as before, in the files that were cut.
	busy = true
	fillRandom(t, l, 5<<20, plain, nil)
	indexAll(t, l)
	aMinute(t, l, bound)
	fillRandom(t, l, 2500<<10, plain, nil)
	indexAll(t, l)
	kept, _, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}

	crashed := fs.Crash(vfs.CrashStrict)
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	fs = crashed
	l = open()
	defer l.Close(ctx)
	indexAll(t, l)
	busy = false
	aMinute(t, l, none)
	if after := onDisk(t, fs); spares() != 0 || after > held()+8*vfs.Page {
		t.Errorf("after a crash: %d spare files and %d bytes are left, %d are used", spares(), after, held())
	}
	records, _, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	for at, r := range kept {
		if !bytes.Equal(records[at].Body, r.Body) {
			t.Fatalf("%d was there before the crash", at)
		}
	}
}
