package stomp

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sluicemq/sluice/core"
)

// A refusal is why a frame is not obeyed. It becomes an ERROR frame, after
// which the connection is closed (STOMP 1.2 "ERROR").
type refusal struct {
	// reason is the metric's word.
	reason string
	// message is the ERROR frame's message header, detail its body: what is
	// wrong and what to do.
	message, detail string
	// err is the core's, where it was the core that refused.
	err error
}

func (r *refusal) Error() string { return r.message + ": " + r.detail }

func (r *refusal) Unwrap() error { return r.err }

func refuse(reason, message, detail string) error {
	return &refusal{reason: reason, message: message, detail: detail}
}

// missing refuses a frame that lacks a header that its command needs.
func missing(command, name string) error {
	return refuse("malformed", "missing header", fmt.Sprintf("%s needs the header %s.", command, name))
}

// unsupported refuses a header that would change what the frame means.
func unsupported(name, instead string) error {
	return refuse("unsupported", "unsupported header", fmt.Sprintf("The header %s is not supported here. %s", name, instead))
}

// invalid refuses a header's value.
func invalid(name, value, want string) error {
	return refuse("malformed", "invalid header", fmt.Sprintf("The header %s is %q: want %s.", name, clip(value), want))
}

// refusalOf is the one place where the core's errors become STOMP's words.
func refusalOf(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	var removed *core.OffsetRemovedError
	if errors.As(err, &removed) {
		return &refusal{"offset_removed", "offset not in the log",
			fmt.Sprintf("%v. Ask with from:earliest, from:latest or from:%d.", err, removed.Earliest), err}
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return &refusal{k.reason, k.message, strings.TrimSuffix(fmt.Sprintf("%v. %s", err, k.advice), " "), err}
		}
	}
	return &refusal{"internal", "internal error", "The broker could not do this. Its log says why.", err}
}

var kinds = []struct {
	err                     error
	reason, message, advice string
}{
	{core.ErrInvalidTopic, "invalid_destination", "invalid destination", validForms},
	{core.ErrInvalidFrom, "malformed", "invalid header", ""},
	{core.ErrTooLarge, "message_too_large", "message too large", "Send less, or in parts."},
	{core.ErrNotAuthorized, "not_authorized", "access refused", "Ask the broker's administrator for the right."},
	{core.ErrUnauthenticated, "unauthenticated", "access refused", "Check the headers login and passcode."},
	{core.ErrNotFound, "not_found", "not found", "Declare it first; a queue is also made by a SUBSCRIBE to /queue/…."},
	{core.ErrConflict, "conflict", "exists with other settings", "Use the same settings, or delete it first."},
	{core.ErrInUse, "in_use", "in use", "Another connection has it."},
	{core.ErrQueueFull, "queue_full", "queue full", "Send again later."},
	{core.ErrLimit, "limit", "limit reached", ""},
	{core.ErrNotHeld, "not_held", "not held", "It was settled before, or its lease has ended and it is delivered again."},
	{core.ErrExpired, "expired", "expired", "The message had expired when it came."},
	{core.ErrNoResponders, "no_responders", "nobody answers there", "Start the responder first."},
	{core.ErrStorageFull, "storage_full", "storage full", "Nothing can be stored until space is free. Send again later."},
	{core.ErrStorage, "storage", "storage failed", "Nothing is stored until the broker has been started again."},
	{core.ErrFenced, "storage", "not the owner", "Connect again to reach the owner."},
	{core.ErrClosed, "closed", "the broker is shutting down", "Connect again later."},
	{context.DeadlineExceeded, "handshake_timeout", "timeout", "The login took too long. Connect again later."},
	{context.Canceled, "closed", "the broker is shutting down", "Connect again later."},
	{core.ErrInvalid, "malformed", "invalid request", ""},
	{core.ErrCorrupt, "storage", "corrupt", ""},
}
