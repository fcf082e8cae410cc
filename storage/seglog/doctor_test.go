package seglog

import (
	"context"
	"testing"

	"github.com/sluicemq/sluice/storage/vfs"
)

// A directory in which nothing is wrong has no problems, however it was left.
func TestExamineHealthy(t *testing.T) {
	for _, reclaimed := range []bool{false, true} {
		s := newSpecimen(t, reclaimed)
		for _, killed := range []bool{false, true} {
			if killed {
				l, err := Open(context.Background(), tiny(s.fs))
				if err != nil {
					t.Fatal(err)
				}
				appendWait(t, l, batchOf(true, "a", "b"))
				image := s.fs.Crash(vfs.CrashStrict)
				if err := l.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
				s.fs = image
			}
			x, err := Examine(context.Background(), tiny(s.fs), Progress{})
			if err != nil {
				t.Fatal(err)
			}
			if !x.Healthy() || x.Closed == killed || x.Records == 0 || x.End < s.end {
				t.Errorf("reclaimed %v, killed %v: %+v", reclaimed, killed, x)
			}
		}
	}
}
