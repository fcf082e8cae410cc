package core_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// What a rewinding says comes again does, and what a new queue or binding begins
// with is there, also where space is being reclaimed just then: it was not needed
// when that began.
func TestWantedWhileSpaceIsReclaimed(t *testing.T) {
	o := core.Options{Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Hour}}}
	for name, want := range map[string]func(p *peer) (int64, error){
		"rewind": func(p *peer) (int64, error) {
			got, err := p.Rewind(context.Background(), "q", core.Earliest, false)
			return got.Again, err
		},
		"declare": func(p *peer) (int64, error) {
			d := core.QueueDefinition{Name: "new", Bindings: []core.Binding{{Filter: "x"}}, From: core.Earliest}
			err := p.DeclareQueue(context.Background(), d)
			return p.kept("x"), err
		},
		"bind": func(p *peer) (int64, error) {
			err := p.BindQueue(context.Background(), "behind", core.Binding{Filter: "x"}, core.Earliest)
			return p.kept("x"), err
		},
	} {
		runWith(t, o, func(w *world) {
			p := w.peer("p")
			p.declare("behind", core.QueueSettings{}) // stands at the beginning
			p.declare("q", core.QueueSettings{}, core.Binding{Filter: "x"})
			k := p.consume("q")
			k.Grant(plenty)
			p.publish("x", "1", "2", "3")
			for _, d := range p.deliveries() {
				if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			k.Close()
			var again int64
			var err error
			done := make(chan struct{})
			w.engine.WhenReclaiming(func() {
				w.engine.WhenReclaiming(nil)
				go func() {
					again, err = want(p)
					close(done)
				}()
				// It either comes to its end here, or waits.
				select {
				case <-done:
				case <-time.After(time.Minute):
				}
			})
			time.Sleep(2 * time.Hour)
			<-done
			synctest.Wait()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			queue := map[string]string{"rewind": "q", "declare": "new", "bind": "behind"}[name]
			reader := w.peer("reader")
			reader.consume(queue).Grant(plenty)
			if got := reader.take(); int64(len(got)) != again {
				t.Errorf("%s: there are %s, want %d", name, fmt.Sprint(got), again)
			}
		})
	}
}

// kept is how many messages the log has of a topic.
func (p *peer) kept(topic core.Filter) int64 {
	page, err := p.Read(context.Background(), core.ReadRequest{Filters: []core.Filter{topic}, From: core.Earliest})
	if err != nil {
		p.t.Error(err)
	}
	return int64(len(page.Messages))
}
