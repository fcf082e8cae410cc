package seglog

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// Options configure a log. Only Dir must be set.
type Options struct {
	// Dir is the data directory, which is made if it is missing.
	Dir string
	// FS is the file system; nil is the operating system's.
	FS vfs.FS
	// Logger gets what an operator should know; nil is silence.
	Logger *slog.Logger
	// SegmentBytes is how large a segment's file gets; 0 is 256 MiB.
	SegmentBytes int64
	// TailBytes of the newest batches are kept in memory for readers; 0 is
	// 32 MiB.
	TailBytes int
	// SyncDelay is how long a batch that nobody waits for may stay unsynced; 0
	// is a second.
	SyncDelay time.Duration
	// ZeroBytes is how far ahead of the log's end an active file is written
	// with zeros while there is little else to do, since overwriting syncs
	// faster than growing; 0 is 1 MiB, less than 0 is not at all.
	ZeroBytes int64
	// DirectBytes is how large a commit must be to be written past the operating
	// system's cache, which costs a fraction of the processor's time: who reads
	// it soon has the tail. 0 is 128 KiB, less than 0 is never.
	DirectBytes int
	// PackRecords is how many records a batch must have to be packed: whoever
	// waits for a smaller one waits less long without; 0 is 256.
	PackRecords int
	// Busy says whether a log that got so many bytes in so long is busy: what
	// retention frees is then kept to be written over, and only what is dead
	// for the most part is copied to be freed. nil is a log that fills a segment
	// within half a minute.
	Busy func(bytes int64, passed time.Duration) bool
}

const (
	defaultSegmentBytes = 256 << 20
	defaultTailBytes    = 32 << 20
	defaultSyncDelay    = time.Second
	defaultZeroBytes    = 1 << 20
	defaultPackRecords  = 256
	defaultDirectBytes  = 128 << 10

	// maxUnsyncedBytes and maxUnsyncedRecords bound what is confirmed
	// without having been synced.
	maxUnsyncedBytes   = 64 << 20
	maxUnsyncedRecords = 1 << 16
	// crashSkip is how many offsets are left out after a crash: offsets that
	// were told and whose records were lost are never given again.
	crashSkip = 2 * maxUnsyncedRecords
)

// A Log is an embedded offset log; it implements core.Engine.
type Log struct {
	o    Options
	fs   vfs.FS
	dir  string // of the segments
	log  *slog.Logger
	lock io.Closer
	// progress is how far opening the log is.
	progress core.Progress
	state    *state
	tail     tail
	// asides are the sequence numbers of segments that were put aside, and of
	// those that were found to be missing.
	asides []uint64
	// freed is what the state has noted as freed. Once the log is open it is
	// for the one who reclaims.
	freed []freed
	// restored says that the directory comes from a backup and is opened for
	// the first time.
	restored bool

	first, end atomic.Uint64 // what Bounds says

	mu       sync.RWMutex // guards what follows
	segments []*segment   // in order; the last is the active one

	commits    chan *pending // to the committer
	requests   chan request  // to the committer, too
	free       chan *pending // pending commits that may be used again
	packer     packer        // Append's own, as is what follows
	framed     int64         // bytes of frames that it has made
	shift      atomic.Int64  // from that to where frames stand in the file
	committed  chan struct{} // closed when the committer has ended
	closing    chan struct{} // closed to end the background work
	background sync.WaitGroup

	zeros     zeros
	committer committer
	filled    int64 // bytes in segments in front of the active one; the committer's

	sealed     chan struct{} // Sealed's
	indexWake  chan struct{}
	builder    sync.Mutex // held by the one who builds an index
	indexing   sync.Mutex // guards what follows
	indexQueue []*segment // sealed segments that have no index yet

	sparing sync.Mutex // held while spare files come and go
	reclaim sync.Mutex // held by the one who reclaims; guards what follows
	pace    pace
	latest  activeShare

	census sync.Mutex // held by the one who asks for topics
}

var _ core.Engine = (*Log)(nil)

// Bounds implements core.Engine.
func (l *Log) Bounds() (first, end core.Offset) {
	// first never passes end, so it is read before it.
	first = core.Offset(l.first.Load())
	return first, core.Offset(l.end.Load())
}

// OffsetAt implements core.Engine.
func (l *Log) OffsetAt(t time.Time) (core.Offset, error) {
	at := t.UnixMilli()
	if t.After(time.UnixMilli(at)) {
		at++
	}
	l.mu.RLock()
	// Not by halves: a segment without records has no time to compare.
	i := slices.IndexFunc(l.segments, func(s *segment) bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.span.lastTime >= at && s.span.records > 0
	})
	var s *segment
	if i >= 0 {
		s = l.segments[i]
		s.enter()
	}
	l.mu.RUnlock()
	_, end := l.Bounds()
	if s == nil {
		return end, nil
	}
	defer s.leave()
	v, err := l.sound(s)
	if err != nil {
		return 0, err
	}
	b := sort.Search(v.numBlocks(), func(i int) bool { return v.block(i).time >= at }) - 1
	from := v.block(max(b, 0)).base
	var buf core.ReadBuffer
	buf.MaxRecords = 1
	r := newReader(nil, &buf)
	r.since = at
	if _, err := l.walk(context.Background(), r, s, v, max(from, v.first), v.next); err != nil {
		return 0, err
	}
	if len(buf.Records) == 0 {
		return min(v.next, end), nil
	}
	return buf.Records[0].Offset, nil
}

// segmentsNow is the list of segments as it is now; it must not be changed.
func (l *Log) segmentsNow() []*segment {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.segments
}

// active is the segment that commits go to; only the committer changes it.
func (l *Log) active() *segment {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.segments[len(l.segments)-1]
}
