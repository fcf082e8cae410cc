package core

import (
	"context"
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core/seeded"
)

// A DelayedMessage waits for its time.
type DelayedMessage struct {
	// Delivery is the message as it will be published: its Topic is the one
	// that it goes to, its DeliverAt when it is due by the machine's clock, its
	// Schedule how it comes again. Its Offset names it until it is published;
	// one that comes again has another then.
	Delivery
	// Place is where it stands among those that wait, for [Client.Delayed] to
	// go on from.
	Place string
}

// Delayed yields the delayed messages that a selection picks, in the order in
// which they are due, from behind a place on; "" is the first. It yields those
// that the principal could be given where they go, may manage there, or has
// published itself; wills, and what goes to an inbox, are nobody's to see. The
// message is valid until the next step. It blocks for the disk.
func (c *Client) Delayed(ctx context.Context, s Selection, after string) iter.Seq2[*DelayedMessage, error] {
	return func(yield func(*DelayedMessage, error) bool) {
		picks, err := s.picker()
		if err != nil {
			yield(nil, err)
			return
		}
		n := int64(0)
		for m, err := range c.broker.delayed.waiting(&pump{b: c.broker, ctx: ctx}, s.Offsets, after) {
			switch {
			case err != nil:
				yield(nil, err)
				return
			case !c.maySeeDelayed(m.Envelope) || !picks(m.Envelope, m.Offset):
			case !yield(m, nil):
				return
			default:
				if n++; n == s.Limit {
					return
				}
			}
		}
	}
}

// Cancel takes delayed messages out: a selection of what [Client.Delayed]
// yields, those that are due first. They are never published, nor do they come
// again, and their message IDs are forgotten. It needs the right to manage where
// they go, but for what the principal has published itself; what it may not
// cancel is not picked, or, where its offset is named, refused. It blocks until
// that is durable; with dry set it only counts.
func (c *Client) Cancel(ctx context.Context, s Selection, dry bool) (Sifted, error) {
	var total Sifted
	picks, err := s.picker()
	if err != nil {
		return total, err
	}
	n := int64(0)
	mine := func(m *DelayedMessage) (bool, error) {
		if s.Limit > 0 && n == s.Limit || !c.maySeeDelayed(m.Envelope) || !picks(m.Envelope, m.Offset) {
			return false, nil
		}
		if err := c.mayCancel(m.Envelope); err != nil {
			if len(s.Offsets) == 0 {
				err = nil
			}
			return false, err
		}
		n++
		return true, nil
	}
	p := &pump{b: c.broker, ctx: ctx}
	for after, more := "", true; more && (s.Limit == 0 || n < s.Limit); {
		var got Sifted
		got, after, more, err = c.broker.delayed.cancelRound(p, s.Offsets, after, mine, dry)
		total.Messages += got.Messages
		total.Bytes += got.Bytes
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// isOwn reports whether the client's principal has published a message.
func (c *Client) isOwn(e *Envelope) bool {
	name := c.Principal().Name
	return name != "" && e.Publisher.Principal == name
}

// maySeeDelayed reports whether the client may see a delayed message.
func (c *Client) maySeeDelayed(e *Envelope) bool {
	if strings.HasPrefix(e.Topic, InboxPrefix) {
		return false // its name is its reader's secret
	}
	if c.isOwn(e) || c.authorize(Manage, e.Topic) == nil {
		return true
	}
	if _, ok := QueueOf(e.Topic); ok {
		return c.authorize(Consume, e.Topic) == nil
	}
	if _, _, ok := ExchangeOf(e.Topic); ok {
		return c.authorize(Subscribe, e.Topic) == nil
	}
	return c.authorize(Deliver, e.Topic) == nil
}

// mayCancel says why the client may not cancel a delayed message.
func (c *Client) mayCancel(e *Envelope) error {
	if c.isOwn(e) {
		return nil
	}
	return c.authorize(Manage, e.Topic)
}

// delayedPage is how many delayed messages are taken from the state at a time.
const delayedPage = 256

// waiting yields the delayed messages behind a place, but for wills: all, or
// those of the offsets. The message is valid until the next step.
func (d *delayed) waiting(p *pump, offsets []Offset, after string) iter.Seq2[*DelayedMessage, error] {
	return func(yield func(*DelayedMessage, error) bool) {
		var m DelayedMessage
		var e Envelope
		for more := true; more; {
			var page []Entry
			var err error
			if page, more, err = d.page(p, offsets, after); err != nil {
				yield(nil, err)
				return
			}
			for i := range page {
				after = page[i].Key[len(keyDelayed):]
				there, err := d.read(p, page[i], &e)
				if err != nil {
					yield(nil, err)
					return
				}
				at, _ := retainedOffset(page[i].Value)
				if m = (DelayedMessage{Delivery{Envelope: &e, Offset: at, Attempt: 1}, after}); there && !yield(&m, nil) {
					return
				}
			}
		}
	}
}

// page is what the state has of delayed messages behind a place: all, or those of
// the offsets, which are looked for once.
func (d *delayed) page(p *pump, offsets []Offset, after string) (page []Entry, more bool, err error) {
	if len(offsets) > 0 {
		for _, at := range offsets {
			s, ok, err := d.find(p, at)
			if err != nil {
				return nil, false, err
			}
			if ok && s.Key[len(keyDelayed):] > after {
				page = append(page, s)
			}
		}
		slices.SortFunc(page, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
		return slices.CompactFunc(page, func(a, b Entry) bool { return a.Key == b.Key }), false, nil
	}
	for s, err := range d.b.engine.State(keyDelayed, keyDelayed+after) {
		if err != nil {
			return nil, false, err
		}
		if _, ok := retainedOffset(s.Value); len(s.Key) != len(keyDelayed)+delayedKey || !ok || s.Key[len(keyDelayed):] <= after {
			continue
		}
		if page = append(page, Entry{strings.Clone(s.Key), append([]byte(nil), s.Value...)}); len(page) == delayedPage {
			return page, true, nil
		}
	}
	return page, false, nil
}

// clockSlack is how far from its time by the machine's clock a delayed message is
// looked for first.
const clockSlack = 2 * time.Second

// find finds the entry of the delayed message at an offset. Most are where their
// time says; those that came while the machine's clock was behind are looked for
// among all.
func (d *delayed) find(p *pump, at Offset) (found Entry, ok bool, err error) {
	r, err := p.readOne(at)
	if err != nil || r == nil || !strings.HasPrefix(r.Topic, DelayedPrefix) {
		return found, false, err
	}
	var e Envelope
	if err := r.Envelope(&e); err != nil {
		return found, false, err
	}
	look := func(from, to int64) {
		start := keyDelayed + string(binary.BigEndian.AppendUint64(nil, uint64(max(from, 0))))
		for s, serr := range d.b.engine.State(keyDelayed, start) {
			if err = serr; err != nil || len(s.Key) == len(keyDelayed)+delayedKey && dueOf(s.Key) > to {
				return
			}
			if o, _ := retainedOffset(s.Value); o == at && len(s.Key) == len(keyDelayed)+delayedKey {
				found, ok = Entry{strings.Clone(s.Key), append([]byte(nil), s.Value...)}, true
				return
			}
		}
	}
	due := e.DeliverAt.UnixMilli()
	if look(due-clockSlack.Milliseconds(), due+clockSlack.Milliseconds()); !ok && err == nil {
		look(0, 1<<62)
	}
	return found, ok, err
}

// cancelRound looks at some delayed messages behind a place, takes out those that
// are picked, and returns where to go on. None of them is published meanwhile.
func (d *delayed) cancelRound(p *pump, offsets []Offset, after string, picks func(*DelayedMessage) (bool, error), dry bool) (got Sifted, next string, more bool, err error) {
	d.firing.Lock()
	defer d.firing.Unlock()
	type cancelled struct {
		key, id string // id is the message's in the memory, "" if it has none
		at      Offset
	}
	var out []cancelled
	looked := 0
	next = after
	for m, werr := range d.waiting(p, offsets, after) {
		if werr != nil {
			err = werr
			break
		}
		next = m.Place
		picked, perr := picks(m)
		if err = perr; err != nil {
			break
		}
		if picked {
			got.Messages++
			got.Bytes += int64(m.Size())
			one := cancelled{key: keyDelayed + m.Place, at: m.Offset}
			if m.ID != "" {
				one.id = idKey(m.Envelope)
			}
			out = append(out, one)
		}
		if looked++; looked == delayedRound {
			more = true
			break
		}
	}
	if dry || len(out) == 0 {
		return got, next, more, err
	}
	failed := d.b.journal.commitWith(p.ctx, func(c *commit) error {
		for _, o := range out {
			if !seeded.On(seeded.CancelForgotten) {
				c.Changes = append(c.Changes, Change{Key: o.key})
			}
			d.b.journal.memory.forgetID(c, o.id, o.at)
		}
		return nil
	})
	if failed != nil {
		return Sifted{}, next, false, failed
	}
	return got, next, more, err
}
