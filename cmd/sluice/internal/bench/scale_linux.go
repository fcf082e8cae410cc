package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/seglog"
)

// scaleScenarios measure what much of one thing costs that the broker holds, for
// whoever names one. What there is of it is made in this process; then a server
// is started on it, so that its memory is what it needs and not what filling it
// has left.
func scaleScenarios() []scenario {
	all := []scenario{sessionsScenario(), retainedScenario(), readyScenario(), queuesScenario(), delayedScenario()}
	for i := range all {
		all[i].named = true
	}
	return all
}

// A heapSize is what a server has on its heap after a collection.
type heapSize struct{ objects, bytes int64 }

// heapOf has a server collect its garbage and asks for its heap's size.
func heapOf(ctx context.Context, s *server) (h heapSize, err error) {
	body, err := ask(ctx, http.MethodGet, "http://"+s.pprof+"/debug/pprof/heap?debug=1&gc=1")
	if err != nil {
		return h, err
	}
	for line := range strings.Lines(string(body)) {
		for name, to := range map[string]*int64{"# HeapObjects = ": &h.objects, "# HeapAlloc = ": &h.bytes} {
			if rest, ok := strings.CutPrefix(line, name); ok {
				if *to, err = strconv.ParseInt(strings.TrimSpace(rest), 10, 64); err != nil {
					return h, err
				}
			}
		}
	}
	if h.objects == 0 || h.bytes == 0 {
		return h, errors.New("the server does not tell its heap's size")
	}
	return h, nil
}

// ask answers with what a server says to a request without a body.
func ask(ctx context.Context, method, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.200s", url, answer.Status, body)
	}
	return body, err
}

// A footprint is what a server needs that does nothing.
type footprint struct {
	resident int64
	heap     heapSize
}

func (r *rig) footprint(ctx context.Context) (f footprint, err error) {
	if f.heap, err = heapOf(ctx, r.server); err != nil {
		return f, err
	}
	// An idle server gives back what it has no use for, some seconds after it has
	// looked at all sessions for the first time.
	time.Sleep(50 * r.settle)
	f.resident, err = settledResident(r.pid(), r.settle)
	return f, err
}

// emptyFootprint is that of a server with an empty log.
func (r *rig) emptyFootprint(ctx context.Context) (footprint, error) {
	if err := r.startOn(ctx, "empty"); err != nil {
		return footprint{}, err
	}
	defer r.server.stop()
	return r.footprint(ctx)
}

// startOn starts a server with its data in a folder of the run's.
func (r *rig) startOn(ctx context.Context, name string) (err error) {
	srv, err := r.kind.start(ctx, filepath.Join(r.root, name), r.dialer)
	if err != nil {
		return err
	}
	r.server = srv
	return nil
}

// addFootprint says what n of something need beyond what the server needs
// without them.
func (r *result) addFootprint(what string, n int, before, after footprint) {
	r.addLower("resident", "KiB/"+what, float64(after.resident-before.resident)/1024/float64(n))
	r.addLower("heap", "KiB/"+what, float64(after.heap.bytes-before.heap.bytes)/1024/float64(n))
	r.addLower("objects", "/"+what, float64(after.heap.objects-before.heap.objects)/float64(n))
}

// withCore runs a broker without doors on a folder of the run's, as the server
// finds it there afterwards.
func (r *rig) withCore(ctx context.Context, name string, do func(*core.Broker) error) error {
	b, err := openCore(ctx, filepath.Join(r.root, name, "data"))
	if err != nil {
		return err
	}
	return errors.Join(do(b), b.Close(ctx))
}

// withLog does the same with the log alone.
func (r *rig) withLog(ctx context.Context, name string, do func(*seglog.Log) error) error {
	l, err := seglog.Open(ctx, seglog.Options{Dir: filepath.Join(r.root, name, "data")})
	if err != nil {
		return err
	}
	return errors.Join(do(l), l.Close(ctx))
}

// restarts starts the server on a folder, kills it and starts it again, and
// adds how long it is each time until what measure waits for.
func (r *rig) restarts(ctx context.Context, out *result, name, what string, unit time.Duration, measure func() error) error {
	if err := r.startOn(ctx, name); err != nil {
		return err
	}
	units := map[time.Duration]string{time.Second: "s", time.Millisecond: "ms"}
	if err := measure(); err != nil {
		return err
	}
	out.addLower("stopped to "+what, units[unit], float64(time.Since(r.server.started))/float64(unit))
	r.server.kill()
	if err := r.server.run(ctx, r.dialer); err != nil {
		return err
	}
	if err := measure(); err != nil {
		return err
	}
	out.addLower("killed to "+what, units[unit], float64(time.Since(r.server.started))/float64(unit))
	return nil
}

// What there is of each, in full.
const (
	scaleSessions = 100_000
	scalePending  = 10 // messages of each session
	scaleRetained = 1_000_000
	scaleReady    = 10_000_000
	scaleQueues   = 10_000
	scaleDelayed  = 1_000_000
	delayedRate   = 20_000 // are due in each second
)

// sessionsScenario measures what sessions cost whose clients are away and for
// whom messages wait, and checks that these come.
func sessionsScenario() scenario {
	return scenario{name: "mqtt-sessions", about: "100,000 sessions with three subscriptions each and 1,000,000 messages between them, all away",
		inProcess: true, starts: true, goals: []goal{{reading: "resident", bound: 2}, {reading: "stopped to confirmed", bound: 5}, {reading: "killed to confirmed", bound: 5}},
		run: func(ctx context.Context, r *rig) (result, error) {
			var out result
			before, err := r.emptyFootprint(ctx)
			if err != nil {
				return out, err
			}
			n := r.scaled(scaleSessions)
			err = r.withCore(ctx, "full", func(b *core.Broker) error { return makeSessions(ctx, b, n) })
			if err != nil {
				return out, err
			}
			err = r.withLog(ctx, "full", func(l *seglog.Log) error {
				return fillLog(ctx, l, n*scalePending, 100, func(i int) string { return "commands/" + deviceName(i%n) + "/do" })
			})
			if err != nil {
				return out, err
			}
			if err := r.restarts(ctx, &out, "full", "confirmed", time.Second, r.confirmOne); err != nil {
				return out, err
			}
			defer func() { r.server.stop() }()
			after, err := r.footprint(ctx)
			if err != nil {
				return out, err
			}
			out.addFootprint("session", n, before, after)
			for i := 0; i < n; i += max(1, n/50) {
				got, err := r.drainSession(deviceName(i), scalePending)
				if err != nil {
					return out, err
				}
				if got != scalePending {
					out.Faults = append(out.Faults, fmt.Sprintf("%s got %d of %d messages", deviceName(i), got, scalePending))
				}
			}
			return out, nil
		}}
}

// drainSession connects to a session that is kept, and counts up to n messages
// that come, without acknowledging them.
func (r *rig) drainSession(id string, n int) (got int, err error) {
	fd, present, err := r.dialer.connectMQTT(r.mqtt, mqttHello{level: 4, id: id, keep: true})
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if !present {
		return 0, nil
	}
	var rest []byte
	buf := make([]byte, readBytes)
	for got < n {
		k, err := unix.Read(fd, buf)
		if err != nil || k == 0 {
			return got, fmt.Errorf("session %s after %d messages: %w", id, got, err)
		}
		rest = append(rest, buf[:k]...)
		for {
			first, _, size, err := nextMQTT(rest)
			if err != nil {
				return got, err
			}
			if size == 0 {
				break
			}
			if first&0xf0 == mqttPublish {
				got++
			}
			rest = rest[size:]
		}
	}
	return got, nil
}

// retainedScenario measures what retained values cost, and what they cost while
// a subscriber to all of them reads slowly.
func retainedScenario() scenario {
	return scenario{name: "retained", about: "1,000,000 retained values, and a subscriber to all of them that does not read on",
		// Of the values, the heap has some of the state's blocks at the most; of what
		// the subscriber does not read, its credit's worth. The rest of what becomes
		// resident is garbage that is not collected yet, and files' pages.
		inProcess: true, starts: true, goals: []goal{{reading: "objects", bound: 0.1}, {reading: "heap, unread", bound: 4}, {reading: "resident, unread", bound: 64}, {reading: "stopped to confirmed", bound: 5}, {reading: "killed to confirmed", bound: 5}},
		run: func(ctx context.Context, r *rig) (result, error) {
			var out result
			before, err := r.emptyFootprint(ctx)
			if err != nil {
				return out, err
			}
			n := r.scaled(scaleRetained)
			start := time.Now()
			cpu := ownCPU()
			err = r.withCore(ctx, "full", func(b *core.Broker) error { return retain(ctx, b, n, r.size) })
			if err != nil {
				return out, err
			}
			out.addAside("made in", "s", time.Since(start).Seconds())
			out.addLower("CPU, made", "µs/value", microseconds(ownCPU()-cpu)/float64(n))
			if err := r.restarts(ctx, &out, "full", "confirmed", time.Second, r.confirmOne); err != nil {
				return out, err
			}
			defer func() { r.server.stop() }()
			idle, err := r.footprint(ctx)
			if err != nil {
				return out, err
			}
			out.addFootprint("value", n, before, idle)

			fd, _, err := r.dialer.connectMQTT(r.mqtt, mqttHello{level: 4, id: "bench-slow"})
			if err != nil {
				return out, err
			}
			l, err := newLoop()
			if err != nil {
				unix.Close(fd)
				return out, err
			}
			defer l.close()
			if err := say(fd, appendMQTTSubscribe(nil, 4, 1, "retained/#", 0)); err != nil {
				unix.Close(fd)
				return out, err
			}
			unread, err := settledResident(r.pid(), r.settle)
			if err != nil {
				unix.Close(fd)
				return out, err
			}
			out.addLower("resident, unread", "MiB", float64(unread-idle.resident)/(1<<20))
			heap, err := heapOf(ctx, r.server)
			if err != nil {
				unix.Close(fd)
				return out, err
			}
			out.addLower("heap, unread", "MiB", float64(heap.bytes-idle.heap.bytes)/(1<<20))
			for what, path := range map[string]string{
				"/last":        fmt.Sprintf("/last/retained/%d", n/2),
				"/v1/retained": fmt.Sprintf("/v1/retained?limit=100&after=retained/%d", n/2),
			} {
				at := time.Now()
				if _, err := ask(ctx, http.MethodGet, "http://"+r.http+path); err != nil {
					unix.Close(fd)
					return out, err
				}
				out.addLower(what, "ms", float64(time.Since(at).Microseconds())/1000)
			}
			used, err := cpuOf(r.pid())
			if err != nil {
				unix.Close(fd)
				return out, err
			}
			start = time.Now()
			s, err := r.receive(ctx, l, fd, 4, 1, uint64(n))
			if err != nil {
				return out, err
			}
			took := time.Since(start)
			spent, err := cpuOf(r.pid())
			if err != nil {
				return out, err
			}
			out.add("read", "/s", float64(s.got)/took.Seconds())
			out.addLower("server CPU, read", "µs/value", microseconds(spent-used)/float64(max(s.got, 1)))
			if s.got != uint64(n) {
				out.Faults = append(out.Faults, fmt.Sprintf("got %d of %d retained values", s.got, n))
			}
			return out, nil
		}}
}

// retain publishes n retained values.
func retain(ctx context.Context, b *core.Broker, n, size int) error {
	return flood(ctx, b, n, func(e *core.Envelope, i int) { e.Topic, e.Retain = fmt.Sprint("retained/", i), true }, size)
}

// flood publishes n messages, each as make makes it, and returns once they are
// confirmed.
func flood(ctx context.Context, b *core.Broker, n int, make func(*core.Envelope, int), size int) error {
	f := &flight{unflown: 4096}
	f.landed.L = &f.mu
	c, err := b.Connect(ctx, core.Credentials{Client: "bench", Protocol: "bench"}, f)
	if err != nil {
		return err
	}
	defer c.Close()
	x := noise(3)
	var payload []byte
	for i := 0; i < n; {
		room, err := f.room()
		if err != nil {
			return err
		}
		for ; room > 0 && i < n; room-- {
			payload = x.appendPayload(payload[:0], size, 0, uint64(i), 0)
			e := core.Envelope{Guarantee: core.AtLeastOnce, Payload: payload}
			make(&e, i)
			i++
			if err := c.Publish(ctx, &e, core.Receipt(i)); err != nil {
				return err
			}
		}
	}
	_, _, err = f.land(uint64(n))
	return err
}

// readyScenario measures a queue with many messages that nobody has taken.
func readyScenario() scenario {
	return scenario{name: "queue-ready", about: "one queue with 10,000,000 ready messages: stopped, and killed, and started again",
		inProcess: true, starts: true, goals: []goal{{reading: "resident", bound: 300}, {reading: "stopped to first message", bound: 100}, {reading: "killed to first message", bound: 100}},
		run: func(ctx context.Context, r *rig) (result, error) {
			var out result
			n := r.scaled(scaleReady)
			err := r.withCore(ctx, "full", func(b *core.Broker) error {
				c, err := b.Connect(ctx, core.Credentials{Client: "bench", Protocol: "bench"}, nil)
				if err != nil {
					return err
				}
				defer c.Close()
				return c.DeclareQueue(ctx, core.QueueDefinition{Name: "ready"})
			})
			if err != nil {
				return out, err
			}
			err = r.withLog(ctx, "full", func(l *seglog.Log) error {
				return fillLog(ctx, l, n, 100, func(int) string { return core.QueueTopic("ready") })
			})
			if err != nil {
				return out, err
			}
			// The second start finds the first one's message released.
			err = r.restarts(ctx, &out, "full", "first message", time.Millisecond, func() error {
				body, err := ask(ctx, http.MethodPost, "http://"+r.http+"/q/ready/lease?max=1&for=1s")
				if err == nil && len(body) < 100 {
					err = fmt.Errorf("a lease brought no message: %s", body)
				}
				return err
			})
			if err != nil {
				return out, err
			}
			defer func() { r.server.stop() }()
			f, err := r.footprint(ctx)
			if err != nil {
				return out, err
			}
			out.addLower("resident", "MiB", float64(f.resident)/(1<<20))
			out.addLower("heap", "MiB", float64(f.heap.bytes)/(1<<20))
			at := time.Now()
			body, err := ask(ctx, http.MethodGet, "http://"+r.http+"/v1/queues/ready")
			if err != nil {
				return out, err
			}
			out.addLower("told of by /v1/queues", "ms", float64(time.Since(at).Microseconds())/1000)
			if !json.Valid(body) {
				out.Faults = append(out.Faults, "what is told of the queue is not JSON")
			}
			return out, nil
		}}
}

// queuesScenario measures what a queue costs with its consumer, the connection
// included.
func queuesScenario() scenario {
	return scenario{name: "queues-10000", about: "10,000 queues, each with a STOMP connection that consumes it",
		goals: []goal{{reading: "resident", bound: 20}},
		run: func(ctx context.Context, r *rig) (result, error) {
			var out result
			n := r.scaled(scaleQueues)
			if err := raiseFiles(uint64(n) + 200); err != nil {
				return out, err
			}
			before, err := r.footprint(ctx)
			if err != nil {
				return out, err
			}
			fds := make([]int, 0, n)
			defer func() {
				for _, fd := range fds {
					unix.Close(fd)
				}
			}()
			for i := range n {
				if err := ctx.Err(); err != nil {
					return out, err
				}
				fd, err := r.dialer.connectSTOMP(r.stomp)
				if err != nil {
					return out, fmt.Errorf("connection %d: %w", i, err)
				}
				fds = append(fds, fd)
				if err := say(fd, fmt.Appendf(nil, "SUBSCRIBE\nid:0\ndestination:/queue/%s\nack:client-individual\nreceipt:s\n\n\x00", queueName(i))); err != nil {
					return out, err
				}
				if b, err := hear(fd, wholeSTOMP); err != nil || !strings.Contains(string(b), "RECEIPT\n") {
					return out, fmt.Errorf("queue %d: %w, %s", i, err, b)
				}
			}
			after, err := r.footprint(ctx)
			if err != nil {
				return out, err
			}
			out.addFootprint("queue", n, before, after)
			return out, nil
		}}
}

// A latecomer notes how late messages come.
type latecomer struct {
	due    func(seq uint64) time.Time
	late   *hdrhistogram.Histogram // µs
	early  int
	ledger ledger
	all    chan struct{}
	want   uint64
}

func (c *latecomer) Deliver(ds []core.Delivery) {
	now := time.Now()
	for i := range ds {
		publisher, seq, _, ok := header(ds[i].Payload)
		if !ok || !c.ledger.note(publisher, seq) {
			continue
		}
		late := now.Sub(c.due(seq))
		if late < 0 {
			c.early++
		}
		c.late.RecordValue(max(0, late.Microseconds()))
		if c.ledger.got == c.want {
			close(c.all)
		}
	}
}

func (*latecomer) Notice(core.Notice) {}

// delayedScenario measures whether many delayed messages come when they are due,
// and what they cost until then.
func delayedScenario() scenario {
	return scenario{name: "delayed", about: "1,000,000 delayed messages, of which 20,000 are due in each second, in process",
		inProcess: true, goals: []goal{{reading: "late p99", bound: 1000}, {reading: "heap", bound: 64}},
		run: func(ctx context.Context, r *rig) (out result, err error) {
			n := r.scaled(scaleDelayed)
			err = r.withCore(ctx, "delayed", func(b *core.Broker) error {
				before := ownHeap()
				// What is published takes its time, too: the first is due after that.
				// It is the machine's clock that counts.
				begin := time.Now().Round(0).Add(2*time.Second + time.Duration(n)*60*time.Microsecond)
				due := func(seq uint64) time.Time { return begin.Add(time.Duration(seq) * time.Second / delayedRate) }
				l := &latecomer{due: due, late: hdrhistogram.New(1, 600_000_000, 3), ledger: newLedger(1), all: make(chan struct{}), want: uint64(n)}
				// Whoever comes later misses what is due by then.
				c, err := b.Connect(ctx, core.Credentials{Client: "late", Protocol: "bench"}, nil)
				if err != nil {
					return err
				}
				defer c.Close()
				k, err := c.Subscribe(ctx, core.Subscription{Bindings: []core.Binding{{Filter: "delayed"}}}, l)
				if err != nil {
					return err
				}
				k.Grant(core.Credit{Messages: math.MaxInt / 2, Bytes: math.MaxInt / 2})
				cpu := ownCPU()
				if err := flood(ctx, b, n, func(e *core.Envelope, i int) {
					e.Topic, e.DeliverAt = "delayed", due(uint64(i))
				}, r.size); err != nil {
					return err
				}
				out.addLower("CPU, published", "µs/msg", microseconds(ownCPU()-cpu)/float64(n))
				out.addAside("spare", "s", time.Until(begin).Seconds())
				out.addLower("heap", "MiB", float64(ownHeap()-before)/(1<<20))
				cpu = ownCPU()
				select {
				case <-l.all:
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(time.Until(due(uint64(n))) + hungAfter):
					out.Faults = append(out.Faults, fmt.Sprintf("not all of %d messages came", n))
				}
				k.Close()
				out.addLower("CPU, delivered", "µs/msg", microseconds(ownCPU()-cpu)/float64(n))
				out.addLower("late p50", "ms", float64(l.late.ValueAtQuantile(50))/1000)
				out.addLower("late p99", "ms", float64(l.late.ValueAtQuantile(99))/1000)
				// What is due within the same millisecond may come in any order.
				if l.early > 0 || l.ledger.lost != l.ledger.late {
					out.Faults = append(out.Faults, fmt.Sprintf("%d came early, %d were lost, %d came again", l.early, l.ledger.lost, l.ledger.late))
				}
				return nil
			})
			return out, err
		}}
}

// ownHeap is what this process has on its heap after a collection.
func ownHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
