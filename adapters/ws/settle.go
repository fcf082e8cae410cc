package ws

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// subscriptionOf is the subscription that a command names.
func (c *conn) subscriptionOf(cmd *command) (*subscription, error) {
	s := c.subs.named(cmd.sub)
	if s == nil {
		return nil, fmt.Errorf("%w: there is no subscription %q", core.ErrNotFound, cmd.sub)
	}
	if s.ended.Load() {
		c.drop(cmd.sub, s)
		return nil, fmt.Errorf("%w: the subscription %q has ended", core.ErrNotFound, cmd.sub)
	}
	return s, nil
}

// settle ends a delivery, which gives the client one message of credit back.
// It is answered once that is durable.
func (c *conn) settle(cmd *command) error {
	s, err := c.subscriptionOf(cmd)
	if err != nil {
		return err
	}
	if !s.held {
		return fmt.Errorf("%w: the subscription %q has no acknowledgements", core.ErrInvalid, cmd.sub)
	}
	if err := s.mayGrant(1); err != nil {
		return err
	}
	outcome := core.Accepted
	options := core.SettleOptions{Credit: core.Credit{Messages: 1}}
	if cmd.op == opNack {
		if outcome = core.Released; !cmd.requeue {
			outcome = core.Rejected
		}
		options.Reason = strings.Clone(cmd.reason)
		if cmd.hasAny(fieldDelay) {
			if options.Delay = millis(cmd.delay); cmd.delay == 0 {
				options.Delay = core.NoDelay
			}
		}
	}
	if cmd.req != nil {
		if options.Receipt = c.receipt(cmd.req, nil, s); options.Receipt == 0 {
			return core.ErrClosed
		}
	}
	s.credit.Add(1)
	err = s.consumer.Settle(core.Offset(cmd.offset), outcome, options)
	if err != nil {
		s.credit.Add(-1)
		if options.Receipt != 0 {
			c.mu.Lock()
			c.release(options.Receipt)
			c.mu.Unlock()
		}
	}
	return err
}

// extend lengthens the lease of a held message.
func (c *conn) extend(cmd *command) error {
	s, err := c.subscriptionOf(cmd)
	if err != nil {
		return err
	}
	if err := s.consumer.Extend(core.Offset(cmd.offset), millis(cmd.by)); err != nil {
		return err
	}
	c.ok(cmd.req)
	return nil
}

// credit lets more messages come.
func (c *conn) credit(cmd *command) error {
	s, err := c.subscriptionOf(cmd)
	if err != nil {
		return err
	}
	if err := s.mayGrant(cmd.count); err != nil {
		return err
	}
	s.credit.Add(int64(cmd.count))
	s.consumer.Grant(core.Credit{Messages: int(cmd.count)})
	c.ok(cmd.req)
	return nil
}

// mayGrant says why the client may not have n messages of credit more.
func (s *subscription) mayGrant(n uint64) error {
	most := s.conn.srv.Limits.MaxInFlight
	if n > uint64(most) || s.credit.Load()+int64(n) > int64(most) {
		return fmt.Errorf("%w: at most %d messages of credit", core.ErrLimit, most)
	}
	return nil
}

func millis(n uint64) time.Duration { return time.Duration(n) * time.Millisecond }
