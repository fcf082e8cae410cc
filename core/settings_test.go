package core_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

// Declared again with the same settings is fine, defaults that are written out
// included; with others it is an error that shows both as people write them; and
// what means nothing is refused.
func TestDeclaredAgain(t *testing.T) {
	run(t, func(w *world) {
		p := w.peer("p")
		p.declare("plain", core.QueueSettings{})
		p.declare("plain", core.QueueSettings{
			MaxAttempts: 16, Lease: 5 * time.Minute, Backoff: time.Second, BackoffMax: 5 * time.Minute, DeadLetter: "plain.dead", Overflow: "reject", DedupWindow: 10 * time.Minute,
		})
		p.declare("q", core.QueueSettings{MaxAttempts: 16, Lease: core.Unlimited, TTL: time.Hour, Ordered: true})
		p.declare("q", core.QueueSettings{Lease: core.Unlimited, TTL: time.Hour, Ordered: true})
		w.restart()
		p = w.peer("p")
		p.declare("q", core.QueueSettings{Lease: core.Unlimited, TTL: time.Hour, Ordered: true})
		again := func(name string, s core.QueueSettings) error {
			return p.DeclareQueue(context.Background(), core.QueueDefinition{Name: name, Settings: s})
		}
		if err := again("q", core.QueueSettings{DeadLetter: "d"}); !errors.Is(err, core.ErrConflict) || !strings.HasSuffix(err.Error(), `"q" has lease=unlimited ttl=1h0m0s ordered=true, not dead_letter=d`) {
			t.Error(err)
		}
		if err := again("plain", core.QueueSettings{MaxLength: 5}); !errors.Is(err, core.ErrConflict) || !strings.HasSuffix(err.Error(), `"plain" has the defaults, not max_length=5`) {
			t.Error(err)
		}
		for _, s := range []core.QueueSettings{
			{MaxAttempts: -2}, {Lease: -time.Second}, {Backoff: -time.Second}, {BackoffMax: -time.Second}, {TTL: -1}, {MaxLength: -1}, {MaxBytes: -1}, {Expires: -1}, {DedupWindow: -1},
			{Overflow: "drop-newest"}, {Ordered: true, Priority: true},
		} {
			if err := again("new", s); !errors.Is(err, core.ErrInvalid) {
				t.Errorf("%s: %v", s, err)
			}
		}
	})
}
