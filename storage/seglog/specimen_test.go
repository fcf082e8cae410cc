package seglog

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A specimen is a data directory as small as one can be that has all that the
// format knows: packed and plain frames, commits of several frames, changes,
// segments with and without an index, one that was begun after a crash and one
// that was closed and gone on with; where retention has been there, also a
// copied segment, one in a recycled file and a note of one that was freed; and
// what it holds.
type specimen struct {
	fs      *vfs.Memory
	records map[core.Offset]string
	state   map[string]string
	end     core.Offset
	frames  map[string][]placed // by file, in order
}

// A placed frame is one that holds what the log has.
type placed struct {
	pos, end  int64
	from, to  core.Offset
	isOpening bool
}

func tiny(fs vfs.FS) Options {
	return Options{Dir: "/data", FS: fs, SegmentBytes: 8 << 10, TailBytes: 1 << 10, SyncDelay: time.Hour, ZeroBytes: -1, PackRecords: packRecords}
}

// specimenOptions are those that a specimen is made and opened with.
func specimenOptions(fs vfs.FS) Options {
	o := tiny(fs)
	o.SegmentBytes = segmentHeaderSize + 1<<10
	return o
}

// newSpecimen makes the reference. Where reclaimed is set, retention has been
// there: the log is not what made the state any more.
func newSpecimen(t testing.TB, reclaimed bool) *specimen {
	t.Helper()
	ctx := context.Background()
	fs := vfs.NewMemory()
	open := func() *Log {
		l, err := Open(ctx, specimenOptions(fs))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	n := 0
	// add makes a commit of records; topics are those that they take turns with.
	add := func(l *Log, records int, changes bool, topics ...string) {
		b := &core.Batch{Time: int64(1000 * n), Sync: true}
		if changes {
			b.Changes = []core.Change{{Key: fmt.Sprint("k", n%5), Value: fmt.Append(nil, "v", n)}, {Key: "at", Value: []byte{}, OffsetOf: min(records, 1)}, {Key: fmt.Sprint("gone", n)}}
		}
		for k := range records {
			e := specimenEnvelope(n, k)
			if len(topics) > 0 {
				e.Topic = topics[k%len(topics)]
			}
			if records >= 20 {
				e.Payload = append(e.Payload, strings.Repeat("x", 250)...)
			}
			b.Buf = core.AppendRecord(b.Buf, e)
			b.Ends = append(b.Ends, uint32(len(b.Buf)))
		}
		appendWait(t, l, b)
		n++
	}
	l := open()
	if reclaimed {
		seal := func() {
			if err := l.request(ctx, l.seal); err != nil {
				t.Fatal(err)
			}
		}
		// What is kept of the first two is put into one, the third is freed.
		for range 2 {
			add(l, 16, true)
			add(l, 2, true)
			seal()
		}
		add(l, 10, true, "t/2", "t/3")
		add(l, 2, true, "t/2")
		seal()
		add(l, 16, false)
		add(l, 2, true)
		indexAll(t, l)
		if _, err := l.Reclaim(ctx, core.Retention{
			Policies: []core.Policy{{Filters: []core.Filter{"t/1"}}, {Filters: []core.Filter{"#"}, Age: 5 * time.Second}},
			Now:      time.UnixMilli(10_500), // the active one is not old yet
		}); err != nil {
			t.Fatal(err)
		}
	} else {
		add(l, 1, true)
		add(l, 20, true) // in several frames
	}
	// A crash: the log goes on in another segment.
	crashed := fs.Crash(vfs.CrashKind)
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	fs = crashed
	l = open()
	add(l, 1, true)
	if !reclaimed {
		add(l, 16, false)
	}
	// Closed and opened: it goes on in the same one.
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	l = open()
	if !reclaimed {
		add(l, 2, true)
		// So that there is a table among the state's files.
		if err := l.state.db.Flush(); err != nil {
			t.Fatal(err)
		}
		add(l, 1, true)
		for len(l.segmentsNow()) < 3 {
			add(l, 2, false)
		}
	}
	add(l, 1, false)
	indexAll(t, l)
	s := &specimen{fs: fs, state: maps.Collect(l.stateStrings()), frames: make(map[string][]placed)}
	records, _, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	s.records = contents(records)
	_, s.end = l.Bounds()
	segments := l.segmentsNow()
	freed := len(l.freed)
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	var flags uint32
	for _, g := range segments {
		f, err := fs.OpenRead(path.Join("/data/log", g.name))
		if err != nil {
			t.Fatal(err)
		}
		size, _ := f.Size()
		sc := newScanner(f, g.generation, segmentHeaderSize, size)
		for {
			f, ok, err := sc.next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			h := &f.header
			flags |= h.flags
			s.frames[g.name] = append(s.frames[g.name], placed{pos: f.pos, end: f.pos + h.size(), from: h.base, to: h.end(), isOpening: h.flags&flagOpened != 0 || g.rewritten && h.count == 0})
		}
	}
	want := uint32(flagsKnown &^ flagSparse)
	if reclaimed {
		want = flagsKnown &^ (flagMore | flagContinued)
	}
	if flags != want || len(segments) < 3 || (freed > 0) != reclaimed {
		t.Fatalf("the specimen has %d segments with the flags %#x, want %#x, and %d notes of freed ones", len(segments), flags, want, freed)
	}
	return s
}

// specimenEnvelope is a record of a specimen; some have each field, others none.
func specimenEnvelope(n, k int) *core.Envelope {
	e := &core.Envelope{Topic: fmt.Sprintf("t/%d", (n+k)%4), Payload: fmt.Append(nil, "payload ", n*n, " ", k)}
	if k%3 == 0 {
		e.Key, e.Headers = "k", []core.Header{{Name: "n", Value: fmt.Sprint(n)}}
	}
	if k%5 != 4 {
		return e
	}
	e.Guarantee, e.Retain, e.Text, e.Bytes = core.Guarantee(n%3), n%2 == 0, k%2 == 0, k%2 == 1
	e.Publisher = core.Publisher{Client: "client", Protocol: "mqtt", Principal: "päter"}
	e.ID, e.ContentType, e.ReplyTo = fmt.Sprint("id", n), "text/plain", "$inbox/1"
	e.Headers = append(e.Headers, core.Header{Name: "same", Value: "1"}, core.Header{Name: "same", Value: ""})
	e.CorrelationID = []byte{0, 0xff, byte(k)}[:k%4]
	e.Expires, e.DeliverAt = time.UnixMilli(1<<41+int64(k)), time.UnixMilli(1<<42)
	e.Priority = core.PriorityOf(n % 10)
	e.Schedule = &core.Schedule{Cron: "5 4 * * 1-5", Delay: time.Second, Repeat: n - 1, Period: time.Minute}
	return e
}

// A listener is a logger's handler that keeps what is said at Warn and above.
type listener struct {
	mu   sync.Mutex // guards said
	said []string
}

func (l *listener) Enabled(_ context.Context, v slog.Level) bool { return v >= slog.LevelWarn }
func (l *listener) WithAttrs([]slog.Attr) slog.Handler           { return l }
func (l *listener) WithGroup(string) slog.Handler                { return l }
func (l *listener) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, line)
	return nil
}

func (l *listener) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.said)
}
