package core_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// TestStress runs publishers, readers and competing consumers at once, with
// little credit that comes at random, consumers that leave and come back,
// releases, rebindings, and checks the run.
func TestStress(t *testing.T) {
	const publishers, messages, readers, consumers = 4, 800, 6, 4
	b, err := core.Open(context.Background(), core.Options{Engine: coretest.NewEngine(), Limits: core.Limits{PendingBytes: 20_000}})
	if err != nil {
		t.Fatal(err)
	}
	r := coretest.NewRun()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	connect := func(name string, c core.Confirmer) *core.Client {
		cl, err := b.Connect(ctx, core.Credentials{Client: name}, c)
		if err != nil {
			t.Fatal(err)
		}
		return cl
	}
	setup := connect("setup", nil)
	if err := setup.DeclareQueue(ctx, core.QueueDefinition{Name: "q", Bindings: []core.Binding{{Filter: "s/#"}}, Settings: core.QueueSettings{Backoff: time.Millisecond, BackoffMax: time.Millisecond, MaxAttempts: core.Unlimited}}); err != nil {
		t.Fatal(err)
	}

	var wg sync.WaitGroup
	for i := range readers {
		s := &stressReader{run: r, name: fmt.Sprint("reader", i)}
		from := core.Latest
		if i%2 == 1 {
			from = core.Earliest
		}
		s.k, err = connect(s.name, nil).Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "s/+", Settlement: core.SettleAlways}, {Filter: "none"}}, From: from}, s)
		if err != nil {
			t.Fatal(err)
		}
		s.k.Grant(core.Credit{Messages: 10, Bytes: 1 << 30})
		wg.Go(func() { s.run1(ctx) })
	}
	stop := make(chan struct{})
	var working sync.WaitGroup
	for i := range consumers {
		name := fmt.Sprint("consumer", i)
		working.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s := &stressConsumer{run: r, name: name + "." + fmt.Sprint(rand.N(1<<30))}
				k, err := connect(s.name, nil).Consume(ctx, core.Consumption{Queue: "q", Settlement: core.SettleAlways}, s)
				if err != nil {
					t.Error(err)
					return
				}
				s.work(k, 50+rand.N(200))
				r.Leaves("q", s.name)
				k.Close()
			}
		})
	}
	for i := range publishers {
		name := fmt.Sprint("publisher", i)
		p := &stressPublisher{run: r, name: name}
		c := connect(name, p)
		wg.Go(func() {
			for n := 1; n <= messages; n++ {
				e := core.Envelope{Topic: "s/" + name, Payload: []byte(coretest.Message(name, n)), Guarantee: core.AtLeastOnce}
				if err := c.Publish(ctx, &e, core.Receipt(n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	deadline := time.Now().Add(3 * time.Minute)
	for {
		missing := r.Missing("q")
		for i := range readers {
			missing += r.Missing(fmt.Sprint("reader", i))
		}
		if missing == 0 && r.Confirms() == publishers*messages || len(r.Faults()) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%d confirmed, %d deliveries missing", r.Confirms(), missing)
			for i := range readers {
				t.Log(i, r.Missing(fmt.Sprint("reader", i)))
			}
			info, err := setup.Queue("q")
			t.Log("q", r.Missing("q"), info, err)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	close(stop)
	working.Wait()
	cancel()
	wg.Wait()
	for _, f := range r.Faults() {
		t.Error(f)
	}
	if err := b.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func parseMessage(d *core.Delivery) (publisher string, n int) {
	publisher, num, _ := strings.Cut(string(d.Payload), ":")
	n, _ = strconv.Atoi(num)
	return publisher, n
}

type stressPublisher struct {
	run  *coretest.Run
	name string
}

func (p *stressPublisher) Confirm(cs []core.Confirmation) {
	for _, c := range cs {
		if c.Err == nil {
			p.run.Confirmed(coretest.Message(p.name, int(c.Receipt)))
		}
	}
}

type stressReader struct {
	run  *coretest.Run
	name string
	k    *core.Consumer
	mu   sync.Mutex
	got  int
}

func (s *stressReader) Deliver(ds []core.Delivery) {
	for i := range ds {
		p, n := parseMessage(&ds[i])
		s.run.Read(s.name, p, n)
	}
	s.mu.Lock()
	s.got += len(ds)
	s.mu.Unlock()
}

func (s *stressReader) Notice(core.Notice) {}

func (s *stressReader) run1(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		s.mu.Lock()
		n := s.got
		s.got = 0
		s.mu.Unlock()
		if n > 0 {
			s.k.Grant(core.Credit{Messages: n})
		}
		switch i % 50 {
		case 20:
			_ = s.k.Bind(ctx, core.Binding{Filter: "other/#"}, core.BindOptions{Retained: true})
		case 40:
			_ = s.k.Unbind(ctx, core.Binding{Filter: "other/#"})
		}
		time.Sleep(time.Duration(rand.N(300)) * time.Microsecond)
	}
}

type stressConsumer struct {
	run  *coretest.Run
	name string
	mu   sync.Mutex
	got  []core.Delivery
}

func (s *stressConsumer) Deliver(ds []core.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range ds {
		p, n := parseMessage(&ds[i])
		s.run.Got("q", s.name, p, n, ds[i].Offset, ds[i].Attempt)
		s.got = append(s.got, ds[i].Clone())
	}
}

func (s *stressConsumer) Notice(core.Notice) {}

func (s *stressConsumer) work(k *core.Consumer, rounds int) {
	k.Grant(core.Credit{Messages: 20, Bytes: 1 << 30})
	for range rounds {
		s.mu.Lock()
		got := s.got
		s.got = nil
		s.mu.Unlock()
		for i := range got {
			d := &got[i]
			p, n := parseMessage(d)
			if rand.N(20) == 0 {
				// Recorded first: the next holder may have it at once.
				s.run.Released("q", s.name, d.Offset)
				_ = k.Settle(d.Offset, core.Released, core.SettleOptions{Delay: core.NoDelay, Credit: core.Credit{Messages: 1}})
				continue
			}
			s.run.Accepted("q", s.name, p, n, d.Offset)
			if err := k.Settle(d.Offset, core.Accepted, core.SettleOptions{Credit: core.Credit{Messages: 1}}); err != nil {
				panic(err)
			}
		}
		time.Sleep(time.Duration(rand.N(300)) * time.Microsecond)
	}
}

// TestStressBind binds while a pump reads for the same queue: what is published
// after a binding was made gets there.
func TestStressBind(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	c := alone(t, core.Credentials{Client: "c"})
	got := &arrivals{topics: make(chan string, 1000)}
	k, err := c.Consume(ctx, core.Consumption{Queue: core.SessionQueue("c"), Settings: &core.QueueSettings{Kind: core.KindSession}, Create: true}, got)
	if err != nil {
		t.Fatal(err)
	}
	var publishing sync.Mutex // the publishes of one client must not overlap
	publish := func(topic string) error {
		publishing.Lock()
		defer publishing.Unlock()
		return c.Publish(ctx, &core.Envelope{Topic: topic}, 0)
	}
	stop := make(chan struct{})
	var busy sync.WaitGroup
	defer busy.Wait()
	defer close(stop)
	k.Grant(core.Credit{Messages: 1 << 30, Bytes: 1 << 30})
	busy.Go(func() { // others' messages, and what has a pump look
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			_ = publish("other")
			if i%8 == 0 {
				_ = k.Bind(ctx, core.Binding{Filter: core.Filter("none/" + strconv.Itoa(i%64))}, core.BindOptions{Unsaved: true, Retained: true})
			}
		}
	})
	for i := range 300 {
		topic := "t" + strconv.Itoa(i)
		bd := core.Binding{Filter: core.Filter(topic)}
		if err := k.Bind(ctx, bd, core.BindOptions{Unsaved: true, Retained: true}); err != nil {
			t.Fatal(err)
		}
		if err := publish(topic); err != nil {
			t.Fatal(err)
		}
		got.want(t, topic)
		if err := k.Unbind(ctx, bd); err != nil {
			t.Fatal(err)
		}
	}
}

// arrivals are the topics of what comes.
type arrivals struct{ topics chan string }

func (a *arrivals) Deliver(ds []core.Delivery) {
	for i := range ds {
		a.topics <- strings.Clone(ds[i].Topic)
	}
}

func (a *arrivals) Notice(core.Notice) {}

// want waits for what comes next, which is of that topic.
func (a *arrivals) want(t *testing.T, topic string) {
	t.Helper()
	select {
	case at := <-a.topics:
		if at != topic {
			t.Fatalf("%s came instead of %s", at, topic)
		}
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s does not come", topic)
	}
}

// alone is the one client of a broker on the model engine, which is closed when
// the test ends.
func alone(t *testing.T, credentials core.Credentials) *core.Client {
	t.Helper()
	b, err := core.Open(context.Background(), core.Options{Engine: coretest.NewEngine()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close(context.Background()) })
	c, err := b.Connect(context.Background(), credentials, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
