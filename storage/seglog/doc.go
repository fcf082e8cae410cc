// Package seglog is the embedded engine: one offset log in segments on one
// machine's disk. It implements [core.Engine].
//
// A batch's way in, each step in the file that is named after it:
//
//	Append        frames are made of it, on the caller's goroutine      frame.go
//	commitLoop    one commit at a time, on a goroutine of the log's     commit.go
//	              or on that of a caller who waits for it
//	  makeRoom    the next segment, made ready in the background        prepare.go
//	  write       at the log's end, over zeros or a former use; what is    commit.go
//	              large past the page cache
//	  sync        fdatasync: from here on it is durable                 commit.go
//	  apply       state changes go to the view in Pebble                state.go
//	  publish     readers see it, in the block table and the tail       tail.go
//	  done
//
// A record's way out:
//
//	Read          from the tail, without a copy, or else                read.go
//	readSegment   by the postings of the segment's index                postings.go
//	              on two goroutines where there is much to pick         ahead.go
//	              or frame by frame                                     walk.go
//
// Beside them: a sealed segment gets its index, of what was gathered while it was
// written or else by reading it (indexbuild.go, index.go);
// retention frees segments and copies forward what is needed of them
// (reclaim.go, dead.go, rewrite.go), notes what it frees (freed.go), and gives it
// back where the log is not busy (pace.go, giveback.go); Open finds out
// what a crash left (open.go, recover.go, scan.go) and a judge tells the torn
// tail from damage (judge.go).
//
// What is on the disk is described in docs/disk-format.md. All I/O goes through
// storage/vfs, Pebble's too (pebblefs.go, shield.go).
package seglog
