package ws

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestSubscriptions holds the list and the map together against a map alone.
func TestSubscriptions(t *testing.T) {
	var s subscriptions
	rng := rand.New(rand.NewPCG(1, 2))
	want := make(map[string]*subscription)
	for range 2000 {
		name := strconv.Itoa(rng.IntN(3 * fewSubscriptions))
		if want[name] == nil {
			want[name] = &subscription{name: name}
			s.add(want[name])
		} else if rng.IntN(2) == 0 {
			delete(want, name)
			s.remove(name)
		}
		if s.len() != len(want) || len(s.list()) != len(want) {
			t.Fatalf("%d subscriptions, %d listed, want %d", s.len(), len(s.list()), len(want))
		}
		for _, sub := range s.list() {
			if want[sub.name] != sub {
				t.Fatalf("%q is listed", sub.name)
			}
		}
		for i := range 3 * fewSubscriptions {
			if name := strconv.Itoa(i); s.named(name) != want[name] {
				t.Fatalf("%q is %v", name, s.named(name))
			}
		}
	}
}
