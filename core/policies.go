package core

import "slices"

// PolicyTopic is the address of a policy, for the authorizer.
func PolicyTopic(name string) string { return "$policy/" + name }

// Policies are the retention policies in force that the principal may manage,
// in the order in which they are asked: the first whose filters match a topic
// holds for it.
func (c *Client) Policies() []Policy {
	var ps []Policy
	for _, p := range c.broker.policies {
		if c.authorize(Manage, PolicyTopic(p.Name)) == nil {
			p.Filters = slices.Clone(p.Filters)
			ps = append(ps, p)
		}
	}
	return ps
}

// Matches reports whether a topic is one of the policy's.
func (p *Policy) Matches(topic string) bool {
	return slices.ContainsFunc(p.Filters, func(f Filter) bool { return f.Match(topic) })
}
