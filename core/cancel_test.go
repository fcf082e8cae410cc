package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// listed is what waits for its time, as payloads, page by page.
func (p *peer) listed(s core.Selection, page int) string {
	p.t.Helper()
	var got []string
	for after, more := "", true; more; {
		s.Limit, more = int64(page), false
		for m, err := range p.Delayed(context.Background(), s, after) {
			if err != nil {
				p.t.Fatal(err)
			}
			got = append(got, string(m.Payload))
			after, more = m.Place, true
		}
	}
	return strings.Join(got, " ")
}

func (p *peer) cancel(s core.Selection, dry bool) int64 {
	p.t.Helper()
	got, err := p.Cancel(context.Background(), s, dry)
	if err != nil {
		p.t.Fatal(err)
	}
	return got.Messages
}

func delayed(topic, payload string, after time.Duration) core.Envelope {
	return core.Envelope{Topic: topic, Payload: []byte(payload), DeliverAt: time.Now().Add(after)}
}

// What waits for its time is listed in the order in which it is due, page by
// page, also where the clock was set back; a dry run changes nothing; what is
// cancelled never comes, nor comes again, across a kill too; and all else does.
func TestCancelDelayed(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.subscribe(core.Latest, "a/#").Grant(plenty)
		for i := range 9 {
			p.send(delayed(fmt.Sprintf("a/%d", i%3), fmt.Sprint(9-i), time.Duration(9-i)*time.Minute))
		}
		p.send(delayed(core.QueueTopic("q"), "q", time.Hour))
		p.send(core.Envelope{Topic: "a/r", Payload: []byte("again"), Schedule: &core.Schedule{Repeat: core.Unlimited, Period: 90 * time.Second}})
		const all = "1 again 2 3 4 5 6 7 8 9 q"
		for _, page := range []int{1, 4, 100} {
			if got := p.listed(core.Selection{}, page); got != all {
				t.Fatalf("in pages of %d: %s", page, got)
			}
		}
		if got := p.listed(core.Selection{Filters: []core.Filter{"a/0", "$queue/q"}}, 2); got != "3 6 9 q" {
			t.Fatal(got)
		}
		var second core.DelayedMessage
		for m, err := range p.Delayed(context.Background(), core.Selection{Where: "topic = 'a/1'", Limit: 1}, "") {
			if err != nil {
				t.Fatal(err)
			}
			second = *m
			second.Delivery = m.Clone()
		}
		if left := time.Until(second.DeliverAt); string(second.Payload) != "2" || second.Topic != "a/1" || left > 2*time.Minute || left < 119*time.Second {
			t.Fatalf("%s to %s in %s", second.Payload, second.Topic, left)
		}
		if n := p.cancel(core.Selection{}, true); n != 11 {
			t.Fatalf("%d would be cancelled", n)
		}
		for _, want := range []int64{1, 0} {
			if n := p.cancel(core.Selection{Offsets: []core.Offset{second.Offset, second.Offset, 4711}}, false); n != want {
				t.Fatalf("%d were cancelled", n)
			}
		}
		if n := p.cancel(core.Selection{Filters: []core.Filter{"a/0"}, Limit: 2}, false); n != 2 {
			t.Fatalf("%d were cancelled", n)
		}
		if got := p.listed(core.Selection{}, 100); got != "1 again 4 5 7 8 9 q" {
			t.Fatal(got)
		}
		w.kill()
		p = w.peer("p")
		p.subscribe(core.Latest, "a/#").Grant(plenty)
		time.Sleep(100 * time.Second)
		p.want("1", "again")
		if got := p.listed(core.Selection{}, 3); got != "again 4 5 7 8 9 q" {
			t.Fatal(got)
		}
		if n := p.cancel(core.Selection{Where: "topic = 'a/r'"}, false); n != 1 {
			t.Fatalf("%d were cancelled", n)
		}
		time.Sleep(2 * time.Hour)
		p.want("4", "5", "7", "8", "9")
		if got := p.listed(core.Selection{}, 3); got != "" {
			t.Fatal(got)
		}
		if _, err := p.Cancel(context.Background(), core.Selection{Where: "topic ="}, true); !errors.Is(err, core.ErrInvalid) {
			t.Error(err)
		}
	})
}

// More than is looked at in one go is listed and cancelled all the same, and an
// offset is found that the clock hides.
func TestCancelMany(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		const n = 1200
		offsets := make([]core.Offset, 0, n)
		for i := range n {
			p.send(delayed("a", fmt.Sprint(i), time.Hour+time.Duration(n-i)*time.Millisecond))
		}
		for m, err := range p.Delayed(context.Background(), core.Selection{}, "") {
			if err != nil {
				t.Fatal(err)
			}
			offsets = append(offsets, m.Offset)
		}
		if len(offsets) != n || !slices.IsSortedFunc(offsets, func(a, b core.Offset) int { return int(b) - int(a) }) {
			t.Fatalf("%d are listed, or not by time", len(offsets))
		}
		if got := p.cancel(core.Selection{Offsets: offsets[:100]}, false); got != 100 {
			t.Fatalf("%d were cancelled by offset", got)
		}
		w.broker.SetWall(func() time.Time { return time.Now().Add(-24 * time.Hour).Round(0) })
		p.send(core.Envelope{Topic: "a", Payload: []byte("back"), DeliverAt: time.Now().Add(time.Minute - 24*time.Hour)})
		for m, err := range p.Delayed(context.Background(), core.Selection{Limit: 1}, "") {
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(m.DeliverAt.Add(24 * time.Hour)); string(m.Payload) != "back" || left > time.Minute || left < 58*time.Second {
				t.Fatalf("%s in %s", m.Payload, left)
			}
			offsets = append(offsets, m.Offset)
		}
		if got := p.cancel(core.Selection{Offsets: offsets[n:]}, false); got != 1 {
			t.Fatal("what was delayed while the clock was behind is not found")
		}
		if got := p.cancel(core.Selection{}, false); got != n-100 {
			t.Fatalf("%d were cancelled", got)
		}
	})
}

// A message that was cancelled may be published again under its ID.
func TestCancelForgetsTheID(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.subscribe(core.Latest, "a").Grant(plenty)
		remind := func(payload string) {
			e := delayed("a", payload, time.Minute)
			e.ID = "reminder"
			p.send(e)
		}
		remind("first")
		remind("repeated")
		if n := p.cancel(core.Selection{}, false); n != 1 {
			t.Fatalf("%d were cancelled", n)
		}
		remind("second")
		w.restart()
		p = w.peer("p")
		p.subscribe(core.Latest, "a").Grant(plenty)
		remind("repeated")
		time.Sleep(time.Hour)
		p.want("second")
	})
}

// Who may receive where a message goes may see it, who may manage there may
// cancel it, and who has published it may do both.
func TestCancelAsksTheRules(t *testing.T) {
	r := new(rules)
	r.set("ann publish a", "ann publish $queue/q", "ann publish $inbox/secret", "bob deliver a", "bob manage b", "cid consume $queue/q", "root manage a", "root manage $queue/q")
	runWith(t, core.Options{Authorizer: r}, func(w *world) {
		ann := w.login("ann")
		for _, topic := range []string{"a", "$queue/q", "$inbox/secret"} {
			ann.send(delayed(topic, topic, time.Hour))
		}
		for user, sees := range map[string]string{"ann": "a $queue/q", "bob": "a", "cid": "$queue/q", "root": "a $queue/q", "eve": ""} {
			if got := w.login(user).listed(core.Selection{}, 10); got != sees {
				t.Errorf("%s sees %q", user, got)
			}
		}
		var at core.Offset
		for m, err := range ann.Delayed(context.Background(), core.Selection{Limit: 1}, "") {
			if err != nil {
				t.Fatal(err)
			}
			at = m.Offset
		}
		if n := w.login("bob").cancel(core.Selection{}, false); n != 0 {
			t.Errorf("bob has cancelled %d", n)
		}
		if _, err := w.login("bob").Cancel(context.Background(), core.Selection{Offsets: []core.Offset{at}}, false); !errors.Is(err, core.ErrNotAuthorized) {
			t.Errorf("bob: %v", err)
		}
		if n := w.login("eve").cancel(core.Selection{Offsets: []core.Offset{at}}, false); n != 0 {
			t.Errorf("eve has cancelled %d", n)
		}
		if n := ann.cancel(core.Selection{Offsets: []core.Offset{at}}, false); n != 1 {
			t.Errorf("ann has cancelled %d", n)
		}
		if n := w.login("root").cancel(core.Selection{}, false); n != 1 {
			t.Errorf("root has cancelled %d", n)
		}
	})
}

// While what is due is published, nothing of it is cancelled: each message comes
// or was cancelled, never both and never neither.
func TestCancelBesideTheTime(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.subscribe(core.Latest, "a").Grant(core.Credit{Messages: 1 << 20, Bytes: 1 << 30})
		const n = 400
		for i := range n {
			p.send(delayed("a", fmt.Sprint(i), time.Second+time.Duration(i)*time.Millisecond))
		}
		cancelled := int64(0)
		for range 8 {
			time.Sleep(150 * time.Millisecond)
			cancelled += p.cancel(core.Selection{Limit: 20}, false)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if came := len(p.take()); int64(came)+cancelled != n || came == 0 || cancelled == 0 {
			t.Errorf("%d came and %d were cancelled of %d", came, cancelled, n)
		}
	})
}
