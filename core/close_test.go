package core_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// interrupted is an engine whose reads by pumps take until they are given up.
type interrupted struct {
	*coretest.Engine
	reading chan struct{}
}

func (g interrupted) Read(ctx context.Context, _, _ core.Offset, _ *core.FilterSet, _ *core.ReadBuffer) (core.Offset, error) {
	select {
	case g.reading <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

// TestCloseWhileReading: a broker that is closed while it reads for a queue
// passes over nothing of it.
func TestCloseWhileReading(t *testing.T) {
	engine := coretest.NewEngine()
	open := func(e core.Engine) (*core.Broker, *core.Client) {
		b, err := core.Open(t.Context(), core.Options{Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		c, err := b.Connect(t.Context(), core.Credentials{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return b, c
	}
	closed := func(b *core.Broker) {
		if err := b.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	b, c := open(engine)
	if err := c.DeclareQueue(t.Context(), core.QueueDefinition{Name: "q"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := c.Publish(t.Context(), &core.Envelope{Topic: core.QueueTopic("q"), Payload: []byte("x"), Guarantee: core.AtLeastOnce}, 0); err != nil {
			t.Fatal(err)
		}
	}
	closed(b)

	slow := interrupted{engine, make(chan struct{}, 1)}
	b, c = open(slow)
	k, err := c.Consume(t.Context(), core.Consumption{Queue: "q"}, discard{})
	if err != nil {
		t.Fatal(err)
	}
	k.Grant(core.Credit{Messages: 10, Bytes: 1 << 20})
	<-slow.reading
	closed(b)

	b, c = open(engine)
	defer closed(b)
	if info, err := c.Queue("q"); err != nil || info.Lag != 3 {
		t.Errorf("3 messages wait in the queue, and after a restart: %+v, %v", info, err)
	}
}

type discard struct{}

func (discard) Deliver([]core.Delivery) {}
func (discard) Notice(core.Notice)      {}

// surrendered notices what is appended to it once its owner has given it up.
type surrendered struct {
	*coretest.Engine
	up   atomic.Bool
	late atomic.Int32
}

func (s *surrendered) Append(b *core.Batch, done func(*core.Batch, core.Offset, error)) {
	if s.up.Load() {
		s.late.Add(1)
	}
	s.Engine.Append(b, done)
}

// TestOpenInterrupted: where ctx ends while the broker is opened, nothing of it
// goes on: its engine may be closed, and the next broker has what there was.
func TestOpenInterrupted(t *testing.T) {
	engine := &surrendered{Engine: coretest.NewEngine()}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		b, err := core.Open(ctx, core.Options{Engine: engine})
		engine.up.Store(true)
		if b != nil || !errors.Is(err, context.Canceled) {
			t.Fatalf("a broker: %t, error: %v", b != nil, err)
		}
		runtime.Gosched()
		if n := engine.late.Load(); n > 0 {
			t.Fatal("the engine is used, although the broker was not opened")
		}
		engine.up.Store(false)
	}
	b, err := core.Open(t.Context(), core.Options{Engine: engine})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
