package seglog

import (
	"bytes"
	"context"
	"testing"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// lastFrameLost says whether a start leaves out what is whole of the last commit,
// of which just the state knows that it was durable, where its last frame is
// damaged.
func lastFrameLost(t *testing.T) bool {
	t.Helper()
	ctx := context.Background()
	fs := vfs.NewMemory()
	l, err := Open(ctx, small(fs))
	if err != nil {
		t.Fatal(err)
	}
	appendWait(t, l, batchOf(true, "there"))
	last := batchOf(true)
	for range 2 {
		last.Buf = core.AppendRecord(last.Buf, &core.Envelope{Topic: "last", Payload: bytes.Repeat([]byte("x"), frameTarget)})
		last.Ends = append(last.Ends, uint32(len(last.Buf)))
	}
	last.Changes = []core.Change{{Key: "k", Value: []byte("v")}}
	at := appendWait(t, l, last)
	if err := l.request(ctx, l.state.sync); err != nil {
		t.Fatal(err)
	}
	name, end := "/data/log/"+l.active().name, l.active().view().size
	crashed := fs.Crash(vfs.CrashKind)
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	edit(t, crashed, name, func(data []byte) []byte {
		clear(data[end-frameTarget/2 : end])
		return data
	})
	if l, err = Open(ctx, small(crashed)); err != nil {
		t.Fatal(err)
	}
	defer l.Close(ctx)
	records, _, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	return records[at].Topic != "last"
}

func TestLastFrame(t *testing.T) {
	if lastFrameLost(t) {
		t.Error("a frame that was durable is left out")
	}
}
