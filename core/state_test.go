package core_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A damaged engine cannot read the state under a prefix, behind its first key.
type damaged struct {
	*coretest.Engine

	mu        sync.Mutex // guards what follows
	prefix    string
	err       error
	reclaimed int
}

// damage makes what is under a prefix unreadable, with an error; nil mends it.
func (d *damaged) damage(prefix string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.prefix, d.err = prefix, err
}

func (d *damaged) State(prefix, from string) iter.Seq2[core.Entry, error] {
	return func(yield func(core.Entry, error) bool) {
		for s, err := range d.Engine.State(prefix, from) {
			if hit := d.hit(s.Key); hit != nil {
				s, err = core.Entry{}, hit
			}
			if !yield(s, err) || err != nil {
				return
			}
		}
	}
}

func (d *damaged) Get(key string) ([]byte, error) {
	if err := d.hit(key); err != nil {
		return nil, err
	}
	return d.Engine.Get(key)
}

// hit is why a key cannot be read.
func (d *damaged) hit(key string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if strings.HasPrefix(key, d.prefix) {
		return d.err
	}
	return nil
}

func (d *damaged) Reclaim(ctx context.Context, r core.Retention) (core.Reclaimed, error) {
	d.mu.Lock()
	d.reclaimed++
	d.mu.Unlock()
	return d.Engine.Reclaim(ctx, r)
}

var errDamage = errors.New("a block of the state is damaged")

// A broker whose state cannot be read does not start with less of it.
func TestOpenWithDamagedState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		e := &damaged{Engine: coretest.NewEngine()}
		o := core.Options{Engine: e}
		b, err := core.Open(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		c, err := b.Connect(ctx, core.Credentials{Client: "a"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.DeclareExchange(ctx, core.ExchangeDefinition{Name: "x", Kind: core.Fanout}); err != nil {
			t.Fatal(err)
		}
		if err := c.DeclareQueue(ctx, core.QueueDefinition{Name: "q"}); err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(ctx, &core.Envelope{Topic: "$queue/q", ID: "1", Payload: []byte("m"), Guarantee: core.ExactlyOnce}, 0); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := b.Close(ctx); err != nil {
			t.Fatal(err)
		}
		prefixes := make(map[string]bool)
		for s := range e.State("", "") {
			prefixes[s.Key[:1]] = true
		}
		if len(prefixes) < 3 {
			t.Fatalf("the state is %v", prefixes)
		}
		for prefix := range prefixes {
			e.damage(prefix, errDamage)
			b, err := core.Open(ctx, o)
			if !errors.Is(err, errDamage) {
				t.Errorf("opened without what is under %q: %v", prefix, err)
			}
			if err == nil {
				b.Close(ctx)
			}
			e.damage("", nil)
		}
	})
}

// What the state would say is needed is not freed while it cannot be read.
func TestReclaimWithDamagedState(t *testing.T) {
	e := &damaged{Engine: coretest.NewEngine()}
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, engine: e.Engine, o: core.Options{Engine: e, Policies: []core.Policy{{Filters: []core.Filter{"#"}, Age: time.Hour}}}}
		w.open()
		defer w.close()
		a := w.peer("a")
		for _, v := range []core.Envelope{{Topic: "kept", Retain: true}, {Topic: "later", DeliverAt: time.Now().Add(100 * time.Hour)}} {
			v.Payload = []byte("m")
			if err := a.Publish(context.Background(), &v, 0); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		var prefixes []string
		for s := range e.State("", "") {
			prefixes = append(prefixes, s.Key[:1])
		}
		if len(prefixes) != 2 {
			t.Fatalf("the state is under %q", prefixes)
		}
		_, end := e.Bounds()
		for _, prefix := range prefixes {
			e.damage(prefix, errDamage)
			time.Sleep(3 * time.Hour)
			synctest.Wait()
			e.damage("", nil)
			if first, now := e.Bounds(); first != 1 || now != end {
				t.Fatalf("without what is under %q the log is %d to %d, it was 1 to %d", prefix, first, now, end)
			}
		}
		if e.reclaimed == 0 {
			t.Error("nothing was asked to be reclaimed")
		}
	})
}
