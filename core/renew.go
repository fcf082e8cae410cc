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
// ([Principal.Until]), or an operator ends it (ErrDisconnected), so that the
// adapter tells the peer and ends the connection. f gets the reason and must
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
