package stomp

import (
	"fmt"
	"strings"

	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/core"
)

// A transaction is what BEGIN began: it holds copies of the messages and the
// settlements until COMMIT hands them to the core as one.
type transaction struct {
	publish []*core.Envelope
	settle  []enlisted
	size    transactionSize
}

// An enlisted settlement turns pending messages to settled.
type enlisted struct {
	subscription *subscription
	at           core.Offset
	outcome      core.Outcome
}

// A transactionSize is what a transaction holds; what all of a connection hold
// is bounded.
type transactionSize struct{ count, bytes int }

// enlistedBytes is what a settlement in a transaction costs.
const enlistedBytes = 32

// transactionOf returns the open transaction that a frame names.
func (c *conn) transactionOf(id string) (*transaction, error) {
	if t := c.transactions[id]; t != nil {
		return t, nil
	}
	return nil, refuse("unknown_transaction", "unknown transaction",
		fmt.Sprintf("The transaction %q is not open. BEGIN it first; COMMIT and ABORT end it.", clip(id)))
}

// named returns the transaction header of BEGIN, COMMIT or ABORT, which must
// have one.
func named(f *clientFrame) (string, error) {
	id := f.value(frame.Transaction)
	if id == "" {
		return "", missing(f.Command, frame.Transaction)
	}
	return id, nil
}

// begin obeys BEGIN.
func (c *conn) begin(f *clientFrame) error {
	id, err := named(f)
	switch {
	case err != nil:
		return err
	case c.transactions[id] != nil:
		return refuse("transaction_open", "transaction is open",
			fmt.Sprintf("The transaction %q has begun before. COMMIT or ABORT it first.", clip(id)))
	case len(c.transactions) >= c.server.limits.StompTransactions:
		return refuse("transactions_too_many", "too many transactions",
			fmt.Sprintf("A connection may have %d open transactions. COMMIT or ABORT one first.", c.server.limits.StompTransactions))
	}
	if c.transactions == nil {
		c.transactions = make(map[string]*transaction)
	}
	c.transactions[strings.Clone(id)] = new(transaction)
	return nil
}

// enlist puts a copy of a message into a transaction.
func (c *conn) enlist(id string, e *core.Envelope) error {
	t, err := c.transactionOf(id)
	if err != nil {
		return err
	}
	if err := c.enlarge(t, 1, len(e.Payload)); err != nil {
		return err
	}
	own, bytes := keep(e)
	t.publish = append(t.publish, own)
	return c.enlarge(t, 0, bytes-len(e.Payload))
}

// enlarge counts what a transaction is about to hold.
func (c *conn) enlarge(t *transaction, count, bytes int) error {
	most := transactionSize{count: 10 * c.server.limits.PublishInFlight, bytes: c.server.limits.StompTransactionsBytes}
	if c.held.count+count > most.count || c.held.bytes+bytes > most.bytes {
		return refuse("transaction_too_large", "transaction too large",
			fmt.Sprintf("The open transactions of a connection may hold %d frames and %d bytes. COMMIT more often.", most.count, most.bytes))
	}
	c.held.count, c.held.bytes = c.held.count+count, c.held.bytes+bytes
	t.size.count, t.size.bytes = t.size.count+count, t.size.bytes+bytes
	return nil
}

// forget takes a transaction off the open ones.
func (c *conn) forget(id string, t *transaction) {
	delete(c.transactions, id)
	c.held.count -= t.size.count
	c.held.bytes -= t.size.bytes
}

// commit obeys COMMIT: everything of the transaction takes effect together, and
// the receipt leaves once it is durable.
func (c *conn) commit(f *clientFrame) error {
	id, err := named(f)
	if err != nil {
		return err
	}
	t, err := c.transactionOf(id)
	if err != nil {
		return err
	}
	number, err := c.receipt(f)
	if err != nil {
		return err
	}
	work := core.Transaction{Publish: t.publish}
	for _, s := range t.settle {
		work.Settle = append(work.Settle, core.Settling{
			Consumer: s.subscription.consumer, Offset: s.at, Outcome: s.outcome,
			Options: core.SettleOptions{Credit: oneMessage},
		})
	}
	// What is acknowledged is off the list before its credit can bring more.
	t.resolve(settled)
	if err := c.client.Commit(c.ctx, work, number); err != nil {
		c.receipts.drop(number)
		return err
	}
	c.forget(id, t)
	return nil
}

// abort obeys ABORT: nothing of the transaction takes effect, and what it
// acknowledged waits to be acknowledged again.
func (c *conn) abort(f *clientFrame) error {
	id, err := named(f)
	if err != nil {
		return err
	}
	t, err := c.transactionOf(id)
	if err != nil {
		return err
	}
	t.resolve(waiting)
	c.forget(id, t)
	return nil
}

func (t *transaction) resolve(to sentState) {
	for _, s := range t.settle {
		s.subscription.mu.Lock()
		s.subscription.sent.resolve(s.at, to)
		s.subscription.mu.Unlock()
	}
}
