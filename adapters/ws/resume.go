package ws

import (
	"crypto/rand"

	"github.com/sluicemq/sluice/core"
)

// What a client goes on with after a lost connection are its own offsets: it
// subscribes from where it was, and the broker keeps nothing for it. But the
// broker may not know yet that the connection is lost, and hold for it what it
// had taken off queues. So each welcome has a ticket, and who shows that in the
// hello of a new connection has the old one ended first.

// A holder is a connection that has a ticket, and its client by then.
type holder struct {
	conn   *conn
	client *core.Client
}

// remember gives a connection its ticket.
func (s *Server) remember(c *conn) {
	if c.ticket == "" {
		c.ticket = rand.Text()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tickets[c.ticket] = holder{c, c.client}
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tickets, c.ticket)
}

// takeOver ends the connection that has a ticket, if it is still there and the
// same user's: what it held has gone back when takeOver returns, and nothing of
// what it still sends is done. A ticket of a connection that has ended is as
// good as none.
func (c *conn) takeOver(ticket string) {
	s := c.srv
	s.mu.Lock()
	old, found := s.tickets[ticket]
	if found = found && old.conn != c && old.client.Principal().Name == c.client.Principal().Name; found {
		delete(s.tickets, ticket)
	}
	s.mu.Unlock()
	if !found {
		return
	}
	old.conn.leaving.Store(true)
	old.client.Close()
	old.conn.mu.Lock()
	old.conn.idle.Broadcast()
	old.conn.mu.Unlock()
	old.conn.part(closeTakenOver, "another connection took over")
}
