package core_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sluicemq/sluice/core"
)

// rules allows what is listed as "user action resource".
type rules struct {
	core.AllowAll
	mu      sync.Mutex
	allowed map[string]bool
	version uint64
	removed string // who is nobody any more
}

func (r *rules) Renewed(p *core.Principal) (*core.Principal, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.Name == r.removed {
		return nil, core.ErrUnauthenticated
	}
	return p, nil
}

func (r *rules) Authenticate(_ context.Context, c core.Credentials) (*core.Principal, error) {
	if c.User == "" {
		return nil, core.ErrUnauthenticated
	}
	return &core.Principal{Name: c.User}, nil
}

func (r *rules) Authorize(p *core.Principal, a core.Action, resource string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.allowed[p.Name+" "+a.String()+" "+resource] {
		return nil
	}
	return fmt.Errorf("%w to %s %s", core.ErrNotAuthorized, a, resource)
}

func (r *rules) Version() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.version
}

func (r *rules) set(lines ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.allowed = make(map[string]bool)
	for _, l := range lines {
		r.allowed[l] = true
	}
	r.version++
}

func (w *world) login(user string) *peer {
	w.t.Helper()
	p := &peer{t: w.t}
	c, err := w.broker.Connect(context.Background(), core.Credentials{Protocol: "test", Client: user, User: user}, p)
	if err != nil {
		w.t.Fatal(err)
	}
	p.Client = c
	return p
}

func TestOneRuleOnEveryWay(t *testing.T) {
	r := new(rules)
	r.set("ann publish a/1", "ann publish a/2", "bob subscribe a/#", "bob deliver a/1")
	runWith(t, core.Options{Authorizer: r}, func(w *world) {
		ctx := context.Background()
		if _, err := w.broker.Connect(ctx, core.Credentials{}, nil); !errors.Is(err, core.ErrUnauthenticated) {
			t.Fatal(err)
		}
		ann, bob := w.login("ann"), w.login("bob")
		k, err := bob.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "a/#"}}}, bob)
		if err != nil {
			t.Fatal(err)
		}
		k.Grant(plenty)
		for _, topic := range []string{"a/1", "a/2"} {
			if err := ann.Publish(ctx, &core.Envelope{Topic: topic, Payload: []byte(topic), Retain: true}, 0); err != nil {
				t.Fatal(err)
			}
		}
		bob.want("a/1")

		refused := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, core.ErrNotAuthorized) {
				t.Errorf("%s: %v", what, err)
			}
		}
		refused("publish", bob.Publish(ctx, &core.Envelope{Topic: "a/1"}, 0))
		refused("publish to a queue", bob.Publish(ctx, &core.Envelope{Topic: "$queue/q"}, 0))
		refused("publish to the broker's topics", ann.Publish(ctx, &core.Envelope{Topic: "$SYS/x"}, 0))
		_, err = ann.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "a/#"}}}, ann)
		refused("subscribe", err)
		_, err = bob.Consume(ctx, core.Consumption{Queue: "q", Create: true}, bob)
		refused("consume", err)
		_, err = bob.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q", Create: true}, Max: 1})
		refused("lease", err)
		_, err = ann.Read(ctx, core.ReadRequest{Filters: []core.Filter{"a/1"}, From: core.Earliest})
		refused("read", err)
		refused("declare", bob.DeclareQueue(ctx, core.QueueDefinition{Name: "q"}))
		refused("declare an exchange", bob.DeclareExchange(ctx, core.ExchangeDefinition{Name: "e", Kind: core.Fanout}))
		refused("bind", k.Bind(ctx, core.Binding{Filter: "b"}, core.BindOptions{}))
		s := core.DefaultGroupSettings()
		_, err = ann.Consume(ctx, core.Consumption{Queue: core.GroupQueue("g", "a/#"), Create: true, Settings: &s, Bindings: []core.Binding{{Filter: "a/#"}}}, ann)
		refused("group", err)

		// Replay and retained values obey the rule of delivery too.
		replay := w.login("bob")
		kr, err := replay.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "a/#"}}, From: core.Earliest, Retained: true}, replay)
		if err != nil {
			t.Fatal(err)
		}
		kr.Grant(plenty)
		for _, d := range replay.deliveries() {
			if d.Topic != "a/1" {
				t.Errorf("bob was given %s", d.Topic)
			}
		}
		page, err := bob.Read(ctx, core.ReadRequest{Filters: []core.Filter{"a/#"}, From: core.Earliest})
		if err != nil || len(page.Messages) != 1 {
			t.Errorf("%d messages read: %v", len(page.Messages), err)
		}
		for v, err := range bob.Retained(ctx, "a/#", "") {
			if err != nil || v.Topic != "a/1" {
				t.Errorf("retained %v: %v", v, err)
			}
		}

		// A right that is withdrawn is withdrawn from who already listens.
		r.set("ann publish a/1", "bob subscribe a/#")
		if err := ann.Publish(ctx, &core.Envelope{Topic: "a/1"}, 0); err != nil {
			t.Fatal(err)
		}
		bob.want()
	})
}

// What a queue holds is whose who may consume it, and what it holds is what
// whoever bound it may have all of.
func TestTheRightToAQueue(t *testing.T) {
	r := new(rules)
	r.set("ann manage $queue/q", "ann bind a/#", "ann subscribe #", "ann bind $exchange/amq.topic/k",
		"pub publish a/1", "pub publish a/2", "bob consume $queue/q", "bob publish b", "bob publish $queue/q")
	runWith(t, core.Options{Authorizer: r}, func(w *world) {
		ctx := context.Background()
		ann, bob, pub := w.login("ann"), w.login("bob"), w.login("pub")
		refused := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, core.ErrNotAuthorized) {
				t.Errorf("%s: %v", what, err)
			}
		}
		allowed := func(what string, err error) {
			t.Helper()
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		bind := func(bd core.Binding) error { return ann.BindQueue(ctx, "q", bd, core.Latest) }
		refused("declared with what is not all hers", ann.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Bindings: []core.Binding{{Filter: "#"}}}))
		for _, dead := range []string{"others", core.ExchangeTopic("amq.topic", "k")} {
			refused("dead letters to "+dead, ann.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Settings: core.QueueSettings{DeadLetter: dead}}))
		}
		allowed("declare", ann.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Settings: core.QueueSettings{DeadLetter: "q.dead"}, Bindings: []core.Binding{{Filter: "a/#"}}}))
		refused("bind what is not all hers", bind(core.Binding{Filter: "#"}))
		refused("bind every key", bind(core.Binding{Exchange: "amq.topic", Key: "#"}))
		refused("bind some keys", bind(core.Binding{Exchange: "amq.topic", Key: "*.x"}))
		refused("bind what knows no keys", bind(core.Binding{Exchange: "amq.fanout", Key: "k"}))
		refused("link what knows no keys", ann.BindExchange(ctx, core.ExchangeBinding{From: "amq.fanout", To: "amq.topic", Key: "k"}))
		allowed("bind a key", bind(core.Binding{Exchange: "amq.topic", Key: "k"}))
		_, err := ann.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Exchange: "amq.topic", Key: "#"}}}, ann)
		refused("subscribe to every key", err)
		if n := len(slices.Collect(ann.Exchanges())); n != 0 {
			t.Errorf("ann sees %d exchanges", n)
		}

		// Bob may subscribe to nothing, and gets what is in the queue.
		pub.publish("a/1", "one")
		pub.publish("a/2", "two")
		if s := bob.browse("q"); s != "one two" {
			t.Errorf("bob sees %q", s)
		}
		k := bob.consume("q")
		k.Grant(plenty)
		bob.want("one", "two")

		// The right to consume it is withdrawn from who already does.
		r.set("pub publish a/1")
		w.broker.RightsChanged()
		pub.publish("a/1", "three")
		bob.want()
		if len(bob.notices) != 1 || bob.notices[0].Kind != core.NoticeRevoked || !errors.Is(bob.notices[0].Err, core.ErrNotAuthorized) {
			t.Errorf("bob was told %+v", bob.notices)
		}
		_, err = bob.Browse(ctx, "q", core.ReadRequest{})
		refused("browse", err)
		_, err = bob.Queue("q")
		refused("look", err)

		// Nothing was lost by it: what he held is there again.
		r.set("carol consume $queue/q")
		carol := w.login("carol")
		carol.consume("q").Grant(plenty)
		carol.want("one", "two", "three")
	})
}

// What reaches an exchange is asked for when a subscription begins and when
// rights change; other subscriptions of the client stay.
func TestWithdrawnExchange(t *testing.T) {
	r := new(rules)
	may := []string{"bob subscribe a", "bob deliver a", "pub publish a", "pub publish $exchange/amq.direct/k"}
	r.set(append(may, "bob bind $exchange/amq.direct/k")...)
	runWith(t, core.Options{Authorizer: r}, func(w *world) {
		ctx := context.Background()
		bob, pub := w.login("bob"), w.login("pub")
		for _, bd := range []core.Binding{{Exchange: "amq.direct", Key: "k"}, {Filter: "a"}} {
			k, err := bob.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{bd}}, bob)
			if err != nil {
				t.Fatal(err)
			}
			k.Grant(plenty)
		}
		pub.publish("$exchange/amq.direct/k", "one")
		pub.publish("a", "two")
		bob.want("one", "two")
		r.set(may...)
		w.broker.RightsChanged()
		pub.publish("$exchange/amq.direct/k", "three")
		pub.publish("a", "four")
		bob.want("four")
	})
}

// The name of an inbox is its reader's secret: who may subscribe to all of them, as
// anybody may, is not told of a group on one, nor of what came there.
func TestListsHideInboxes(t *testing.T) {
	const inbox = "$inbox/secret"
	group := core.GroupQueue("g", inbox)
	r := new(rules)
	r.set("ann subscribe "+inbox, "ann publish "+inbox, "ann deliver "+inbox, "bob subscribe "+inbox, "bob deliver "+inbox,
		"root subscribe "+inbox, "root manage $queue/"+group)
	runWith(t, core.Options{Authorizer: r}, func(w *world) {
		ctx := context.Background()
		ann, bob, root := w.login("ann"), w.login("bob"), w.login("root")
		s := core.DefaultGroupSettings()
		if _, err := ann.Consume(ctx, core.Consumption{Queue: group, Create: true, Settings: &s, Bindings: []core.Binding{{Filter: inbox}}}, ann); err != nil {
			t.Fatal(err)
		}
		ann.publish(inbox, "reply")
		if n := len(slices.Collect(bob.Queues(""))); n != 0 {
			t.Error("bob is told of the group")
		}
		if n := len(slices.Collect(root.Queues(""))); n != 1 {
			t.Error("root, who may manage it, is not told of the group")
		}
		if _, err := bob.Queue(group); err != nil {
			t.Error("bob, who knows the name:", err)
		}
		for f, want := range map[core.Filter]int{"$inbox/#": 0, "$inbox/+": 0, inbox: 1} {
			if got, err := bob.Topics(ctx, f, "", 10); err != nil || len(got) != want {
				t.Errorf("of %s bob is told %d topics, %v", f, len(got), err)
			}
		}
	})
}

// A session is looked at by its owner and by who may manage it: who may
// subscribe to what it does may not.
func TestASessionIsSeenByItsOwner(t *testing.T) {
	r := new(rules)
	r.set("ann subscribe a", "ann deliver a", "ann subscribe $inbox/secret", "bob subscribe $inbox/secret", "bob subscribe a", "bob deliver a", "root manage $queue/$session/s", "root deliver a")
	runWith(t, core.Options{Authorizer: r}, func(w *world) {
		ctx := context.Background()
		ann, bob, root := w.login("ann"), w.login("bob"), w.login("root")
		k := session(t, ann, core.QueueSettings{})
		for _, f := range []core.Filter{"a", "$inbox/secret"} {
			if err := k.Bind(ctx, core.Binding{Filter: f}, core.BindOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		k.Close()
		name := core.SessionQueue("s")
		for _, p := range []*peer{ann, root} {
			if _, err := p.Queue(name); err != nil {
				t.Error(err)
			}
			if n := len(slices.Collect(p.Queues(""))); n != 1 {
				t.Errorf("%d queues are seen", n)
			}
			if _, err := p.Browse(ctx, name, core.ReadRequest{}); err != nil {
				t.Error(err)
			}
		}
		if _, err := bob.Queue(name); !errors.Is(err, core.ErrNotAuthorized) {
			t.Error(err)
		}
		if _, err := bob.Browse(ctx, name, core.ReadRequest{}); !errors.Is(err, core.ErrNotAuthorized) {
			t.Error(err)
		}
		if _, err := bob.Copy(ctx, name, core.Transfer{To: "x"}); !errors.Is(err, core.ErrNotAuthorized) {
			t.Error(err)
		}
		if n := len(slices.Collect(bob.Queues(""))); n != 0 {
			t.Errorf("bob sees %d queues", n)
		}

		// A right less does not keep the owner from the session.
		r.set("pub publish a")
		pub := w.login("pub")
		pub.publish("a", "one")
		again := session(t, ann, core.QueueSettings{})
		again.Grant(plenty)
		ann.want()
		if len(again.Bindings()) != 2 {
			t.Errorf("%v", again.Bindings())
		}
	})
}

// What a group, a session or a queue holds is not taken to where somebody may
// read it who may not read it here.
func TestNothingIsTakenThatMayNotBeSeen(t *testing.T) {
	r := new(rules)
	group := core.GroupQueue("g", "a/#")
	r.set("root publish a/1", "root publish a/2", "root publish $queue/q", "root subscribe a/#", "root deliver a/1", "root deliver a/2",
		"bob subscribe a/#", "bob deliver a/1", "bob publish b", "bob manage $queue/"+group, "bob manage $queue/q")
	runWith(t, core.Options{Authorizer: r}, func(w *world) {
		ctx := context.Background()
		root, bob := w.login("root"), w.login("bob")
		s := core.DefaultGroupSettings()
		g, err := root.Consume(ctx, core.Consumption{Queue: group, Create: true, Settings: &s, Bindings: []core.Binding{{Filter: "a/#"}}}, root)
		if err != nil {
			t.Fatal(err)
		}
		g.Close()
		k := session(t, bob, core.QueueSettings{})
		if err := k.Bind(ctx, core.Binding{Filter: "a/#"}, core.BindOptions{}); err != nil {
			t.Fatal(err)
		}
		k.Close()
		root.publish("a/1", "bob's")
		root.publish("a/2", "secret")
		root.publish(core.QueueTopic("q"), "secret")
		for _, c := range []struct {
			what, queue string
			do          func(context.Context, string, core.Transfer) (core.Sifted, error)
		}{{"copy of the group", group, bob.Copy}, {"copy of the session", core.SessionQueue("s"), bob.Copy}, {"move of the group", group, bob.Move}} {
			if got, err := c.do(ctx, c.queue, core.Transfer{To: "b"}); err != nil || got.Messages != 1 {
				t.Errorf("%s: %+v, %v", c.what, got, err)
			}
		}
		for what, do := range map[string]func(context.Context, string, core.Transfer) (core.Sifted, error){"move": bob.Move, "copy": bob.Copy, "requeue": bob.Requeue} {
			if got, err := do(ctx, "q", core.Transfer{To: "b"}); !errors.Is(err, core.ErrNotAuthorized) {
				t.Errorf("%s: %+v, %v", what, got, err)
			}
		}
		r.set("root subscribe b", "root deliver b")
		page, err := root.Read(ctx, core.ReadRequest{Filters: []core.Filter{"b"}, From: core.Earliest})
		if err != nil || len(page.Messages) != 3 {
			t.Errorf("%d messages, %v", len(page.Messages), err)
		}
		for _, d := range page.Messages {
			if string(d.Payload) != "bob's" {
				t.Errorf("bob took %q", d.Payload)
			}
		}
	})
}

// Who is nobody any more is ended.
func TestRemovedPrincipal(t *testing.T) {
	r := new(rules)
	r.set("bob subscribe a", "ann subscribe a", "pub publish a", "bob deliver a", "ann deliver a")
	runWith(t, core.Options{Authorizer: r}, func(w *world) {
		ann, bob, pub := w.login("ann"), w.login("bob"), w.login("pub")
		for _, p := range []*peer{ann, bob} {
			p.subscribe(core.Latest, "a").Grant(plenty)
		}
		var why error
		bob.WhenExpired(func(err error) { why = err })
		r.mu.Lock()
		r.removed = "bob"
		r.mu.Unlock()
		w.broker.RightsChanged()
		pub.publish("a", "one")
		bob.want()
		ann.want("one")
		if !errors.Is(why, core.ErrUnauthenticated) {
			t.Error(why)
		}
	})
}

func TestSessionsAreNotNamedLikeQueues(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		ctx := context.Background()
		for _, q := range []string{core.SessionQueue("s"), core.GroupQueue("g", "x"), "$other"} {
			_, err := a.Consume(ctx, core.Consumption{Queue: q, Create: true}, a)
			if !errors.Is(err, core.ErrInvalidTopic) {
				t.Errorf("consume %q: %v", q, err)
			}
			if err := a.Publish(ctx, &core.Envelope{Topic: core.QueueTopic(q)}, 0); !errors.Is(err, core.ErrInvalidTopic) {
				t.Errorf("publish to %q: %v", q, err)
			}
			if err := a.DeclareQueue(ctx, core.QueueDefinition{Name: q}); !errors.Is(err, core.ErrInvalidTopic) {
				t.Errorf("declare %q: %v", q, err)
			}
		}
		for _, f := range []string{"$queue/q", "$delayed/#", "$inbox/+", "$SYS/#", "$exchange/e/k"} {
			_, err := a.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: core.Filter(f)}}}, a)
			if err == nil {
				t.Errorf("subscribed to %q", f)
			}
		}
	})
}

func TestASessionIsItsOwners(t *testing.T) {
	r := new(rules)
	runWith(t, core.Options{Authorizer: r}, func(w *world) {
		ctx := context.Background()
		ann, bob := w.login("ann"), w.login("bob")
		session(t, ann, core.QueueSettings{}).Close()
		s := core.QueueSettings{Kind: core.KindSession}
		_, err := bob.Consume(ctx, core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &s}, bob)
		if !errors.Is(err, core.ErrNotAuthorized) {
			t.Fatalf("bob took ann's session: %v", err)
		}
		if err := bob.EndSession(ctx, "s"); !errors.Is(err, core.ErrNotAuthorized) {
			t.Fatalf("bob ended ann's session: %v", err)
		}
		w.restart()
		if err := w.login("ann").EndSession(ctx, "s"); err != nil {
			t.Fatal(err)
		}
	})
}

func session(t *testing.T, p *peer, settings core.QueueSettings) *core.Consumer {
	t.Helper()
	settings.Kind, settings.Lease, settings.MaxAttempts, settings.DeadLetter = core.KindSession, core.Unlimited, core.Unlimited, core.NoDeadLetter
	k, err := p.Consume(context.Background(), core.Consumption{Queue: core.SessionQueue("s"), Create: true, Settings: &settings, Exclusive: true}, p)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSessionTakeoverAndOfflineMessages(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a, pub := w.peer("a"), w.peer("pub")
		k := session(t, a, core.QueueSettings{})
		bind := func(f string, tag uint64) {
			t.Helper()
			if err := k.Bind(ctx, core.Binding{Filter: core.Filter(f), Tag: tag, Settlement: core.SettleGuaranteed}, core.BindOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		bind("x/#", 1)
		bind("x/1", 2)
		k.Grant(plenty)
		pub.publish("x/1", "one")
		got := a.deliveries()
		if len(got) != 1 || fmt.Sprint(got[0].Tags) != "[1 2]" || got[0].Settled {
			t.Fatalf("%+v", got)
		}
		b := w.peer("b")
		kb := session(t, b, core.QueueSettings{})
		synctest.Wait()
		if len(a.notices) != 1 || a.notices[0].Kind != core.NoticeRevoked {
			t.Fatalf("notices %+v", a.notices)
		}
		if err := k.Settle(got[0].Offset, core.Accepted, core.SettleOptions{}); !errors.Is(err, core.ErrNotHeld) {
			t.Fatalf("the revoked one settled: %v", err)
		}
		kb.Close()
		pub.publish("x/2", "two")
		pub.publish("y", "no")
		w.restart()
		pub = w.peer("pub")
		pub.publish("x/3", "three")
		c := w.peer("c")
		kc := session(t, c, core.QueueSettings{})
		kc.Grant(plenty)
		got = c.deliveries()
		var all []string
		for _, d := range got {
			all = append(all, fmt.Sprintf("%s/%d", d.Payload, d.Attempt))
		}
		if s := strings.Join(all, " "); s != "one/2 two/1 three/1" {
			t.Fatal(s)
		}

		// What a filter has led here stays when the filter goes.
		kc.Close()
		pub.publish("x/4", "four")
		d := w.peer("d")
		kd := session(t, d, core.QueueSettings{})
		if err := kd.Unbind(ctx, core.Binding{Filter: "x/#"}); err != nil {
			t.Fatal(err)
		}
		pub.publish("x/5", "five")
		kd.Grant(plenty)
		if got := d.take(); strings.Join(got, " ") != "one two three four" {
			t.Fatal(got)
		}
	})
}

// What a session remembers of its publishes ends with it.
func TestSessionEndsWithItsMemory(t *testing.T) {
	run(t, func(w *world) {
		ctx := context.Background()
		a := w.peer("a")
		session(t, a, core.QueueSettings{Once: []byte("s/")}).Close()
		once := func(p *peer, r core.Receipt) {
			t.Helper()
			if err := p.Publish(ctx, &core.Envelope{Topic: "x", Once: "s/1", Guarantee: core.ExactlyOnce}, r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		once(a, 1)
		if err := a.EndSession(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		w.restart()
		b := w.peer("b")
		once(b, 2)
		if a.confirms[0].Duplicate || b.confirms[0].Duplicate {
			t.Fatalf("%+v %+v", a.confirms, b.confirms)
		}
	})
}

func TestDeletedQueueTellsItsConsumers(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.consume("q").Grant(plenty)
		a.publish("$queue/q", "1")
		a.want("1")
		if err := a.DeleteQueue(context.Background(), "q"); err != nil {
			t.Fatal(err)
		}
		if len(a.notices) != 1 || a.notices[0].Kind != core.NoticeDeleted {
			t.Fatalf("%+v", a.notices)
		}
		w.restart()
		b := w.peer("b")
		if _, err := b.Queue("q"); !errors.Is(err, core.ErrNotFound) {
			t.Fatal(err)
		}
		b.consume("q").Grant(plenty)
		b.want()
	})
}

func TestBrowseTakesNothing(t *testing.T) {
	run(t, func(w *world) {
		a := w.peer("a")
		a.publish("$queue/q", "1", "2", "3")
		k := a.consume("q")
		k.Grant(core.Credit{Messages: 1, Bytes: 1000})
		a.want("1")
		for range 2 {
			page, err := a.Browse(context.Background(), "q", core.ReadRequest{})
			if err != nil || len(page.Messages) != 3 || page.Messages[0].Attempt != 1 || page.Messages[1].Attempt != 0 {
				t.Fatalf("%+v %v", page, err)
			}
		}
		info, err := a.Queue("q")
		if err != nil || info.Held != 1 || info.Lag != 2 || info.Consumers != 1 {
			t.Fatalf("%+v %v", info, err)
		}
		k.Grant(plenty)
		a.want("2", "3")
	})
}

// What an adapter keeps with queues is told of those that the principal may
// consume, and of no session, whose own adapter keeps something there.
func TestQueueMetas(t *testing.T) {
	r := new(rules)
	r.set("root manage $queue/one", "root consume $queue/one", "root manage $queue/two", "root consume $queue/two", "root manage $queue/none", "root consume $queue/none", "bob consume $queue/two")
	runWith(t, core.Options{Authorizer: r}, func(w *world) {
		ctx := context.Background()
		root, bob := w.login("root"), w.login("bob")
		session(t, root, core.QueueSettings{Meta: []byte("its own")})
		for _, name := range []string{"one", "two", "none"} {
			if err := root.DeclareQueue(ctx, core.QueueDefinition{Name: name}); err != nil {
				t.Fatal(err)
			}
			if name == "none" {
				continue
			}
			if err := root.SetQueueMeta(ctx, name, []byte("of "+name)); err != nil {
				t.Fatal(err)
			}
		}
		for c, want := range map[*core.Client]map[string]string{root.Client: {"one": "of one", "two": "of two"}, bob.Client: {"two": "of two"}} {
			got := make(map[string]string)
			for queue, meta := range c.QueueMetas() {
				got[queue] = string(meta)
			}
			if !maps.Equal(got, want) {
				t.Errorf("%v, not %v", got, want)
			}
		}
	})
}
