package seglog

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// lostInMerge has segments copied into one, cuts the power at each call from
// then on, in several ways, and returns what a log that is opened on what is
// left has lost, "" if nothing.
func lostInMerge(t *testing.T) string {
	ctx := context.Background()
	memory := vfs.NewMemory()
	memory.Disorder("/data/log")
	var images []*vfs.Memory
	merging := false
	fs := &vfs.Faulty{FS: memory, Inject: func(vfs.Op) *vfs.Fault {
		for seed := uint64(0); merging && seed < 10; seed++ {
			images = append(images, memory.Crash(seed))
		}
		return nil
	}}
	l, err := Open(ctx, small(fs))
	if err != nil {
		t.Fatal(err)
	}
	var kept []core.Offset
	for i := range 500 {
		topics := []string{"gone", "gone", "gone", "gone"}
		if i%20 == 0 {
			topics[3] = "kept"
		}
		first := appendWait(t, l, batchOf(true, topics...))
		if i%20 == 0 {
			kept = append(kept, first+3)
		}
	}
	// What is done in the background syncs the directory, too: now, and not in the
	// midst of the merging.
	if err := l.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	sealed := l.segmentsNow()
	sealed = sealed[:len(sealed)-1]
	merging = true
	r := core.Retention{Policies: []core.Policy{{Filters: []core.Filter{"kept"}}, {Filters: []core.Filter{"#"}, Age: time.Nanosecond}}, Now: time.UnixMilli(1 << 50)}
	if _, err := l.Reclaim(ctx, r); err != nil {
		t.Fatal(err)
	}
	merging = false
	if left := len(l.segmentsNow()); left > len(sealed)-2 {
		t.Fatalf("of %d segments %d are left: nothing was merged", len(sealed)+1, left)
	}
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for i, image := range images {
		l, err := Open(ctx, small(image))
		if err != nil {
			return fmt.Sprintf("image %d: %v", i, err)
		}
		records, gaps, err := everything(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(ctx); err != nil {
			t.Fatal(err)
		}
		for _, at := range kept {
			if _, ok := records[at]; !ok {
				return fmt.Sprintf("image %d: record %d", i, at)
			}
		}
		for _, g := range gaps {
			if g.Lost {
				return fmt.Sprintf("image %d: it says that %d to %d are lost", i, g.From, g.To)
			}
		}
	}
	return ""
}

func TestMergeAndPowerCut(t *testing.T) {
	if lost := lostInMerge(t); lost != "" {
		t.Error(lost)
	}
}
