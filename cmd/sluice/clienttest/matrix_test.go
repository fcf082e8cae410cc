package clienttest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// A publishFunc publishes one message and returns when it is confirmed.
type publishFunc func(to address, m message) error

// A publisher is a way in, a receiver a way out. Both open one connection, or
// start one process, for the test that they are given.
type publisher struct {
	name string
	open func(testing.TB, *broker) (publishFunc, error)
}

type receiver struct {
	name string
	open func(testing.TB, *broker, selection) (*inbox, error)
}

// work is where jobs for a receiver are published, and how it takes them: a
// queue, or for an event stream, which reads no queues, a group on a topic.
func (r receiver) work(name string) (address, selection) {
	if r.name == "SSE" {
		to := topicAddress("work/" + name)
		return to, selection{from: []address{to}, group: "workers"}
	}
	to := queueAddress(name)
	return to, selection{from: []address{to}}
}

// prepare makes the group that jobs go to. A queue is made by the first job.
func (r receiver) prepare(t testing.TB, b *broker, s selection) error {
	if s.group == "" {
		return nil
	}
	in, err := r.open(t, b, s)
	if err != nil {
		return err
	}
	return in.end()
}

var publishers = []publisher{
	{"mosquitto_pub", mosquittoPub},
	{"Paho", paho.publish},
	{"stomp.py", stompPy.publish},
	{"curl", curlPub},
	{"WebSocket", nodeWebSocket.publish},
	{"MQTT.js", mqttJS.publish},
	{"STOMP.js", stompJS.publish},
}

var receivers = []receiver{
	{"mosquitto_sub", mosquittoSub},
	{"Paho", paho.receive},
	{"stomp.py", stompPy.receive},
	{"WebSocket", nodeWebSocket.receive},
	{"MQTT.js", mqttJS.receive},
	{"STOMP.js", stompJS.receive},
	{"SSE", curlSSE},
	{"long poll", curlPoll},
}

// arrive is how long a message may take on a machine that is busy.
const arrive = time.Minute

// A pattern is one of the four tables of the matrix: how a cell is tried.
type pattern struct {
	name string
	try  func(t testing.TB, b *broker, cell string, p publisher, r receiver) error
}

var patterns = []pattern{
	{"topic", tryTopic},
	{"queue", tryQueue},
	{"retained", tryRetained},
	{"replay", tryReplay},
}

// TestMatrix tries every publisher with every receiver in every pattern, and
// compares docs/matrix.md with what it saw.
func TestMatrix(t *testing.T) {
	b := startBroker(t)
	// What is missing is told once, before 224 cells tell it.
	mosquittoPub(t, b)
	tool(t, "curl", "curl")
	for _, d := range []func(testing.TB) *driver{pahoDriver, stompPyDriver, nodeDriver} {
		d(t)
	}

	seen := newGrid()
	cell := 0
	t.Run("cells", func(t *testing.T) {
		for _, k := range patterns {
			for _, p := range publishers {
				for _, r := range receivers {
					cell++
					word := fmt.Sprintf("c%d", cell)
					t.Run(strings.ReplaceAll(k.name+"/"+p.name+" to "+r.name, " ", "_"), func(t *testing.T) {
						t.Parallel()
						err := k.try(t, b, word, p, r)
						seen.set(k.name, p.name, r.name, err == nil)
						if err != nil {
							t.Error(err)
						}
					})
				}
			}
		}
	})
	table := seen.markdown()
	t.Logf("\n%s", table)
	compareDocs(t, "matrix", table, seen.complete())
}

// grid is which cells passed.
type grid struct {
	mu     sync.Mutex
	passed map[[3]string]bool
}

func newGrid() *grid { return &grid{passed: make(map[[3]string]bool)} }

func (g *grid) set(pattern, publisher, receiver string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed[[3]string{pattern, publisher, receiver}] = ok
}

// complete says that no cell was left out by -run.
func (g *grid) complete() bool {
	return len(g.passed) == len(patterns)*len(publishers)*len(receivers)
}

// publishAll publishes samples in their order and returns them as messages.
func publishAll(publish publishFunc, cell string, set []sample, retain bool, to func(topic string) address) ([]message, error) {
	var sent []message
	for _, s := range set {
		m := message{Topic: s.topic(cell), Payload: s.payload, Retain: retain}
		if err := publish(to(m.Topic), m); err != nil {
			return nil, fmt.Errorf("publish of %s: %w", s.name, err)
		}
		sent = append(sent, m)
	}
	return sent, nil
}

// opened opens the two sides of a cell.
func opened(t testing.TB, b *broker, p publisher) (publishFunc, error) {
	publish, err := p.open(t, b)
	if err != nil {
		return nil, fmt.Errorf("%s does not connect: %w", p.name, err)
	}
	return publish, nil
}

// received waits for all that was sent and for nothing more.
func received(in *inbox, sent []message) error {
	got, err := in.wait(len(sent), arrive)
	return errors.Join(err, compareSamples(sent, got))
}

// marked says which messages do not say whether they came as retained values.
func marked(got []message, retained bool) (err error) {
	for _, m := range got {
		if m.Retain != retained {
			err = errors.Join(err, fmt.Errorf("%q says retained: %t", m.Topic, m.Retain))
		}
	}
	return err
}

// tryTopic: what is published reaches a live subscription.
func tryTopic(t testing.TB, b *broker, cell string, p publisher, r receiver) error {
	publish, err := opened(t, b, p)
	if err != nil {
		return err
	}
	in, err := r.open(t, b, selection{from: filters(cell)})
	if err != nil {
		return err
	}
	defer in.end()
	sent, err := publishAll(publish, cell, samples, false, topicAddress)
	if err != nil {
		return err
	}
	return errors.Join(received(in, sent), marked(in.messages(), false))
}

// tryQueue: what is published to a queue, before and while a consumer is there,
// reaches it, and what it has acknowledged does not come again.
func tryQueue(t testing.TB, b *broker, cell string, p publisher, r receiver) error {
	publish, err := opened(t, b, p)
	if err != nil {
		return err
	}
	queue, mine := r.work("jobs." + cell + " für dich")
	if err := r.prepare(t, b, mine); err != nil {
		return err
	}
	to := func(string) address { return queue }
	sent, err := publishAll(publish, cell, samples[:3], false, to)
	if err != nil {
		return err
	}
	in, err := r.open(t, b, mine)
	if err != nil {
		return err
	}
	defer in.end()
	rest, err := publishAll(publish, cell, samples[3:], false, to)
	if err != nil {
		return err
	}
	sent = append(sent, rest...)
	for i := range sent {
		sent[i].Topic = queue.name()
	}
	if err := received(in, sent); err != nil {
		return err
	}
	if err := in.end(); err != nil {
		return err
	}
	return allSettled(t, b, mine)
}

// allSettled says what is left of a queue or group.
func allSettled(t testing.TB, b *broker, s selection) error {
	left, err := newPoller().lease(t, b, s.from[0], s.group, 0)
	for _, m := range left {
		err = errors.Join(err, fmt.Errorf("acknowledged and still there: %s", brief(m.Payload)))
	}
	return err
}

// tryRetained: a subscription that comes later gets the last message that was
// published with retain, and none where the last one was empty.
func tryRetained(t testing.TB, b *broker, cell string, p publisher, r receiver) error {
	publish, err := opened(t, b, p)
	if err != nil {
		return err
	}
	for _, s := range samples[:3] {
		if err := publish(topicAddress(s.topic(cell)), message{Payload: []byte("replaced"), Retain: true}); err != nil {
			return err
		}
	}
	sent, err := publishAll(publish, cell, samples, true, topicAddress)
	if err != nil {
		return err
	}
	var want []message
	for _, m := range sent {
		if len(m.Payload) > 0 {
			want = append(want, m)
		}
	}
	in, err := r.open(t, b, selection{from: filters(cell), retained: true})
	if err != nil {
		return err
	}
	defer in.end()
	return errors.Join(received(in, want), marked(in.messages(), true))
}

// tryReplay: a subscription from the earliest message gets all that was
// published before it came, in order, and then what comes.
func tryReplay(t testing.TB, b *broker, cell string, p publisher, r receiver) error {
	publish, err := opened(t, b, p)
	if err != nil {
		return err
	}
	sent, err := publishAll(publish, cell, samples, false, topicAddress)
	if err != nil {
		return err
	}
	in, err := r.open(t, b, selection{from: filters(cell), start: "earliest"})
	if err != nil {
		return err
	}
	defer in.end()
	if err := received(in, sent); err != nil {
		return err
	}
	live, err := publishAll(publish, cell, samples[:1], false, topicAddress)
	if err != nil {
		return err
	}
	return received(in, append(sent, live...))
}
