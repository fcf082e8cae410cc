package core

import (
	"context"
	"iter"
	"time"
)

// An Engine keeps the log and the state that belongs to it. It knows nothing
// of queues. Offsets grow strictly and need not be dense; those of one batch
// are consecutive. All methods may be called from several goroutines at once,
// but for Append, which has one caller at a time.
type Engine interface {
	// Append makes the records and the state changes of a batch durable,
	// together or not at all, and then calls done once, on a goroutine of the
	// engine's. It is pipelined: the order of calls is the order of offsets
	// and of done, and it blocks while the engine holds as many batches as it
	// wants. The batch belongs to the engine until done is called; its Buf
	// belongs to it for ever and is never written again, so that it can serve
	// reads at the log's tail. done may call Append with the next batch, and is
	// not blocked by it where no other is outstanding. A batch with Here set may
	// be made durable, and done be called, on the caller's goroutine; no other is
	// outstanding then.
	//
	// done gets the offset of the first record (or where the next record will
	// stand, if the batch has none). A record can be read before a state change
	// of its batch is visible to State, and that before done is called. A batch with Sync unset may
	// be called done once it is written; its records must not be renumbered
	// after a crash that loses them: an offset that done has named is never
	// given to another record.
	//
	// A stale fence is ErrFenced. After one failed write or sync every Append
	// fails with an error that wraps ErrStorage, until the log is opened anew.
	// A batch refused for lack of space is ErrStorageFull, and later ones may
	// succeed.
	Append(b *Batch, done func(b *Batch, first Offset, err error))

	// Read fills buf with records at or after from that filters match, in
	// the log's order, until buf is full, the log ends or limit is reached
	// (exclusive; 0 is none), and says where to go on, also when nothing
	// matched. It does not wait for records to come. Ranges that were lost or
	// removed come as gaps in buf. A nil filters matches every record. The
	// records are valid until buf is used again.
	Read(ctx context.Context, from, limit Offset, filters *FilterSet, buf *ReadBuffer) (next Offset, err error)

	// Lost returns what is known to be lost of a range of offsets, to exclusive,
	// in order. It reads nothing of the log: what damage nobody has come across
	// yet is not among it.
	Lost(from, to Offset) []Gap

	// Bounds returns the offset of the earliest record left and the one that
	// the next record will get. first == end means that the log is empty.
	Bounds() (first, end Offset)

	// OffsetAt returns the offset of the first record taken at or after t,
	// or the log's end.
	OffsetAt(t time.Time) (Offset, error)

	// Topics returns what the log holds of topics, in the order of their names'
	// bytes: of the first limit (at least 1) behind after that filter matches,
	// keep lets pass and records are left of. It may take as long as reading
	// part of the log, and what it needs of memory is bounded by limit. keep
	// must not call the engine.
	Topics(ctx context.Context, filter Filter, after string, limit int, keep func(topic string) bool) ([]TopicSum, error)

	// Get returns the value of one key of the state, nil if there is none.
	// The caller owns the slice.
	Get(key string) ([]byte, error)

	// State yields the state under a prefix in the order of keys, beginning
	// at or after the key from ("" for the prefix itself). It sees one
	// consistent moment. The value is valid until the next step. An error ends
	// the sequence: what would have followed is not known.
	State(prefix, from string) iter.Seq2[Entry, error]

	// Reclaim frees what neither a policy keeps nor needs names.
	Reclaim(ctx context.Context, r Retention) (Reclaimed, error)

	// Sealed is received from when so much has been appended since that
	// Reclaim may find more to free; nil where the engine does not say.
	Sealed() <-chan struct{}

	// Close makes everything durable that was appended and frees the log.
	// No other method may be called after it.
	Close(context.Context) error
}

// A TopicSum is what the log holds of a topic: how many records, how many bytes
// they take before compression, and the offset of the last one.
type TopicSum struct {
	Topic          string
	Records, Bytes int64
	Last           Offset
}

// An Entry is a key of the state and its value.
type Entry struct {
	Key   string
	Value []byte
}

// A Change is one change to the state: a key gets a value, or is deleted.
type Change struct {
	Key string
	// Value is the new value; nil deletes the key.
	Value []byte
	// OffsetOf is the index within the batch, from 1, of the record whose
	// offset is written behind Value as eight big-endian bytes; 0 is none.
	OffsetOf int
}

// Retention says what Reclaim must keep.
type Retention struct {
	// Policies: the first whose filters match a topic holds for it. A topic
	// that none matches is kept for ever.
	Policies []Policy
	// Needs names what is kept whatever the policies say.
	Needs Needs
	// Before bounds what may go: Needs says nothing of records at or after
	// it. 0 is no bound.
	Before Offset
	Now    time.Time
}

// A Policy says how long the records of the topics that match are kept.
type Policy struct {
	Name    string
	Filters []Filter
	// Age after which a record may go; 0 is never.
	Age time.Duration
	// Bytes of records, the newest, that are kept; 0 is no bound.
	Bytes int64
}

// Needs says which records are needed beyond the policies: what a queue has
// not settled, what is retained.
type Needs interface {
	// Of returns a function that says whether the topic's record at an offset
	// is needed, or nil if none is. It may call the engine's Get and State, so
	// no lock that these take is held.
	Of(topic string) func(Offset) bool
}

// Reclaimed says what Reclaim did.
type Reclaimed struct {
	// Records and Bytes that were freed.
	Records, Bytes int64
	// First is the earliest offset left.
	First Offset
}

// A Gap is a range of offsets, To exclusive, that cannot be read: lost to
// corruption, or removed.
type Gap struct {
	From, To Offset
	// Lost says that confirmed records were lost; otherwise retention removed
	// them, at the log's beginning or between records that had to stay.
	Lost bool
}
