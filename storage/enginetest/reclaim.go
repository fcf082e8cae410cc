package enginetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

// An engine may keep more than Reclaim was told to keep, in whatever units it
// frees. What these tests hold it to is that it never keeps less, that bounds
// and gaps say what is gone, and that nothing else changes.

type needs map[string]func(core.Offset) bool

func (n needs) Of(topic string) func(core.Offset) bool { return n[topic] }

// fill appends many records of topics "t/0" to "t/9" in turn, a second between
// batches.
func fill(t *testing.T, e core.Engine) (offsets []core.Offset) {
	t.Helper()
	for i := range 400 {
		b := &core.Batch{Time: start + int64(i)*1000, Sync: true}
		for k := range 10 {
			add(b, fmt.Sprint("t/", k), bytes.Repeat([]byte{byte(i)}, 100))
		}
		first := put(t, e, b)
		for k := range 10 {
			offsets = append(offsets, first+core.Offset(k))
		}
	}
	return offsets
}

// checkReclaimed reads everything and compares it with what must be left.
func checkReclaimed(t *testing.T, e core.Engine, offsets []core.Offset, got core.Reclaimed, must func(i int) bool) {
	t.Helper()
	first, end := e.Bounds()
	if got.First != first {
		t.Errorf("reclaimed up to %d, the log begins at %d", got.First, first)
	}
	if end != offsets[len(offsets)-1]+1 {
		t.Errorf("the log ends at %d", end)
	}
	r := read(t, e, 1, 0, nil, 100)
	have := make(map[core.Offset]bool)
	for _, at := range r.offsets {
		have[at] = true
	}
	gone := func(at core.Offset) bool {
		return slices.ContainsFunc(r.gaps, func(g core.Gap) bool { return g.From <= at && at < g.To && !g.Lost })
	}
	missing := 0
	for i, at := range offsets {
		switch {
		case !have[at] && must(i):
			t.Fatalf("record %d (%d) was to be kept", i, at)
		case !have[at] && !gone(at):
			t.Fatalf("record %d (%d) is missing, and no gap says so: %v", i, at, r.gaps)
		case have[at] && gone(at):
			t.Fatalf("record %d (%d) is there, and a gap says that it is not", i, at)
		case !have[at]:
			missing++
		}
	}
	if int64(missing) != got.Records {
		t.Errorf("%d records are gone, %d were said to be", missing, got.Records)
	}
	// Every topic is still found by its filter.
	for k := range 10 {
		var want []core.Offset
		for i, at := range offsets {
			if i%10 == k && have[at] {
				want = append(want, at)
			}
		}
		if r := read(t, e, 1, 0, core.NewFilterSet(core.Filter(fmt.Sprint("t/", k))), 100); !slices.Equal(r.offsets, want) {
			t.Errorf("t/%d: %d records, want %d", k, len(r.offsets), len(want))
		}
	}
}

func testReclaimAge(t *testing.T, e core.Engine) {
	offsets := fill(t, e)
	if got, err := e.Reclaim(context.Background(), core.Retention{Now: time.UnixMilli(start + 1e9)}); err != nil || got.Records != 0 {
		t.Errorf("without policies: %+v, %v", got, err)
	}
	for _, kept := range []int{300, 100} {
		got, err := e.Reclaim(context.Background(), core.Retention{
			Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Duration(kept) * time.Second}},
			Now:      time.UnixMilli(start + 400_000),
		})
		if err != nil {
			t.Fatal(err)
		}
		if kept == 300 {
			got = core.Reclaimed{Records: got.Records, First: got.First}
			checkReclaimed(t, e, offsets, got, func(i int) bool { return i/10 >= 400-kept })
			offsets = offsets[got.Records:]
		} else {
			n := len(offsets)
			checkReclaimed(t, e, offsets, got, func(i int) bool { return (n-1-i)/10 < kept })
		}
	}
	if at := put(t, e, newBatch("t")); at != offsets[len(offsets)-1]+1 {
		t.Errorf("the next record is at %d", at)
	}
}

func testReclaimNeeds(t *testing.T, e core.Engine) {
	offsets := fill(t, e)
	needed := map[core.Offset]bool{}
	for i := 3; i < len(offsets); i += 370 {
		needed[offsets[i]] = true
	}
	n := make(needs)
	for k := range 8 {
		n[fmt.Sprint("t/", k)] = func(at core.Offset) bool { return needed[at] }
	}
	for range 2 {
		got, err := e.Reclaim(context.Background(), core.Retention{
			Policies: []core.Policy{{Filters: []core.Filter{"t/9"}}, {Filters: []core.Filter{"t/+"}, Age: time.Minute}},
			Needs:    n,
			Now:      time.UnixMilli(start + 400_000),
		})
		if err != nil {
			t.Fatal(err)
		}
		r := read(t, e, 1, 0, nil, 100)
		got.Records = int64(len(offsets) - len(r.offsets))
		checkReclaimed(t, e, offsets, got, func(i int) bool {
			return i%10 == 9 || i/10 >= 340 || needed[offsets[i]] && i%10 < 8
		})
	}
}

func testReclaimBytes(t *testing.T, e core.Engine) {
	offsets := fill(t, e)
	got, err := e.Reclaim(context.Background(), core.Retention{
		Policies: []core.Policy{{Filters: []core.Filter{"#"}, Bytes: 1000 * 110}},
		Now:      time.UnixMilli(start),
	})
	if err != nil {
		t.Fatal(err)
	}
	checkReclaimed(t, e, offsets, got, func(i int) bool { return i >= len(offsets)-1000 })
}
