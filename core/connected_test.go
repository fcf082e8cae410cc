package core

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// A set of clients that come and go has them in the order in which they came,
// each once, and little room for those that have gone.
func TestConnectedInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s connected
	var there []*Client
	check := func() {
		t.Helper()
		if !slices.Equal(s.all(), there) || s.there != len(there) {
			t.Fatalf("%d clients, and the set is another", len(there))
		}
		var walked, some []*Client
		for at := uint64(0); ; at = some[len(some)-1].number {
			if some = s.behind(at, some); len(some) == 0 {
				break
			}
			walked = append(walked, some...)
		}
		if !slices.Equal(walked, there) {
			t.Fatal("going on from each part's end gives others")
		}
		if most := 2*len(there) + keptGone + 1; len(s.came) > most || cap(s.came) > 6*most {
			t.Fatalf("room for %d of %d, for %d clients", len(s.came), cap(s.came), len(there))
		}
	}
	for _, share := range []int{100, 60, 20, 90, 0} { // how many of a hundred come
		for range 4000 {
			if r.IntN(100) < share {
				c := new(Client)
				s.remember(c, nil)
				there = append(there, c)
			} else if len(there) > 0 {
				i := r.IntN(len(there))
				s.forget(there[i])
				s.forget(there[i]) // nothing more
				there = slices.Delete(there, i, i+1)
			}
		}
		check()
	}
	for _, c := range there {
		s.forget(c)
	}
	there = nil
	check()
}

// An askedOf counts whom it was asked about.
type askedOf struct {
	AllowAll
	asked int
}

func (a *askedOf) Authorize(_ *Principal, action Action, _ string) error {
	if action == Manage {
		a.asked++
	}
	return nil
}

// Who lists some of many clients does not go through the others, and the next
// are behind them though they have gone.
func TestSomeOfManyClients(t *testing.T) {
	const clients, page = 20_000, 100
	rights := new(askedOf)
	b := &Broker{authorizer: rights}
	all := make([]*Client, clients)
	for i := range all {
		all[i] = b.connect(&Principal{}, Credentials{Protocol: "mqtt", Client: fmt.Sprint("sensor-", i)}, nil)
	}
	c, err := b.Connect(context.Background(), Credentials{Protocol: "http"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n, number := clients/2, all[clients/2-1].number
	for range 3 {
		end := n + page
		for info := range c.Clients(number) {
			if want := fmt.Sprint("sensor-", n); info.Client != want {
				t.Fatalf("%s, want %s", info.Client, want)
			}
			number = info.Number
			if n++; n == end {
				break
			}
		}
		all[n-1].Close()
	}
	if rights.asked != 3*page {
		t.Errorf("the rights to %d clients were asked for, to list %d", rights.asked, 3*page)
	}
	n = 0
	for range c.Clients(0) {
		n++
	}
	if n != clients+1-3 {
		t.Errorf("%d of %d clients are listed", n, clients+1-3)
	}
}
