package seglog

import (
	"context"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/enginetest"
	"github.com/sluicemq/sluice/storage/vfs"
)

// TestEngine runs the port's suite on logs whose segments are so small, or so
// large, and whose memory so short, that each way to read is taken.
func TestEngine(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"tail", Options{}},
		{"active", Options{TailBytes: 1}},
		{"sealed", Options{TailBytes: 1, SegmentBytes: 32 << 10}},
		{"quiet", Options{TailBytes: 1, SegmentBytes: 32 << 10, Busy: func(int64, time.Duration) bool { return false }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) core.Engine {
				o := c.o
				o.Dir, o.FS, o.ZeroBytes = "/data", vfs.NewMemory(), -1
				l, err := Open(context.Background(), o)
				if err != nil {
					t.Fatal(err)
				}
				return indexed{l}
			})
		})
	}
	t.Run("disk", func(t *testing.T) {
		enginetest.Run(t, func(t *testing.T) core.Engine {
			l, err := Open(context.Background(), Options{Dir: t.TempDir(), TailBytes: 64 << 10, SegmentBytes: 256 << 10})
			if err != nil {
				t.Fatal(err)
			}
			return l
		})
	})
}

// indexed is a log whose sealed segments have their indexes before they are
// reclaimed, so that what Reclaim does not depend on the indexer's pace.
type indexed struct{ *Log }

func (l indexed) Reclaim(ctx context.Context, r core.Retention) (core.Reclaimed, error) {
	segments := l.segmentsNow()
	for _, s := range segments[:len(segments)-1] {
		if err := l.ensureIndex(s); err != nil {
			return core.Reclaimed{}, err
		}
	}
	return l.Log.Reclaim(ctx, r)
}
