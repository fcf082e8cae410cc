package core

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

// An exchange is a named router. Its definition does not change; its bindings
// are kept by the queues that they lead to.
type exchange struct {
	ExchangeDefinition
	bindings atomic.Int64 // how many lead away from it
}

// matches reports whether a message's key passes a binding's.
func (x *exchange) matches(pattern, key string) bool {
	switch x.Kind {
	case Fanout:
		return true
	case TopicExchange:
		return MatchKey(pattern, key)
	}
	return pattern == key
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
}

// DeclareExchange makes an exchange and blocks until that is durable. The same
// definition again is fine, another is ErrConflict.
func (c *Client) DeclareExchange(ctx context.Context, d ExchangeDefinition) error {
	if err := CheckExchangeName(d.Name); err != nil {
		return err
	}
	switch d.Kind {
	case Direct, Fanout, TopicExchange:
	default:
		return fmt.Errorf("%w: an exchange is direct, fanout or topic, not %q", ErrInvalid, d.Kind)
	}
	if err := c.authorize(Manage, ExchangeTopic(d.Name, "")); err != nil {
		return err
	}
	d.Name = strings.Clone(d.Name)
	b := c.broker
	b.mu.Lock()
	if x := b.exchanges[d.Name]; x != nil {
		b.mu.Unlock()
		if x.ExchangeDefinition != d {
			return fmt.Errorf("%w: the exchange %q is %s, not %s", ErrConflict, d.Name, x.Kind, d.Kind)
		}
		return nil
	}
	if len(b.exchanges) >= b.limits.Exchanges {
		b.mu.Unlock()
		return fmt.Errorf("%w: there are %d exchanges", ErrLimit, b.limits.Exchanges)
	}
	b.exchanges[d.Name] = &exchange{ExchangeDefinition: d}
	b.mu.Unlock()
	value, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return b.journal.change(ctx, Change{Key: keyExchange + d.Name, Value: value})
}

// DeleteExchange deletes an exchange that no binding leads away from; others
// are ErrInUse.
func (c *Client) DeleteExchange(ctx context.Context, name string) error {
	if err := c.authorize(Manage, ExchangeTopic(name, "")); err != nil {
		return err
	}
	b := c.broker
	b.mu.Lock()
	x := b.exchanges[name]
	switch {
	case x == nil:
		b.mu.Unlock()
		return fmt.Errorf("%w: there is no exchange %q", ErrNotFound, name)
	case slices.Contains(builtinExchanges, x.ExchangeDefinition):
		b.mu.Unlock()
		return fmt.Errorf("%w: the exchange %q is built in", ErrInvalid, name)
	case x.bindings.Load() > 0:
		b.mu.Unlock()
		return fmt.Errorf("%w: %d bindings lead away from the exchange %q", ErrInUse, x.bindings.Load(), name)
	}
	delete(b.exchanges, name)
	b.mu.Unlock()
	return b.journal.change(ctx, Change{Key: keyExchange + name})
}

// Exchanges yields the exchanges by name.
func (c *Client) Exchanges() iter.Seq[ExchangeDefinition] {
	b := c.broker
	b.mu.RLock()
	names := slices.Sorted(maps.Keys(b.exchanges))
	all := make([]ExchangeDefinition, len(names))
	for i, name := range names {
		all[i] = b.exchanges[name].ExchangeDefinition
	}
	b.mu.RUnlock()
	return slices.Values(all)
}
