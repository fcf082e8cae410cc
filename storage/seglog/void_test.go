package seglog

import (
	"context"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/storage/vfs"
)

// What a start has cut off, since something in front of it had not come to the
// disk, is never there again: also where the next start reads the segment once
// more, and the state knows of later commits than those that were cut off.
func TestWhatWasCutOffStaysAway(t *testing.T) {
	ctx := context.Background()
	for _, unsynced := range []int{1, 2, 5} {
		fs := vfs.NewMemory()
		l, err := Open(ctx, small(fs))
		if err != nil {
			t.Fatal(err)
		}
		appendWait(t, l, batchOf(true, "there"))
		from := l.active().view().size
		appendWait(t, l, batchOf(false, "hole"))
		to := l.active().view().size
		for range unsynced {
			appendWait(t, l, batchOf(false, "cut", "cut"))
		}
		name := "/data/log/" + l.active().name
		crashed := fs.Crash(vfs.CrashKind)
		if err := l.Close(ctx); err != nil {
			t.Fatal(err)
		}
		edit(t, crashed, name, func(data []byte) []byte {
			clear(data[from:to])
			return data
		})
		for life := range 3 {
			if l, err = Open(ctx, small(crashed)); err != nil {
				t.Fatal(err)
			}
			records, gaps, err := everything(l)
			if err != nil {
				t.Fatal(err)
			}
			for at, r := range records {
				if r.Topic == "cut" {
					t.Errorf("%d unsynced, start %d: %d was cut off, and is there", unsynced, life+1, at)
				}
			}
			for _, g := range gaps {
				if g.Lost {
					t.Errorf("%d unsynced, start %d: %d to %d are said to be lost", unsynced, life+1, g.From, g.To)
				}
			}
			if at := appendWait(t, l, batchOf(true, "later")); len(records) != life+1 {
				t.Errorf("%d unsynced, start %d: %d records are there, the next one is at %d", unsynced, life+1, len(records), at)
			}
			next := crashed.Crash(vfs.CrashKind)
			if err := l.Close(ctx); err != nil {
				t.Fatal(err)
			}
			names, err := next.List("/data/log")
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				if strings.HasSuffix(n, indexSuffix) { // not durable yet
					if err := next.Remove("/data/log/" + n); err != nil {
						t.Fatal(err)
					}
				}
			}
			crashed = next
		}
	}
}
