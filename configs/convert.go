package configs

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// everything is what a policy without filters holds for: a wildcard in the
// first level matches no topic that begins with a dollar sign.
var everything = []core.Filter{
	"#", core.QueuePrefix + "#", core.ExchangePrefix + "#", core.InboxPrefix + "#", core.DelayedPrefix + "#", core.SysPrefix + "#",
}

// sysAge is how long what the broker told of itself is kept where no policy
// says it.
const sysAge = 24 * time.Hour

// Access is Auth with its files' names as Path gives them, and with the claims
// that are looked at where none is named.
func (c *Config) Access() Auth {
	a := c.Auth
	a.Users = c.Path("auth.users", a.Users)
	a.Tokens = slices.Clone(a.Tokens)
	for i := range a.Tokens {
		t := &a.Tokens[i]
		t.Keys = c.Path(fmt.Sprintf("auth.tokens[%d].keys", i), t.Keys)
		t.User, t.Roles = cmp.Or(t.User, "sub"), cmp.Or(t.Roles, "roles")
	}
	return a
}

// Enabled reports whether anybody is asked who they are.
func (a Auth) Enabled() bool { return a.Users != "" || len(a.Tokens) > 0 || len(a.Rules) > 0 }

// CorePolicies are the policies in the core's terms.
func (c *Config) CorePolicies() []core.Policy {
	var list []core.Policy
	for _, p := range c.Policies {
		filters := p.Filters
		if len(filters) == 0 {
			filters = everything
		}
		list = append(list, core.Policy{Name: p.Name, Filters: filters, Age: time.Duration(p.Age), Bytes: int64(p.Bytes)})
	}
	// What the broker tells of itself must not fill the log where every policy
	// names the topics that it is for.
	all := slices.ContainsFunc(c.Policies, func(p Policy) bool { return len(p.Filters) == 0 })
	if len(list) > 0 && !all && c.Sys > 0 {
		list = append(list, core.Policy{Name: "sys", Filters: []core.Filter{core.SysPrefix + "#"}, Age: sysAge})
	}
	return list
}

// CoreExchanges are the exchanges in the core's terms, each behind the one that
// is its alternate.
func (c *Config) CoreExchanges() []core.ExchangeDefinition {
	var list []core.ExchangeDefinition
	for _, e := range c.Exchanges {
		list = append(list, core.ExchangeDefinition{Name: e.Name, Kind: core.ExchangeKind(e.Kind), Alternate: e.Alternate})
	}
	slices.SortStableFunc(list, func(a, b core.ExchangeDefinition) int { return c.alternates(a.Name) - c.alternates(b.Name) })
	return list
}

// alternates is how many exchanges stand behind one, each as the alternate of
// the one before.
func (c *Config) alternates(name string) int {
	n := 0
	for range c.Exchanges {
		i := slices.IndexFunc(c.Exchanges, func(e Exchange) bool { return e.Name == name })
		if i < 0 || c.Exchanges[i].Alternate == "" {
			break
		}
		name = c.Exchanges[i].Alternate
		n++
	}
	return n
}

// CoreExchangeBindings are the bindings between exchanges in the core's terms.
func (c *Config) CoreExchangeBindings() []core.ExchangeBinding {
	var list []core.ExchangeBinding
	for _, e := range c.Exchanges {
		for _, b := range e.Bindings {
			list = append(list, core.ExchangeBinding{From: b.From, To: e.Name, Key: b.Key, Where: b.Where})
		}
	}
	return list
}

// Enabled reports whether there is a webhook.
func (w Webhook) Enabled() bool { return w.URL != "" || len(w.Secrets) > 0 }

// Adapter is the webhook in the adapters' terms.
func (w Webhook) Adapter() adapters.Webhook {
	return adapters.Webhook{URL: w.URL, Secrets: w.Secrets, Timeout: time.Duration(w.Timeout), InFlight: w.InFlight}
}

// WebhookNetworks are those that webhooks may call though they are not public.
func (c *Config) WebhookNetworks() []netip.Prefix {
	var list []netip.Prefix
	for _, n := range c.HTTP.Webhooks.Allow {
		list = append(list, netip.MustParsePrefix(string(n))) // it was checked when it was read
	}
	return list
}

// CoreQueues are the queues in the core's terms.
func (c *Config) CoreQueues() []core.QueueDefinition {
	var list []core.QueueDefinition
	for _, q := range c.Queues {
		d := core.QueueDefinition{Name: q.Name, Settings: core.QueueSettings{
			MaxAttempts:  q.MaxAttempts,
			Lease:        time.Duration(q.Lease),
			Backoff:      time.Duration(q.Backoff),
			BackoffMax:   time.Duration(q.BackoffMax),
			DeadLetter:   q.DeadLetter,
			TTL:          time.Duration(q.TTL),
			MaxLength:    q.MaxLength,
			MaxBytes:     int64(q.MaxBytes),
			Overflow:     core.Overflow(q.Overflow),
			Priority:     q.Priority,
			Ordered:      q.Ordered,
			SingleActive: q.SingleActive,
			DedupWindow:  time.Duration(q.DedupWindow),
			AutoDelete:   q.AutoDelete,

			DeadLetterExpired: q.DeadLetterExpired,

			Expires:  time.Duration(q.Expires),
			Unpinned: q.Unpinned,
		}}
		for _, b := range q.Bindings {
			d.Bindings = append(d.Bindings, core.Binding{Filter: b.Filter, Exchange: b.Exchange, Key: b.Key, Where: b.Where, Settlement: core.SettleAlways})
		}
		list = append(list, d)
	}
	return list
}
