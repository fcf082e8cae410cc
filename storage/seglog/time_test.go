package seglog

import (
	"context"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A log that was not closed goes on in a new segment, which has no records and
// so no time: the records of the ones before it are found all the same.
func TestOffsetAtBeforeAnEmptySegment(t *testing.T) {
	dir := t.TempDir()
	open := func() *Log {
		t.Helper()
		l, err := Open(context.Background(), Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	want := appendWait(t, l, batchOf(true, "a", "b"))
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	l = open()
	h := segmentHeader{generation: newGeneration(), sequence: l.committer.segment.through + 1}
	h.through = h.sequence
	s, err := l.createSegment(h)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.activate(s); err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	for ago, at := range map[time.Duration]core.Offset{time.Hour: want, -time.Hour: want + 2} {
		got, err := l.OffsetAt(time.Now().Add(-ago))
		if err != nil || got != at {
			t.Errorf("%s ago: offset %d, want %d: %v", ago, got, at, err)
		}
	}
}
