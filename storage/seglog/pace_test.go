package seglog

import (
	"testing"
	"time"
)

// A log is busy until it has been slow for some time, and again as soon as it is
// fast.
func TestPace(t *testing.T) {
	const segment = 256 << 20
	p := newPace(&Options{SegmentBytes: segment}, 0)
	now, appended := p.at, int64(0)
	for i, step := range []struct {
		passed time.Duration
		bytes  int64
		busy   bool
	}{
		{10 * time.Millisecond, 0, true}, // nothing is known yet
		{4 * time.Second, 0, true},
		{2 * time.Second, 0, false},
		{time.Second, segment / 10, true},
		{15 * time.Second, segment, true},
		{100 * time.Millisecond, 0, true}, // a moment
		{3 * time.Second, 0, true},
		{15 * time.Second, segment / 4, false},
		{15 * time.Second, segment / 4, false},
		{100 * time.Millisecond, segment / 1000, false},
		{15 * time.Second, segment, true},
	} {
		now, appended = now.Add(step.passed), appended+step.bytes
		if p.look(now, appended); p.busy != step.busy {
			t.Errorf("look %d: busy is %v", i, p.busy)
		}
	}
}
