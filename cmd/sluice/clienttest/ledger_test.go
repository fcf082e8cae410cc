package clienttest

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A ledger is what one publisher was told to be durable, in its order.
type ledger struct {
	name      string
	mu        sync.Mutex // guards what follows
	confirmed []string
	attempted int
}

// roomy lets an offline session keep all that is published in 200 cycles and
// more. By default the oldest of 100,000 messages make room.
const roomy = "limits:\n  session_messages: 10000000\n"

// TestNothingConfirmedIsLost kills the broker again and again while publishers
// of every protocol send, starts it again, and wants everything that was
// confirmed to be in the log, in a queue, and in an offline session: in each
// publisher's order, and none twice.
func TestNothingConfirmedIsLost(t *testing.T) {
	b := startBroker(t, roomy)
	loseNothing(t, b, "ledger", func(cycle int) bool {
		b.kill()
		return cycle+1 < *kills
	})
}

// TestStopLosesNothing: likewise a broker that is asked to end, which it has to
// in time.
func TestStopLosesNothing(t *testing.T) {
	b := startBroker(t)
	loseNothing(t, b, "ledger", func(cycle int) bool {
		b.stop()
		return cycle < 1
	})
}

// TestSecondInstance: a data directory has one broker at a time.
func TestSecondInstance(t *testing.T) {
	b := startBroker(t)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "serve", "--data", b.dir, "--mqtt", freeAddress(t), "--stomp", freeAddress(t), "--http", freeAddress(t)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), b.dir) {
		t.Errorf("a second broker on the same directory ended with %v and said %s", err, out)
	}
}

// loseNothing has the broker end again and again under load from all protocols,
// until end says that this was the last time, and checks what is there then
// against what was confirmed. What it publishes, and who gets it, has a name of
// its own.
func loseNothing(t *testing.T, b *broker, name string, end func(cycle int) (more bool)) {
	// An offline session and a queue that both match everything. The queue is
	// a group, made by a first member that leaves.
	session := mqttOptions{ClientID: name + "-auditor", Resume: true, SessionExpiry: 3600}
	c, _, err := paho.dial(t, b, session, func(event) {})
	if err != nil {
		t.Fatal(err)
	}
	everything := selection{from: []address{topicAddress(name + "/#")}}
	if err := mqttSubscribe(c, everything); err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	group := selection{from: everything.from, group: name, bulk: true}
	member, err := stompPy.receive(t, b, group)
	if err != nil {
		t.Fatal(err)
	}
	if err := member.end(); err != nil {
		t.Fatal(err)
	}

	var ledgers []*ledger
	for _, p := range publishers {
		ledgers = append(ledgers, &ledger{name: p.name})
	}
	for cycle, more := 0, true; more; cycle++ {
		before := make(map[*ledger]int)
		for _, l := range ledgers {
			before[l] = len(l.confirmed)
		}
		var publishing sync.WaitGroup
		for i, p := range publishers {
			publish, err := opened(t, b, p)
			if err != nil {
				t.Fatal(err)
			}
			publishing.Go(func() { ledgers[i].fill(publish, fmt.Sprintf("%s/%d", name, i)) })
		}
		// Killed once there is something to lose, at a moment that differs
		// from cycle to cycle.
		eventually(t, 3*time.Minute, func() error {
			for _, l := range ledgers {
				l.mu.Lock()
				n := len(l.confirmed)
				l.mu.Unlock()
				if n < before[l]+5+2*(cycle%10) {
					return fmt.Errorf("%s has %d confirmed", l.name, n)
				}
			}
			return nil
		})
		more = end(cycle)
		publishing.Wait()
		b.start()
		if cycle%10 == 9 {
			n := 0
			for _, l := range ledgers {
				n += len(l.confirmed)
			}
			fmt.Printf("%d cycles, %d confirms\n", cycle+1, n)
		}
	}

	wanted := make(map[string]bool)
	for _, l := range ledgers {
		t.Logf("%-14s %d confirmed of %d", l.name, len(l.confirmed), l.attempted)
		for _, word := range l.confirmed {
			wanted[word] = true
		}
	}

	in, err := curlSSE(t, b, selection{from: everything.from, start: "earliest"})
	if err != nil {
		t.Fatal(err)
	}
	defer in.end()
	checkLedger(t, "the log", in, wanted)

	in = newInbox()
	c, present, err := paho.dial(t, b, session, in.mqttEvents)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if !present.SessionPresent {
		t.Error("the offline session is gone")
	}
	checkLedger(t, "the offline session", in, wanted)

	in, err = stompPy.receive(t, b, group)
	if err != nil {
		t.Fatal(err)
	}
	defer in.end()
	checkLedger(t, "the group", in, wanted)
}

// fill publishes until the broker is gone.
func (l *ledger) fill(publish publishFunc, topic string) {
	for {
		l.mu.Lock()
		word := topic + " " + strconv.Itoa(l.attempted)
		l.attempted++
		l.mu.Unlock()
		if err := publish(topicAddress(topic), message{Payload: []byte(word)}); err != nil {
			return
		}
		l.mu.Lock()
		l.confirmed = append(l.confirmed, word)
		l.mu.Unlock()
	}
}

// checkLedger waits until all that is wanted has come and compares. What was
// never confirmed may be there too, once.
func checkLedger(t *testing.T, where string, in *inbox, wanted map[string]bool) {
	t.Helper()
	missing := len(wanted)
	seen := make(map[string]bool)
	last := make(map[string]int)
	for n := 1; missing > 0; n++ {
		got, err := in.wait(n, arrive)
		if err != nil {
			var some []string
			for word := range wanted {
				if !seen[word] && len(some) < 10 {
					some = append(some, word)
				}
			}
			t.Errorf("%s: %d of %d confirmed messages are missing, among them %q: %v", where, missing, len(wanted), some, err)
			return
		}
		word := string(got[n-1].Payload)
		if seen[word] {
			t.Errorf("%s: %q came twice", where, word)
			continue
		}
		seen[word] = true
		if wanted[word] {
			missing--
		}
		topic, number, _ := strings.Cut(word, " ")
		i, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("%s: %q is none of ours", where, word)
		}
		if before, ok := last[topic]; ok && i < before {
			t.Errorf("%s: %q came after %d", where, word, before)
		}
		last[topic] = i
	}
}
