package core_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/selector"
)

func (p *peer) consumeWhere(queue, where string, c core.Credit) *core.Consumer {
	p.t.Helper()
	k, err := p.Consume(context.Background(), core.Consumption{Queue: queue, Create: true, Settlement: core.SettleAlways, Where: where}, p)
	if err != nil {
		p.t.Fatal(err)
	}
	k.Grant(c)
	return k
}

func (p *peer) send(e core.Envelope) {
	p.t.Helper()
	e.Guarantee = core.AtLeastOnce
	if err := p.Publish(context.Background(), &e, 0); err != nil {
		p.t.Fatal(err)
	}
	synctest.Wait()
}

func colored(queue, color, payload string) core.Envelope {
	return core.Envelope{Topic: core.QueueTopic(queue), Headers: []core.Header{{Name: "color", Value: color}}, Payload: []byte(payload)}
}

func (p *peer) acceptAll(k *core.Consumer) []string {
	p.t.Helper()
	var got []string
	for _, d := range p.deliveries() {
		got = append(got, string(d.Payload))
		if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{}); err != nil {
			p.t.Fatal(err)
		}
	}
	return got
}

// A consumer with a selector gets what matches, and what does not stays for
// others, in order, also across a restart.
func TestQueueWhere(t *testing.T) {
	run(t, func(w *world) {
		pub, red, all := w.peer("pub"), w.peer("red"), w.peer("all")
		for i := range 6 {
			pub.send(colored("q", []string{"red", "blue", "green"}[i%3], fmt.Sprint(i)))
		}
		k := red.consumeWhere("q", "color = 'red'", plenty)
		red.want("0", "3")
		for i := 6; i < 9; i++ {
			pub.send(colored("q", []string{"red", "blue", "green"}[i%3], fmt.Sprint(i)))
		}
		got := red.deliveries()
		if len(got) != 1 || string(got[0].Payload) != "6" {
			t.Fatalf("%v", got)
		}
		if err := k.Settle(got[0].Offset, core.Accepted, core.SettleOptions{}); err != nil {
			t.Fatal(err)
		}
		page, err := all.Browse(context.Background(), "q", core.ReadRequest{Where: "color <> 'red'"})
		if err != nil || len(page.Messages) != 6 {
			t.Fatalf("%d messages, %v", len(page.Messages), err)
		}
		k.Close()
		w.restart()
		all = w.peer("all")
		k = all.consumeWhere("q", "", core.Credit{Messages: 2, Bytes: 1 << 20})
		all.want("0", "3") // held when the other left
		k.Grant(core.Credit{Messages: 4, Bytes: 1 << 20})
		all.want("1", "2", "4", "5")
		k.Grant(plenty)
		all.want("7", "8")
		blue := w.peer("blue")
		blue.consumeWhere("q", "color = 'blue'", plenty)
		pub = w.peer("pub")
		pub.send(colored("q", "blue", "9"))
		pub.send(colored("q", "blue", "10"))
		if n := len(all.take()) + len(blue.take()); n != 2 {
			t.Fatalf("%d of 2", n)
		}
	})
}

// A consumer without credit holds up nobody whose selector lets a message pass,
// and gets its own in order later.
func TestWhereBesideNoCredit(t *testing.T) {
	run(t, func(w *world) {
		pub, red, all := w.peer("pub"), w.peer("red"), w.peer("all")
		ka := all.consumeWhere("q", "", core.Credit{})
		kr := red.consumeWhere("q", "color = 'red'", plenty)
		for i := range 100 {
			c := "blue"
			if i%50 == 0 {
				c = "red"
			}
			pub.send(colored("q", c, fmt.Sprint(i)))
		}
		if got := strings.Join(red.acceptAll(kr), " "); got != "0 50" {
			t.Fatal(got)
		}
		ka.Grant(core.Credit{Messages: 10, Bytes: 1 << 20})
		if got := strings.Join(all.acceptAll(ka), " "); got != "1 2 3 4 5 6 7 8 9 10" {
			t.Fatal(got)
		}
		pub.send(colored("q", "red", "100"))
		ka.Grant(plenty)
		got := all.acceptAll(ka)
		if len(got) < 88 || got[0] != "11" || got[87] != "99" {
			t.Fatal(got)
		}
		if n := len(got) + len(red.acceptAll(kr)); n != 89 {
			t.Fatalf("%d of 89", n)
		}
	})
}

// What is released waits for somebody who wants it, and holds up nobody.
func TestReleasedWhere(t *testing.T) {
	run(t, func(w *world) {
		pub, red, blue := w.peer("pub"), w.peer("red"), w.peer("blue")
		kr := red.consumeWhere("q", "color = 'red'", plenty)
		kb := blue.consumeWhere("q", "color = 'blue'", plenty)
		pub.send(colored("q", "red", "r"))
		red.want("r")
		kr.Close()
		pub.send(colored("q", "blue", "b"))
		blue.want("b")
		kb.Grant(plenty)
		red.consumeWhere("q", "color LIKE 'r%'", plenty)
		if ds := red.deliveries(); len(ds) != 1 || ds[0].Attempt != 2 {
			t.Fatalf("%v", ds)
		}
	})
}

func TestReaderWhere(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		for i := range 4 {
			p.send(core.Envelope{Topic: "t", Key: fmt.Sprint(i % 2), Payload: fmt.Append(nil, i), Priority: core.PriorityOf(i)})
		}
		k, err := p.Subscribe(context.Background(), core.Subscription{
			From: core.Earliest, Bindings: []core.Binding{{Filter: "t", Where: "JMSXGroupID = '1'"}, {Filter: "+", Tag: 7, Where: "JMSPriority >= 3"}},
		}, p)
		if err != nil {
			t.Fatal(err)
		}
		k.Grant(plenty)
		ds := p.deliveries()
		if len(ds) != 2 || len(ds[0].Tags) != 1 || len(ds[1].Tags) != 2 {
			t.Fatalf("%v", ds)
		}
		p.send(core.Envelope{Topic: "t", Key: "1", Payload: []byte("live")})
		p.send(core.Envelope{Topic: "t", Key: "2", Payload: []byte("not")})
		p.want("live")
		page, err := p.Read(context.Background(), core.ReadRequest{Filters: []core.Filter{"t"}, From: core.Earliest, Where: "key = '0' OR offset = 2"})
		if err != nil || len(page.Messages) != 3 {
			t.Fatalf("%v, %v", page, err)
		}
		page, err = p.Read(context.Background(), core.ReadRequest{Filters: []core.Filter{"t"}, From: core.FromLast(1), Where: "key = '0'"})
		if err != nil || len(page.Messages) != 1 || string(page.Messages[0].Payload) != "2" {
			t.Fatalf("%v, %v", page, err)
		}
		var syntax *selector.SyntaxError
		_, err = p.Consume(context.Background(), core.Consumption{Queue: "q", Create: true, Where: "a = "}, p)
		if !errors.Is(err, core.ErrInvalid) || !errors.As(err, &syntax) || syntax.At != 4 {
			t.Fatal(err)
		}
		_, err = p.Subscribe(context.Background(), core.Subscription{Bindings: []core.Binding{{Filter: "a", Where: "x x"}}}, p)
		if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), "byte 2") {
			t.Fatal(err)
		}
	})
}

func TestPriority(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		if err := p.DeclareQueue(context.Background(), core.QueueDefinition{Name: "q", Settings: core.QueueSettings{Priority: true}}); err != nil {
			t.Fatal(err)
		}
		send := func(levels ...int) {
			for _, l := range levels {
				e := core.Envelope{Topic: core.QueueTopic("q"), Payload: fmt.Append(nil, l)}
				if l >= 0 {
					e.Priority = core.PriorityOf(l)
				}
				p.send(e)
			}
		}
		send(0, 9, 5, -1, 9, 3)
		k := p.consumeWhere("q", "", core.Credit{Messages: 2, Bytes: 1 << 20})
		if got := strings.Join(p.acceptAll(k), " "); got != "9 9" {
			t.Fatal(got)
		}
		send(7)
		k.Grant(core.Credit{Messages: 1, Bytes: 1 << 20})
		if got := strings.Join(p.acceptAll(k), " "); got != "7" {
			t.Fatal(got)
		}
		w.restart()
		p = w.peer("p")
		k = p.consumeWhere("q", "", core.Credit{Messages: 1, Bytes: 1 << 20})
		send(1)
		if got := strings.Join(p.acceptAll(k), " "); got != "5" {
			t.Fatal(got)
		}
		k.Grant(plenty)
		if got := strings.Join(p.acceptAll(k), " "); got != "-1 3 1 0" {
			t.Fatal(got)
		}
		send(2)
		p.want("2")
	})
}

func TestOrderedByKey(t *testing.T) {
	run(t, func(w *world) {
		pub, a, b := w.peer("pub"), w.peer("a"), w.peer("b")
		if err := pub.DeclareQueue(context.Background(), core.QueueDefinition{Name: "q", Settings: core.QueueSettings{Ordered: true}}); err != nil {
			t.Fatal(err)
		}
		ka, kb := a.consumeWhere("q", "", plenty), b.consumeWhere("q", "", plenty)
		for i := range 3 {
			for _, key := range []string{"x", "y"} {
				pub.send(core.Envelope{Topic: core.QueueTopic("q"), Key: key, Payload: fmt.Append(nil, key, i)})
			}
		}
		da, db := a.deliveries(), b.deliveries()
		if len(da) != 1 || len(db) != 1 || string(da[0].Payload) != "x0" || string(db[0].Payload) != "y0" {
			t.Fatalf("%v %v", da, db)
		}
		if err := ka.Settle(da[0].Offset, core.Released, core.SettleOptions{Delay: core.NoDelay}); err != nil {
			t.Fatal(err)
		}
		var again core.Delivery
		for _, d := range append(a.deliveries(), b.deliveries()...) {
			again = d
		}
		if string(again.Payload) != "x0" || again.Attempt != 2 {
			t.Fatalf("%v", again)
		}
		ka.Close()
		kb.Close()
		w.restart()
		a = w.peer("a")
		ka = a.consumeWhere("q", "", plenty)
		var got []string
		for {
			ds := a.acceptAll(ka)
			if len(ds) == 0 {
				break
			}
			got = append(got, ds...)
		}
		if s := strings.Join(got, " "); s != "x0 y0 x1 y1 x2 y2" {
			t.Fatal(s)
		}
	})
}
