package enginetest

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/sluicemq/sluice/core"
)

func testReadBounds(t *testing.T, e core.Engine) {
	var all []core.Offset
	for i := range 100 {
		first := put(t, e, newBatch(fmt.Sprint("t/", i), "x", "y"))
		all = append(all, first, first+1, first+2)
	}
	for _, max := range []int{1, 2, 7, 1000} {
		if r := read(t, e, 1, 0, nil, max); !slices.Equal(r.offsets, all) {
			t.Errorf("%d at a time: %v", max, r.offsets)
		}
	}
	for _, from := range []int{0, 1, 33, 150, 298, 299} {
		for _, n := range []int{0, 1, 2, 50} {
			limit := len(all) - 1
			if from+n < limit {
				limit = from + n
			}
			r := read(t, e, all[from], all[limit], nil, 10)
			if !slices.Equal(r.offsets, all[from:max(from, limit)]) {
				t.Errorf("from %d to %d: %v", all[from], all[limit], r.offsets)
			}
		}
	}
	// A buffer that is too small for any record still gets one.
	buf := core.ReadBuffer{MaxRecords: 10, MaxBytes: 1}
	next, err := e.Read(context.Background(), all[5], 0, nil, &buf)
	if err != nil || len(buf.Records) != 1 || buf.Records[0].Offset != all[5] || next != all[6] {
		t.Errorf("a small buffer got %d records, next %d, %v", len(buf.Records), next, err)
	}
	// Nothing that matches still says where to go on.
	_, end := e.Bounds()
	next, err = e.Read(context.Background(), all[0], 0, core.NewFilterSet("none"), &buf)
	if err != nil || len(buf.Records) != 0 || next != end {
		t.Errorf("nothing matched: %d records, next %d of %d, %v", len(buf.Records), next, end, err)
	}
	next, err = e.Read(context.Background(), all[0], all[7], core.NewFilterSet("none"), &buf)
	if err != nil || next != all[7] {
		t.Errorf("nothing matched before %d: next %d, %v", all[7], next, err)
	}
	next, err = e.Read(context.Background(), end, 0, nil, &buf)
	if err != nil || next != end || len(buf.Records) > 0 {
		t.Errorf("read at the end: next %d of %d, %v", next, end, err)
	}
}

func testReadFilters(t *testing.T, e core.Engine) {
	want := make(map[core.Filter][]core.Offset)
	filters := []core.Filter{"a/1", "a/+", "+/2", "#", "b/#", "b/2/c", "$sys/#", "none/+"}
	for i := range 300 {
		topics := []string{fmt.Sprint("a/", i%7), fmt.Sprint("b/", i%5), "b/2/c", "b", "$sys/x", "ü/2"}[:i%6+1]
		first := put(t, e, newBatch(topics...))
		for k, topic := range topics {
			for _, f := range filters {
				if f.Match(topic) {
					want[f] = append(want[f], first+core.Offset(k))
				}
			}
		}
	}
	for _, f := range filters {
		for _, max := range []int{3, 1000} {
			if r := read(t, e, 1, 0, core.NewFilterSet(f), max); !slices.Equal(r.offsets, want[f]) {
				t.Errorf("%s: %d records, want %d", f, len(r.offsets), len(want[f]))
			}
		}
	}
	both := slices.Concat(want["a/1"], want["b/2/c"])
	slices.Sort(both)
	if r := read(t, e, 1, 0, core.NewFilterSet("a/1", "b/2/c", "none/+"), 10); !slices.Equal(r.offsets, both) {
		t.Errorf("several filters: %d records, want %d", len(r.offsets), len(both))
	}
}
