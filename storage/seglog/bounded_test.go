package seglog

import (
	"context"
	"errors"
	"path"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A boundedBroker has one client, and a queue "work" of at most boundedLength
// messages.
type boundedBroker struct {
	*core.Broker
	log    *Log
	client *core.Client
	worker *goldenWorker
	sent   int
}

const boundedLength = 80

func openBounded(t *testing.T, fs vfs.FS) *boundedBroker {
	t.Helper()
	b := new(boundedBroker)
	b.log, b.Broker, b.client, b.worker = openWorker(t, fs, 4)
	return b
}

func (b *boundedBroker) close(t *testing.T) {
	t.Helper()
	if err := b.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// publish publishes to the queue until it is full, and says how often that went.
func (b *boundedBroker) publish(t *testing.T, most int) (n int) {
	t.Helper()
	for ; n < most; n++ {
		b.sent++
		if err := goldenJob(b.client, b.worker, core.QueueTopic("work"), b.sent); errors.Is(err, core.ErrQueueFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// counted waits until the queue counts what it holds. It may yet have to read it.
func (b *boundedBroker) counted(t *testing.T, what string) {
	t.Helper()
	for late := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		err := b.Miscounts(context.Background(), "work")
		if err == nil {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// fullBounded is what a broker left behind that was closed, or killed, while its
// queue was full of messages in several segments; of those from the 21st on three
// had been given to a consumer and came back.
func fullBounded(t *testing.T, overflow core.Overflow) *vfs.Memory {
	t.Helper()
	ctx := context.Background()
	memory := vfs.NewMemory()
	b := openBounded(t, memory)
	defer b.close(t)
	if err := b.client.DeclareQueue(ctx, core.QueueDefinition{
		Name: "work", Settings: core.QueueSettings{Lease: core.Unlimited, MaxLength: boundedLength, Overflow: overflow},
	}); err != nil {
		t.Fatal(err)
	}
	b.publish(t, boundedLength)
	k, err := b.client.Consume(ctx, core.Consumption{Queue: "work", Settlement: core.SettleAlways}, b.worker)
	if err != nil {
		t.Fatal(err)
	}
	k.Grant(core.Credit{Messages: 23, Bytes: 1 << 20})
	for n := range 23 {
		if d := <-b.worker.got; n < 20 {
			b.worker.settle(t, k, d, core.Accepted)
		}
	}
	b.publish(t, 20) // it is full again
	indexAll(t, b.log)
	return memory
}

// TestBoundedQueueAfterLosses: a queue with a bound does not count what the log
// has lost, as soon as that is known; nor less than it holds.
func TestBoundedQueueAfterLosses(t *testing.T) {
	memory := fullBounded(t, core.OverflowReject)
	dropping := fullBounded(t, core.OverflowDropOldest)
	remove := func(t *testing.T, fs *vfs.Memory, names ...string) {
		for _, name := range names {
			if err := fs.Remove(path.Join("/data/log", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	rot := func(t *testing.T, fs *vfs.Memory, s lostSegment) {
		edit(t, fs, path.Join("/data/log", s.name), func(b []byte) []byte {
			for at := segmentHeaderSize + 200; at < len(b); at += 500 {
				b[at] ^= 0x20
			}
			return b
		})
	}
	for _, trial := range []struct {
		name   string
		known  bool // at the start
		damage func(t *testing.T, fs *vfs.Memory, s lostSegment)
	}{
		{"a segment is missing", true, func(t *testing.T, fs *vfs.Memory, s lostSegment) { remove(t, fs, s.name, indexName(s.name)) }},
		{"frames are damaged", true, func(t *testing.T, fs *vfs.Memory, s lostSegment) {
			rot(t, fs, s)
			remove(t, fs, indexName(s.name))
		}},
		{"frames are damaged and were indexed before", false, rot},
		{"it was mended", true, func(t *testing.T, fs *vfs.Memory, s lostSegment) {
			rot(t, fs, s)
			remove(t, fs, indexName(s.name))
			if _, err := Mend(context.Background(), tiny(fs), nil, Progress{}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		there := segmentsOf(t, memory)
		for n, s := range there[:len(there)-1] {
			image := memory.Crash(vfs.CrashKind)
			trial.damage(t, image, s)
			b := openBounded(t, image)
			if trial.known {
				b.counted(t, trial.name+", at the start")
			}
			k, err := b.client.Consume(context.Background(), core.Consumption{Queue: "work", Settlement: core.SettleAlways}, b.worker)
			if err != nil {
				t.Fatal(err)
			}
			// All that is left comes, and is settled; then as much fits as at first.
			records, _, err := everything(b.log)
			if err != nil {
				t.Fatal(err)
			}
			left := 0
			for at := range records {
				if at > 20 {
					left++
				}
			}
			k.Grant(core.Credit{Messages: 2 * boundedLength, Bytes: 1 << 20})
			for range left {
				b.worker.settle(t, k, <-b.worker.got, core.Accepted)
			}
			k.Close()
			b.counted(t, trial.name)
			if got := b.publish(t, boundedLength+1); got != boundedLength {
				t.Errorf("%s, segment %d: %d fit into the empty queue", trial.name, n, got)
			}
			b.close(t)

			// Nothing is dropped for the sake of what is not there.
			if n == 0 {
				continue // the oldest are what was lost
			}
			image = dropping.Crash(vfs.CrashKind)
			trial.damage(t, image, s)
			b = openBounded(t, image)
			browse := func() []core.Delivery {
				page, err := b.client.Browse(context.Background(), "work", core.ReadRequest{Limit: 2 * boundedLength})
				if err != nil {
					t.Fatal(err)
				}
				return page.Messages
			}
			was := browse()
			b.publish(t, boundedLength-len(was))
			b.counted(t, trial.name)
			if now := browse(); len(now) != boundedLength || now[0].Offset != was[0].Offset {
				t.Errorf("%s, segment %d: the queue had %d messages from %d on, and has %d from %d on", trial.name, n, len(was), was[0].Offset, len(now), now[0].Offset)
			}
			b.publish(t, 1)
			for late := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
				if now := browse(); len(now) == boundedLength && now[0].Offset > was[0].Offset {
					break
				} else if time.Now().After(late) {
					t.Fatalf("%s, segment %d: with one more than fit, it has %d messages from %d on", trial.name, n, len(now), now[0].Offset)
				}
			}
			b.close(t)
		}
	}
}

// TestBoundedQueueRestored: offsets that were left out, by the billion where a
// directory was restored, are not gone through one part after the other.
func TestBoundedQueueRestored(t *testing.T) {
	image := fullBounded(t, core.OverflowReject)
	for range 3 {
		if err := writeFile(image, "/data/"+RestoredName, nil); err != nil {
			t.Fatal(err)
		}
		b := openBounded(t, image)
		if err := b.Miscounts(context.Background(), "work"); err != nil {
			t.Error(err)
		}
		if _, end := b.log.Bounds(); end < 1<<40 {
			t.Errorf("the log goes on at %d", end)
		}
		k, err := b.client.Consume(context.Background(), core.Consumption{Queue: "work", Settlement: core.SettleAlways}, b.worker)
		if err != nil {
			t.Fatal(err)
		}
		k.Grant(core.Credit{Messages: 5, Bytes: 1 << 20})
		for range 5 {
			b.worker.settle(t, k, <-b.worker.got, core.Accepted)
		}
		k.Close()
		if got := b.publish(t, 10); got != 5 {
			t.Errorf("%d messages fit, want 5", got)
		}
		b.close(t)
	}
}
