package core

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sluicemq/sluice/core/seeded"
)

// An exchange is a named router. Its definition does not change.
type exchange struct {
	ExchangeDefinition
	// in are the links from other exchanges to it; replaced, not changed.
	in atomic.Pointer[[]*link]
	// conditional says that one of the links that lead to it, over others
	// too, has a condition.
	conditional atomic.Bool

	mu     sync.Mutex // guards what follows; the last mutex to be taken
	bounds map[*bound]struct{}
	out    []*link // those in force
	gone   bool    // it is being deleted, or was: nothing is bound to it any more
}

// A link is a binding from one exchange to another: what reaches from and fits
// the key reaches to. It is for the messages from begin up to until; 0 is not
// yet ended. One that has ended is kept for queues that have not read so far.
type link struct {
	from, to     *exchange
	key          string
	where        *where
	begin, until Offset
}

func newExchange(d ExchangeDefinition) *exchange {
	x := &exchange{ExchangeDefinition: d}
	x.in.Store(new([]*link))
	return x
}

// leads reports whether a message to the exchange of that name gets to x, along
// the links that are in force for its offset; a nil envelope fulfils every
// condition.
func (x *exchange) leads(name, key string, e *Envelope, at Offset) bool {
	return x.Name == name || len(*x.in.Load()) > 0 && x.leadsOver(name, key, e, at, nil)
}

func (x *exchange) leadsOver(name, key string, e *Envelope, at Offset, seen []*exchange) bool {
	if x.Name == name {
		return true
	}
	if slices.Contains(seen, x) {
		return false
	}
	seen = append(seen, x)
	for _, l := range *x.in.Load() {
		if at < l.begin || l.until != 0 && at >= l.until || !l.from.matches(l.key, key) || e != nil && !l.where.match(e, at) {
			continue
		}
		if l.from.leadsOver(name, key, e, at, seen) {
			return true
		}
	}
	return false
}

// upstream adds the names of the exchanges whose messages may get to x.
func (x *exchange) upstream(names []string) []string {
	if slices.Contains(names, x.Name) {
		return names
	}
	names = append(names, x.Name)
	for _, l := range *x.in.Load() {
		names = l.from.upstream(names)
	}
	return names
}

// routes reports whether a message to x gets to any binding now.
func (x *exchange) routes(key string, e *Envelope, seen []*exchange) bool {
	if slices.Contains(seen, x) {
		return false
	}
	seen = append(seen, x)
	x.mu.Lock()
	for b := range x.bounds {
		if x.matches(b.Key, key) && b.where.match(e, 0) {
			x.mu.Unlock()
			return true
		}
	}
	out := slices.Clone(x.out)
	x.mu.Unlock()
	for _, l := range out {
		if x.matches(l.key, key) && l.where.match(e, 0) && l.to.routes(key, e, seen) {
			return true
		}
	}
	return false
}

// bind adds or removes a binding that leads from x; false if x is gone.
func (x *exchange) bind(b *bound, is bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !is {
		delete(x.bounds, b)
		return true
	}
	if x.gone {
		return false
	}
	if x.bounds == nil {
		x.bounds = make(map[*bound]struct{})
	}
	x.bounds[b] = struct{}{}
	return true
}

// leave has nothing bound to x any more, unless something is: it counts the
// bindings that lead from x, and the links from and to it. Broker.mu is held.
func (x *exchange) leave() (uses int) {
	for _, l := range *x.in.Load() {
		if l.until == 0 {
			uses++
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	uses += len(x.bounds) + len(x.out)
	x.gone = uses == 0
	return uses
}

// stay is for an exchange that could not be deleted.
func (x *exchange) stay() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone = false
}

// matches reports whether a message's key passes a binding's.
func (x *exchange) matches(pattern, key string) bool {
	switch x.Kind {
	case Fanout, HeadersExchange:
		return true // of the latter, a binding's condition says what matches
	case TopicExchange:
		return MatchKey(pattern, key)
	}
	return pattern == key
}

// single reports whether a binding's key lets no other key than itself pass.
func (x *exchange) single(pattern string) bool {
	switch x.Kind {
	case Fanout, HeadersExchange:
		return false
	case TopicExchange:
		for _, w := range keyWords(pattern) {
			if w == "*" || w == "#" {
				return false
			}
		}
	}
	return true
}

// MatchKey reports whether a pattern of words between dots matches a key: "*"
// stands for one word, "#" for any number of words, none included. Both may
// stand anywhere. The empty key has no words.
func MatchKey(pattern, key string) bool {
	p, k := keyWords(pattern), keyWords(key)
	// Going back to the last "#" alone is enough: a later "#" makes up for
	// whatever an earlier one could have taken.
	hash, taken := -1, 0
	i, j := 0, 0
	for j < len(k) {
		switch {
		case i < len(p) && p[i] == "#":
			hash, taken = i, j
			i++
		case i < len(p) && (p[i] == "*" || p[i] == k[j]):
			i++
			j++
		case hash >= 0:
			taken++
			i, j = hash+1, taken
		default:
			return false
		}
	}
	for i < len(p) && p[i] == "#" {
		i++
	}
	return i == len(p)
}

func keyWords(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ".")
}

// builtinExchanges exist without being declared, under the names that AMQP
// brokers give them.
var builtinExchanges = []ExchangeDefinition{
	{Name: "amq.direct", Kind: Direct},
	{Name: "amq.fanout", Kind: Fanout},
	{Name: "amq.topic", Kind: TopicExchange},
	{Name: "amq.headers", Kind: HeadersExchange},
	{Name: "amq.match", Kind: HeadersExchange},
}

// DeclareExchange makes an exchange and blocks until that is durable. The same
// definition again is fine, another is ErrConflict.
func (c *Client) DeclareExchange(ctx context.Context, d ExchangeDefinition) error {
	if err := CheckExchangeName(d.Name); err != nil {
		return err
	}
	switch d.Kind {
	case Direct, Fanout, TopicExchange, HeadersExchange:
	default:
		return fmt.Errorf("%w: an exchange is direct, fanout, topic or headers, not %q", ErrInvalid, d.Kind)
	}
	if d.Alternate == d.Name {
		return fmt.Errorf("%w: the exchange %q is not its own alternate", ErrInvalid, d.Name)
	}
	if err := c.authorize(Manage, ExchangeTopic(d.Name, "")); err != nil {
		return err
	}
	if d.Alternate != "" {
		if err := c.authorize(Publish, ExchangeTopic(d.Alternate, "")); err != nil {
			return err
		}
	}
	d.Name, d.Alternate = strings.Clone(d.Name), strings.Clone(d.Alternate)
	b := c.broker
	b.declaring.Lock()
	defer b.declaring.Unlock()
	if has, err := b.mayDeclare(d); has || err != nil {
		return err
	}
	x := newExchange(d)
	change, err := x.definition()
	if err != nil {
		return err
	}
	if seeded.On(seeded.ExchangeEarly) {
		go func() { _ = b.journal.change(ctx, change) }()
	} else if err := b.journal.change(ctx, change); err != nil {
		return err
	}
	// Only now may bindings lead from it: they are never durable without it.
	b.mu.Lock()
	b.exchanges[d.Name] = x
	b.mu.Unlock()
	return nil
}

// mayDeclare reports whether there is such an exchange already, or why there
// cannot be. Broker.declaring is held.
func (b *Broker) mayDeclare(d ExchangeDefinition) (has bool, err error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if x := b.exchanges[d.Name]; x != nil {
		if x.ExchangeDefinition != d {
			return true, fmt.Errorf("%w: the exchange %q is %s, not %s", ErrConflict, d.Name, x.ExchangeDefinition, d)
		}
		return true, nil
	}
	if d.Alternate != "" && b.exchanges[d.Alternate] == nil {
		return false, fmt.Errorf("%w: there is no exchange %q to be the alternate of %q", ErrNotFound, d.Alternate, d.Name)
	}
	if len(b.exchanges) >= b.limits.Exchanges {
		return false, fmt.Errorf("%w: there are %d exchanges", ErrLimit, b.limits.Exchanges)
	}
	return false, nil
}

func (d ExchangeDefinition) String() string {
	s := string(d.Kind)
	if d.Alternate != "" {
		s += fmt.Sprintf(" with the alternate %q", d.Alternate)
	}
	return s
}

// DeleteExchange deletes an exchange that no binding leads from and that is
// nobody's alternate; others are ErrInUse.
func (c *Client) DeleteExchange(ctx context.Context, name string) error {
	if err := c.authorize(Manage, ExchangeTopic(name, "")); err != nil {
		return err
	}
	b := c.broker
	b.declaring.Lock()
	defer b.declaring.Unlock()
	b.mu.Lock()
	x := b.exchanges[name]
	if x == nil {
		b.mu.Unlock()
		return fmt.Errorf("%w: there is no exchange %q", ErrNotFound, name)
	}
	err := func() error {
		if slices.Contains(builtinExchanges, x.ExchangeDefinition) {
			return fmt.Errorf("%w: the exchange %q is built in", ErrInvalid, name)
		}
		for _, o := range b.exchanges {
			if o.Alternate == name {
				return fmt.Errorf("%w: the exchange %q is the alternate of %q", ErrInUse, name, o.Name)
			}
		}
		if n := x.leave(); n > 0 {
			return fmt.Errorf("%w: %d bindings lead from or to the exchange %q", ErrInUse, n, name)
		}
		return nil
	}()
	if err != nil {
		b.mu.Unlock()
		return err
	}
	delete(b.exchanges, name)
	b.mu.Unlock()
	if err := b.journal.change(ctx, Change{Key: keyExchange + name}); err != nil {
		b.mu.Lock()
		b.exchanges[name] = x
		x.stay()
		b.mu.Unlock()
		return err
	}
	return nil
}

// Exchanges yields, by name, the exchanges that the principal may manage,
// publish to, or subscribe to in part.
func (c *Client) Exchanges() iter.Seq[ExchangeDefinition] {
	b := c.broker
	b.mu.RLock()
	names := slices.Sorted(maps.Keys(b.exchanges))
	all := make([]ExchangeDefinition, len(names))
	for i, name := range names {
		all[i] = b.exchanges[name].ExchangeDefinition
	}
	b.mu.RUnlock()
	return slices.Values(slices.DeleteFunc(all, func(d ExchangeDefinition) bool {
		address := ExchangeTopic(d.Name, "")
		return c.authorize(Manage, address) != nil && c.authorize(Publish, address) != nil && c.authorize(Subscribe, address+"#") != nil
	}))
}
