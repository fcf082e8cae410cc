package core

import (
	"iter"
	"net"
	"slices"
	"sort"
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
	// Number is the client's place in the order in which they came: the broker
	// counts them since it was opened.
	Number uint64
}

// A connected set is the clients that are connected, in the order in which they
// came, with room between them for those that have gone: coming and going cost
// the same however many there are, and a list goes on where it was.
type connected struct {
	mu    sync.Mutex // guards what follows
	came  []arrival  // by number
	there int        // how many have not gone
	last  uint64     // the last one's number
}

// An arrival is a client by its number; nil where it has gone.
type arrival struct {
	number uint64
	client *Client
}

// find is where a number stands, or would. s.mu is held.
func (s *connected) find(number uint64) int {
	return sort.Search(len(s.came), func(i int) bool { return s.came[i].number >= number })
}

func (s *connected) remember(c *Client, remote net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	c.remote, c.since, c.number = remote, time.Now(), s.last
	s.came = append(s.came, arrival{c.number, c})
	s.there++
}

// keptGone is how many that have gone are kept at least.
const keptGone = 64

func (s *connected) forget(c *Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(c.number)
	if i == len(s.came) || s.came[i].client != c {
		return // it was forgotten before
	}
	s.came[i].client = nil
	s.there--
	if gone := len(s.came) - s.there; gone > keptGone && gone > s.there {
		s.came = slices.DeleteFunc(s.came, func(a arrival) bool { return a.client == nil })
		if cap(s.came) > 4*(s.there+keptGone) {
			s.came = slices.Clone(s.came)
		}
	}
}

// all are the clients that are connected, in the order in which they came.
func (s *connected) all() []*Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Client, 0, s.there)
	for _, a := range s.came {
		if a.client != nil {
			all = append(all, a.client)
		}
	}
	return all
}

// someClients is how many clients behind gives.
const someClients = 128

// behind puts into some the next clients behind a number; none are left where
// there is none.
func (s *connected) behind(number uint64, some []*Client) []*Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	some = some[:0]
	for i := s.find(number + 1); i < len(s.came) && len(some) < someClients; i++ {
		if c := s.came[i].client; c != nil {
			some = append(some, c)
		}
	}
	return some
}

// Clients yields the clients that are connected and that the principal may
// manage, over all protocols, in the order in which they came, from behind the
// one with a number on; 0 is before the first. Of those that come and go
// meanwhile some may be missed, of the others none.
func (c *Client) Clients(number uint64) iter.Seq[ClientInfo] {
	return func(yield func(ClientInfo) bool) {
		s, at := &c.broker.connected, number
		for some := s.behind(at, nil); len(some) > 0; some = s.behind(at, some) {
			for _, k := range some {
				p := &k.publisher
				if at = k.number; c.authorize(Manage, ClientTopic(p.Client)) != nil {
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
}

// Disconnect ends the clients of a protocol and name, as if their credentials
// had expired, and returns how many there were. Nothing keeps them from coming
// again. Who asks is not ended.
func (c *Client) Disconnect(protocol, client string) (int, error) {
	if err := c.authorize(Manage, ClientTopic(client)); err != nil {
		return 0, err
	}
	found := slices.DeleteFunc(c.broker.connected.all(), func(k *Client) bool {
		return k == c || k.publisher.Protocol != protocol || k.publisher.Client != client
	})
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
