package core_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
	"github.com/sluicemq/sluice/storage/seglog"
)

type sink struct{ n atomic.Int64 }

func (s *sink) Deliver(ds []core.Delivery) { s.n.Add(int64(len(ds))) }
func (s *sink) Notice(core.Notice)         {}

type window struct{ free chan struct{} }

func (w *window) Confirm(cs []core.Confirmation) {
	for range cs {
		w.free <- struct{}{}
	}
}

// BenchmarkPublish is the whole way of a 100-byte message through the core and
// the log on this directory's disk, to one reader, without any protocol.
func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct {
		name       string
		guarantee  core.Guarantee
		publishers int
		window     int
	}{
		{"unconfirmed", core.AtMostOnce, 8, 0},
		{"confirmed-1", core.AtLeastOnce, 1, 1},
		{"confirmed-256", core.AtLeastOnce, 8, 32},
		{"confirmed-3200", core.AtLeastOnce, 50, 64},
	} {
		b.Run(c.name, func(b *testing.B) {
			ctx := context.Background()
			engine, err := seglog.Open(ctx, seglog.Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			broker, err := core.Open(ctx, core.Options{Engine: engine})
			if err != nil {
				b.Fatal(err)
			}
			defer broker.Close(ctx)
			s := new(sink)
			reader, _ := broker.Connect(ctx, core.Credentials{}, nil)
			k, err := reader.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "bench/#"}}}, s)
			if err != nil {
				b.Fatal(err)
			}
			k.Grant(core.Credit{Messages: 1, Bytes: 1 << 30})
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for range c.publishers {
				w := &window{free: make(chan struct{}, c.window)}
				client, _ := broker.Connect(ctx, core.Credentials{Client: "bench"}, w)
				for range c.window {
					w.free <- struct{}{}
				}
				wg.Go(func() {
					e := core.Envelope{Topic: "bench/topic", Payload: make([]byte, 100), Guarantee: c.guarantee}
					for i := range b.N/c.publishers + 1 {
						r := core.Receipt(0)
						if c.window > 0 {
							<-w.free
							r = core.Receipt(i + 1)
						}
						if err := client.Publish(ctx, &e, r); err != nil {
							b.Error(err)
							return
						}
					}
					for range c.window {
						<-w.free
					}
				})
			}
			wg.Wait()
			for s.n.Load() < int64(b.N) {
				s.n.Load()
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// BenchmarkFanOut is what the core does for one message to one of a thousand
// readers, 64 messages at a time.
func BenchmarkFanOut(b *testing.B) {
	ctx := context.Background()
	broker, err := core.Open(ctx, core.Options{Engine: coretest.NewEngine()})
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close(ctx)
	const readers, batch = 1000, 64
	s := new(sink)
	for range readers {
		reader, err := broker.Connect(ctx, core.Credentials{}, nil)
		if err != nil {
			b.Fatal(err)
		}
		k, err := reader.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "bench/+"}}}, s)
		if err != nil {
			b.Fatal(err)
		}
		k.Grant(core.Credit{Messages: 1, Bytes: 1 << 30})
	}
	client, err := broker.Connect(ctx, core.Credentials{Client: "bench"}, nil)
	if err != nil {
		b.Fatal(err)
	}
	var t core.Transaction
	for range batch {
		t.Publish = append(t.Publish, &core.Envelope{Topic: "bench/topic", Payload: make([]byte, 100)})
	}
	sent := int64(0)
	for b.Loop() {
		if err := client.Commit(ctx, t, 0); err != nil {
			b.Fatal(err)
		}
		for sent += batch * readers; s.n.Load() < sent; {
			runtime.Gosched()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent), "ns/delivery")
}
