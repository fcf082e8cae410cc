package core

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Receipt is the connection's own number for something it wants confirmed: a
// packet id, a receipt's index. 0 means that nobody waits.
type Receipt uint64

// A Confirmation tells what became of a publish.
type Confirmation struct {
	Receipt Receipt
	// Offset of the message; of the first one where the publish was found to
	// be a repetition (Duplicate).
	Offset    Offset
	Duplicate bool
	// Err is why the message was refused or could not be made durable.
	Err error
}

// A Confirmer is a connection that publishes. Confirm gets confirmations in
// the order of the publishes, each once. It must not block; the slice is only
// lent.
type Confirmer interface{ Confirm([]Confirmation) }

// A Receiver is the adapter's side of a consumer. Its methods are called by one
// goroutine at a time, never by the one that is inside a call of the consumer.
// They must not block. They may still be called while, but not after,
// [Consumer.Close] runs.
type Receiver interface {
	// Deliver takes deliveries: encode them into the connection's outbox. The
	// slice, and all that the deliveries point to, is only lent.
	Deliver(batch []Delivery)
	// Notice tells of something other than a message.
	Notice(Notice)
}

// A Notice tells a consumer of something other than a message.
type Notice struct {
	Kind NoticeKind
	// From and To are the range of a gap, To exclusive; To alone is up to where
	// a reader has caught up.
	From, To Offset
	// Err says why, where there is a reason.
	Err error
}

// A NoticeKind says what a Notice is about.
type NoticeKind uint8

const (
	// NoticeGap: messages in a range of offsets are not there any more.
	NoticeGap NoticeKind = iota + 1
	// NoticeCaughtUp: the reader has read all that was there when it began;
	// what follows is live. It comes once, also where there was nothing.
	NoticeCaughtUp
	// NoticeRevoked: the consumer was ended: another one took over, or, with
	// an error, the right was withdrawn. Nothing follows.
	NoticeRevoked
	// NoticeDeleted: the queue was deleted. Nothing follows.
	NoticeDeleted
	// NoticeFailed: the log could not be read. Nothing follows.
	NoticeFailed
	// NoticeStalled: nothing can be delivered for the moment, since the log has
	// no room for the queue's position, or could not be read. It is tried again
	// by itself, for as long as it takes.
	NoticeStalled
)

// Credit is how much a consumer may still be sent. Each delivery takes its
// Envelope.Size of Bytes, and one of Messages unless it comes Settled. Nothing
// is delivered while either is not positive; the last delivery may overdraw
// Bytes.
type Credit struct{ Messages, Bytes int }

// A Settlement says which deliveries of a binding wait to be settled.
type Settlement uint8

const (
	// SettleNever: every delivery is accepted as it is handed over.
	SettleNever Settlement = iota
	// SettleGuaranteed: those wait that were published AtLeastOnce or better.
	SettleGuaranteed
	// SettleAlways: every delivery waits.
	SettleAlways
)

// A Binding leads from a filter, or from an exchange and a key, to a queue or a
// reader.
type Binding struct {
	// Filter of topics, or empty where Exchange is set.
	Filter Filter
	// Exchange and Key: Key is compared as the exchange's kind says.
	Exchange, Key string
	// Where, if it is not empty, is a selector (package selector) that a
	// message must fulfil besides. It is part of what names the binding.
	Where string
	// Tag is the adapter's own; deliveries carry the tags of the bindings
	// that matched.
	Tag uint64
	// Settlement of the deliveries; where several bindings match, the
	// strictest holds.
	Settlement Settlement
}

// A Subscription is a live or replaying reader of topics. Nothing is kept of
// it once it ends.
type Subscription struct {
	Bindings []Binding
	// From is where it begins. Where it is not Latest, the bindings are fixed.
	From From
	// Retained sends the retained values that match first.
	Retained bool
}

// A Consumption is an attachment to a queue, which it makes at first use if
// Create is set.
type Consumption struct {
	Queue string
	// Create makes the queue, with Settings (nil: the defaults) and Bindings,
	// if it does not exist; without it, that is ErrNotFound. If it exists,
	// Settings and Bindings are not looked at, but for Settings.Kind: it must
	// be that of the queue's name (GroupQueue, SessionQueue), so that nobody
	// gets at a group or session by naming it like a queue.
	Create   bool
	Settings *QueueSettings
	Bindings []Binding
	// From is where a new queue's bindings begin.
	From From
	// Exclusive takes the queue over: the consumers it had are revoked.
	Exclusive bool
	// Alone asks that no other consumer is given anything: of those that ask
	// so, the first works, and all others wait to take over.
	Alone bool
	// Settlement of this consumer's deliveries; where a binding of the queue
	// is stricter, the binding's holds.
	Settlement Settlement
	// Session, if it is not empty, is whose consumer this is, as [SessionQueue]
	// has it. With Once set, what was published ExactlyOnce and was delivered
	// to it comes to no other consumer but the session's next one on the queue.
	// Where the session ends before it was settled, or there is no such session
	// when the consumer is closed, it becomes a dead letter.
	Session string
	Once    bool
	// Where, if it is not empty, is a selector (package selector): the
	// consumer is given the messages that fulfil it, the others stay for
	// other consumers and hold up nobody.
	Where string
}

// BindOptions go with [Consumer.Bind].
type BindOptions struct {
	// Retained sends the retained values that match.
	Retained bool
	// Unsaved neither waits for what was published before, which
	// [Client.CatchUp] does for all that are bound behind it, nor until the
	// binding of a queue is durable, which [Consumer.Save] does for all that
	// were bound before it.
	Unsaved bool
}

// An Outcome is how a delivery was settled.
type Outcome uint8

const (
	// Accepted: done.
	Accepted Outcome = iota + 1
	// Released: to be delivered again, after the queue's backoff.
	Released
	// Rejected: to the dead letters.
	Rejected
)

// SettleOptions go with a settlement. The zero value is the usual case.
type SettleOptions struct {
	// Through settles everything that the consumer holds up to and including
	// the offset.
	Through bool
	// Delay replaces the queue's backoff for a released message; NoDelay is
	// none.
	Delay time.Duration
	// Reason stands in a dead letter.
	Reason string
	// Credit is granted with the settlement.
	Credit Credit
	// Receipt is confirmed to the client once the settlement is durable.
	Receipt Receipt
}

// NoDelay releases a message at once.
const NoDelay time.Duration = -1

// A Settling is one settlement within a transaction.
type Settling struct {
	Consumer *Consumer
	Offset   Offset
	Outcome  Outcome
	Options  SettleOptions
}

// A Transaction is publishes and settlements that take effect together or not
// at all.
type Transaction struct {
	Publish []*Envelope
	Settle  []Settling
}

// A ReadRequest is one finite pull of messages.
type ReadRequest struct {
	Filters []Filter
	From    From
	// Where, if it is not empty, is a selector (package selector): only
	// messages that fulfil it come.
	Where string
	// Until ends the reading before that offset; 0 is the log's end.
	Until Offset
	// Limit and MaxBytes bound the page; 0 is 100 and 1 MiB.
	Limit, MaxBytes int
	// Wait for the first message, where there is none yet.
	Wait time.Duration
}

// A Page is what a ReadRequest found. It belongs to the caller.
type Page struct {
	Messages []Delivery
	// Next is where to go on.
	Next Offset
	// More says that the limit, not the log's end, ended the page.
	More bool
	Gaps []Gap
}

// A LeaseRequest asks for messages of a queue without a lasting consumer.
type LeaseRequest struct {
	Consumption
	// Max is how many messages at the most, from 1 to the limit MaxInFlight.
	Max int
	// Wait for the first message, where there is none yet.
	Wait time.Duration
	// For is how long they are leased; 0 is the queue's own lease.
	For time.Duration
}

// A Lease is a message that its Token's holder has until Until.
type Lease struct {
	Delivery // belongs to the caller
	Token    string
	Until    time.Time
}

// A RetainedValue is one topic's retained message. It belongs to the caller.
type RetainedValue = Delivery

// A Client is one authenticated peer's hold on the broker and the only way in.
// All methods may be called from several goroutines, but the publishes of one
// client must not overlap: their order is the order of the calls.
type Client struct {
	broker    *Broker
	proof     atomic.Pointer[proof]
	publisher Publisher
	confirmer Confirmer
	// What else a ClientInfo tells, fixed once the client is connected.
	remote net.Addr
	since  time.Time
	number uint64

	handed     uint64 // the last commit that it has something in; guarded by journal.mu
	publishing bool   // it has published; the publisher's own
	reports    bool   // it is the broker's own, which tells of it; see [Broker.Report]

	confirmations []Confirmation // the dispatcher's scratch
	confirming    sync.Mutex     // held while the confirmer is called
	closed        bool           // guarded by confirming

	mu          sync.Mutex  // guards what follows
	consumers   []*Consumer // each knows its place; most clients have one
	owned       []*queue    // exclusive ones
	ended       bool
	expired     error // the principal's time is over, or an operator ended it
	whenExpired func(error)
	buffer      Buffer // nil where the adapter has none
	rights      map[right]error
	rules       uint64 // the authorizer's version that rights are of
}

type right struct {
	action   Action
	resource string
}

// Principal is who the client is. [Client.Renew] replaces it by another one of
// the same name.
func (c *Client) Principal() *Principal { return c.proof.Load().principal }

// Publisher is what messages say that the client publishes.
func (c *Client) Publisher() Publisher { return c.publisher }

// Close ends the client's consumers and frees it. Publishes that were handed in
// are still made durable; the Confirmer is not called after Close has returned.
// Who calls it must hold no lock that the client's receivers or its confirmer
// take.
func (c *Client) Close() {
	c.mu.Lock()
	c.ended = true
	c.broker.connected.forget(c)
	if t := c.proof.Load().timer; t != nil {
		t.Stop()
	}
	ks := slices.Clone(c.consumers)
	owned := c.owned
	c.mu.Unlock()
	for _, k := range ks {
		k.Close()
	}
	for _, q := range owned {
		if err := c.broker.deleteQueue(context.Background(), q); err != nil && !errors.Is(err, ErrClosed) {
			c.broker.log.Error("exclusive queue not deleted", "queue", q.name, "err", err)
		}
	}
	c.confirming.Lock()
	defer c.confirming.Unlock()
	c.closed = true
}

// confirm hands the gathered confirmations over and returns their slice to be
// used again. The dispatcher calls it.
func (c *Client) confirm() (spare []Confirmation) {
	c.confirming.Lock()
	defer c.confirming.Unlock()
	if !c.closed && c.confirmer != nil {
		c.confirmer.Confirm(c.confirmations)
	}
	spare = c.confirmations
	c.confirmations = nil
	clear(spare)
	return spare[:0]
}

func (c *Client) remember(k *Consumer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return ErrClosed
	}
	if c.expired != nil {
		return c.expired
	}
	k.place = len(c.consumers)
	c.consumers = append(c.consumers, k)
	return nil
}

func (c *Client) forgetConsumer(k *Consumer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(c.consumers) - 1
	if k.place > last || c.consumers[k.place] != k {
		return // it never was one, or is none any more
	}
	c.consumers[k.place] = c.consumers[last]
	c.consumers[k.place].place = k.place
	c.consumers[last] = nil
	c.consumers = c.consumers[:last]
}

// authorize asks the authorizer and keeps its answer.
func (c *Client) authorize(a Action, resource string) error {
	b := c.broker
	if b.open || c.reports {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.expired != nil {
		return c.expired
	}
	if v := b.authorizer.Version(); c.rights == nil || c.rules != v || len(c.rights) >= rightsTopics {
		c.rights, c.rules = make(map[right]error), v
	}
	err, known := c.rights[right{a, resource}]
	if !known {
		err = b.authorizer.Authorize(c.Principal(), a, resource)
		c.rights[right{a, strings.Clone(resource)}] = err
	}
	return err
}

// mayBind says why the client may not have a binding: for itself, which is to
// Subscribe, or for a queue, which is to Bind.
func (c *Client) mayBind(a Action, bd Binding) error {
	if err := CheckWhere(bd.Where); err != nil {
		return err
	}
	if bd.Exchange != "" {
		if bd.Filter != "" {
			return fmt.Errorf("%w: a binding has a filter or an exchange, not both", ErrInvalid)
		}
		if err := CheckExchangeName(bd.Exchange); err != nil {
			return err
		}
		return c.mayTap(bd.Exchange, bd.Key)
	}
	if _, err := ParseFilter(string(bd.Filter)); err != nil {
		return err
	}
	if queue, ok := QueueOf(string(bd.Filter)); ok {
		return fmt.Errorf("%w: the queue %q is consumed, not subscribed to", ErrInvalid, queue)
	}
	if own(string(bd.Filter)) && !c.mayReadOwn(string(bd.Filter)) {
		return fmt.Errorf("%w: the filter %q leads to the broker's own topics", ErrNotAuthorized, bd.Filter)
	}
	return c.authorize(a, string(bd.Filter))
}

// mayTap says why the client may not have what reaches an exchange and passes a
// key: it needs the right to every key that does.
func (c *Client) mayTap(exchange, key string) error {
	b := c.broker
	b.mu.RLock()
	x := b.exchanges[exchange]
	b.mu.RUnlock()
	if x != nil && !x.single(key) {
		key = "#"
	}
	return c.authorize(Bind, ExchangeTopic(exchange, key))
}

// mayReadOwn: of the topics that are the broker's own, those can be
// subscribed to in which the broker tells of itself, where it does, and an
// inbox, only by its whole name, which is its secret.
func (c *Client) mayReadOwn(filter string) bool {
	if strings.HasPrefix(filter, SysPrefix) {
		return c.broker.reporter.Load() != nil
	}
	return strings.HasPrefix(filter, InboxPrefix) && len(filter) > len(InboxPrefix) && Filter(filter).Exact()
}

// mayConsume says why the client may not consume a queue. Groups and sessions
// are views of topics: who may subscribe may consume them. In a session are the
// filters of one who might; each message is asked for again in any case.
func (c *Client) mayConsume(queue string, bindings []Binding) error {
	kind := kindOf(queue)
	if kind == KindQueue {
		if err := CheckQueueName(queue); err != nil {
			return err
		}
		return c.authorize(Consume, QueueTopic(queue))
	}
	for _, bd := range bindings {
		if kind == KindSession && bd.Exchange == "" {
			continue
		}
		if err := c.mayBind(Subscribe, bd); err != nil {
			return err
		}
	}
	return nil
}

// maySee says why the client may not look at a queue: who may consume it may,
// and at a session its owner and who may manage it.
func (c *Client) maySee(q *queue) error {
	if kindOf(q.name) != KindSession {
		return c.mayConsume(q.name, q.list())
	}
	if c.mayOwn(q) == nil {
		return nil
	}
	return c.authorize(Manage, QueueTopic(q.name))
}
