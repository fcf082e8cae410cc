package seglog

import (
	"bytes"
	"context"
	"errors"
	"flag"
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

var corruptEvery = flag.Int("corrupt", 499, "of the bytes of the reference directory, every n-th is damaged; 1 is all of them (make corrupt)")

// A specimen is a small data directory that has all that the format knows:
// packed and plain frames, commits of several frames, changes, segments with and
// without an index, a copied one, one that was begun after a crash; and what it
// holds.
type specimen struct {
	fs      *vfs.Memory
	records map[core.Offset]string
	state   map[string]string
	end     core.Offset
	frames  map[string][]placed // by file, in order
	// ends is where the log ends in each segment's file.
	ends map[string]int64
}

// A placed frame is one that holds what the log has.
type placed struct {
	pos, end  int64
	from, to  core.Offset
	hasState  bool
	isOpening bool
}

func tiny(fs vfs.FS) Options {
	return Options{Dir: "/data", FS: fs, SegmentBytes: 8 << 10, TailBytes: 1 << 10, SyncDelay: time.Hour, ZeroBytes: -1, PackRecords: packRecords}
}

// newSpecimen makes the reference. Where reclaimed is set, retention has been
// there: the log is not what made the state any more.
func newSpecimen(t testing.TB, reclaimed bool) *specimen {
	t.Helper()
	ctx := context.Background()
	fs := vfs.NewMemory()
	open := func() *Log {
		l, err := Open(ctx, tiny(fs))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	n := 0
	add := func(l *Log, records int, changes bool) {
		b := &core.Batch{Time: int64(1000 * n), Sync: true}
		if changes {
			b.Changes = []core.Change{{Key: fmt.Sprint("k", n%5), Value: fmt.Append(nil, "v", n)}, {Key: "at", Value: []byte{}, OffsetOf: min(records, 1)}, {Key: fmt.Sprint("gone", n)}}
		}
		for k := range records {
			e := specimenEnvelope(n, k)
			b.Buf = core.AppendRecord(b.Buf, e)
			b.Ends = append(b.Ends, uint32(len(b.Buf)))
		}
		appendWait(t, l, b)
		n++
	}
	l := open()
	for i := range 12 {
		add(l, []int{1, 20, 3, 130, 2}[i%5], i%3 == 0)
	}
	indexAll(t, l)
	if reclaimed {
		for range 12 {
			add(l, 10, false)
		}
		indexAll(t, l)
		if _, err := l.Reclaim(ctx, core.Retention{
			Policies: []core.Policy{{Filters: []core.Filter{"t/1"}}, {Filters: []core.Filter{"#"}, Age: 5 * time.Second}},
			Now:      time.UnixMilli(20_000),
		}); err != nil {
			t.Fatal(err)
		}
	}
	// A crash: the log goes on in another segment.
	crashed := fs.Crash(vfs.CrashKind)
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	fs = crashed
	l = open()
	for i := range 6 {
		add(l, 1+i*5, i%2 == 0)
	}
	indexAll(t, l)
	// Closed and opened: it goes on in the same one.
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	l = open()
	for i := range 5 {
		add(l, 1+i*4, i == 1)
	}
	if !reclaimed {
		// So that there is a table among the state's files.
		if err := l.state.db.Flush(); err != nil {
			t.Fatal(err)
		}
		add(l, 1, true)
	}
	add(l, 2, false)
	indexAll(t, l)
	s := &specimen{fs: fs, state: maps.Collect(l.stateStrings()), frames: make(map[string][]placed), ends: make(map[string]int64)}
	records, _, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	s.records = contents(records)
	_, s.end = l.Bounds()
	segments := l.segmentsNow()
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
			s.ends[g.name] = f.pos + h.size()
			s.frames[g.name] = append(s.frames[g.name], placed{pos: f.pos, end: f.pos + h.size(), from: h.base, to: h.end(), hasState: h.hasChanges(), isOpening: h.flags&flagOpened != 0 || g.rewritten && h.count == 0})
		}
	}
	want := uint32(flagsKnown &^ flagSparse)
	if reclaimed {
		want = flagsKnown &^ (flagMore | flagContinued)
	}
	if flags != want || len(segments) < 3 {
		t.Fatalf("the specimen has %d segments with the flags %#x, want %#x", len(segments), flags, want)
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
	e.Guarantee, e.Retain, e.Text = core.Guarantee(n%3), n%2 == 0, k%2 == 0
	e.Publisher = core.Publisher{Client: "client", Protocol: "mqtt", Principal: "päter"}
	e.ID, e.ContentType, e.ReplyTo = fmt.Sprint("id", n), "text/plain", "$inbox/1"
	e.Headers = append(e.Headers, core.Header{Name: "same", Value: "1"}, core.Header{Name: "same", Value: ""})
	e.CorrelationID = []byte{0, 0xff, byte(k)}[:k%4]
	e.Expires, e.DeliverAt = time.UnixMilli(1<<41+int64(k)), time.UnixMilli(1<<42)
	e.Priority = core.PriorityOf(n % 10)
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

// A harm is one way to damage a file.
type harm struct {
	kind string
	do   func(data []byte, at int64) []byte
}

var harms = []harm{
	{"flipped", func(b []byte, at int64) []byte { b[at] ^= 0xff; return b }},
	{"flipped a bit", func(b []byte, at int64) []byte { b[at] ^= 1 << (at % 8); return b }},
	{"zeroed", func(b []byte, at int64) []byte { b[at] = 0; return b }},
	{"cut", func(b []byte, at int64) []byte { return b[:at] }},
}

// Those that reach further are tried at no more than every 64th byte.
var broadHarms = []harm{
	{"zeroed a sector", func(b []byte, at int64) []byte { clear(b[at:min(at+512, int64(len(b)))]); return b }},
	{"garbaged", func(b []byte, at int64) []byte { copy(b[at:], strings.Repeat("garbage!", 20)); return b }},
}

// eachHarm damages one place after the other in the files of a folder and calls
// check with each result: what was done, and the bytes from at to end that are
// not what they were. Nothing is called where nothing changed.
func (s *specimen) eachHarm(t *testing.T, dir string, check func(image *vfs.Memory, name, what string, at, end int64) error) {
	names, err := s.fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			full := path.Join(dir, name)
			was := content(t, s.fs, full)
			tried := 0
			for at := range int64(len(was)) {
				for k, h := range append(slices.Clone(harms), broadHarms...) {
					every := int64(*corruptEvery)
					if k >= len(harms) {
						every = max(every, 64)
					}
					if (at+int64(len(name)+k*37))%every != 0 && at != 0 {
						continue
					}
					now := h.do(bytes.Clone(was), at)
					if bytes.Equal(now, was) {
						continue
					}
					end := at + 1
					for i := range now {
						if now[i] != was[i] {
							end = int64(i) + 1
						}
					}
					if len(now) < len(was) {
						end = int64(len(was))
					}
					tried++
					image := s.fs.Crash(vfs.CrashKind)
					edit(t, image, full, func([]byte) []byte { return now })
					if err := check(image, name, h.kind, at, end); err != nil {
						t.Errorf("%s at %d of %d: %v", h.kind, at, len(was), err)
					}
				}
			}
			t.Logf("%d places in %d bytes", tried, len(was))
		})
	}
}

func content(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	var data []byte
	edit(t, fs, name, func(b []byte) []byte { data = bytes.Clone(b); return b })
	return data
}

// TestCorruptLog damages the log's files, byte by byte. Whatever is read is what
// it was; what is not read is said to be lost, by its offsets, to the reader and
// to the operator; no more is lost than the frames that were damaged; the state
// is what it was; and the log goes on.
func TestCorruptLog(t *testing.T) {
	for _, reclaimed := range []bool{false, true} {
		t.Run(map[bool]string{false: "whole", true: "reclaimed"}[reclaimed], func(t *testing.T) {
			s := newSpecimen(t, reclaimed)
			s.eachHarm(t, "/data/log", s.checkLog)
		})
	}
}

// matters says whether bytes of a file are the log's: what stands behind its end
// is not.
func (s *specimen) matters(name string, at, end int64) bool {
	if strings.HasPrefix(name, sparePrefix) {
		return false
	}
	if strings.HasSuffix(name, indexSuffix) || at < segmentHeaderSize {
		return true
	}
	return slices.ContainsFunc(s.frames[name], func(f placed) bool { return f.pos < end && at < f.end })
}

// mayLose says whether damage may cost the record at an offset: it is in a frame
// that was damaged.
func (s *specimen) mayLose(name, what string, at, end int64, offset core.Offset) bool {
	if strings.HasSuffix(name, indexSuffix) {
		return false
	}
	return slices.ContainsFunc(s.frames[name], func(f placed) bool {
		return f.pos < end && at < f.end && f.from <= offset && offset < f.to ||
			what == "cut" && at < segmentHeaderUsed && f.from <= offset && offset < f.to
	})
}

func (s *specimen) checkLog(image *vfs.Memory, name, what string, at, end int64) error {
	heard := &listener{}
	o := tiny(image)
	if err := s.checkExamined(o, name, what, at, end); err != nil {
		return err
	}
	if (at+int64(len(what)))%4 == 0 {
		if err := s.checkMended(image.Crash(vfs.CrashKind), name, what, at, end); err != nil {
			return err
		}
	}
	o.Logger = slog.New(heard)
	next := s.end
	for round := range 2 {
		l, err := Open(context.Background(), o)
		if err != nil {
			return err
		}
		err = s.checkOpened(l, name, what, at, end, round)
		if err == nil {
			if got := maps.Collect(l.stateStrings()); !maps.Equal(got, s.state) {
				err = fmt.Errorf("the state is %q, want %q", got, s.state)
			}
		}
		if err == nil {
			done := make(chan error, 1)
			b := batchOf(true, "after")
			l.Append(b, func(_ *core.Batch, first core.Offset, err error) {
				if err == nil && first < next {
					err = fmt.Errorf("offset %d is given again", first)
				}
				next = first + 1
				done <- err
			})
			err = <-done
		}
		if cerr := l.Close(context.Background()); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("opened %d times: %w; it said %q", round+1, err, heard.lines())
		}
	}
	return nil
}

// checkExamined wants damage to be found, in the file that has it.
func (s *specimen) checkExamined(o Options, name, what string, at, end int64) error {
	x, err := Examine(context.Background(), o, Progress{})
	if err != nil {
		return err
	}
	if s.matters(name, at, end) && !slices.ContainsFunc(x.Findings, func(f Finding) bool {
		return f.Severity != Note && f.File == path.Join(logDir, name) && (f.To == 0 || f.At <= end && at <= f.To) ||
			// Of a file that is cut short at the log's end it is known just
			// what is missing.
			f.Severity == Loss && what == "cut" && at <= segmentHeaderSize
	}) {
		return fmt.Errorf("it was not found: %+v", x.Findings)
	}
	return nil
}

// checkMended wants a directory to be healthy once it was mended, with no less in
// it than damage may cost.
func (s *specimen) checkMended(image *vfs.Memory, name, what string, at, end int64) error {
	o := tiny(image)
	before, err := Examine(context.Background(), o, Progress{})
	if err != nil {
		return err
	}
	var discard []string
	for _, f := range before.Findings {
		if f.Discard != "" && !slices.Contains(discard, f.Discard) {
			discard = append(discard, f.Discard)
		}
	}
	done, err := Mend(context.Background(), o, discard, Progress{})
	if err != nil {
		return fmt.Errorf("mending %+v: %w", before.Findings, err)
	}
	after, err := Examine(context.Background(), o, Progress{})
	if err != nil {
		return err
	}
	if !after.Healthy() || (len(done) > 0) == before.Healthy() {
		return fmt.Errorf("mended %+v, did %q, left %+v", before.Findings, done, after.Findings)
	}
	o.Logger = slog.New(&listener{})
	l, err := Open(context.Background(), o)
	if err == nil {
		err = s.checkOpened(l, name, what, at, end, 1)
		if got := maps.Collect(l.stateStrings()); err == nil && len(discard) == 0 && !maps.Equal(got, s.state) {
			err = fmt.Errorf("the state is %q, want %q", got, s.state)
		}
		err = errors.Join(err, l.Close(context.Background()))
	}
	if err != nil {
		return fmt.Errorf("mended, did %q: %w", done, err)
	}
	return nil
}

// checkOpened compares what can be read with what there was.
func (s *specimen) checkOpened(l *Log, name, what string, at, end int64, round int) error {
	heard := l.log.Handler().(*listener)
	for _, filters := range []*core.FilterSet{nil, core.NewFilterSet("t/3")} {
		buf := core.ReadBuffer{MaxRecords: 20, MaxBytes: 1 << 20}
		have := make(map[core.Offset]bool)
		var gaps []core.Gap
		for from := core.Offset(1); from < s.end; {
			next, err := l.Read(context.Background(), from, s.end, filters, &buf)
			if err != nil {
				return err
			}
			for _, r := range buf.Records {
				have[r.Offset] = true
				if s.records[r.Offset] != r.Topic+" "+string(r.Body) {
					return fmt.Errorf("record %d is not what it was", r.Offset)
				}
			}
			gaps = append(gaps, buf.Gaps...)
			if next <= from {
				return fmt.Errorf("reading at %d goes on at %d", from, next)
			}
			from = next
		}
		lost := false
		for offset, r := range s.records {
			if have[offset] || filters != nil && !strings.HasPrefix(r, "t/3 ") {
				continue
			}
			lost = true
			if !slices.ContainsFunc(gaps, func(g core.Gap) bool { return g.From <= offset && offset < g.To && g.Lost }) {
				return fmt.Errorf("record %d is missing, and no gap says so: %v", offset, gaps)
			}
			if !s.mayLose(name, what, at, end, offset) {
				return fmt.Errorf("record %d is lost, it was not damaged; gaps %v", offset, gaps)
			}
		}
		if filters != nil {
			continue
		}
		for _, g := range gaps {
			if g.Lost && !s.lacks(have, g) && !s.hitsOpening(name, at, end) {
				return fmt.Errorf("%v is said to be lost, and nothing is", g)
			}
		}
		if lost && round == 0 && !slices.ContainsFunc(heard.lines(), func(line string) bool { return strings.Contains(line, "from=") }) {
			return errors.New("the operator was not told which offsets are lost")
		}
	}
	return nil
}

// lacks says whether a record of those in a gap is missing.
func (s *specimen) lacks(have map[core.Offset]bool, g core.Gap) bool {
	for offset := range s.records {
		if g.From <= offset && offset < g.To && !have[offset] {
			return true
		}
	}
	return false
}

// hitsOpening says whether damage is in the frame of an opening: without it,
// offsets that were left out after a crash cannot be told from lost ones. The
// first and the last frame of a copied segment are the same for what retention
// has removed.
func (s *specimen) hitsOpening(name string, at, end int64) bool {
	return slices.ContainsFunc(s.frames[name], func(f placed) bool { return f.isOpening && f.pos < end && at < f.end })
}

// TestCorruptState damages the files of the state. Either the state is what it
// was, or it is made again of the log and is what it was, or it is refused.
func TestCorruptState(t *testing.T) {
	for _, reclaimed := range []bool{false, true} {
		t.Run(map[bool]string{false: "whole", true: "reclaimed"}[reclaimed], func(t *testing.T) {
			s := newSpecimen(t, reclaimed)
			s.eachHarm(t, "/data/state", s.checkState)
		})
	}
}

func (s *specimen) checkState(image *vfs.Memory, name, what string, at, end int64) error {
	heard := &listener{}
	o := tiny(image)
	o.Logger = slog.New(heard)
	x, err := Examine(context.Background(), o, Progress{})
	if err != nil {
		return err
	}
	if (at+int64(len(what)))%4 == 0 {
		if err := s.checkMended(image.Crash(vfs.CrashKind), "", what, at, end); err != nil {
			return err
		}
	}
	l, err := Open(context.Background(), o)
	if err != nil && x.Healthy() {
		return fmt.Errorf("it was not found: %w", err)
	}
	if err != nil {
		if !errors.Is(err, core.ErrCorrupt) || !strings.Contains(err.Error(), "/data/state") {
			return fmt.Errorf("refused with %w", err)
		}
		return nil
	}
	got := make(map[string]string)
	for e, serr := range l.State("", "") {
		if err = serr; err == nil {
			got[e.Key] = string(e.Value)
		}
	}
	if err == nil && !maps.Equal(got, s.state) {
		err = fmt.Errorf("the state is %q, want %q; it said %q", got, s.state, heard.lines())
	} else if errors.Is(err, core.ErrCorrupt) {
		err = nil
	}
	if err == nil {
		err = s.checkOpened(l, "", what, at, end, 1)
	}
	// It may not be closed cleanly, but it must come to an end.
	if cerr := l.Close(context.Background()); cerr != nil && !errors.Is(cerr, core.ErrStorage) && err == nil {
		err = cerr
	}
	return err
}
