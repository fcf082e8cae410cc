package seglog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A segment's file begins with a header that fills its first page; frames
// follow.
const (
	segmentMagic      = "SluiceLg"
	segmentVersion    = 1
	segmentHeaderSize = 4096
	segmentHeaderUsed = 48

	// blockTarget is how many bytes of frames one entry of the block table
	// stands for.
	blockTarget = 8 << 10
)

// A segmentHeader is the head of a segment's file.
type segmentHeader struct {
	// generation is a random number that every frame repeats: frames of the
	// file's former uses have others, and no publisher can guess it.
	generation uint64
	// sequence is the segment's place in the log, through the last of those
	// that it stands for: it is more than sequence where small segments were
	// put together into this one.
	sequence, through uint64
	// rewritten says that retention copied this one from others: offsets are
	// missing, and so are commits.
	rewritten bool
}

func (h segmentHeader) encode() []byte {
	b := make([]byte, segmentHeaderSize)
	copy(b, segmentMagic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], segmentVersion)
	le.PutUint64(b[16:], h.generation)
	le.PutUint64(b[24:], h.sequence)
	le.PutUint64(b[32:], h.through)
	if h.rewritten {
		b[40] = 1
	}
	le.PutUint32(b[12:], headerChecksum(b[:segmentHeaderUsed]))
	return b
}

// The header of any file is its magic, its version and a checksum, which stands
// at byte 12 and covers all of the header but itself.
func headerChecksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:])
}

// maxVersion is how high a version is believed to be.
const maxVersion = 1 << 16

// checkHeader checks a file's header. One of a version that is not known is
// errVersion, for that version may have a longer header and so another
// checksum; but where the version is all that is wrong, that is damage, like
// anything else: it wraps core.ErrCorrupt.
func checkHeader(b []byte, kind, magic string, known uint32) error {
	le := binary.LittleEndian
	if string(b[:8]) != magic {
		return fmt.Errorf("%w: no %s header", core.ErrCorrupt, kind)
	}
	v, sum := le.Uint32(b[8:]), le.Uint32(b[12:])
	if v == known && sum == headerChecksum(b) {
		return nil
	}
	if v != known && v != 0 && v < maxVersion {
		as := bytes.Clone(b)
		le.PutUint32(as[8:], known)
		if sum != headerChecksum(as) {
			return errVersion{kind, v, known}
		}
	}
	return fmt.Errorf("%w: a %s header fails its checksum", core.ErrCorrupt, kind)
}

// parseSegmentHeader decodes a header; see checkHeader for its errors.
func parseSegmentHeader(b []byte) (h segmentHeader, err error) {
	if len(b) < segmentHeaderUsed {
		return h, fmt.Errorf("%w: no segment header", core.ErrCorrupt)
	}
	if err := checkHeader(b[:segmentHeaderUsed], "segment", segmentMagic, segmentVersion); err != nil {
		return h, err
	}
	le := binary.LittleEndian
	h.generation = le.Uint64(b[16:])
	h.sequence = le.Uint64(b[24:])
	h.through = le.Uint64(b[32:])
	h.rewritten = b[40] == 1
	if h.through < h.sequence {
		return h, fmt.Errorf("%w: a segment header names the segments %d to %d", core.ErrCorrupt, h.sequence, h.through)
	}
	return h, nil
}

// errVersion says that a file is of a format that this program does not know.
type errVersion struct {
	kind           string
	version, known uint32
}

func (e errVersion) Error() string {
	return fmt.Sprintf("%s format version %d is not known to this program, which knows %d; a newer version of Sluice wrote it, nothing has been changed", e.kind, e.version, e.known)
}

// A block is an entry of a segment's block table: one or more frames that stand
// one behind the other.
type block struct {
	base core.Offset // of its first record, or of the next one if it has none
	time int64       // of its first frame
	pos  int64       // of its first frame in the file
}

// A gap is a range of offsets within a segment that cannot be read.
type gap = core.Gap

// A span is what a segment holds, as far as it is read. It is a value: who has
// one is not troubled by what the log does next.
type span struct {
	blocks []block
	gaps   []gap
	size   int64       // where its frames end in the file
	first  core.Offset // of the first record
	next   core.Offset // behind the last one
	// opened is the offset behind which the log had ended before the
	// segment's first record got its offset: between them none was ever given.
	opened core.Offset
	// after is the commit that the segment goes on from.
	after               uint64
	records             uint32
	firstTime, lastTime int64
	lastCommit          uint64
	lastChange          uint64 // the newest commit with state changes, 0 if none has
}

// add takes the frame at pos into the span.
func (s *span) add(h *frameHeader, pos int64) {
	if n := len(s.blocks); n == 0 || pos-s.blocks[n-1].pos >= blockTarget {
		s.blocks = append(s.blocks, block{base: h.base, time: h.time, pos: pos})
	}
	if s.opened == 0 {
		s.opened, s.after = h.base, h.commit-1
	}
	if s.records == 0 {
		s.first, s.firstTime = h.base, h.time
	}
	s.lastTime = max(s.lastTime, h.time)
	s.records += h.count
	s.next = h.end()
	s.size = pos + h.size()
	s.lastCommit = h.commit
	if h.hasChanges() {
		s.lastChange = h.commit
	}
}

// A segment is one file of the log.
type segment struct {
	segmentHeader
	name string // of its file
	file vfs.File
	// headerDamage is why the header had to be told from the frames.
	headerDamage error

	mu    sync.RWMutex // guards what follows
	span  span
	index *index // once it has been built; the span's blocks and gaps are then nil
	// former indexes may still be read; they are closed with the segment.
	former  []*index
	removed bool
	// lostBefore are the ranges between the segment and the one before that were
	// lost, be it with a segment that retention freed since; what else is
	// missing there was removed. The slice's elements never change.
	lostBefore []gap

	shrunk   bool          // its file ends where it does; the one who reclaims keeps it
	building sync.Mutex    // held by the one who builds the index; guards what follows
	gathered *indexBuilder // what is known for it already; nil is nothing
	damage   sync.Map      // the places, in bytes, that were reported as damaged

	// users counts the readers that are in the segment, and the log itself as
	// one. At 0 idle is closed.
	users atomic.Int64
	idle  chan struct{}
	// snapshots counts those of the users that are snapshots.
	snapshots atomic.Int32
}

func newSegment(h segmentHeader, name string, file vfs.File) *segment {
	s := &segment{segmentHeader: h, name: name, file: file, idle: make(chan struct{})}
	s.span.size = segmentHeaderSize
	s.users.Store(1)
	return s
}

// enter and leave enclose the use of the segment's file by a reader, which has
// found the segment in the log under its lock.
func (s *segment) enter() { s.users.Add(1) }

func (s *segment) leave() {
	if s.users.Add(-1) == 0 {
		close(s.idle)
	}
}

// close frees the segment; nobody is in it any more.
func (s *segment) close() error {
	for _, x := range s.former {
		x.close()
	}
	if s.index != nil {
		s.index.close()
	}
	return s.file.Close()
}

const (
	segmentSuffix = ".log"
	indexSuffix   = ".index"
	sparePrefix   = "spare-"
	badSuffix     = ".bad"
	// temporarySuffix marks a file that is still being written.
	temporarySuffix = ".tmp"
)

func segmentName(sequence uint64) string { return fmt.Sprintf("%016x%s", sequence, segmentSuffix) }

func indexName(segment string) string {
	return strings.TrimSuffix(segment, segmentSuffix) + indexSuffix
}

// parseSegmentName is the sequence number of a segment's file name.
func parseSegmentName(name string) (sequence uint64, ok bool) {
	digits, ok := strings.CutSuffix(path.Base(name), segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	sequence, err := strconv.ParseUint(digits, 16, 64)
	return sequence, err == nil
}
