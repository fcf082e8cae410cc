package seglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A Finding is one thing that Examine found in a data directory.
type Finding struct {
	Severity Severity `json:"severity"`
	// File is the file's name below the data directory; At and To are the
	// bytes concerned, To exclusive. Both are 0 where it is the file as a
	// whole.
	File string `json:"file"`
	At   int64  `json:"at"`
	To   int64  `json:"to"`
	// First and End are the offsets concerned, End exclusive; they are the
	// same where no record is.
	First core.Offset `json:"first,omitempty"`
	End   core.Offset `json:"end,omitempty"`
	// What is wrong, in words, what follows from it, and what Mend does about
	// it, which may be nothing.
	What        string `json:"what"`
	Consequence string `json:"consequence"`
	Mend        string `json:"mend,omitempty"`
	// Discard is what has to be given up for it to be mended, as Mend wants it
	// named; empty where nothing has.
	Discard string `json:"discard,omitempty"`
}

// A Severity says how bad a finding is.
type Severity string

// From bad to harmless. A note is nothing that has to be mended: what a crash
// leaves behind, and losses that the directory already accounts for.
const (
	Loss   Severity = "loss"   // confirmed data cannot be read
	Damage Severity = "damage" // something is wrong, and nothing is lost by it
	Note   Severity = "note"
)

// An Examination is what a data directory holds and what is wrong with it.
type Examination struct {
	First    core.Offset `json:"first"` // of the earliest record
	End      core.Offset `json:"end"`   // where the next record would stand
	Records  uint64      `json:"records"`
	Segments int         `json:"segments"`
	Bytes    int64       `json:"bytes"` // of the segments
	// Closed says that the log was closed; otherwise its process was killed.
	Closed   bool      `json:"closed"`
	Findings []Finding `json:"findings"`
}

// Healthy says that there is nothing to mend.
func (e *Examination) Healthy() bool { return e.Problems() == 0 }

// Problems is how many findings are more than notes.
func (e *Examination) Problems() (n int) {
	for _, f := range e.Findings {
		if f.Severity != Note {
			n++
		}
	}
	return n
}

// Progress is told how many more bytes have been read, and before that, once,
// how many there are. Either may be nil.
type Progress struct {
	Plan func(bytes int64)
	Add  func(bytes int)
}

// Examine reads all of a data directory and says what is wrong with it. It
// changes nothing and blocks for the disk. A directory that a broker has open is
// vfs.ErrLocked; one that is none is fs.ErrNotExist; one that a newer version
// wrote is an error.
func Examine(ctx context.Context, o Options, p Progress) (*Examination, error) {
	x, err := newExaminer(o, p)
	if err == nil {
		err = x.run(ctx)
	}
	if x != nil {
		err = errors.Join(err, x.log.abandon())
	}
	if err != nil {
		return nil, fmt.Errorf("examining %s: %w", o.Dir, err)
	}
	return &x.Examination, nil
}

// An examiner is one run of Examine.
type examiner struct {
	Examination
	log      *Log
	recovery *recovery
	progress Progress

	// Of the segment that is being scanned.
	current *segment
	end     int64       // behind the last frame found
	next    core.Offset // behind its last record
	commit  uint64      // its commit
	flags   uint32      // its flags
	holes   []hole
	pads    []Finding
	// noted are the losses that openings tell of.
	noted []gap
	// unended are the findings about copied segments that lack their last frame.
	unended []Finding

	// stateDamage is what is wrong with the state, whole that the log has all
	// that made it.
	stateDamage error
	swapping    bool // the state is being replaced, which was interrupted
	whole       bool
	bad         []string // segments in which nothing can be read
}

// A hole is bytes between frames, or behind the last, that are no frame.
type hole struct {
	segment     *segment
	at, to      int64
	from, until core.Offset // of the records around it
	after       uint64      // the commit before it
	behind      uint64      // the commit behind it
}

func newExaminer(o Options, p Progress) (*examiner, error) {
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	// A directory that is none gets no lock file, either.
	if _, err := o.FS.Stat(path.Join(o.Dir, logDir)); err != nil {
		return nil, err
	}
	if p.Plan == nil {
		p.Plan = func(int64) {}
	}
	if p.Add == nil {
		p.Add = func(int) {}
	}
	quiet := slog.New(slog.DiscardHandler)
	o.Logger = quiet
	l := &Log{o: o, fs: readOnly{o.FS}, dir: path.Join(o.Dir, logDir), log: quiet, closing: make(chan struct{})}
	x := &examiner{log: l, progress: p}
	var err error
	if l.lock, err = o.FS.Lock(path.Join(o.Dir, "LOCK")); err != nil {
		return x, err
	}
	if _, err := checkRestored(o.FS, o.Dir); err != nil {
		return x, err
	}
	return x, checkStateVersion(l.stateDir(), o.FS)
}

func (x *examiner) run(ctx context.Context) error {
	l := x.log
	found, err := l.survey()
	if err != nil {
		return err
	}
	x.bad = found.bad
	for _, s := range l.segments {
		size, err := s.file.Size()
		if err != nil {
			return err
		}
		x.Bytes += size
	}
	x.progress.Plan(x.Bytes)
	x.state()
	r := newRecovery(l)
	x.recovery = r
	r.look = x.look
	if err := r.run(ctx); err != nil {
		return err
	}
	if err := x.endSegment(); err != nil {
		return err
	}
	x.Segments = len(l.segments)
	x.Closed = r.closed
	x.First, x.End = 0, r.judge.next
	for _, s := range l.segments {
		if v := s.view(); v.records > 0 {
			if x.Records == 0 {
				x.First = v.first
			}
			x.Records += uint64(v.records)
		}
	}
	if x.whole, err = r.hasAllChanges(ctx); err != nil {
		return err
	}
	if err := x.files(); err != nil {
		return err
	}
	x.lost()
	for i, s := range l.segments {
		if err := x.index(s, i == len(l.segments)-1); err != nil {
			return err
		}
	}
	x.tables()
	x.judgeState()
	return ctx.Err()
}

func (x *examiner) add(f Finding) { x.Findings = append(x.Findings, f) }

// look is told of each frame that is found.
func (x *examiner) look(s *segment, f *found) {
	if s != x.current {
		if err := x.endSegment(); err != nil {
			x.add(unreadable(path.Join(logDir, x.current.name), err))
		}
		x.current, x.end, x.next, x.commit = s, segmentHeaderSize, 0, 0
	}
	h := &f.header
	if f.pos > x.end {
		x.holes = append(x.holes, hole{segment: s, at: x.end, to: f.pos, from: x.next, until: h.base, after: x.commit, behind: h.commit})
	}
	body, err := h.unpack(f.stored, func(n int) []byte { return make([]byte, n) })
	if err == nil {
		err = checkFrame(h, body)
	}
	if err != nil {
		x.add(Finding{
			Severity: Loss, File: path.Join(logDir, s.name), At: f.pos, To: f.pos + h.size(), First: h.base, End: h.end(),
			What:        fmt.Sprintf("a frame has a good checksum and cannot be understood: %v", err),
			Consequence: "its records cannot be read; this is a defect of the program that wrote it",
		})
	}
	if o, ok := parseOpening(body); ok && h.flags&flagOpened != 0 && o.end < o.lost {
		x.noted = append(x.noted, gap{From: o.end, To: o.lost, Lost: true})
	}
	if n := h.size() - frameHeaderSize - int64(h.stored); n > 0 {
		at := f.pos + h.size() - n
		pad := make([]byte, n)
		if _, err := readFull(s.file, pad, at); err == nil && !zero(pad) {
			x.pads = append(x.pads, padding(s, at, at+n))
		}
	}
	x.progress.Add(int(f.pos + h.size() - x.end))
	x.end, x.next, x.commit, x.flags = f.pos+h.size(), max(x.next, h.end()), h.commit, h.flags
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func padding(s *segment, at, to int64) Finding {
	return Finding{
		Severity: Damage, File: path.Join(logDir, s.name), At: at, To: to,
		What:        "bytes that only fill up are not zeros",
		Consequence: "none: nothing is read there; but somebody has written to the file",
		Mend:        "they are set to zero",
	}
}

func unreadable(file string, err error) Finding {
	return Finding{Severity: Loss, File: file, What: "cannot be read: " + err.Error(), Consequence: "what stands there is not known"}
}

// checkFrame says whether the records and the changes of a frame are what the
// core can read.
func checkFrame(h *frameHeader, body []byte) error {
	if !checkRecords(body[h.prefix:], h.count) {
		return fmt.Errorf("%w: it does not hold %d records", core.ErrCorrupt, h.count)
	}
	if h.hasChanges() {
		err := eachChange(body[:h.prefix], h.base, func(_, _ []byte) error { return nil }, func([]byte) error { return nil })
		if err != nil {
			return err
		}
	}
	places := newPlaces(h, body)
	var e core.Envelope
	for rest := body[h.prefix:]; len(rest) > 0; {
		r, after, err := core.ParseRecord(rest)
		if err != nil {
			return err
		}
		r.Offset, _ = places.next()
		if core.HashTopic(r.Topic) != r.Hash {
			return fmt.Errorf("%w: offset %d: the topic's hash is not that of the topic", core.ErrCorrupt, r.Offset)
		}
		if err := r.Envelope(&e); err != nil {
			return err
		}
		rest = after
	}
	return nil
}

// endSegment looks at what is left of the segment that was scanned.
func (x *examiner) endSegment() error {
	s := x.current
	if s == nil {
		return nil
	}
	x.current = nil
	size, err := s.file.Size()
	if err != nil {
		return err
	}
	x.progress.Add(int(size - x.end))
	if s.rewritten && x.flags&flagClosed == 0 {
		f := Finding{
			Severity: Damage, File: path.Join(logDir, s.name), At: x.end, To: size,
			What:        "a segment that retention copied lacks its last frame, which says where it ends",
			Consequence: "offsets that retention has removed there may be told as lost",
			Mend:        "the frame is written anew",
		}
		x.add(f)
		x.unended = append(x.unended, f)
	}
	if x.end < size {
		x.holes = append(x.holes, hole{segment: s, at: x.end, to: size, from: x.next, after: x.commit})
	}
	return nil
}

// firstPage looks at a segment's first page behind its header.
func (x *examiner) firstPage(s *segment) error {
	pad := make([]byte, segmentHeaderSize-segmentHeaderUsed)
	n, err := readFull(s.file, pad, segmentHeaderUsed)
	if err != nil {
		return err
	}
	if n < len(pad) {
		at := int64(segmentHeaderUsed + n)
		x.add(Finding{
			Severity: Damage, File: path.Join(logDir, s.name), At: at, To: at,
			What:        "the segment ends within its first page",
			Consequence: "its records, if it had any, are lost: see the findings about offsets",
			Mend:        "it is put aside, or removed if nothing had been written behind it",
		})
	}
	if pad = pad[:n]; !zero(pad) {
		from, to := len(pad)-len(bytes.TrimLeft(pad, "\x00")), len(bytes.TrimRight(pad, "\x00"))
		x.pads = append(x.pads, padding(s, int64(segmentHeaderUsed+from), int64(segmentHeaderUsed+to)))
	}
	return nil
}

// files reports what is wrong with the segments' files as such.
func (x *examiner) files() error {
	l := x.log
	for _, name := range x.bad {
		x.add(Finding{
			Severity: Loss, File: path.Join(logDir, name),
			What:        "a segment in which nothing can be read: neither its header nor any frame",
			Consequence: "all its records are lost; the segments around it are not touched by that",
			Mend:        "it is put aside as " + name + badSuffix + ", and the offsets are told as lost",
		})
	}
	for _, n := range l.asides {
		name := segmentName(n)
		if slices.Contains(x.bad, name) {
			continue
		}
		f := Finding{
			Severity: Note, File: path.Join(logDir, name+badSuffix),
			What:        "a segment that was put aside, since nothing in it could be read, or that was missing",
			Consequence: "its records are lost; while the file is here, readers are told so",
		}
		if slices.ContainsFunc(l.freed, func(r freed) bool { return r.first <= n && n <= r.through }) {
			f.Consequence = "none any more: retention has removed what stood around it, and nobody needs the file"
		}
		x.add(f)
	}
	for _, f := range x.recovery.lostFiles() {
		if f.loss != nil {
			x.add(x.lostFile(f))
		}
	}
	for _, s := range l.segments {
		if err := x.firstPage(s); err != nil {
			return err
		}
		if s.headerDamage == nil {
			continue
		}
		x.add(Finding{
			Severity: Damage, File: path.Join(logDir, s.name), At: 0, To: segmentHeaderUsed,
			What:        fmt.Sprintf("the segment's header is damaged: %v", s.headerDamage),
			Consequence: "none: what it said is told from the frames, which takes a while at each start",
			Mend:        "it is written anew",
		})
	}
	x.Findings = append(x.Findings, x.pads...)
	return nil
}

// lostFile is the finding about a segment's file that is missing.
func (x *examiner) lostFile(f lostFile) Finding {
	what, is := "the segment's file is", "it was"
	if n := f.end - f.first; n > 1 {
		what, is = fmt.Sprintf("%d segments' files, from here to %s, are", n, segmentName(f.end-1)), "they were"
	}
	found := Finding{
		Severity: Loss, File: path.Join(logDir, f.name()),
		What:        what + " missing, and " + is + " not removed by retention",
		Consequence: fmt.Sprintf("the records that stood there, in front of offset %d, are lost; readers are told so", f.behind.view().opened),
	}
	if f.loss.first > 0 {
		found = x.damaged(found, *f.loss, f.behind)
	}
	found.Mend = "an empty file " + f.name() + badSuffix + " notes the loss, as it does when the broker starts"
	return found
}

// lost reports the holes in the log: each with the bytes and the offsets, as far
// as either is known.
func (x *examiner) lost() {
	l, r := x.log, x.recovery
	told := make([]bool, len(r.losses))
	for _, h := range x.holes {
		s := h.segment
		if h.at >= s.span.size {
			continue // behind the log's end in the segment
		}
		f := Finding{
			Severity: Damage, File: path.Join(logDir, s.name), At: h.at, To: h.to,
			What:        "bytes that should be a frame are none",
			Consequence: "no record is lost: what stood there had none, or is a write that had failed",
		}
		for i, lost := range r.losses {
			if lost.at == s && (lost.gap.From < h.until && h.from < lost.gap.To || lost.first > h.after && lost.first <= h.behind && lost.gap.From >= lost.gap.To) {
				told[i] = true
				f = x.damaged(f, lost, s)
			}
		}
		// What a copied segment has lost in front of its records is found again
		// at each start; there is nothing to note it in.
		front := s.rewritten && h.at == segmentHeaderSize
		if _, err := l.fs.Stat(path.Join(l.o.Dir, quarantineDir, quarantineName(s, f))); err == nil && (f.Severity == Damage || front) {
			f.Severity, f.Mend = Note, ""
			f.What += "; they have been copied to " + quarantineDir
		}
		x.add(f)
	}
	for i, lost := range r.losses {
		through := uint64(0)
		if n := slices.Index(l.segments, lost.at); n > 0 {
			through = l.segments[n-1].through
		}
		if told[i] || slices.ContainsFunc(l.missing(through+1, lost.at.sequence), func(m stretch) bool { return m.freed == nil }) {
			continue // told, or of a segment that is not there
		}
		// It is missing in front of a segment: the end of the one before.
		s := l.segments[max(slices.Index(l.segments, lost.at)-1, 0)]
		size, _ := s.file.Size()
		x.add(x.damaged(Finding{File: path.Join(logDir, s.name), At: s.span.size, To: max(size, s.span.size), What: "the segment ends too early"}, lost, s))
	}
	end := max(r.judge.next, 1)
	if st := l.state; st != nil && st.applied > r.judge.last {
		f := Finding{
			Severity: Loss, File: logDir, First: end, End: max(st.next, end),
			What:        fmt.Sprintf("the log ends with commit %d, and the state knows of commit %d", r.judge.last, st.applied),
			Consequence: "what was confirmed behind the log's end is lost; readers are told its offsets",
			Mend:        "the loss is noted in the log, which goes on behind it",
		}
		if s := x.lastWritten(); s != nil {
			size, _ := s.file.Size()
			f.File, f.At, f.To = path.Join(logDir, s.name), s.span.size, max(size, s.span.size)
		}
		x.add(f)
	} else if s := x.lastWritten(); !r.closed && s != nil {
		x.add(Finding{
			Severity: Note, File: path.Join(logDir, s.name), At: s.span.size, To: s.span.size, First: end, End: end,
			What:        "the log was not closed",
			Consequence: "none: behind its last whole commit there is nothing that had been confirmed as durable",
			Mend:        "the log goes on in a new segment, as it does when the broker starts",
		})
	}
}

// lastWritten is the last segment that something stands in; the one behind it
// may have been made ready and not begun.
func (x *examiner) lastWritten() (last *segment) {
	for _, s := range x.log.segments {
		if size, err := s.file.Size(); err != nil || size > segmentHeaderSize || last == nil {
			last = s
		}
	}
	return last
}

// damaged completes a finding about a segment with what was lost.
func (x *examiner) damaged(f Finding, l loss, s *segment) Finding {
	f.Severity = Loss
	f.First, f.End = l.gap.From, max(l.gap.To, l.gap.From)
	switch {
	case f.First < f.End:
		f.Consequence = "the records at these offsets are lost; readers are told so, and everything else can be read"
		f.Mend = "the bytes are copied to " + quarantineDir + "/, and the loss is noted in the segment's index"
	case x.log.state != nil && x.stateDamage == nil && x.log.state.applied >= l.last:
		f.Severity = Damage
		f.Consequence = fmt.Sprintf("none: %s had no records, and the state has the changes", commits(l))
	default:
		f.Consequence = fmt.Sprintf("the changes to queues and retained values that %s made are lost", commits(l))
	}
	if x.known(f, s) {
		f.Severity = Note
		f.What += "; this is accounted for"
		f.Mend = ""
	}
	return f
}

func commits(l loss) string {
	if l.first >= l.last {
		return fmt.Sprintf("commit %d", l.first)
	}
	return fmt.Sprintf("commits %d to %d", l.first, l.last)
}

// known says whether the finding's offsets are noted as lost: in the segment's
// index, if it has a good one, or in an opening.
func (x *examiner) known(f Finding, s *segment) bool {
	if f.First < f.End && slices.ContainsFunc(x.noted, func(g gap) bool { return g.From <= f.First && f.End <= g.To }) {
		return true
	}
	i, _, err := x.log.openIndex(s)
	if err != nil {
		return false
	}
	defer i.close()
	return f.First < f.End && i.verify() == nil && slices.ContainsFunc(i.gaps, func(g gap) bool { return g.Lost && g.From <= f.First && f.End <= g.To })
}

// index compares a sealed segment's index with the segment.
func (x *examiner) index(s *segment, last bool) error {
	name := indexName(s.name)
	file, err := x.log.fs.OpenRead(path.Join(x.log.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		if !last {
			x.add(Finding{
				Severity: Note, File: path.Join(logDir, name), What: "a sealed segment has no index",
				Consequence: "none: it is scanned at the next start, and gets one", Mend: "the index is built",
			})
		}
		return nil
	}
	if err != nil {
		return err
	}
	size, err := file.Size()
	var have []byte
	if err == nil {
		have = make([]byte, size)
		_, err = readFull(file, have, 0)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		x.add(unreadable(path.Join(logDir, name), err))
		return nil
	}
	f := Finding{
		Severity: Damage, File: path.Join(logDir, name), To: size,
		Consequence: "none: an index says nothing that its segment does not",
		Mend:        "it is built again",
	}
	i, _, err := x.log.openIndex(s)
	if err == nil {
		err = i.verify()
		i.close()
	}
	if err != nil {
		f.What = "the index is damaged: " + err.Error()
		x.add(f)
		return nil
	}
	b := newIndexBuilder(x.log, s)
	if err := b.scan(); err != nil {
		return err
	}
	if want := b.encode(); !bytes.Equal(have, want) && !x.damagedSegment(s) {
		f.What = "the index does not say what the segment's frames say"
		f.Consequence = "records may be missed by readers of single topics"
		x.add(f)
	}
	return nil
}

// damagedSegment says whether a loss was found in a segment: its index is of a
// time when there was none.
func (x *examiner) damagedSegment(s *segment) bool {
	return slices.ContainsFunc(x.Findings, func(f Finding) bool { return f.File == path.Join(logDir, s.name) && f.At < s.span.size }) ||
		slices.ContainsFunc(x.recovery.losses, func(l loss) bool { return l.at == s || l.before == s })
}

// state opens the state, to be read.
func (x *examiner) state() {
	l := x.log
	step, _, err := readSwap(l.fs, l.o.Dir)
	if x.swapping = err != nil || step != 0; x.swapping {
		x.stateDamage = errors.Join(err, errSwapping)
		f := Finding{
			Severity: Damage, File: SwapName, What: "a mending of the state was interrupted",
			Consequence: "none, if it is finished: the state is in two directories", Mend: "it is finished, as it is when the broker starts",
		}
		if err != nil {
			f.Severity, f.What, f.Mend = Loss, f.What+", and it cannot be said where: "+firstLine(err), ""
			f.Consequence = "the broker does not start: of two states, which are both there in part, it is not known which one goes on"
		}
		x.add(f)
		return
	}
	if _, err := l.fs.Stat(l.stateDir()); errors.Is(err, fs.ErrNotExist) {
		x.stateDamage = fmt.Errorf("%w: there is no state in %s", core.ErrCorrupt, l.stateDir())
		return
	}
	l.state, x.stateDamage = viewState(l.stateDir(), l.o.FS, l.log)
	if x.stateDamage != nil {
		return
	}
	for _, err := range l.State("", "") {
		if err != nil {
			x.stateDamage = err
			return
		}
	}
}

var errSwapping = errors.New("it is being replaced")

// tables compares the checksums of all blocks of the state's tables.
func (x *examiner) tables() {
	l := x.log
	names, err := l.fs.List(l.stateDir())
	if err != nil {
		return // its absence has been found
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		if err := checkTable(l.o.FS, path.Join(l.stateDir(), name)); err != nil {
			if x.stateDamage == nil {
				x.stateDamage = err
			}
			x.add(Finding{
				Severity: Note, File: path.Join(stateDirName, name),
				What: "a table of the state is damaged: " + firstLine(err), Consequence: "see the finding about the state",
			})
		}
	}
}

func checkTable(f vfs.FS, name string) (err error) {
	defer recoverPebble(&err)
	file, err := f.OpenRead(name)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(&stateFile{File: file, name: name})
	if err != nil {
		return errors.Join(err, file.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, sstable.ReaderOptions{})
	if err != nil {
		return err
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// judgeState reports what is wrong with the state.
func (x *examiner) judgeState() {
	if x.stateDamage == nil {
		x.stateDamage = x.recovery.stateDamage()
	}
	if x.stateDamage == nil || x.swapping || len(x.log.segments) == 0 && x.log.state == nil && len(x.bad) == 0 {
		return
	}
	f := Finding{Severity: Damage, File: stateDirName, What: "the state is damaged: " + firstLine(x.stateDamage)}
	if x.whole {
		f.Consequence = "none: the log has all that made it"
		f.Mend = "it is made again of the log; the old files are put aside"
	} else {
		f.Severity = Loss
		f.Consequence = "the broker does not start: the log does not have all that made the queues, sessions and retained values"
		f.Mend = "what can be read of it is kept, and what the log still has is applied to it; the old files are put aside"
		f.Discard = stateDirName
	}
	x.add(f)
}

// readOnly is a file system that nothing is changed in.
type readOnly struct{ vfs.FS }

func (r readOnly) Open(name string) (vfs.File, error) { return r.OpenRead(name) }

func refuse(name string) error { return &fs.PathError{Op: "change", Path: name, Err: syscall.EROFS} }

func (r readOnly) Create(name string) (vfs.File, error) { return nil, refuse(name) }
func (r readOnly) Rename(_, name string) error          { return refuse(name) }
func (r readOnly) Link(_, name string) error            { return refuse(name) }
func (r readOnly) Remove(name string) error             { return refuse(name) }
func (r readOnly) MkdirAll(name string) error           { return refuse(name) }
func (r readOnly) SyncDir(name string) error            { return refuse(name) }
func (r readOnly) Lock(name string) (io.Closer, error)  { return nil, refuse(name) }
