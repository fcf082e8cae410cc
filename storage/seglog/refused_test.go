package seglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A taker holds what it is given and keeps its confirmations.
type taker struct {
	mu    sync.Mutex
	held  chan core.Delivery
	wait  *sync.Cond
	known map[core.Receipt]error
}

func newTaker() *taker {
	k := &taker{held: make(chan core.Delivery, 1000), known: make(map[core.Receipt]error)}
	k.wait = sync.NewCond(&k.mu)
	return k
}

// openBroker opens a broker on a log and connects to it. The caller closes the
// broker.
func openBroker(ctx context.Context, o Options) (*core.Broker, *core.Client, *taker, error) {
	e, err := Open(ctx, o)
	if err != nil {
		return nil, nil, nil, err
	}
	b, err := core.Open(ctx, core.Options{Engine: e})
	if err != nil {
		return nil, nil, nil, err
	}
	me := newTaker()
	c, err := b.Connect(ctx, core.Credentials{}, me)
	return b, c, me, err
}

func (k *taker) Deliver(batch []core.Delivery) {
	for _, d := range batch {
		k.held <- d.Clone()
	}
}

func (k *taker) Notice(core.Notice) {}

func (k *taker) Confirm(cs []core.Confirmation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range cs {
		k.known[c.Receipt] = c.Err
	}
	k.wait.Broadcast()
}

// confirmed waits for a confirmation.
func (k *taker) confirmed(r core.Receipt) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		if err, ok := k.known[r]; ok {
			return err
		}
		k.wait.Wait()
	}
}

// TestCrashWhileATransactionIsRefused crashes the broker at each call while
// transactions over two queues are refused for lack of room and other
// settlements of the same queues are not: none of what the transactions were to
// settle ever is.
func TestCrashWhileATransactionIsRefused(t *testing.T) {
	const rounds = 12
	ctx := t.Context()
	queues := []string{"one", "two"}
	options := func(fs vfs.FS) Options {
		o := small(fs)
		o.SegmentBytes = 256 << 10
		return o
	}
	memory := vfs.NewMemory()
	var kept atomic.Int64 // so many messages of each queue must be there
	crashes := 0
	check := func(op vfs.Op, seed uint64) error {
		want := int(kept.Load())
		b, c, _, err := openBroker(ctx, options(memory.Crash(seed)))
		if err != nil {
			return err
		}
		defer b.Close(ctx)
		for _, q := range queues {
			page, err := c.Browse(ctx, q, core.ReadRequest{Limit: 1000})
			if err != nil && want > 0 {
				return err
			}
			n := 0
			for _, m := range page.Messages {
				if strings.HasPrefix(string(m.Payload), "in ") {
					n++
				}
			}
			if n < want {
				return fmt.Errorf("before call %d, %s %s, with what seed %d leaves, queue %s has %d of %d messages", op.Index, op.Kind, op.Name, seed, q, n, want)
			}
		}
		return nil
	}
	fs := &vfs.Faulty{FS: memory, Inject: func(op vfs.Op) *vfs.Fault {
		if kept.Load() > 0 {
			crashes++
			if err := check(op, []uint64{vfs.CrashStrict, vfs.CrashKind, uint64(op.Index)}[op.Index%3]); err != nil {
				t.Error(err)
			}
		}
		if op.Kind == vfs.KindWrite && strings.HasPrefix(op.Name, "/data/log/") && op.Bytes > 32<<10 {
			return &vfs.Fault{Err: syscall.ENOSPC, Short: 5000}
		}
		return nil
	}}
	b, c, me, err := openBroker(ctx, options(fs))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.WithoutCancel(ctx))
	receipt := core.Receipt(0)
	publish := func(q, payload string) {
		receipt++
		if err := c.Publish(ctx, &core.Envelope{Topic: core.QueueTopic(q), Payload: []byte(payload), Guarantee: core.AtLeastOnce}, receipt); err != nil {
			t.Fatal(err)
		}
	}
	consumers := make([]*core.Consumer, len(queues))
	from := make([]*taker, len(queues))
	for i, q := range queues {
		from[i] = newTaker()
		if consumers[i], err = c.Consume(ctx, core.Consumption{Queue: q, Create: true, Settlement: core.SettleAlways}, from[i]); err != nil {
			t.Fatal(err)
		}
		consumers[i].Grant(core.Credit{Messages: 1000, Bytes: 1 << 20})
	}
	// Not of zeros: those are what stands in the file ahead of the log, and the
	// part that is written would make the whole.
	large := bytes.Repeat([]byte{1}, 40_000)
	for round := range rounds {
		var tx core.Transaction
		tx.Publish = []*core.Envelope{{Topic: "out", Payload: large}}
		var beside []core.Delivery
		for i, q := range queues {
			publish(q, fmt.Sprint("in ", round))
			publish(q, fmt.Sprint("beside ", round))
			if err := me.confirmed(receipt); err != nil {
				t.Fatal(err)
			}
			for n := 0; n < 2; {
				d := <-from[i].held
				if s := string(d.Payload); s == fmt.Sprint("in ", round) {
					tx.Settle = append(tx.Settle, core.Settling{Consumer: consumers[i], Offset: d.Offset, Outcome: []core.Outcome{core.Accepted, core.Rejected}[round%2]})
					n++
				} else if strings.HasPrefix(s, "beside") {
					beside = append(beside, d)
					n++
				}
			}
		}
		kept.Store(int64(round + 1))
		receipt++
		refused := receipt
		if err := c.Commit(ctx, tx, refused); err != nil {
			t.Fatal(err)
		}
		for i, k := range consumers {
			receipt++
			if err := k.Settle(beside[i].Offset, core.Accepted, core.SettleOptions{Receipt: receipt}); err != nil {
				t.Fatal(err)
			}
		}
		if err := me.confirmed(refused); !errors.Is(err, core.ErrStorageFull) {
			t.Fatalf("the transaction: %v", err)
		}
		// The settlements are refused where they went with it.
		if err := me.confirmed(receipt); err != nil && !errors.Is(err, core.ErrStorageFull) {
			t.Fatal(err)
		}
	}
	t.Logf("%d crashes", crashes)
}

// TestCrashAfterARefusedLease: a lease whose settlement was refused, since the
// segments' disk had no room, is not settled, whenever the broker is killed
// after that; and it is as good as before once there is room.
func TestCrashAfterARefusedLease(t *testing.T) {
	ctx := t.Context()
	memory := vfs.NewMemory()
	var full, refused atomic.Bool
	crashes := 0
	left := func(op vfs.Op) error {
		b, c, _, err := openBroker(ctx, small(memory.Crash([]uint64{vfs.CrashStrict, vfs.CrashKind}[op.Index%2])))
		if err != nil {
			return err
		}
		defer b.Close(ctx)
		page, err := c.Browse(ctx, "q", core.ReadRequest{Limit: 10})
		if err == nil && (len(page.Messages) == 0 || string(page.Messages[0].Payload) != "leased") {
			err = fmt.Errorf("before call %d, %s %s, the queue has %d messages", op.Index, op.Kind, op.Name, len(page.Messages))
		}
		return err
	}
	fs := &vfs.Faulty{FS: memory, Inject: func(op vfs.Op) *vfs.Fault {
		if refused.Load() {
			crashes++
			if err := left(op); err != nil {
				t.Error(err)
			}
		}
		if full.Load() && (op.Kind == vfs.KindWrite || op.Kind == vfs.KindCreate) && strings.HasPrefix(op.Name, "/data/log/") {
			return &vfs.Fault{Err: syscall.ENOSPC}
		}
		return nil
	}}
	b, c, me, err := openBroker(ctx, small(fs))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.WithoutCancel(ctx))
	if err := c.DeclareQueue(ctx, core.QueueDefinition{Name: "q"}); err != nil {
		t.Fatal(err)
	}
	receipt := core.Receipt(0)
	publish := func(payload string) error {
		receipt++
		if err := c.Publish(ctx, &core.Envelope{Topic: core.QueueTopic("q"), Payload: []byte(payload), Guarantee: core.AtLeastOnce}, receipt); err != nil {
			t.Fatal(err)
		}
		return me.confirmed(receipt)
	}
	if err := publish("leased"); err != nil {
		t.Fatal(err)
	}
	leases, err := c.Lease(ctx, core.LeaseRequest{Consumption: core.Consumption{Queue: "q"}, Max: 1, Wait: time.Minute, For: time.Hour})
	if err != nil || len(leases) != 1 {
		t.Fatal(leases, err)
	}
	full.Store(true)
	if err := c.SettleLease(ctx, leases[0].Token, core.Accepted, core.SettleOptions{}); !errors.Is(err, core.ErrStorageFull) {
		t.Fatalf("settled without room: %v", err)
	}
	refused.Store(true)
	full.Store(false)
	for i := range 5 {
		if err := publish(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	refused.Store(false)
	if err := c.SettleLease(ctx, leases[0].Token, core.Accepted, core.SettleOptions{}); err != nil {
		t.Errorf("settled with room: %v", err)
	}
	if crashes == 0 {
		t.Error("no crash was tried")
	}
}

// TestCrashWhileWillsWaitForRoom crashes the broker at each call while it has no
// room for the wills of clients that are lost, and while there is room again:
// each is published once, be it by the broker itself or by the next start, and
// one that the client took with it no more once that is told.
func TestCrashWhileWillsWaitForRoom(t *testing.T) {
	ctx := t.Context()
	memory := vfs.NewMemory()
	var full, watch, withdrawn atomic.Bool
	wills := map[string]core.Will{}
	for _, name := range []string{"at once", "later", "ended", "back", "withdrawn", "next"} {
		w := core.Will{Envelope: &core.Envelope{Topic: "left", Payload: []byte(name), Guarantee: core.AtLeastOnce}}
		if name != "at once" && name != "next" {
			w.Delay = time.Hour
		}
		wills[name] = w
	}
	published := func(c *core.Client) (map[string]int, error) {
		n := make(map[string]int)
		page, err := c.Read(ctx, core.ReadRequest{Filters: []core.Filter{"left"}, From: core.Earliest})
		for _, d := range page.Messages {
			n[string(d.Payload)]++
		}
		return n, err
	}
	crashes := 0
	check := func(op vfs.Op) error {
		told := withdrawn.Load()
		image := memory.Crash([]uint64{vfs.CrashStrict, vfs.CrashKind, uint64(op.Index)}[op.Index%3])
		b, c, _, err := openBroker(ctx, small(image))
		if err != nil {
			return err
		}
		defer b.Close(ctx)
		for name := range wills {
			if err := c.TakeWill(ctx, name, false); err != nil {
				return err
			}
		}
		var got map[string]int
		for deadline := time.Now().Add(time.Minute); got["at once"] == 0; time.Sleep(time.Millisecond) {
			if got, err = published(c); err != nil {
				return err
			}
			if time.Now().After(deadline) {
				break
			}
		}
		for name := range wills {
			n := got[name]
			switch {
			case n > 1, n == 0 && name != "withdrawn" && name != "next", n > 0 && name == "withdrawn" && told:
				return fmt.Errorf("before call %d, %s %s: the will %q is published %d times", op.Index, op.Kind, op.Name, name, n)
			}
		}
		return nil
	}
	fs := &vfs.Faulty{FS: memory, Inject: func(op vfs.Op) *vfs.Fault {
		if watch.Load() && !t.Failed() {
			crashes++
			if err := check(op); err != nil {
				t.Error(err)
			}
		}
		if full.Load() && (op.Kind == vfs.KindWrite || op.Kind == vfs.KindCreate) && strings.HasPrefix(op.Name, "/data/log/") {
			return &vfs.Fault{Err: syscall.ENOSPC, Short: op.Index % 50}
		}
		return nil
	}}
	b, c, me, err := openBroker(ctx, small(fs))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.WithoutCancel(ctx))
	for name, w := range wills {
		k, err := c.Consume(ctx, core.Consumption{Queue: core.SessionQueue(name), Create: true, Settings: &core.QueueSettings{Kind: core.KindSession}}, me)
		if err != nil {
			t.Fatal(err)
		}
		k.Close()
		if name == "next" {
			continue
		}
		if err := c.KeepWill(ctx, name, w); err != nil {
			t.Fatal(err)
		}
	}
	inVain := func(err error) {
		t.Helper()
		if !errors.Is(err, core.ErrStorageFull) {
			t.Fatal(err)
		}
	}
	full.Store(true)
	watch.Store(true)
	for name, w := range wills {
		if name != "next" {
			inVain(c.LeaveWill(ctx, name, w))
		}
	}
	inVain(c.EndSession(ctx, "ended"))
	inVain(c.TakeWill(ctx, "back", false))
	inVain(c.TakeWill(ctx, "withdrawn", true))
	inVain(c.KeepWill(ctx, "at once", wills["next"]))
	full.Store(false)
	if err := c.TakeWill(ctx, "withdrawn", true); err != nil {
		t.Fatal(err)
	}
	withdrawn.Store(true)
	if err := c.KeepWill(ctx, "at once", wills["next"]); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"at once": 1, "ended": 1, "back": 1}
	var got map[string]int
	for deadline := time.Now().Add(time.Minute); !maps.Equal(got, want); time.Sleep(10 * time.Millisecond) {
		if got, err = published(c); err != nil || time.Now().After(deadline) {
			t.Fatalf("%v, want %v; %v", got, want, err)
		}
	}
	watch.Store(false)
	t.Logf("%d crashes", crashes)
}
