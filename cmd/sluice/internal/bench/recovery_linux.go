package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/seglog"
)

// What there is to recover, in full.
const (
	recoveryRecords  = 50_000_000
	recoveryQueues   = 1_000
	recoverySessions = 100_000
)

// recoveryScenario measures how long a broker with much in its log, and with
// many queues and sessions, takes to serve again, and what memory that takes:
// after a clean stop, and killed while it is being published to.
func recoveryScenario() scenario {
	return scenario{
		name: "recovery", about: "50,000,000 records, 1,000 queues, 100,000 sessions: stopped, and killed, and started again",
		inProcess: true, starts: true,
		goals: []goal{{reading: "stopped to confirmed", bound: 5}, {reading: "killed to confirmed", bound: 5}, {reading: "resident", bound: 1024}},
		run: func(ctx context.Context, r *rig) (result, error) {
			var out result
			start := time.Now()
			if err := r.makeMuch(ctx, filepath.Join(r.dir, "data")); err != nil {
				return out, err
			}
			out.addAside("made in", "s", time.Since(start).Seconds())
			srv, err := r.kind.start(ctx, r.dir, r.dialer)
			if err != nil {
				return out, err
			}
			r.server = srv
			defer srv.stop()
			if err := r.confirmOne(); err != nil {
				return out, err
			}
			out.addLower("stopped to confirmed", "s", time.Since(srv.started).Seconds())
			if _, err := r.fill(ctx, 50, r.scaled(1_000_000)/50, 64); err != nil {
				return out, err
			}
			srv.kill()
			if err := srv.run(ctx, r.dialer); err != nil {
				return out, err
			}
			if err := r.confirmOne(); err != nil {
				return out, err
			}
			out.addLower("killed to confirmed", "s", time.Since(srv.started).Seconds())
			resident, err := settledResident(srv.pid(), r.settle)
			if err != nil {
				return out, err
			}
			out.addLower("resident", "MiB", float64(resident)/(1<<20))
			cpu, err := cpuOf(srv.pid())
			if err != nil {
				return out, err
			}
			out.addLower("CPU of the start", "s", cpu.Seconds())
			return out, nil
		}}
}

// confirmOne publishes one message over MQTT and waits for its PUBACK.
func (r *rig) confirmOne() error {
	fd, _, err := r.dialer.connectMQTT(r.mqtt, mqttHello{level: 4, id: "bench-after"})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	topic := newMQTTTopic(4, 1, "after", 2)
	if err := say(fd, append(topic.append(nil, 1), "ok"...)); err != nil {
		return err
	}
	if _, err := hear(fd, wholeMQTT); err != nil {
		return fmt.Errorf("publish after the start: %w", err)
	}
	return nil
}

// makeMuch makes a data directory of the scenario's size.
func (r *rig) makeMuch(ctx context.Context, dir string) error {
	b, err := openCore(ctx, dir)
	if err != nil {
		return err
	}
	if err := errors.Join(r.makeQueues(ctx, b), b.Close(ctx)); err != nil {
		return err
	}
	l, err := seglog.Open(ctx, seglog.Options{Dir: dir})
	if err != nil {
		return err
	}
	if err := errors.Join(fillLog(ctx, l, r.scaled(recoveryRecords), headerBytes, storageTopic), l.Close(ctx)); err != nil {
		return err
	}
	// Each queue has got some way, and has something outstanding.
	if b, err = openCore(ctx, dir); err != nil {
		return err
	}
	return errors.Join(r.workQueues(ctx, b), b.Close(ctx))
}

func queueName(i int) string { return fmt.Sprint("work-", i) }

func (r *rig) makeQueues(ctx context.Context, b *core.Broker) error {
	c, err := b.Connect(ctx, core.Credentials{}, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range r.scaled(recoveryQueues) {
		d := core.QueueDefinition{Name: queueName(i), Bindings: []core.Binding{{Filter: core.Filter(storageTopics[i%len(storageTopics)]), Settlement: core.SettleAlways}}}
		if err := c.DeclareQueue(ctx, d); err != nil {
			return err
		}
	}
	return makeSessions(ctx, b, r.scaled(recoverySessions))
}

// makeSessions makes many at a time, since each waits for the disk.
func makeSessions(ctx context.Context, b *core.Broker, sessions int) error {
	next := make(chan int)
	var failed error
	var once sync.Once
	var workers sync.WaitGroup
	for range 256 {
		workers.Go(func() {
			for i := range next {
				if err := makeSession(ctx, b, i); err != nil {
					once.Do(func() { failed = err })
				}
			}
		})
	}
	for i := range sessions {
		next <- i
	}
	close(next)
	workers.Wait()
	return failed
}

func deviceName(i int) string { return fmt.Sprint("device-", i) }

// makeSession makes what a client leaves that was here once: a session with
// three subscriptions.
func makeSession(ctx context.Context, b *core.Broker, i int) error {
	c, err := b.Connect(ctx, core.Credentials{Protocol: "bench"}, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	id := deviceName(i)
	const qos1 = 3<<32 | 1 // as MQTT's adapter tags a subscription of QoS 1
	k, err := c.Consume(ctx, core.Consumption{
		Queue: core.SessionQueue(id), Create: true,
		Settings: &core.QueueSettings{ // as MQTT's adapter has them
			Kind: core.KindSession, MaxAttempts: core.Unlimited, Lease: core.Unlimited, DeadLetter: core.NoDeadLetter,
			MaxLength: 100_000, MaxBytes: 256 << 20, Overflow: core.OverflowDropOldest, Expires: 7 * 24 * time.Hour,
			Once: []byte(id), Meta: []byte(`{"once":"AAAAAAAAAAAAAAAAAAAAAA=="}`),
		},
		Bindings: []core.Binding{
			{Filter: core.Filter("commands/" + id + "/#"), Settlement: core.SettleGuaranteed, Tag: qos1},
			{Filter: "broadcast/+", Settlement: core.SettleGuaranteed, Tag: qos1},
			{Filter: core.Filter(fmt.Sprintf("group/%d/+", i%100)), Settlement: core.SettleGuaranteed, Tag: qos1},
		},
	}, nobody{})
	if err != nil {
		return err
	}
	k.Close()
	return nil
}

// nobody receives nothing.
type nobody struct{}

func (nobody) Deliver([]core.Delivery) {}
func (nobody) Notice(core.Notice)      {}

// A worker settles every other message that it gets.
type worker struct{ got chan core.Offset }

func (w worker) Deliver(ds []core.Delivery) {
	for i := range ds {
		w.got <- ds[i].Offset
	}
}

func (worker) Notice(core.Notice) {}

func (r *rig) workQueues(ctx context.Context, b *core.Broker) error {
	c, err := b.Connect(ctx, core.Credentials{}, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	const each = 20
	for i := range r.scaled(recoveryQueues) {
		w := worker{make(chan core.Offset, each)}
		k, err := c.Consume(ctx, core.Consumption{Queue: queueName(i), Settlement: core.SettleAlways}, w)
		if err != nil {
			return err
		}
		k.Grant(core.Credit{Messages: each, Bytes: 1 << 20})
		for n := range each {
			select {
			case at := <-w.got:
				if n%2 == 0 {
					if err := k.Settle(at, core.Accepted, core.SettleOptions{}); err != nil {
						return err
					}
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		k.Close()
	}
	return nil
}
