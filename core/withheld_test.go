package core_test

import (
	"context"
	"testing"

	"github.com/sluicemq/sluice/core"
)

// withUnequal runs a group whose members have not the same rights: ann publishes
// to two topics, bob may have both and cat one of them. join has one of them join
// with so many messages of credit.
func withUnequal(t *testing.T, ordered bool, f func(ann, bob, cat *peer, join func(p *peer, credit int) *core.Consumer)) {
	r := new(rules)
	r.set("ann publish a/1", "ann publish a/2",
		"bob subscribe a/#", "bob consume $queue/$share/g/a/#", "bob deliver a/1", "bob deliver a/2",
		"cat subscribe a/#", "cat consume $queue/$share/g/a/#", "cat deliver a/1")
	s := core.DefaultGroupSettings()
	s.Ordered = ordered
	runWith(t, core.Options{Authorizer: r}, func(w *world) {
		join := func(p *peer, credit int) *core.Consumer {
			k, err := p.Consume(context.Background(), core.Consumption{Queue: core.GroupQueue("g", "a/#"), Create: true, Settings: &s, Bindings: []core.Binding{{Filter: "a/#", Settlement: core.SettleAlways}}, Settlement: core.SettleAlways}, p)
			if err != nil {
				w.t.Fatal(err)
			}
			k.Grant(core.Credit{Messages: credit, Bytes: 1 << 20})
			return k
		}
		f(w.login("ann"), w.login("bob"), w.login("cat"), join)
	})
}

// A message that waits for a member who may have it, and has no credit, neither
// keeps the broker busy nor holds up what another one may have.
func TestReleasedForOneWhoMay(t *testing.T) {
	withUnequal(t, false, func(ann, bob, cat *peer, join func(*peer, int) *core.Consumer) {
		kb := join(bob, 1)
		join(cat, 10)
		ann.publish("a/2", "for bob")
		got := bob.deliveries()
		if len(got) != 1 {
			t.Fatalf("%d came", len(got))
		}
		if err := kb.Settle(got[0].Offset, core.Released, core.SettleOptions{Delay: core.NoDelay}); err != nil {
			t.Fatal(err)
		}
		cat.want()
		ann.publish("a/1", "for anybody")
		cat.want("for anybody")
		kb.Grant(core.Credit{Messages: 1})
		bob.want("for bob")
	})
}

// Nor does one that nobody has been given yet.
func TestWithheldIsPassedOver(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		withUnequal(t, ordered, func(ann, bob, cat *peer, join func(*peer, int) *core.Consumer) {
			kb := join(bob, 0)
			join(cat, 10)
			for range 3 {
				ann.publish("a/2", "for bob")
				ann.publish("a/1", "for anybody")
			}
			cat.want("for anybody", "for anybody", "for anybody")
			bob.want()
			kb.Grant(core.Credit{Messages: 2})
			bob.want("for bob", "for bob")
		})
	}
}
