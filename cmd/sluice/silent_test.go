package main

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sluicemq/sluice/adapters/adaptertest"
	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

// TestSilentConnections: connections that say nothing, or begin and do not go on,
// are closed at the deadline on every door, however many they are; others are
// served meanwhile, and nothing of them stays.
func TestSilentConnections(t *testing.T) {
	a := adaptertest.NewAuthority(t)
	a.Sign(t, "server")
	secure := configs.Listener{Address: "127.0.0.1:0", TLS: configs.TLS{Cert: filepath.Join(a.Dir, "server.crt"), Key: filepath.Join(a.Dir, "server.key")}}
	cfg := configs.Default()
	cfg.Limits.Handshake = time.Second
	for _, l := range []*[]configs.Listener{&cfg.MQTT.Listen, &cfg.STOMP.Listen, &cfg.HTTP.Listen} {
		*l = []configs.Listener{{Address: "127.0.0.1:0"}, secure}
	}
	g, addresses := serveGateway(t, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute) // bounds all of it
	defer cancel()
	dial := func(via string) link.Link {
		for {
			l, err := link.Dial(ctx, via, link.Options{Address: addresses[via], Timeout: time.Minute})
			if err == nil {
				return l
			}
			if ctx.Err() != nil { // the deadline is short for a machine that stands still
				t.Fatal(err)
			}
		}
	}
	publisher, subscriber := dial("mqtt"), dial("stomp")
	ready, got := make(chan struct{}), make(chan string, 1)
	listening, stop := context.WithCancel(ctx)
	var subscribed sync.WaitGroup
	subscribed.Go(func() {
		s := link.Subscription{Filters: []string{"t"}, Credit: 10, Ready: func() { close(ready) }}
		err := subscriber.Subscribe(listening, s, func(m *link.Message) error {
			got <- string(m.Payload)
			return nil
		})
		if listening.Err() == nil {
			t.Error(err)
		}
	})
	defer func() {
		stop()
		subscribed.Wait()
		publisher.Close()
		subscriber.Close()
	}()
	<-ready
	published := 0
	publish := func() {
		t.Helper()
		text := strconv.Itoa(published)
		m := &link.Message{Envelope: core.Envelope{Topic: "t", Payload: []byte(text), Guarantee: core.AtLeastOnce}}
		if _, err := publisher.Publish(ctx, m); err != nil {
			t.Fatal(err)
		}
		select {
		case came := <-got:
			if came != text {
				t.Fatalf("got %s, want %s", came, text)
			}
		case <-ctx.Done():
			t.Fatal("the subscriber got nothing")
		}
		published++
	}
	publish()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()

	const each = 250
	var silent sync.WaitGroup
	for _, d := range g.doors {
		for i, address := range d.addrs() {
			says := map[string]string{"mqtt": "\x10\x20\x00\x04MQ", "stomp": "CONNECT\nhost", "http": "GET /ws HTTP/1.1\r\nHost: localhost\r\n"}[d.name]
			if i > 0 {
				says = "\x16\x03\x01\x00\x80" // the beginning of TLS
			}
			for n := range each {
				c, err := net.Dial("tcp", address.String())
				if err != nil {
					t.Fatal(err)
				}
				if n%2 > 0 {
					io.WriteString(c, says)
				}
				silent.Go(func() {
					defer c.Close()
					c.SetReadDeadline(time.Now().Add(time.Minute))
					var late net.Error
					if _, err := io.Copy(io.Discard, c); errors.As(err, &late) && late.Timeout() {
						t.Errorf("%s, %q: the connection is open", d.name, says)
					}
				})
			}
			publish()
		}
	}
	for range 200 {
		publish()
	}
	silent.Wait()
	if ctx.Err() != nil {
		t.Fatal("the silent connections were not closed")
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		runtime.GC()
		runtime.ReadMemStats(&after)
		now, grown := runtime.NumGoroutine(), int64(after.HeapAlloc)-int64(before.HeapAlloc)
		if now <= goroutines+10 && grown < 4<<20 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before; %d KiB more on the heap", now, goroutines, grown>>10)
		}
	}
}
