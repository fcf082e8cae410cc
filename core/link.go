package core

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// An exchangeState is an exchange's definition as the state keeps it, with the
// links that lead to it.
type exchangeState struct {
	ExchangeDefinition
	In []linkState `json:"in,omitempty"`
}

type linkState struct {
	From  string       `json:"from"`
	Kind  ExchangeKind `json:"kind"` // of from, which may be gone once the link has ended
	Key   string       `json:"key,omitempty"`
	Where string       `json:"where,omitempty"`
	Begin Offset       `json:"begin"`
	Until Offset       `json:"until,omitempty"`
}

// definition is the change that makes the exchange with its links durable.
func (x *exchange) definition() (Change, error) {
	s := exchangeState{ExchangeDefinition: x.ExchangeDefinition}
	for _, l := range *x.in.Load() {
		ls := linkState{From: l.from.Name, Kind: l.from.Kind, Key: l.key, Begin: l.begin, Until: l.until}
		if l.where != nil {
			ls.Where = l.where.text
		}
		s.In = append(s.In, ls)
	}
	value, err := json.Marshal(s)
	return Change{Key: keyExchange + x.Name, Value: value}, err
}

// putExchange journals an exchange's links as they are. One that is not there
// was refused, or is being deleted.
func (b *Broker) putExchange(name string) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	x := b.exchanges[name]
	if x == nil {
		return
	}
	change, err := x.definition()
	if err != nil {
		return // it could be written when it was bound
	}
	if p, err := b.journal.enterUnbounded(); err == nil {
		p.Changes = append(p.Changes, change)
		b.journal.leave()
	}
}

// loadExchanges makes the exchanges that the state knows, and then their links.
func (b *Broker) loadExchanges() error {
	for _, d := range builtinExchanges {
		b.exchanges[d.Name] = newExchange(d)
	}
	links := make(map[string][]linkState)
	for entry, err := range b.engine.State(keyExchange, "") {
		if err != nil {
			return err
		}
		var s exchangeState
		if err := json.Unmarshal(entry.Value, &s); err != nil {
			return fmt.Errorf("%w: state %q: %w", ErrCorrupt, entry.Key, err)
		}
		b.exchanges[s.Name] = newExchange(s.ExchangeDefinition)
		links[s.Name] = s.In
	}
	for name, in := range links {
		to := b.exchanges[name]
		ls := make([]*link, len(in))
		for i, s := range in {
			w, err := parseWhere(s.Where)
			if err != nil {
				return fmt.Errorf("%w: the exchange %q: %w", ErrCorrupt, name, err)
			}
			l := &link{from: b.exchangeOnce(s.From, s.Kind), to: to, key: s.Key, where: w, begin: s.Begin, until: s.Until}
			if ls[i] = l; l.until == 0 {
				l.from.out = append(l.from.out, l)
			}
		}
		to.in.Store(&ls)
	}
	b.weighExchanges()
	return nil
}

// exchangeOnce returns an exchange that a binding names, or what is needed of
// one that was deleted after the binding had ended.
func (b *Broker) exchangeOnce(name string, kind ExchangeKind) *exchange {
	if x := b.exchanges[name]; x != nil {
		return x
	}
	return newExchange(ExchangeDefinition{Name: name, Kind: kind})
}

// weighExchanges works out which exchanges are reached under a condition.
func (b *Broker) weighExchanges() {
	for changed := true; changed; {
		changed = false
		for _, x := range b.exchanges {
			if x.conditional.Load() {
				continue
			}
			for _, l := range *x.in.Load() {
				if l.where != nil || l.from.conditional.Load() {
					x.conditional.Store(true)
					changed = true
				}
			}
		}
	}
}

// maxLinks bounds the links that lead to one exchange.
const maxLinks = 1000

// An ExchangeBinding leads from one exchange to another: what reaches From with
// a key that fits, and fulfils Where, reaches To with the same key.
type ExchangeBinding struct {
	From, To, Key, Where string
}

// BindExchange adds a binding between exchanges, from now on, and blocks until
// that is durable. One that is there already is fine.
func (c *Client) BindExchange(ctx context.Context, bd ExchangeBinding) error {
	return c.link(ctx, bd, func(b *Broker, from, to *exchange, w *where, in []*link) ([]*link, error) {
		if len(in) >= maxLinks {
			return nil, fmt.Errorf("%w: %d bindings lead to the exchange %q", ErrLimit, len(in), to.Name)
		}
		l := &link{from: from, to: to, key: strings.Clone(bd.Key), where: w, begin: b.dispatcher.end()}
		for _, o := range in {
			if o.until == 0 && o.same(l) {
				return in, nil
			}
		}
		from.mu.Lock()
		from.out = append(from.out, l)
		from.mu.Unlock()
		return append(slices.Clone(in), l), nil
	})
}

// UnbindExchange ends a binding between exchanges and blocks until that is
// durable. What it has led on already stays where it is. One that is not there
// is ErrNotFound.
func (c *Client) UnbindExchange(ctx context.Context, bd ExchangeBinding) error {
	return c.link(ctx, bd, func(b *Broker, from, to *exchange, w *where, in []*link) ([]*link, error) {
		gone := &link{from: from, key: bd.Key, where: w}
		for i, o := range in {
			if o.until != 0 || !o.same(gone) {
				continue
			}
			ended := *o
			ended.until = b.dispatcher.end()
			from.mu.Lock()
			from.out = slices.DeleteFunc(slices.Clone(from.out), func(l *link) bool { return l == o })
			from.mu.Unlock()
			in = slices.Clone(in)
			in[i] = &ended
			return in, nil
		}
		return nil, fmt.Errorf("%w: no such binding", ErrNotFound)
	})
}

func (l *link) same(o *link) bool {
	return l.from == o.from && l.key == o.key && (l.where == o.where || l.where != nil && o.where != nil && l.where.text == o.where.text)
}

// link changes what leads to an exchange. Links that have ended before the log
// begins are let go.
func (c *Client) link(ctx context.Context, bd ExchangeBinding, change func(*Broker, *exchange, *exchange, *where, []*link) ([]*link, error)) error {
	w, err := parseWhere(bd.Where)
	if err != nil {
		return err
	}
	if err := c.authorize(Manage, ExchangeTopic(bd.To, "")); err != nil {
		return err
	}
	if err := c.mayTap(bd.From, bd.Key); err != nil {
		return err
	}
	b := c.broker
	// Neither end is deleted before this is durable: its definition, written
	// after that, would bring it back.
	b.declaring.Lock()
	defer b.declaring.Unlock()
	first, _ := b.engine.Bounds()
	b.mu.Lock()
	from, to := b.exchanges[bd.From], b.exchanges[bd.To]
	for name, x := range map[string]*exchange{bd.From: from, bd.To: to} {
		if x == nil {
			b.mu.Unlock()
			return fmt.Errorf("%w: there is no exchange %q", ErrNotFound, name)
		}
	}
	d := b.dispatcher
	d.mu.Lock()
	in, err := change(b, from, to, w, *to.in.Load())
	if err != nil {
		d.mu.Unlock()
		b.mu.Unlock()
		return err
	}
	in = slices.DeleteFunc(slices.Clone(in), func(l *link) bool { return l.until != 0 && l.until <= first })
	to.in.Store(&in)
	b.weighExchanges()
	clear(d.index.cache)
	b.rereadFilters()
	d.mu.Unlock()
	b.mu.Unlock()
	return b.journal.changeBy(ctx, func() ([]Change, error) {
		change, err := to.definition()
		return []Change{change}, err
	})
}

// rereadFilters makes anew what the cursors that are bound to exchanges read
// the log with. The broker's mutex and the dispatcher's are held.
func (b *Broker) rereadFilters() {
	again := func(c *cursor) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.rebind(slices.Clone(c.bound()))
	}
	for _, q := range b.queues {
		if slices.ContainsFunc(q.bound(), func(bd *bound) bool { return bd.exchange != nil }) {
			again(&q.cursor)
		}
	}
	readers := make(map[*cursor]bool)
	for _, bs := range b.dispatcher.index.exchanges {
		for _, c := range bs {
			if _, is := c.owner.(*reader); is {
				readers[c] = true
			}
		}
	}
	for c := range readers {
		again(c)
	}
}

// ExchangeBindings yields the bindings between exchanges, by the names of what
// they lead to, as far as the principal sees that ([Client.Exchanges]).
func (c *Client) ExchangeBindings() []ExchangeBinding {
	var all []ExchangeBinding
	for x := range c.Exchanges() {
		b := c.broker
		b.mu.RLock()
		to := b.exchanges[x.Name]
		b.mu.RUnlock()
		if to == nil {
			continue
		}
		for _, l := range *to.in.Load() {
			if l.until == 0 {
				bd := ExchangeBinding{From: l.from.Name, To: to.Name, Key: l.key}
				if l.where != nil {
					bd.Where = l.where.text
				}
				all = append(all, bd)
			}
		}
	}
	return all
}

// MatchHeaders is the selector, for a binding to a headers exchange, that holds
// where all, or any, of the headers have these values. An empty value asks only
// that the header is there.
func MatchHeaders(all bool, headers []Header) (string, error) {
	if len(headers) == 0 && !all {
		return "", fmt.Errorf("%w: any of no headers matches nothing", ErrInvalid)
	}
	var terms []string
	for _, h := range headers {
		name := `"` + strings.ReplaceAll(h.Name, `"`, `""`) + `"`
		if h.Value == "" {
			terms = append(terms, name+" IS NOT NULL")
		} else {
			terms = append(terms, name+" = '"+strings.ReplaceAll(h.Value, "'", "''")+"'")
		}
	}
	word := " OR "
	if all {
		word = " AND "
	}
	where := strings.Join(terms, word)
	return where, CheckWhere(where)
}
