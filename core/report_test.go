package core_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sluicemq/sluice/core"
)

// TestReport has the broker tell of itself: nobody else publishes there, and
// the authorizer is asked about every topic that is delivered.
func TestReport(t *testing.T) {
	r := new(rules)
	r.set("ann publish $SYS/a", "ann subscribe $SYS/#", "ann deliver $SYS/a", "ann subscribe #", "ann deliver x")
	runWith(t, core.Options{Authorizer: r}, func(w *world) {
		ctx := context.Background()
		ann := w.login("ann")
		all := core.Subscription{Bindings: []core.Binding{{Filter: "$SYS/#"}}, Retained: true}
		if _, err := ann.Subscribe(ctx, all, ann); !errors.Is(err, core.ErrNotAuthorized) {
			t.Errorf("subscribed to a broker that tells nothing: %v", err)
		}

		var asked []core.Filter
		sys := w.broker.Report(func(_ context.Context, f core.Filter) { asked = append(asked, f) }, nil)
		tell := func(topic, value string) {
			t.Helper()
			if err := sys.Publish(ctx, &core.Envelope{Topic: topic, Payload: []byte(value), Retain: true}, 0); err != nil {
				t.Fatal(err)
			}
		}
		tell("$SYS/a", "1")
		tell("$SYS/b", "1")
		if sys.Heard("$SYS/a") {
			t.Error("somebody hears")
		}
		for _, e := range []core.Envelope{{Topic: "$SYS/a"}, {Topic: "$SYS/a", Retain: true}, {Topic: "$SYS/"}, {Topic: "$SYS"}} {
			if err := ann.Publish(ctx, &e, 0); !errors.Is(err, core.ErrNotAuthorized) {
				t.Errorf("published to %s: %v", e.Topic, err)
			}
			if err := ann.Commit(ctx, core.Transaction{Publish: []*core.Envelope{&e}}, 0); !errors.Is(err, core.ErrNotAuthorized) {
				t.Errorf("committed to %s: %v", e.Topic, err)
			}
		}
		if err := sys.Publish(ctx, &core.Envelope{Topic: "$share/a"}, 0); !errors.Is(err, core.ErrNotAuthorized) {
			t.Errorf("published elsewhere: %v", err)
		}

		every, err := ann.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "#"}}, Retained: true}, ann)
		if err != nil {
			t.Fatal(err)
		}
		every.Grant(plenty)
		ann.want()
		if len(asked) != 0 || sys.Heard("$SYS/a") {
			t.Errorf("# asked for %q", asked)
		}
		k, err := ann.Subscribe(ctx, all, ann)
		if err != nil {
			t.Fatal(err)
		}
		k.Grant(plenty)
		ann.want("1") // of a; b is not hers
		if len(asked) != 1 || asked[0] != "$SYS/#" || !sys.Heard("$SYS/a") {
			t.Errorf("asked for %q", asked)
		}
		tell("$SYS/b", "2")
		tell("$SYS/a", "2")
		ann.want("2")
		for d, err := range ann.Retained(ctx, "$SYS/#", "") {
			if err != nil || d.Topic != "$SYS/a" || string(d.Payload) != "2" {
				t.Errorf("retained %v, %v", d, err)
			}
		}

		there := w.broker.Attendance()
		if there != (core.Attendance{Clients: 1, Subscriptions: 2}) {
			t.Errorf("there is %+v", there)
		}
		if n, err := w.broker.CountRetained(); n != 2 || err != nil {
			t.Errorf("%d retained values, %v", n, err)
		}
		_, err = ann.Consume(ctx, core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &core.QueueSettings{Kind: core.KindSession}, Bindings: []core.Binding{{Filter: "#"}}}, ann)
		if err != nil {
			t.Fatal(err)
		}
		ann.Close()
		sys.Close()
		if there := w.broker.Attendance(); there != (core.Attendance{Away: 1, Subscriptions: 1}) {
			t.Errorf("there is %+v once she has gone", there)
		}

		// What an earlier run told is not shown by one that tells nothing.
		w.restart()
		ann = w.login("ann")
		for d, err := range ann.Retained(ctx, "$SYS/#", "") {
			t.Errorf("retained %v, %v", d, err)
		}
	})
}
