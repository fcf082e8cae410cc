// Package seeded has bugs that can be switched on, for the tests of the tests:
// a harness that looks for lost messages is worth what it finds. Each is a
// mistake that a log or a broker has made before, this one included.
//
// They exist only in programs that are built with the tag seededbugs. In any
// other, [On] is constantly false and nothing of them is left.
package seeded

// A Bug is one mistake.
type Bug string

// The bugs of the log.
const (
	EarlyConfirm           Bug = "confirm before the sync"
	ConfirmAfterFailedSync Bug = "confirm after a sync that failed"
	RetriedSync            Bug = "try a sync again that failed"
	ShortWriteAccepted     Bug = "take a short write for a whole one"
	RollWithoutSync        Bug = "leave a segment, and index it, before it is durable"
	NoDirSync              Bug = "begin a segment without a sync of its directory"
	RewriteNoDirSync       Bug = "free segments before the name of their copy is durable"
	SpareUnsynced          Bug = "write to a freed file before its name is gone"
	EIOAsEnd               Bug = "take a read error for the log's end"
	StaleFrames            Bug = "accept the frames of a file's former use"
	SkippedChecksum        Bug = "do not look at a frame's checksum"
	LastFrameDropped       Bug = "drop the last frame of the newest commit"
	TornTailContinued      Bug = "write on behind a torn tail"
	ReusedOffset           Bug = "give lost offsets again"
	StateBeforeSync        Bug = "write the state before the log is durable"
	ReclaimBeforeStateSync Bug = "free what the state still has to be made of"
	FreedUnnoted           Bug = "free a segment without a note of it"
)

// The bugs of the broker.
const (
	LostAckState       Bug = "confirm a settlement that is not written"
	HeldForgotten      Bug = "leave held messages out of a queue's position"
	AttemptsForgotten  Bug = "leave the attempts out of a queue's position"
	RejectForgotten    Bug = "leave out of a queue's position what was rejected"
	PositionAtEnd      Bug = "move a queue to the log's end when reading fails"
	DoubleDeadLetter   Bug = "write a dead letter and the queue's position apart"
	MovedApart         Bug = "write a moved message and the queue's position apart"
	CancelForgotten    Bug = "confirm that a delayed message is cancelled, and leave it there"
	SplitTransaction   Bug = "split a transaction over two commits"
	RetainedLate       Bug = "write a retained value after its message"
	DedupForgotten     Bug = "forget message IDs on restart"
	OnceForgotten      Bug = "forget exactly-once publishes on restart"
	DelayedTwice       Bug = "publish a delayed message and forget it apart"
	UnsettledReclaimed Bug = "free what a queue has not settled"
	ReclaimedEarly     Bug = "free what was settled before that is durable"
	LostBinding        Bug = "confirm a session's binding that is not written"
	LostSettings       Bug = "confirm a session's settings that are not written"
	ExchangeEarly      Bug = "confirm an exchange before it is durable"
	QueueComesBack     Bug = "confirm a queue's end before it is durable"
	WillOrphaned       Bug = "let a will wait whose session ended before a crash"
	WillKept           Bug = "confirm that a will is withdrawn, and leave it there"
	WillRefused        Bug = "leave a will to the next start that there was no room for"
	CountedAhead       Bug = "say that what is still on its way to a bounded queue was counted"
)

// Bugs are those that the harness has to find: all but SpareUnsynced,
// RewriteNoDirSync and ReclaimedEarly, for which a crash must fall between two
// calls that seldom come together, LastFrameDropped, which needs damage, and
// StaleFrames, for which a file's new frames must end where an old one begins. For
// these there are tests that have them come.
func Bugs() []Bug {
	return []Bug{
		EarlyConfirm, ConfirmAfterFailedSync, RetriedSync, ShortWriteAccepted, RollWithoutSync, NoDirSync,
		EIOAsEnd, SkippedChecksum, TornTailContinued, ReusedOffset,
		StateBeforeSync, ReclaimBeforeStateSync, FreedUnnoted,
		LostAckState, HeldForgotten, AttemptsForgotten, RejectForgotten, PositionAtEnd, DoubleDeadLetter, SplitTransaction,
		MovedApart, CancelForgotten,
		RetainedLate, DedupForgotten, OnceForgotten, DelayedTwice, UnsettledReclaimed, LostBinding,
		LostSettings, ExchangeEarly, QueueComesBack, WillOrphaned, WillKept, WillRefused, CountedAhead,
	}
}
