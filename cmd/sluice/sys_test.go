package main

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A sysReader remembers the figures that it was sent.
type sysReader struct {
	mu  sync.Mutex
	got []string // topic, whether it was retained, value
}

func (r *sysReader) Deliver(ds []core.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range ds {
		line := d.Topic + " " + string(d.Payload)
		if d.Retained {
			line = "retained " + line
		}
		r.got = append(r.got, line)
	}
}

func (r *sysReader) Notice(core.Notice) {}

// take returns what has come since.
func (r *sysReader) take() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

// startSys starts a broker that tells of itself, and connects a client. The test
// closes all three.
func startSys(t *testing.T) (*core.Broker, *sysReporter, *core.Client) {
	t.Helper()
	ctx := context.Background()
	broker, err := core.Open(ctx, core.Options{Engine: coretest.NewEngine()})
	if err != nil {
		t.Fatal(err)
	}
	sys := startSysReporter(broker, adapters.NewGate(adapters.DefaultLimits()), adapters.NewMetrics(prometheus.NewRegistry()), 10*time.Second, slog.New(slog.DiscardHandler))
	client, err := broker.Connect(ctx, core.Credentials{Protocol: "test"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return broker, sys, client
}

// TestSysReporter lets hours pass: nothing is written while nobody looks, and
// what somebody listens to is told when it changes, and nothing else.
func TestSysReporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		broker, sys, client := startSys(t)
		end := func() core.Offset {
			synctest.Wait()
			return broker.Sizes().End
		}
		begin := end()
		time.Sleep(time.Hour)
		if now := end(); now != begin {
			t.Fatalf("%d records were written while nobody looked", now-begin)
		}

		// Everything that is asked for is there, of now.
		read := new(sysReader)
		listen := func(filters ...core.Filter) *core.Consumer {
			t.Helper()
			s := core.Subscription{Retained: true}
			for _, f := range filters {
				s.Bindings = append(s.Bindings, core.Binding{Filter: f})
			}
			k, err := client.Subscribe(ctx, s, read)
			if err != nil {
				t.Fatal(err)
			}
			k.Grant(core.Credit{Messages: 1 << 20, Bytes: 1 << 30})
			return k
		}
		want := func(what string, want ...string) {
			t.Helper()
			got := read.take()
			if len(got) != len(want) {
				t.Fatalf("%s: %q, want %q", what, got, want)
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("%s: %q, want %q", what, got[i], want[i])
				}
			}
		}
		k := listen("$SYS/broker/uptime", "$SYS/broker/clients/+")
		got := read.take()
		if len(got) != 8 || got[0] != "retained $SYS/broker/uptime 3600 seconds" {
			t.Fatalf("%q", got)
		}
		if now := end(); now != begin+8 {
			t.Errorf("%d records for what was asked for", now-begin)
		}

		// Only what changes.
		time.Sleep(10 * time.Second)
		want("an interval later", "$SYS/broker/uptime 3610 seconds")
		k.Close()
		begin = end()
		time.Sleep(time.Hour)
		if now := end(); now != begin {
			t.Fatalf("%d records were written after everybody had gone", now-begin)
		}

		// A wildcard in the first level is not for them.
		k = listen("#", "+/broker/uptime", "+/#")
		time.Sleep(time.Minute)
		want("all topics")
		k.Close()

		// Asking again and again does not write again and again.
		for range 100 {
			for d, err := range client.Retained(ctx, "$SYS/broker/version", "") {
				if err != nil || string(d.Payload) != "sluice version "+versionString() {
					t.Errorf("%q, %v", d.Payload, err)
				}
			}
		}
		if now := end(); now != begin+1 {
			t.Errorf("%d records for the version", now-begin)
		}

		client.Close()
		sys.close()
		if err := broker.Close(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// TestSysLoad holds the moving averages to their definition.
func TestSysLoad(t *testing.T) {
	var l sysLoad
	count := uint64(0)
	for range 600 { // 100 minutes at 60 a minute
		count += 10
		l.add(count, 1.0/6)
	}
	for w, window := range sysWindows {
		want := 60 * (1 - math.Exp(-100/window.minutes))
		if math.Abs(l.average[w]-want) > 0.01 {
			t.Errorf("%s: %.3f, want %.3f", window.name, l.average[w], want)
		}
	}
	for range 6 {
		l.add(count, 1.0/6)
	}
	if want := 60 / math.E; math.Abs(l.average[0]-want) > 0.01 {
		t.Errorf("a minute of silence: %.3f, want %.3f", l.average[0], want)
	}
}

// What is shared and whose client did not come back is counted.
func TestSysSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		broker, sys, client := startSys(t)
		value := func(topic, want string) {
			t.Helper()
			for d, err := range client.Retained(ctx, core.Filter(sysTopics+topic), "") {
				if err != nil || string(d.Payload) != want {
					t.Errorf("%s is %q, want %q, %v", topic, d.Payload, want, err)
				}
				return
			}
			t.Errorf("there is no %s", topic)
		}
		consume := func(queue string, s core.QueueSettings, f core.Filter) *core.Consumer {
			t.Helper()
			k, err := client.Consume(ctx, core.Consumption{Queue: queue, Create: true, Settings: &s, Bindings: []core.Binding{{Filter: f}}}, new(sysReader))
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		consume(core.GroupQueue("g", "a/#"), core.DefaultGroupSettings(), "a/#")
		value("shared_subscriptions/count", "1")
		value("clients/expired", "0")
		for _, id := range []string{"soon", "later"} {
			expires := time.Minute
			if id == "later" {
				expires = time.Hour
			}
			consume(core.SessionQueue(id), core.QueueSettings{
				Kind: core.KindSession, MaxAttempts: core.Unlimited, Lease: core.Unlimited, DeadLetter: core.NoDeadLetter, Expires: expires,
			}, "b/#").Close()
		}
		time.Sleep(2 * time.Minute)
		value("clients/expired", "1")
		value("clients/disconnected", "1")
		value("shared_subscriptions/count", "1")
		value("subscriptions/count", "2")

		client.Close()
		sys.close()
		if err := broker.Close(ctx); err != nil {
			t.Fatal(err)
		}
	})
}
