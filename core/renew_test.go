package core_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// timed authenticates "user until", where until is a duration from now.
type timed struct{ core.AllowAll }

func (timed) Authenticate(_ context.Context, c core.Credentials) (*core.Principal, error) {
	name, until, _ := strings.Cut(c.User, " ")
	d, err := time.ParseDuration(until)
	if err != nil {
		return nil, core.ErrUnauthenticated
	}
	return &core.Principal{Name: name, Until: time.Now().Add(d)}, nil
}

// noticed keeps the notices that a receiver gets.
type noticed struct {
	mu   sync.Mutex
	last core.Notice
}

func (n *noticed) Deliver([]core.Delivery) {}
func (n *noticed) Notice(x core.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = x
}

func TestProofEnds(t *testing.T) {
	runWith(t, core.Options{Authorizer: timed{}}, func(w *world) {
		ctx := context.Background()
		c, err := w.broker.Connect(ctx, core.Credentials{User: "ann 10s"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		told := make(chan time.Time, 2)
		c.WhenExpired(func(error) { told <- time.Now() })
		var n noticed
		if _, err := c.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "a"}}}, &n); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		time.Sleep(9 * time.Second)
		if err := c.Renew(ctx, core.Credentials{User: "bob 1h"}); !errors.Is(err, core.ErrNotAuthorized) {
			t.Errorf("as another: %v", err)
		}
		if err := c.Renew(ctx, core.Credentials{User: "ann soon"}); !errors.Is(err, core.ErrUnauthenticated) {
			t.Errorf("with wrong credentials: %v", err)
		}
		if err := c.Renew(ctx, core.Credentials{User: "ann 30s"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(29 * time.Second)
		synctest.Wait()
		if err := c.Publish(ctx, &core.Envelope{Topic: "a"}, 0); err != nil || len(told) > 0 {
			t.Errorf("renewed: %v, told %d times", err, len(told))
		}
		if at := <-told; at.Sub(began) != 39*time.Second {
			t.Errorf("told after %v", at.Sub(began))
		}
		synctest.Wait()
		n.mu.Lock()
		if n.last.Kind != core.NoticeRevoked || !errors.Is(n.last.Err, core.ErrUnauthenticated) {
			t.Errorf("noticed %+v", n.last)
		}
		n.mu.Unlock()
		if err := c.Publish(ctx, &core.Envelope{Topic: "a"}, 0); !errors.Is(err, core.ErrUnauthenticated) {
			t.Errorf("publish: %v", err)
		}
		if _, err := c.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "a"}}}, &n); !errors.Is(err, core.ErrUnauthenticated) {
			t.Errorf("subscribe: %v", err)
		}
		if err := c.Renew(ctx, core.Credentials{User: "ann 1h"}); !errors.Is(err, core.ErrUnauthenticated) {
			t.Errorf("renewed too late: %v", err)
		}
		late := false
		c.WhenExpired(func(error) { late = true })
		if !late {
			t.Error("who asks late is not told")
		}
	})
}

// TestProofOfAClosedClient: nobody is told of a client that is gone.
func TestProofOfAClosedClient(t *testing.T) {
	runWith(t, core.Options{Authorizer: timed{}}, func(w *world) {
		c, err := w.broker.Connect(context.Background(), core.Credentials{User: "ann 1s"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.WhenExpired(func(error) { t.Error("told") })
		c.Close()
		time.Sleep(2 * time.Second)
		synctest.Wait()
	})
}
