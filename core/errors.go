package core

import (
	"errors"
	"fmt"
)

// What the core's calls fail with; compare with errors.Is. An adapter has one
// function that maps them to its protocol's codes.
var (
	ErrInvalidTopic    = errors.New("invalid topic")
	ErrInvalidFrom     = errors.New("invalid start position")
	ErrInvalid         = errors.New("invalid argument")
	ErrTooLarge        = errors.New("message too large")
	ErrNotAuthorized   = errors.New("not authorized")
	ErrUnauthenticated = errors.New("wrong credentials")
	ErrDisconnected    = fmt.Errorf("%w: an operator ended the connection", ErrUnauthenticated)
	ErrNotFound        = errors.New("not found")
	ErrConflict        = errors.New("exists with other settings")
	ErrInUse           = errors.New("in use")
	ErrQueueFull       = errors.New("queue full")
	ErrLimit           = errors.New("limit reached")
	ErrNotHeld         = errors.New("not held by this consumer")
	ErrExpired         = errors.New("expired")
	ErrNoResponders    = errors.New("nobody answers there")
	ErrStorage         = errors.New("storage failed")
	ErrStorageFull     = errors.New("storage full")
	ErrFenced          = errors.New("fenced off by another owner")
	ErrClosed          = errors.New("closed")
	ErrCorrupt         = errors.New("corrupt")
)

// OffsetRemovedError says that an offset asked for is outside of the log.
type OffsetRemovedError struct {
	Offset Offset
	// Earliest is the earliest offset left, End the one the next record gets.
	Earliest, End Offset
}

func (e *OffsetRemovedError) Error() string {
	if e.Offset >= e.End {
		return fmt.Sprintf("offset %d is ahead of the log, which ends at %d", e.Offset, e.End)
	}
	return fmt.Sprintf("offset %d has been removed, the earliest left is %d", e.Offset, e.Earliest)
}
