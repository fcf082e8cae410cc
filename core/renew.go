package core

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A proof is what a client was authenticated with, and what follows from it.
// A renewal replaces it whole.
type proof struct {
	principal *Principal
	timer     *time.Timer // nil where the principal has no end
}

// errProofOver is what a client gets whose principal's time is over.
var errProofOver = fmt.Errorf("%w: the credentials have expired", ErrUnauthenticated)

// WhenExpired has f called once the time of the client's principal is over
// ([Principal.Until]), an operator ends it (ErrDisconnected), or it reads too
// slowly for the memory that is left (ErrShed), so that the adapter tells the
// peer and ends the connection. f gets the reason and must
// not block; it is called by a goroutine of its own, at once
// where the time is over already, and not after [Client.Close]. When it has
// returned, the client's consumers are revoked. From then on all calls that ask
// for a right are ErrUnauthenticated.
func (c *Client) WhenExpired(f func(why error)) {
	c.mu.Lock()
	c.whenExpired = f
	over := c.expired
	if c.ended {
		over = nil
	}
	c.mu.Unlock()
	if over != nil {
		f(over)
	}
}

// Renew authenticates the client anew: who it is must stay the same, what it
// may do and for how long is as the new credentials say. It blocks as long as
// the authorizer does. Wrong credentials are ErrUnauthenticated, those of
// somebody else ErrNotAuthorized; what held before then holds on.
func (c *Client) Renew(ctx context.Context, cr Credentials) error {
	p, err := c.broker.authorizer.Authenticate(ctx, cr)
	if err != nil {
		return err
	}
	return c.renew(p)
}

func (c *Client) renew(p *Principal) error {
	if before := c.Principal().Name; p.Name != before {
		return fmt.Errorf("%w: the credentials are those of %q, the connection is that of %q", ErrNotAuthorized, p.Name, before)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.expired != nil || c.ended {
		return errProofOver
	}
	c.prove(p)
	c.rights = nil
	return nil
}

// prove makes p the client's principal. c.mu is held.
func (c *Client) prove(p *Principal) {
	next := &proof{principal: p}
	if before := c.proof.Load(); before != nil && before.timer != nil {
		before.timer.Stop()
	}
	if !p.Until.IsZero() {
		next.timer = time.AfterFunc(time.Until(p.Until), func() { c.expire(next) })
	}
	c.proof.Store(next)
}

// expire ends a client whose proof was not renewed.
func (c *Client) expire(of *proof) {
	c.mu.Lock()
	if c.proof.Load() != of {
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.turnAway(errProofOver)
}

// turnAway ends a client for a reason. It reports whether it was there.
func (c *Client) turnAway(why error) bool {
	c.mu.Lock()
	if c.ended || c.expired != nil {
		c.mu.Unlock()
		return false
	}
	c.expired, c.rights = why, nil
	tell := c.whenExpired
	ks := slices.Clone(c.consumers)
	c.mu.Unlock()
	if tell != nil {
		tell(why)
	}
	for _, k := range ks {
		k.notice(Notice{Kind: NoticeRevoked, Err: why})
		k.Close()
	}
	return true
}

// RightsChanged sees to what is not asked for with each message. It is called
// after the authorizer's answers have changed, from a goroutine that no adapter
// waits for. Clients whose principal is nobody any more are ended, others get
// the roles that they have now; and consumers that may not consume their queue,
// or have what reaches an exchange, any more are revoked.
func (b *Broker) RightsChanged() {
	if b.open {
		return
	}
	for _, c := range b.connected.all() {
		if c.reports {
			continue
		}
		now, err := b.authorizer.Renewed(c.Principal())
		if err != nil {
			c.turnAway(err)
			continue
		}
		if now != c.Principal() {
			_ = c.renew(now) // otherwise its time is over
		}
		c.mu.Lock()
		ks := slices.Clone(c.consumers)
		c.mu.Unlock()
		for _, k := range ks {
			if err := k.mayGoOn(); err != nil {
				k.notice(Notice{Kind: NoticeRevoked, Err: err})
				k.Close()
			}
		}
	}
}

// mayGoOn says why a consumer may not go on.
func (k *Consumer) mayGoOn() error {
	if k.whole {
		return k.client.authorize(Consume, QueueTopic(k.queue.name))
	}
	for _, bd := range k.Bindings() {
		if bd.Exchange == "" {
			continue
		}
		if err := k.client.mayTap(bd.Exchange, bd.Key); err != nil {
			return err
		}
	}
	return nil
}
