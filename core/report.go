package core

import (
	"context"
	"strings"
)

// A reporter is who tells of the broker in the topics under SysPrefix.
type reporter struct {
	asked func(ctx context.Context, f Filter)
}

// Report lets the topics under SysPrefix be read, and returns the client that
// alone may publish there, but for those under PeersPrefix. It is called once, before anybody connects; who
// calls it closes the client.
//
// asked is called whenever somebody wants retained values of a filter under
// SysPrefix, before they are looked at, by the goroutine of who wants them: so
// nothing has to be published while nobody looks. It may block for as long as a
// publish takes, and may be called by several goroutines at once.
func (b *Broker) Report(asked func(ctx context.Context, f Filter), confirm Confirmer) *Client {
	c := &Client{broker: b, confirmer: confirm, reports: true, publisher: Publisher{Protocol: "sys"}}
	c.mu.Lock()
	c.prove(&Principal{})
	c.mu.Unlock()
	b.reporter.Store(&reporter{asked: asked})
	return c
}

// mayReport reports whether a topic is one in which the client may tell of the
// broker or of itself.
func (c *Client) mayReport(topic string) bool {
	return strings.HasPrefix(topic, SysPrefix) && (c.reports || strings.HasPrefix(topic, PeersPrefix))
}

// ask tells the reporter that somebody looks at the retained values of a filter.
func (b *Broker) ask(ctx context.Context, f Filter) {
	if !strings.HasPrefix(string(f), SysPrefix) {
		return
	}
	if r := b.reporter.Load(); r != nil {
		r.asked(ctx, f)
	}
}

// Heard reports whether a message to a topic would get to somebody who is
// connected now.
func (c *Client) Heard(topic string) bool {
	d := c.broker.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.index.match(topic)) > 0
}
