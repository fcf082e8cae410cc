package core

import (
	"cmp"
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
}

// A connected set is the clients that are connected.
type connected struct {
	mu      sync.Mutex // guards clients
	clients map[*Client]ClientInfo
}

func (s *connected) remember(c *Client, remote net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients == nil {
		s.clients = make(map[*Client]ClientInfo)
	}
	s.clients[c] = ClientInfo{Protocol: c.publisher.Protocol, Client: c.publisher.Client, User: c.publisher.Principal, Remote: remote, Since: time.Now()}
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
// manage, over all protocols, by protocol and name.
func (c *Client) Clients() iter.Seq[ClientInfo] {
	s := &c.broker.connected
	s.mu.Lock()
	all := make(map[*Client]ClientInfo, len(s.clients))
	for k, info := range s.clients {
		all[k] = info
	}
	s.mu.Unlock()
	var list []ClientInfo
	for k, info := range all {
		if c.authorize(Manage, ClientTopic(info.Client)) != nil {
			continue
		}
		k.mu.Lock()
		info.Consumers = len(k.consumers)
		k.mu.Unlock()
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b ClientInfo) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Client, b.Client), a.Since.Compare(b.Since))
	})
	return slices.Values(list)
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
	for k, info := range s.clients {
		if k != c && info.Protocol == protocol && info.Client == client {
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
