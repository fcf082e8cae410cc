package seglog

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/core"
)

// A segment that is sealed is open once, however it was written: a log may have
// thousands of them.
func TestSealedSegmentIsOpenOnce(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	l, err := Open(ctx, Options{Dir: dir, SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(ctx)
	for range 12 {
		b := &core.Batch{Sync: true, Buf: core.AppendRecord(nil, &core.Envelope{Topic: "t", Payload: make([]byte, 300<<10)})}
		b.Ends = []uint32{uint32(len(b.Buf))}
		appendWait(t, l, b)
	}
	open := 0
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, filepath.Join(dir, logDir)) && strings.HasSuffix(to, segmentSuffix) {
			open++
		}
	}
	// The active one may be open twice, and the next one is open already.
	if n := len(l.segmentsNow()); n < 4 || open > n+2 {
		t.Errorf("%d segments are open %d times", n, open)
	}
}
