// Package core is the broker itself: topics, queues, exchanges and groups over
// one durable offset log. It knows no protocol and no disk and imports nothing
// but the standard library.
//
// Two paths lead through it, and each reads top to bottom.
//
// In: an adapter decodes a message into an [Envelope] and calls
// [Client.Publish]. The core authorizes it, encodes it into the journal's
// pending [Batch] and returns; the committer hands the batch to the [Engine],
// which calls back once it is durable; the dispatcher then delivers the
// batch's records and confirms them to their publishers, in order, through
// [Confirmer].
//
// Out: the dispatcher matches each committed record against the live cursors.
// A cursor belongs to a reader of topics ([Client.Subscribe]) or to a queue
// ([Client.Consume]); one without credit falls behind and goes on by reading
// the log ([Engine.Read]) until it has caught up, without a gap or a repeat.
// Deliveries reach the adapter through [Receiver]; the adapter answers with
// [Consumer.Settle] and [Consumer.Grant].
//
// The core never calls an adapter back on the goroutine of the adapter's own
// call, nor while it holds a lock of its own.
package core
