package core_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/sluicemq/sluice/core"
)

// A queue with a consumer costs little memory, its bindings and what the
// consumer needs included, connections not.
func TestWhatAQueueCosts(t *testing.T) {
	const queues, most = 10_000, 4 << 10
	ctx := context.Background()
	c := alone(t, core.Credentials{})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var r silent
	for i := range queues {
		k, err := c.Consume(ctx, core.Consumption{Queue: fmt.Sprint("q", i), Create: true, Settlement: core.SettleAlways}, r)
		if err != nil {
			t.Fatal(err)
		}
		k.Grant(core.Credit{Messages: 32, Bytes: 1 << 20})
	}
	each := (heap() - before) / queues
	t.Logf("%d bytes each", each)
	if each > most {
		t.Errorf("a queue with a consumer takes %d bytes, at most %d are wanted", each, most)
	}
}

type silent struct{}

func (silent) Deliver([]core.Delivery) {}
func (silent) Notice(core.Notice)      {}
