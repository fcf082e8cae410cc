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

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

var corruptEvery = flag.Int("corrupt", 499, "of the bytes of the reference directory, every n-th is damaged; 1 is all of them (make corrupt)")

// A harm is one way to damage a file, tried at every so many bytes at most.
type harm struct {
	kind  string
	every int64
	do    func(data []byte, at int64) []byte
}

const (
	flipped = "flipped"
	zeroed  = "zeroed"
	cut     = "cut"
	removed = "removed"  // the file
	wasZero = "was zero" // and so cannot be zeroed
)

var harms = []harm{
	{flipped, 1, func(b []byte, at int64) []byte { b[at] ^= 0xff; return b }},
	{cut, 1, func(b []byte, at int64) []byte { return b[:at] }},
	{zeroed, 1, func(b []byte, at int64) []byte { b[at] = 0; return b }},
	{"flipped a bit", 7, func(b []byte, at int64) []byte { b[at] ^= 1 << (at % 8); return b }},
	{"zeroed a sector", 64, func(b []byte, at int64) []byte { clear(b[at:min(at+512, int64(len(b)))]); return b }},
	{"garbaged", 64, func(b []byte, at int64) []byte { copy(b[at:], strings.Repeat("garbage!", 20)); return b }},
}

// A place is one of the harms done to one file. The bytes from at to end are not
// what they were.
type place struct {
	name, what string
	at, end    int64
	size       int64 // of the file
	mend       bool  // doctor is to mend it, too
}

func (p place) String() string { return fmt.Sprintf("%s at %d of %d", p.what, p.at, p.size) }

// An outcome is what became of a place. All of them have in common that what is
// read is what was written.
type outcome string

const (
	lossTold   outcome = "a loss told with its offsets"
	noLoss     outcome = "found, nothing lost"
	rebuilt    outcome = "found, made again of the log"
	notOpened  outcome = "found, refused"
	harmless   outcome = "harmless" // it is not the log's, and all was compared
	undetected outcome = "undetected"
)

// A tally is what was tried of a file, and what came of it.
type tally struct {
	mu       sync.Mutex // guards what follows
	tried    map[string]int
	outcomes map[outcome]int
	mended   int
}

func (y *tally) String() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(y.tried)) {
		fmt.Fprintf(&b, "%s %d, ", k, y.tried[k])
	}
	fmt.Fprintf(&b, "mended %d", y.mended)
	sep := ": "
	for _, k := range slices.Sorted(maps.Keys(y.outcomes)) {
		fmt.Fprintf(&b, "%s%d %s", sep, y.outcomes[k], k)
		sep = "; "
	}
	return b.String()
}

func newTally() *tally {
	return &tally{tried: make(map[string]int), outcomes: make(map[outcome]int)}
}

// skip counts a byte that is zero.
func (y *tally) skip() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.tried[wasZero]++
}

func (y *tally) add(p place, o outcome) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.tried[p.what]++
	y.outcomes[o]++
	if p.mend {
		y.mended++
	}
}

// eachHarm damages one place after the other in the files of a folder and calls
// check with each result, but where nothing changed. In the end it says of each
// file, and of all, what was tried and what came of it.
func (s *specimen) eachHarm(t *testing.T, dir string, check func(image *vfs.Memory, p place) (outcome, error)) {
	names, err := s.fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	all, bytes := newTally(), 0
	t.Run("files", func(t *testing.T) {
		for _, name := range names {
			full := path.Join(dir, name)
			was := content(t, s.fs, full)
			bytes += len(was)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				of := newTally()
				try := func(p place, harm func(image *vfs.Memory) error) {
					p.name, p.size = name, int64(len(was))
					image := s.fs.Crash(vfs.CrashKind)
					err := harm(image)
					came := undetected
					if err == nil {
						came, err = check(image, p)
					}
					if err != nil {
						came = undetected
						t.Errorf("%v: %v", p, err)
					}
					of.add(p, came)
					all.add(p, came)
				}
				try(place{what: removed, end: int64(len(was)), mend: true}, func(image *vfs.Memory) error { return image.Remove(full) })
				eachPlace(was, *corruptEvery, len(name), func(p place, now []byte) {
					if now == nil {
						of.skip()
						all.skip()
						return
					}
					if *corruptEvery == 1 && p.what == flipped && p.at%500 == 499 {
						t.Logf("%d of %d bytes", p.at+1, len(was))
					}
					try(p, func(image *vfs.Memory) error {
						edit(t, image, full, func([]byte) []byte { return now })
						return nil
					})
				})
				t.Logf("%d bytes: %v", len(was), of)
			})
		}
	})
	t.Logf("%d files, %d bytes: %v", len(names), bytes, all)
	if all.outcomes[undetected] > 0 || all.outcomes[harmless] == 0 || all.mended == 0 {
		t.Error("not all was detected, or not all that can happen was tried")
	}
	if n := len(names); *corruptEvery == 1 && (all.tried[removed] != n || all.tried[flipped] != bytes || all.tried[cut] != bytes || all.tried[zeroed]+all.tried[wasZero] != bytes) {
		t.Error("not every byte was tried")
	}
}

// eachPlace calls do for the places of a file that have their turn where every
// n-th has, with what the file then is; nil where a byte to be zeroed is zero.
func eachPlace(was []byte, every, shift int, do func(p place, now []byte)) {
	for at := range int64(len(was)) {
		for k, h := range harms {
			if (at+int64(shift+k*37))%max(int64(every), h.every) != 0 && at != 0 {
				continue
			}
			now := h.do(bytes.Clone(was), at)
			if bytes.Equal(now, was) {
				if h.kind == zeroed {
					do(place{}, nil)
				}
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
			// Every byte is mended in one way at least: flipped or cut.
			do(place{what: h.kind, at: at, end: end, mend: (at+int64(k))%2 == 0}, now)
		}
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
// is not, nor is a segment that was made ready and has no frame, where it is gone.
func (s *specimen) matters(p place) bool {
	if p.what == removed {
		return len(s.frames[p.name]) > 0
	}
	if strings.HasSuffix(p.name, indexSuffix) || p.at < segmentHeaderSize {
		return true
	}
	return s.hits(p, func(placed) bool { return true })
}

// hits says whether a place is in one of some frames.
func (s *specimen) hits(p place, is func(placed) bool) bool {
	return slices.ContainsFunc(s.frames[p.name], func(f placed) bool { return is(f) && f.pos < p.end && p.at < f.end })
}

// mayLose says whether damage may cost the record at an offset: it is in a frame
// that was damaged.
func (s *specimen) mayLose(p place, offset core.Offset) bool {
	return s.hits(p, func(f placed) bool { return f.from <= offset && offset < f.to })
}

func (s *specimen) checkLog(image *vfs.Memory, p place) (came outcome, err error) {
	heard := &listener{}
	o := specimenOptions(image)
	x, err := s.checkExamined(o, p)
	if err != nil {
		return "", err
	}
	if p.mend {
		if err := s.checkMended(image.Crash(vfs.CrashKind), x, p); err != nil {
			return "", err
		}
	}
	o.Logger = slog.New(heard)
	if came = harmless; !x.Healthy() || s.matters(p) {
		came = noLoss
	}
	next := s.end
	for round := range 2 {
		l, err := Open(context.Background(), o)
		if err != nil {
			return "", err
		}
		lost, err := s.checkOpened(l, p, round)
		if lost {
			came = lossTold
		}
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
			return "", fmt.Errorf("opened %d times: %w; it said %q", round+1, err, heard.lines())
		}
	}
	return came, nil
}

// checkExamined wants damage to be found, in the file that has it.
func (s *specimen) checkExamined(o Options, p place) (*Examination, error) {
	x, err := Examine(context.Background(), o, Progress{})
	if err != nil {
		return nil, err
	}
	if s.matters(p) && !slices.ContainsFunc(x.Findings, func(f Finding) bool {
		return f.Severity != Note && f.File == path.Join(logDir, p.name) && (f.To == 0 || f.At <= p.end && p.at <= f.To) ||
			// Of a file that is gone, or is cut short at the log's end, it is
			// known just what is missing.
			f.Severity == Loss && (p.what == removed || p.what == cut && p.at <= segmentHeaderSize)
	}) {
		return nil, fmt.Errorf("it was not found: %+v", x.Findings)
	}
	return x, nil
}

// checkMended wants a directory to be healthy once it was mended, with no less in
// it than damage may cost. before is what was found in it.
func (s *specimen) checkMended(image *vfs.Memory, before *Examination, p place) error {
	o := specimenOptions(image)
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
		_, err = s.checkOpened(l, p, 1)
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
func (s *specimen) checkOpened(l *Log, p place, round int) (someLost bool, err error) {
	heard := l.log.Handler().(*listener)
	buf := core.ReadBuffer{MaxRecords: 20, MaxBytes: 1 << 20}
	for _, filters := range []*core.FilterSet{nil, core.NewFilterSet("t/3")} {
		have := make(map[core.Offset]bool)
		var gaps []core.Gap
		for from := core.Offset(1); from < s.end; {
			next, err := l.Read(context.Background(), from, s.end, filters, &buf)
			if err != nil {
				return false, err
			}
			for _, r := range buf.Records {
				have[r.Offset] = true
				if s.records[r.Offset] != r.Topic+" "+string(r.Body) {
					return false, fmt.Errorf("record %d is not what it was", r.Offset)
				}
			}
			gaps = append(gaps, buf.Gaps...)
			if next <= from {
				return false, fmt.Errorf("reading at %d goes on at %d", from, next)
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
				return false, fmt.Errorf("record %d is missing, and no gap says so: %v", offset, gaps)
			}
			if !s.mayLose(p, offset) {
				return false, fmt.Errorf("record %d is lost, it was not damaged; gaps %v", offset, gaps)
			}
		}
		if filters != nil {
			continue
		}
		for _, g := range gaps {
			if g.Lost && !s.lacks(have, g) && !s.hitsOpening(p) {
				return false, fmt.Errorf("%v is said to be lost, and nothing is", g)
			}
		}
		if lost && round == 0 && !slices.ContainsFunc(heard.lines(), func(line string) bool { return strings.Contains(line, "from=") }) {
			return false, errors.New("the operator was not told which offsets are lost")
		}
		someLost = lost
	}
	return someLost, nil
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
func (s *specimen) hitsOpening(p place) bool {
	return s.hits(p, func(f placed) bool { return f.isOpening })
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

func (s *specimen) checkState(image *vfs.Memory, p place) (outcome, error) {
	heard := &listener{}
	o := specimenOptions(image)
	o.Logger = slog.New(heard)
	p.name = "" // of the log's files none is damaged
	x, err := Examine(context.Background(), o, Progress{})
	if err != nil {
		return "", err
	}
	if p.mend {
		if err := s.checkMended(image.Crash(vfs.CrashKind), x, p); err != nil {
			return "", err
		}
	}
	l, err := Open(context.Background(), o)
	if err != nil && x.Healthy() {
		return "", fmt.Errorf("it was not found: %w", err)
	}
	if err != nil {
		if !errors.Is(err, core.ErrCorrupt) || !strings.Contains(err.Error(), "/data/state") {
			return "", fmt.Errorf("refused with %w", err)
		}
		return notOpened, nil
	}
	came := harmless
	if !x.Healthy() {
		came = noLoss
	}
	if slices.ContainsFunc(heard.lines(), func(line string) bool { return strings.Contains(line, "made again of the log") }) {
		came = rebuilt
	}
	got := make(map[string]string)
	for e, serr := range l.State("", "") {
		if err = serr; err == nil {
			got[e.Key] = string(e.Value)
		}
	}
	if err == nil && !maps.Equal(got, s.state) {
		err = fmt.Errorf("the state is %q, want %q; it said %q", got, s.state, heard.lines())
	} else if errors.Is(err, core.ErrCorrupt) && !x.Healthy() {
		came, err = notOpened, nil
	}
	if err == nil {
		_, err = s.checkOpened(l, p, 1)
	}
	// It may not be closed cleanly, but it must come to an end.
	if cerr := l.Close(context.Background()); cerr != nil && !errors.Is(cerr, core.ErrStorage) && err == nil {
		err = cerr
	}
	return came, err
}
