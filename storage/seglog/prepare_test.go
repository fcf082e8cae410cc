package seglog

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A log that gets a few commits as soon as it is opened, small or large, and then
// none for a while, has zeros ahead of its end: it can go on for some time on a disk
// that is full by then.
func TestZerosBehindAFewCommits(t *testing.T) {
	for _, payload := range []int{1, 100 << 10} {
		zerosBehind(t, make([]byte, payload))
	}
}

func zerosBehind(t *testing.T, payload []byte) {
	synctest.Test(t, func(t *testing.T) {
		o := small(vfs.NewMemory())
		o.SegmentBytes, o.ZeroBytes, o.DirectBytes = 4<<20, 64<<10, 64<<10
		rand.NewChaCha8([32]byte{}).Read(payload)
		l, err := Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close(context.Background())
		for i := range 3 {
			b := &core.Batch{Time: int64(i), Sync: true}
			b.Buf = core.AppendRecord(nil, &core.Envelope{Topic: "t", Payload: payload})
			b.Ends = []uint32{uint32(len(b.Buf))}
			appendWait(t, l, b)
		}
		<-time.After(4 * zeroLook)
		synctest.Wait()
		s := l.active()
		size, err := s.file.Size()
		if end := s.view().size; err != nil || size < end+o.ZeroBytes {
			t.Errorf("the file has %d bytes, and the log ends at %d (%v)", size, end, err)
		}
	})
}
