package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/seglog"
)

// trimmedLog makes a data directory whose earliest messages retention has
// removed, and returns the earliest offset left.
func trimmedLog(t *testing.T, dir string) core.Offset {
	t.Helper()
	ctx := context.Background()
	l, err := seglog.Open(ctx, seglog.Options{Dir: dir, SegmentBytes: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	for i := range 400 {
		b := &core.Batch{Time: time.Now().UnixMilli(), Sync: i%50 == 49}
		b.Buf = core.AppendRecord(nil, &core.Envelope{Topic: "t", Payload: make([]byte, 200), Guarantee: core.AtLeastOnce})
		b.Ends = []uint32{uint32(len(b.Buf))}
		l.Append(b, func(_ *core.Batch, _ core.Offset, err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	r, err := l.Reclaim(ctx, core.Retention{Policies: []core.Policy{{Filters: []core.Filter{"#"}, Bytes: 20_000}}, Now: time.Now()})
	if err := errors.Join(err, l.Close(ctx)); err != nil || r.First < 100 {
		t.Fatalf("%+v: %v", r, err)
	}
	return r.First
}

// Whoever asks to begin at an offset that retention has removed is told so, on
// every protocol, and told the earliest one left; there reading begins.
func TestRemovedOffset(t *testing.T) {
	cfg := configs.Default()
	cfg.Data = t.TempDir()
	earliest := trimmedLog(t, cfg.Data)
	_, addresses := serveGateway(t, cfg)
	for _, via := range link.Protocols {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		read := func(from string) (first core.Offset, err error) {
			l, err := link.Dial(ctx, via, link.Options{Address: addresses[via], Timeout: time.Minute})
			if err != nil {
				return 0, err
			}
			defer l.Close()
			err = l.Subscribe(ctx, link.Subscription{Filters: []string{"t"}, From: from, Guarantee: core.AtLeastOnce}, func(m *link.Message) error {
				first = m.Offset
				return link.ErrStop
			})
			if errors.Is(err, link.ErrStop) {
				err = nil
			}
			return first, err
		}
		if at, err := read("1"); err == nil || !strings.Contains(err.Error(), fmt.Sprint(earliest)) {
			t.Errorf("%s: from 1: offset %d, told %q, which does not name %d", via, at, fmt.Sprint(err), earliest)
		}
		for _, from := range []string{"earliest", fmt.Sprint(earliest)} {
			if at, err := read(from); err != nil || at != earliest {
				t.Errorf("%s: from %s: begins at %d, want %d: %v", via, from, at, earliest, err)
			}
		}
		if at, err := read("99999999"); err == nil || !strings.Contains(err.Error(), "ahead") {
			t.Errorf("%s: ahead of the log: offset %d, %v", via, at, err)
		}
	}
}
