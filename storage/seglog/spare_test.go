package seglog

import (
	"context"
	"path"
	"sync/atomic"
	"testing"

	"github.com/sluicemq/sluice/storage/vfs"
)

// spareWrittenEarly reports whether a file that was freed is written to before
// its new name is durable: a crash would bring it back under the name of its
// segment, with what is written now.
func spareWrittenEarly(t *testing.T) bool {
	ctx := context.Background()
	spare := path.Join("/data/log", spareName(9))
	var freed, durable, written, early atomic.Bool
	fs := &vfs.Faulty{FS: vfs.NewMemory(), Inject: func(o vfs.Op) *vfs.Fault {
		switch {
		case o.Kind == vfs.KindSyncDir && o.Name == "/data/log":
			durable.Store(freed.Load())
		case o.Name == spare && (o.Kind == vfs.KindWrite || o.Kind == vfs.KindTruncate):
			written.Store(true)
			early.Store(early.Load() || !durable.Load())
		}
		return nil
	}}
	l, err := Open(ctx, small(fs))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(ctx)
	// As reclaiming leaves it while the directory is not synced yet.
	const old = "/data/log/old"
	f, err := fs.Create(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fs.SyncDir("/data/log"); err != nil {
		t.Fatal(err)
	}
	if err := fs.FS.Rename(old, spare); err != nil {
		t.Fatal(err)
	}
	freed.Store(true)
	s, err := l.createSegment(segmentHeader{generation: newGeneration(), sequence: 99, through: 99})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.file.Close(); err != nil {
		t.Fatal(err)
	}
	if !written.Load() {
		t.Fatal("the spare file is not taken")
	}
	return early.Load()
}

func TestSpareIsWrittenOnceItsNameIsDurable(t *testing.T) {
	if spareWrittenEarly(t) {
		t.Error("a freed file is written to while it may come back under its old name")
	}
}
