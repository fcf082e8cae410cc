package core

import (
	"iter"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ClientTopic is the address of a client, for the authorizer.
func ClientTopic(client string) string { return "$client/" + client }

// ClientInfo describes a client that is connected.
type ClientInfo struct {
	// Protocol and Client are the adapter's and the client's names, User is
	// the principal's.
	Protocol, Client, User string
	Remote                 net.Addr
	Since                  time.Time
	Consumers              int
	// Number tells clients apart that have the same name: the broker counts them
	// since it was opened.
	Number uint64
}

// A connected set is the clients that are connected.
type connected struct {
	mu      sync.Mutex // guards what follows
	clients map[*Client]struct{}
	last    uint64 // the last one's number
}

func (s *connected) remember(c *Client, remote net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients == nil {
		s.clients = make(map[*Client]struct{})
	}
	s.last++
	c.remote, c.since, c.number = remote, time.Now(), s.last
	s.clients[c] = struct{}{}
}

func (s *connected) forget(c *Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
}

// all are the clients that are connected, in no order.
func (s *connected) all() []*Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.clients))
}

// Clients yields the clients that are connected and that the principal may
// manage, over all protocols, in no order.
func (c *Client) Clients() iter.Seq[ClientInfo] {
	return func(yield func(ClientInfo) bool) {
		for _, k := range c.broker.connected.all() {
			p := &k.publisher
			if c.authorize(Manage, ClientTopic(p.Client)) != nil {
				continue
			}
			k.mu.Lock()
			consumers := len(k.consumers)
			k.mu.Unlock()
			if !yield(ClientInfo{p.Protocol, p.Client, p.Principal, k.remote, k.since, consumers, k.number}) {
				return
			}
		}
	}
}

// Disconnect ends the clients of a protocol and name, as if their credentials
// had expired, and returns how many there were. Nothing keeps them from coming
// again. Who asks is not ended.
func (c *Client) Disconnect(protocol, client string) (int, error) {
	if err := c.authorize(Manage, ClientTopic(client)); err != nil {
		return 0, err
	}
	s := &c.broker.connected
	s.mu.Lock()
	var found []*Client
	for k := range s.clients {
		if k != c && k.publisher.Protocol == protocol && k.publisher.Client == client {
			found = append(found, k)
		}
	}
	s.mu.Unlock()
	// The adapters are not called back on the goroutine of their own call.
	var n atomic.Int64
	var ending sync.WaitGroup
	for _, k := range found {
		ending.Go(func() {
			if k.turnAway(ErrDisconnected) {
				n.Add(1)
			}
		})
	}
	ending.Wait()
	return int(n.Load()), nil
}
