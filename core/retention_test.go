package core_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// What a policy lets go is gone for readers, who are told; what a queue has not
// settled, a retained value and a delayed message stay.
func TestRetentionKeepsWhatIsNeeded(t *testing.T) {
	o := core.Options{Policies: []core.Policy{{Filters: []core.Filter{"#", "$queue/#", "$delayed/#"}, Age: time.Hour}}}
	runWith(t, o, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		if err := a.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Bindings: []core.Binding{{Filter: "needed/+"}}, Settings: core.QueueSettings{Lease: core.Unlimited}}); err != nil {
			t.Fatal(err)
		}
		a.publish("plain", "gone")
		a.publish("needed/1", "kept")
		a.publish("$queue/q", "kept too")
		if err := a.Publish(ctx, &core.Envelope{Topic: "r", Payload: []byte("old"), Retain: true}, 0); err != nil {
			t.Fatal(err)
		}
		if err := a.Publish(ctx, &core.Envelope{Topic: "r", Payload: []byte("new"), Retain: true}, 0); err != nil {
			t.Fatal(err)
		}
		if err := a.Publish(ctx, &core.Envelope{Topic: "late", Payload: []byte("late"), DeliverAt: time.Now().Add(3 * time.Hour)}, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()

		b := w.peer("b")
		_, err := b.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "plain"}}, From: core.FromOffset(1)}, b)
		var removed *core.OffsetRemovedError
		if !errors.As(err, &removed) || removed.Earliest != 2 {
			t.Fatalf("a removed offset: %v", err)
		}
		page, err := b.Read(ctx, core.ReadRequest{Filters: []core.Filter{"#"}, From: core.Earliest})
		if err != nil || len(page.Messages) != 2 {
			t.Fatalf("%+v %v", page, err)
		}
		k := b.consume("q")
		k.Grant(plenty)
		got := b.deliveries()
		if len(got) != 2 || string(got[0].Payload) != "kept" || string(got[1].Payload) != "kept too" {
			t.Fatalf("%+v", got)
		}
		for v, err := range b.Retained(ctx, "r") {
			if err != nil || string(v.Payload) != "new" {
				t.Fatalf("%v %v", v, err)
			}
		}
		late := w.peer("late")
		late.subscribe(core.Latest, "late").Grant(plenty)
		time.Sleep(2 * time.Hour)
		late.want("late")

		for _, d := range got {
			if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Hour)
		page, err = b.Read(ctx, core.ReadRequest{Filters: []core.Filter{"#"}, From: core.Earliest})
		if err != nil || len(page.Messages) != 1 || page.Messages[0].Topic != "r" {
			t.Fatalf("%+v %v", page, err)
		}
	})
}
