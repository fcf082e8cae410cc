package ws

import (
	"maps"
	"slices"
)

// Subscriptions are those of one connection, by name. Most connections have one
// or two, and there are many connections: they stand in a list, and in a map
// where there are more than a few.
type subscriptions struct {
	few  []*subscription
	many map[string]*subscription // nil while there are few
}

// fewSubscriptions is how many the list holds at most.
const fewSubscriptions = 8

func (s *subscriptions) len() int { return len(s.few) + len(s.many) }

// named is the one of a name, or nil.
func (s *subscriptions) named(name string) *subscription {
	for _, sub := range s.few {
		if sub.name == name {
			return sub
		}
	}
	return s.many[name]
}

func (s *subscriptions) add(sub *subscription) {
	if s.many == nil && len(s.few) < fewSubscriptions {
		s.few = append(s.few, sub)
		return
	}
	if s.many == nil {
		s.many = make(map[string]*subscription)
	}
	s.many[sub.name] = sub
}

func (s *subscriptions) remove(name string) {
	s.few = slices.DeleteFunc(s.few, func(sub *subscription) bool { return sub.name == name })
	delete(s.many, name)
}

// list is all of them, a copy.
func (s *subscriptions) list() []*subscription {
	return append(slices.Clone(s.few), slices.Collect(maps.Values(s.many))...)
}
