package core

import (
	"context"
	"encoding/binary"
	"iter"
	"strings"
	"time"
)

// A retained value is the last envelope of a topic that was published with
// retain. The state maps the topic to its offset; the value itself stands in
// the log alone.

// retainedState yields what the state holds of the topics that a filter may
// match, behind the topic after; "" is the first. There may be one that is not
// behind it.
func (b *Broker) retainedState(f Filter, after string) iter.Seq2[Entry, error] {
	if !f.Exact() {
		from := ""
		if after != "" {
			from = keyRetained + after
		}
		return b.engine.State(keyRetained+f.Prefix(), from)
	}
	return func(yield func(Entry, error) bool) {
		key := keyRetained + string(f)
		if value, err := b.engine.Get(key); err != nil || value != nil {
			yield(Entry{key, value}, err)
		}
	}
}

func retainedOffset(value []byte) (Offset, bool) {
	if len(value) != 8 {
		return 0, false
	}
	return Offset(binary.BigEndian.Uint64(value)), true
}

// retained reads one retained value; nil if it has expired or is gone.
func (p *pump) retained(b *bound, at Offset) (*Delivery, error) {
	r, err := p.readOne(at)
	if err != nil || r == nil {
		return nil, err
	}
	e := new(Envelope)
	if err := r.Envelope(e); err != nil {
		return nil, err
	}
	if e.Expired(time.Now()) || !b.holds(e, at) {
		return nil, nil
	}
	return &Delivery{
		Envelope: e, Offset: at, Attempt: 1, Retained: true,
		Tags: []uint64{b.Tag}, Settled: settled(b.Settlement, e),
	}, nil
}

// Retained yields the retained values that a filter matches and the principal
// may read, by topic, those behind the topic after; "" is the first. The value
// is valid until the next step. It blocks for the disk.
func (c *Client) Retained(ctx context.Context, f Filter, after string) iter.Seq2[*RetainedValue, error] {
	return func(yield func(*RetainedValue, error) bool) {
		if err := c.authorize(Subscribe, string(f)); err != nil {
			yield(nil, err)
			return
		}
		if c.broker.ask(ctx, f); strings.HasPrefix(string(f), SysPrefix) && c.broker.reporter.Load() == nil {
			return // what an earlier run told is not true any more
		}
		p := &pump{b: c.broker, ctx: ctx}
		for s, err := range c.broker.retainedState(f, after) {
			if err != nil {
				yield(nil, err)
				return
			}
			topic := s.Key[len(keyRetained):]
			at, ok := retainedOffset(s.Value)
			if !ok || topic <= after || !f.Match(topic) || c.authorize(Deliver, topic) != nil {
				continue
			}
			d, err := p.retained(&bound{}, at)
			if d == nil && err == nil {
				continue
			}
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}
