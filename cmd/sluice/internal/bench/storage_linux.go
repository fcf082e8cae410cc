package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/seglog"
)

// The scenarios of the log itself run in this process: the core and the log
// without any protocol, on the disk that the suite's folder is on.

// A flight is a publisher in this process with a bound on what is unconfirmed.
type flight struct {
	client *core.Client

	mu        sync.Mutex // guards what follows
	landed    sync.Cond
	unflown   int // how many more may be handed in
	confirmed uint64
	batches   uint64 // in which they were confirmed
	err       error
}

func (f *flight) Confirm(cs []core.Confirmation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unflown += len(cs)
	f.confirmed += uint64(len(cs))
	f.batches++
	for i := range cs {
		if cs[i].Err != nil && f.err == nil {
			f.err = cs[i].Err
		}
	}
	f.landed.Signal()
}

// room waits until more may be handed in and says how many.
func (f *flight) room() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.unflown == 0 && f.err == nil {
		f.landed.Wait()
	}
	n := f.unflown
	f.unflown = 0
	return n, f.err
}

// land waits until all is confirmed and says how many there were, in how many
// batches.
func (f *flight) land(handed uint64) (confirmed, batches uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.confirmed < handed && f.err == nil {
		f.landed.Wait()
	}
	return f.confirmed, f.batches, f.err
}

// storageTopics are the thousand topics that records have in turn.
var storageTopics = func() []string {
	all := make([]string, 1000)
	for i := range all {
		all[i] = fmt.Sprintf("bench/%d/line/%d", i/100, i)
	}
	return all
}()

// openCore opens a broker without doors on a directory.
func openCore(ctx context.Context, dir string) (*core.Broker, error) {
	engine, err := seglog.Open(ctx, seglog.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	return coreOn(ctx, engine, nil)
}

// coreOn opens a broker without doors on a log, which it then owns.
func coreOn(ctx context.Context, l *seglog.Log, policies []core.Policy) (*core.Broker, error) {
	b, err := core.Open(ctx, core.Options{Engine: l, Policies: policies})
	if err != nil {
		return nil, errors.Join(err, l.Close(ctx))
	}
	return b, nil
}

// coreAtBound opens a broker on a log that has as much as its policy keeps, as
// one has that has been running for some time: what is appended is written over
// what retention has freed.
func coreAtBound(ctx context.Context, dir string, segment int64, size int) (_ *core.Broker, err error) {
	l, err := seglog.Open(ctx, seglog.Options{Dir: dir, SegmentBytes: segment})
	if err != nil {
		return nil, err
	}
	policies := []core.Policy{{Name: "all", Filters: []core.Filter{"#"}, Bytes: 2 * segment}}
	err = fillLog(ctx, l, int(5*segment/int64(size)), size, storageTopic)
	if err == nil {
		err = l.Seal(ctx)
	}
	if err == nil {
		_, err = l.Reclaim(ctx, core.Retention{Policies: policies, Now: time.Now()})
	}
	// The next segment is in a file that was freed.
	if err == nil {
		err = fillLog(ctx, l, 1, size, storageTopic)
	}
	if err == nil {
		err = l.Seal(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(ctx))
	}
	return coreOn(ctx, l, policies)
}

// A flown is what a flight has measured.
type flown struct {
	confirmed, batches uint64
	took               time.Duration
	cpu                time.Duration // for each message
}

func (f flown) rate() float64 { return float64(f.confirmed) / f.took.Seconds() }

// ofBare is the rate of the flight's batches in percent of one at which each
// takes so long.
func (f flown) ofBare(each time.Duration) float64 {
	return 100 * float64(f.batches) * each.Seconds() / f.took.Seconds()
}

// fly publishes payloads of a size with so many in flight for a while, and closes
// the broker.
func fly(ctx context.Context, b *core.Broker, size, window int, s span) (_ flown, err error) {
	defer func() { err = errors.Join(err, b.Close(ctx)) }()
	f := &flight{unflown: window}
	f.landed.L = &f.mu
	if f.client, err = b.Connect(ctx, core.Credentials{Client: "bench", Protocol: "bench"}, f); err != nil {
		return flown{}, err
	}
	defer f.client.Close()
	publish := f.client.Publish
	if window == 1 {
		publish = f.client.PublishAlone
	}
	var handed uint64
	var before flown
	var cpu time.Duration
	x := noise(1)
	var payload []byte
	e := core.Envelope{Guarantee: core.AtLeastOnce}
	start := time.Now()
	warm := true
	for {
		room, err := f.room()
		if err != nil {
			return flown{}, err
		}
		for range room {
			payload = x.appendPayload(payload[:0], size, uint32(x), uint64(x)+handed, int64(x>>1))
			e.Topic, e.Payload = storageTopics[handed%uint64(len(storageTopics))], payload
			handed++
			if err := publish(ctx, &e, core.Receipt(handed)); err != nil {
				return flown{}, err
			}
		}
		at := time.Since(start)
		if warm && at >= s.warm {
			if before.confirmed, before.batches, err = f.land(handed); err != nil {
				return flown{}, err
			}
			start, warm, cpu = time.Now(), false, ownCPU()
		} else if !warm && at >= s.measure {
			confirmed, batches, err := f.land(handed)
			got := flown{confirmed: confirmed - before.confirmed, batches: batches - before.batches, took: time.Since(start)}
			got.cpu = (ownCPU() - cpu) / time.Duration(max(got.confirmed, 1))
			return got, err
		}
	}
}

// sizeOfLog is how many records a log holds, and how many bytes its segments
// have.
func sizeOfLog(ctx context.Context, dir string) (records uint64, written int64, err error) {
	l, err := seglog.Open(ctx, seglog.Options{Dir: dir})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, l.Close(ctx)) }()
	s, err := l.Snapshot(ctx)
	if err != nil {
		return 0, 0, err
	}
	for i := range s.Files {
		if filepath.Ext(s.Files[i].Name) == ".log" {
			written += s.Files[i].Size
		}
	}
	if err := s.Close(); err != nil {
		return 0, 0, err
	}
	records, err = readThrough(ctx, l, nil)
	return records, written, err
}

// logPublishScenario publishes in process, each message confirmed after
// fdatasync, with so many in flight one after the other, in logs that are at their
// bound; and in a new one with as many as first.
func logPublishScenario(name string, size int, windows []int, goals ...goal) scenario {
	about := fmt.Sprintf("%d-byte payloads published in process, confirmed after fdatasync", size)
	return scenario{name: name, about: about, inProcess: true, goals: goals, run: func(ctx context.Context, r *rig) (result, error) {
		var out result
		dir := filepath.Join(r.dir, "new")
		b, err := openCore(ctx, dir)
		if err != nil {
			return out, err
		}
		grown, err := fly(ctx, b, size, windows[0], r.span)
		if err != nil {
			return out, err
		}
		count, written, err := sizeOfLog(ctx, dir)
		if err != nil {
			return out, err
		}
		share := float64(written) / (float64(size) * float64(count))
		// batch is how many bytes a batch is written with.
		batch := func(f flown) int {
			return int(share * float64(size) * float64(f.confirmed) / float64(f.batches))
		}
		for i, window := range windows {
			dir := filepath.Join(r.dir, fmt.Sprint("flight-", window))
			b, err := coreAtBound(ctx, dir, int64(r.scaled(256<<20)), size)
			if err != nil {
				return out, err
			}
			f, err := fly(ctx, b, size, window, r.span)
			if err != nil {
				return out, err
			}
			bare, err := syncTime(dir, batch(f), false)
			if err != nil {
				return out, err
			}
			if err := os.RemoveAll(dir); err != nil {
				return out, err
			}
			out.add(fmt.Sprintf("%d in flight", window), "msg/s", f.rate())
			if i == 0 {
				out.add("payload", "MB/s", f.rate()*float64(size)/1e6)
				out.addLower("CPU", "µs/msg", float64(f.cpu.Nanoseconds())/1000)
			}
			out.addAside(fmt.Sprintf("messages a batch, %d", window), "", float64(f.confirmed)/float64(f.batches))
			out.addAside(fmt.Sprintf("of the disk's writes and fdatasyncs, %d", window), "%", f.ofBare(bare))
			if i == 0 && r.disk.Bandwidth > 0 {
				out.addAside("of the disk's bandwidth", "%", 100*share*f.rate()*float64(size)/1e6/r.disk.Bandwidth)
			}
		}
		bare, err := syncTime(dir, batch(grown), true)
		if err != nil {
			return out, err
		}
		out.add("new log", "msg/s", grown.rate())
		out.addAside("of the disk's appends and fdatasyncs, new log", "%", grown.ofBare(bare))
		out.addLower("written", "bytes/payload byte", share)
		return out, nil
	}}
}

// readThrough reads what filters match, from the first record to the last.
func readThrough(ctx context.Context, l *seglog.Log, filters *core.FilterSet) (n uint64, err error) {
	buf := core.ReadBuffer{MaxRecords: 1024, MaxBytes: 256 << 10}
	first, end := l.Bounds()
	for at := first; at < end; {
		if at, err = l.Read(ctx, at, 0, filters, &buf); err != nil {
			return n, err
		}
		n += uint64(len(buf.Records))
	}
	return n, nil
}

// storageTopic is the topic of a record that is one of many in a row.
func storageTopic(i int) string { return storageTopics[i%len(storageTopics)] }

// fillLog appends so many records straight to a log, faster than anybody could
// publish them, and syncs them.
func fillLog(ctx context.Context, l *seglog.Log, records, size int, topic func(int) string) error {
	const each = 4096
	b := new(core.Batch)
	x := noise(2)
	var payload []byte
	done := make(chan error, 1)
	e := core.Envelope{Guarantee: core.AtLeastOnce, Publisher: core.Publisher{Client: "bench", Protocol: "bench"}}
	for i := 0; i < records; {
		n := min(each, records-i)
		// The log keeps the buffer for readers at its tail.
		b.Buf, b.Ends = make([]byte, 0, n*(size+64)), b.Ends[:0]
		for range n {
			payload = x.appendPayload(payload[:0], size, uint32(x), uint64(x)+uint64(i), int64(x>>1))
			e.Topic, e.Payload = topic(i), payload
			b.Buf = core.AppendRecord(b.Buf, &e)
			b.Ends = append(b.Ends, uint32(len(b.Buf)))
			i++
		}
		b.Time = time.Now().UnixMilli()
		l.Append(b, func(_ *core.Batch, _ core.Offset, err error) { done <- err })
		if err := errors.Join(<-done, ctx.Err()); err != nil {
			return err
		}
	}
	return l.Sync(ctx)
}

// logReadScenario replays a log, and picks one topic in a thousand out of it.
func logReadScenario() scenario {
	return scenario{name: "log-read", about: "5,000,000 records of 100 bytes, read in process", inProcess: true,
		goals: []goal{{reading: "replayed", bound: 3_000_000}, {reading: "one topic in a thousand", bound: 20}},
		run: func(ctx context.Context, r *rig) (out result, err error) {
			dir := filepath.Join(r.dir, "log")
			records := r.scaled(5_000_000)
			l, err := seglog.Open(ctx, seglog.Options{Dir: dir})
			if err != nil {
				return out, err
			}
			if err := errors.Join(fillLog(ctx, l, records, 100, storageTopic), l.Close(ctx)); err != nil {
				return out, err
			}
			// Opened again, its sealed segments all get their indexes.
			if l, err = seglog.Open(ctx, seglog.Options{Dir: dir}); err != nil {
				return out, err
			}
			defer func() { err = errors.Join(err, l.Close(ctx)) }()
			if err := l.Seal(ctx); err != nil {
				return out, err
			}
			cpu := ownCPU()
			start := time.Now()
			n, err := readThrough(ctx, l, nil)
			took := time.Since(start)
			if err != nil {
				return out, err
			}
			if n != uint64(records) {
				out.Faults = append(out.Faults, fmt.Sprintf("read %d of %d records", n, records))
			}
			out.add("replayed", "records/s", float64(n)/took.Seconds())
			out.addLower("CPU, replayed", "µs/record", microseconds(ownCPU()-cpu)/float64(n))
			filters := core.NewFilterSet(core.Filter(storageTopics[512]))
			var best time.Duration
			for range 5 {
				start = time.Now()
				if n, err = readThrough(ctx, l, filters); err != nil {
					return out, err
				}
				if took := time.Since(start); best == 0 || took < best {
					best = took
				}
			}
			if want := (records + len(storageTopics) - 1 - 512) / len(storageTopics); int(n) != want {
				out.Faults = append(out.Faults, fmt.Sprintf("picked %d of %d records", n, want))
			}
			out.addLower("one topic in a thousand", "ms", float64(best.Microseconds())/1000)
			return out, nil
		}}
}
