package ws

import (
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicemq/sluice/core"
)

// An inbox gets the replies to all requests of a connection, each under a topic
// of its own, which is its secret. It is made by the first request.
type inbox struct {
	conn     *conn
	consumer *core.Consumer

	mu    sync.Mutex // guards what follows
	calls map[uint64]*call
	done  []*call // answered, but still bound: the reader unbinds them
	last  uint64
}

// A call is a request that waits for its reply.
type call struct {
	inbox    *inbox
	number   uint64 // its binding's tag
	topic    string // where it is replied to
	req      []byte
	timer    *time.Timer
	answered atomic.Bool
}

func (k *call) binding() core.Binding {
	return core.Binding{Filter: core.Filter(k.topic), Tag: k.number}
}

// How long a request waits unless it says, and at the most.
const (
	defaultTimeout = 5 * time.Second
	maxTimeout     = time.Hour
)

// request publishes a message that asks for a reply, and answers with the first
// one that comes, with the publish's refusal, or with a timeout.
func (c *conn) request(cmd *command, e *core.Envelope) error {
	topic, err := addressOf(cmd)
	if err != nil {
		return err
	}
	if err := c.fill(e, cmd, topic); err != nil {
		return err
	}
	timeout := defaultTimeout
	if cmd.hasAny(fieldTimeout) {
		if timeout = millis(cmd.timeout); timeout <= 0 || timeout > maxTimeout {
			return fmt.Errorf(`%w: "timeout" is 0 or more than %d`, core.ErrInvalid, maxTimeout.Milliseconds())
		}
	}
	if c.inbox == nil {
		if err := c.openInbox(); err != nil {
			return err
		}
	}
	call, err := c.inbox.open(cmd.req, timeout)
	if err != nil {
		return err
	}
	e.ReplyTo = call.topic
	// Nobody would answer what nobody gets.
	e.Mandatory = e.Mandatory || !cmd.hasAny(fieldMandatory)
	if err := c.hand(e, cmd.req, call); err != nil && call.end() {
		return err
	}
	return nil
}

func (c *conn) openInbox() (err error) {
	i := &inbox{conn: c, calls: make(map[uint64]*call)}
	if i.consumer, err = c.client.Subscribe(c.srv.hard, core.Subscription{}, i); err != nil {
		return err
	}
	// Replies come settled, and take of the bytes only.
	i.consumer.Grant(core.Credit{Messages: 1, Bytes: c.window()})
	c.inbox = i
	return nil
}

// open begins a call, which ends by itself after a time. The reader calls it.
func (i *inbox) open(req []byte, timeout time.Duration) (*call, error) {
	i.unbind()
	k := &call{inbox: i, topic: core.InboxPrefix + rand.Text(), req: append([]byte(nil), req...)}
	i.mu.Lock()
	if most := i.conn.srv.Limits.PublishInFlight; len(i.calls) >= most {
		i.mu.Unlock()
		return nil, fmt.Errorf("%w: %d requests wait for a reply", core.ErrLimit, most)
	}
	i.last++
	k.number = i.last
	i.calls[k.number] = k
	k.timer = time.AfterFunc(timeout, func() {
		if k.end() {
			i.conn.fail(k.req, errTimeout)
		}
	})
	i.mu.Unlock()
	if err := i.consumer.Bind(i.conn.srv.hard, k.binding(), core.BindOptions{}); err != nil && k.end() {
		return nil, err
	}
	return k, nil
}

// unbind lets go of the topics of calls that have ended. They end in calls of
// the core, from which it cannot be called.
func (i *inbox) unbind() {
	i.mu.Lock()
	done := i.done
	i.done = nil
	i.mu.Unlock()
	for _, k := range done {
		// One whose Bind failed is not there, which is as well.
		i.consumer.Unbind(i.conn.srv.hard, k.binding())
	}
}

// end reports whether the call had not been answered, and so is to be now.
func (k *call) end() bool {
	if k.answered.Swap(true) {
		return false
	}
	k.inbox.mu.Lock()
	defer k.inbox.mu.Unlock()
	delete(k.inbox.calls, k.number)
	k.inbox.done = append(k.inbox.done, k)
	k.timer.Stop()
	return true
}

// Deliver answers the calls that the deliveries reply to. A reply that comes
// late, or a second one, is dropped.
func (i *inbox) Deliver(batch []core.Delivery) {
	now := time.Now()
	for n := range batch {
		d := &batch[n]
		credit := core.Credit{Bytes: d.Size()}
		if !d.Settled {
			credit.Messages = 1
		}
		k := i.callOf(d.Tags)
		if k == nil || !k.end() {
			i.conn.srv.count.Refused("late_reply")
			i.consumer.Grant(credit)
			continue
		}
		i.conn.sendFor(i.consumer, credit, func(buf []byte) []byte {
			o := i.conn.coding.begin(openFrame(buf), "reply")
			o.req(k.req)
			written, count := o.coding.appendDelivery(o.buf, d, now)
			o.buf, o.count = written, o.count+count
			return closeFrame(o.end(), len(buf), o.coding.frame())
		})
		i.conn.srv.count.Sent.Inc()
	}
}

func (i *inbox) callOf(tags []uint64) *call {
	if len(tags) == 0 {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.calls[tags[0]]
}

// Notice is called where replies cannot be read any more; the calls time out.
func (i *inbox) Notice(core.Notice) {}

// close ends the calls without an answer.
func (i *inbox) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, k := range i.calls {
		k.answered.Store(true)
		k.timer.Stop()
	}
	clear(i.calls)
}
