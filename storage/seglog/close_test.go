package seglog

import (
	"context"
	"path"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/storage/vfs"
)

// A log that is closed in time leaves no sealed segment without its index, which
// the next start would have to read whole; one that is not is closed all the
// same.
func TestCloseFinishesIndexes(t *testing.T) {
	for _, inTime := range []bool{true, false} {
		fs := vfs.NewMemory()
		l, err := Open(context.Background(), small(fs))
		if err != nil {
			t.Fatal(err)
		}
		for len(l.segmentsNow()) < 6 {
			appendWait(t, l, batchOf(true, "a/"+strings.Repeat("b", 500)))
		}
		segments := l.segmentsNow()
		ctx, cancel := context.WithCancel(context.Background())
		if !inTime {
			cancel()
		}
		if err := l.Close(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		for _, s := range segments[:len(segments)-1] {
			if _, err := fs.Stat(path.Join(l.dir, indexName(s.name))); inTime && err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
		}
		if l, err = Open(context.Background(), small(fs)); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}
