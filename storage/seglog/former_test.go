package seglog

import (
	"context"
	"path"
	"testing"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// formerFound reports whether a start takes for the log's what a file holds of its
// former use. The frames of that end where those do that are written over them, at
// the end of a page, so that it goes on where the log ends, as its commits and
// offsets do.
func formerFound(t *testing.T) bool {
	ctx := context.Background()
	options := func(fs vfs.FS) Options {
		o := tiny(fs)
		o.SegmentBytes = 64 << 10
		return o
	}
	// begun is a log whose second segment has been begun, in a file with what a
	// spare one holds.
	begun := func(spare []byte) (*vfs.Memory, *Log) {
		fs := vfs.NewMemory()
		l, err := Open(ctx, options(fs))
		if err != nil {
			t.Fatal(err)
		}
		appendWait(t, l, batchOf(true, "first"))
		name := path.Join("/data/log", spareName(1))
		if err := writeFile(fs, name, spare); err != nil {
			t.Fatal(err)
		}
		if err := l.request(ctx, l.seal); err != nil {
			t.Fatal(err)
		}
		if _, err := fs.Stat(name); err == nil {
			t.Fatal("the spare file is not taken")
		}
		return fs, l
	}
	// page appends a record that fills a page of the file.
	page := func(l *Log, topic string) {
		e := core.Envelope{Topic: topic}
		rest := vfs.Page - l.active().view().size%vfs.Page - frameHeaderSize - int64(len(core.AppendRecord(nil, &e)))
		e.Payload = make([]byte, rest)
		b := &core.Batch{Sync: true, Buf: core.AppendRecord(nil, &e)}
		b.Ends = []uint32{uint32(len(b.Buf))}
		appendWait(t, l, b)
		if l.active().view().size%vfs.Page != 0 {
			t.Fatal("a frame does not fill its page")
		}
	}
	fs, l := begun(nil)
	for range 3 {
		page(l, "old")
	}
	former := content(t, fs, path.Join("/data/log", l.active().name))
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	fs, l = begun(former)
	page(l, "new")
	crashed := fs.Crash(vfs.CrashKind)
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	l, err := Open(ctx, options(crashed))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(ctx)
	records, _, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	return len(records) != 2 || records[1].Topic != "first" || records[2].Topic != "new"
}

func TestFormerUse(t *testing.T) {
	if formerFound(t) {
		t.Error("the log has what a file held before it was used again")
	}
}
