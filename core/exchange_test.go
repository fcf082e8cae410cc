package core_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicemq/sluice/core"
)

func (p *peer) exchange(d core.ExchangeDefinition) {
	p.t.Helper()
	if err := p.DeclareExchange(context.Background(), d); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) queueBound(name string, bs ...core.Binding) {
	p.t.Helper()
	if err := p.DeclareQueue(context.Background(), core.QueueDefinition{Name: name, Bindings: bs}); err != nil {
		p.t.Fatal(err)
	}
}

// drain takes all that a queue has.
func (w *world) drain(queue string) string {
	w.t.Helper()
	p := w.peer("drain " + queue)
	k := p.consumeWhere(queue, "", plenty)
	got := strings.Join(p.acceptAll(k), " ")
	k.Close()
	synctest.Wait()
	return got
}

func TestHeadersExchange(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.exchange(core.ExchangeDefinition{Name: "h", Kind: core.HeadersExchange})
		where := func(all bool, hs ...core.Header) string {
			s, err := core.MatchHeaders(all, hs)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		a, b := core.Header{Name: "a", Value: "it's"}, core.Header{Name: `b "q"`, Value: ""}
		p.queueBound("all", core.Binding{Exchange: "h", Where: where(true, a, b)})
		p.queueBound("any", core.Binding{Exchange: "h", Where: where(false, a, b)})
		p.queueBound("every", core.Binding{Exchange: "h", Where: where(true)})
		if _, err := core.MatchHeaders(false, nil); !errors.Is(err, core.ErrInvalid) {
			t.Fatal(err)
		}
		for _, m := range []struct {
			payload string
			headers []core.Header
		}{{"1", []core.Header{a}}, {"2", []core.Header{a, b}}, {"3", []core.Header{{Name: "a", Value: "other"}}}, {"4", []core.Header{{Name: b.Name, Value: "x"}}}} {
			p.send(core.Envelope{Topic: core.ExchangeTopic("h", "k"), Headers: m.headers, Payload: []byte(m.payload)})
		}
		w.restart()
		for queue, want := range map[string]string{"all": "2", "any": "1 2 4", "every": "1 2 3 4"} {
			if got := w.drain(queue); got != want {
				t.Errorf("%s: %q, want %q", queue, got, want)
			}
		}
	})
}

// A message that reaches a queue over several bindings and exchanges is there
// once, and what an exchange led on before it was unbound stays.
func TestExchangeToExchange(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.exchange(core.ExchangeDefinition{Name: "in", Kind: core.TopicExchange})
		p.exchange(core.ExchangeDefinition{Name: "mid", Kind: core.Fanout})
		p.exchange(core.ExchangeDefinition{Name: "out", Kind: core.Direct})
		p.queueBound("q", core.Binding{Exchange: "out", Key: "a.b"}, core.Binding{Exchange: "mid"})
		p.queueBound("direct", core.Binding{Exchange: "out", Key: "a.b"})
		live := w.peer("live")
		k, err := live.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Exchange: "out", Key: "a.b"}}}, live)
		if err != nil {
			t.Fatal(err)
		}
		k.Grant(plenty)
		p.publish(core.ExchangeTopic("in", "a.b"), "0")
		links := []core.ExchangeBinding{{From: "in", To: "mid", Key: "a.#"}, {From: "mid", To: "out"}, {From: "out", To: "mid", Key: "a.b"}, {From: "in", To: "out", Key: "*.b", Where: "priority > 3"}}
		for _, l := range append(links, links[0]) {
			if err := p.BindExchange(ctx, l); err != nil {
				t.Fatal(err)
			}
		}
		if got := p.ExchangeBindings(); len(got) != 4 {
			t.Fatalf("%v", got)
		}
		p.publish(core.ExchangeTopic("in", "a.b"), "1")
		p.publish(core.ExchangeTopic("in", "b.b"), "2")
		live.want("1")
		w.restart()
		p = w.peer("p")
		if err := p.UnbindExchange(ctx, links[0]); err != nil {
			t.Fatal(err)
		}
		if err := p.UnbindExchange(ctx, links[0]); !errors.Is(err, core.ErrNotFound) {
			t.Fatal(err)
		}
		p.publish(core.ExchangeTopic("in", "a.b"), "3")
		p.send(core.Envelope{Topic: core.ExchangeTopic("in", "a.b"), Priority: core.PriorityOf(9), Payload: []byte("4")})
		if err := p.DeleteExchange(ctx, "in"); !errors.Is(err, core.ErrInUse) {
			t.Fatal(err)
		}
		if err := p.UnbindExchange(ctx, links[3]); err != nil {
			t.Fatal(err)
		}
		if err := p.DeleteExchange(ctx, "in"); err != nil {
			t.Fatal(err)
		}
		w.restart()
		for _, queue := range []string{"q", "direct"} {
			if got := w.drain(queue); got != "1 4" {
				t.Errorf("%s: %q", queue, got)
			}
		}
	})
}

func TestAlternateAndMandatory(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		p := w.peer("p")
		p.exchange(core.ExchangeDefinition{Name: "rest", Kind: core.Fanout})
		p.exchange(core.ExchangeDefinition{Name: "e", Kind: core.Direct, Alternate: "rest"})
		if err := p.DeclareExchange(ctx, core.ExchangeDefinition{Name: "e", Kind: core.Direct}); !errors.Is(err, core.ErrConflict) || !strings.Contains(err.Error(), `direct with the alternate "rest", not direct`) {
			t.Fatal(err)
		}
		if err := p.DeclareExchange(ctx, core.ExchangeDefinition{Name: "x", Kind: core.Direct, Alternate: "none"}); !errors.Is(err, core.ErrNotFound) {
			t.Fatal(err)
		}
		mandatory := func(topic, payload string) error {
			err := p.Publish(ctx, &core.Envelope{Topic: topic, Mandatory: true, Payload: []byte(payload)}, 0)
			synctest.Wait()
			return err
		}
		if err := mandatory(core.ExchangeTopic("e", "k"), "0"); !errors.Is(err, core.ErrNoResponders) {
			t.Fatal(err)
		}
		p.queueBound("q", core.Binding{Exchange: "e", Key: "k"})
		p.queueBound("lost", core.Binding{Exchange: "rest"})
		if err := mandatory(core.ExchangeTopic("e", "other"), "1"); err != nil {
			t.Fatal(err)
		}
		if err := mandatory(core.ExchangeTopic("e", "k"), "2"); err != nil {
			t.Fatal(err)
		}
		p.publish(core.ExchangeTopic("e", "none"), "3")
		if err := p.DeleteExchange(ctx, "rest"); !errors.Is(err, core.ErrInUse) {
			t.Fatal(err)
		}
		w.restart()
		if q, lost := w.drain("q"), w.drain("lost"); q != "2" || lost != "1 3" {
			t.Fatalf("%q %q", q, lost)
		}
		p = w.peer("p")
		if err := mandatory("a/b", "x"); !errors.Is(err, core.ErrNoResponders) {
			t.Fatal(err)
		}
		k := p.subscribe(core.Latest, "a/+")
		if err := mandatory("a/b", "x"); err != nil {
			t.Fatal(err)
		}
		k.Close()
		p.queueBound("later", core.Binding{Filter: "a/#", Where: "key = '1'"})
		if err := mandatory("a/b", "x"); !errors.Is(err, core.ErrNoResponders) {
			t.Fatal(err)
		}
		if err := p.Publish(ctx, &core.Envelope{Topic: "a/b", Key: "1", Mandatory: true}, 0); err != nil {
			t.Fatal(err)
		}
	})
}
