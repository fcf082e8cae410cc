package clienttest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
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
	late      int // how many were confirmed when the power was going
	attempted int
}

// maxLate is how many confirms a publisher may get of syncs that were on their way
// when the power was cut. One that failed and is not heeded gives it many more.
const maxLate = 10

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
	large := &largeLedger{topic: name + "-large", confirmed: make(map[int]string)}
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
			publishing.Go(func() { ledgers[i].fill(b, publish, fmt.Sprintf("%s/%d", name, i)) })
		}
		publishing.Go(func() { large.fill(b) })
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
		for _, l := range ledgers {
			if l.late > maxLate {
				t.Errorf("%s: %d messages were confirmed when the power was gone", l.name, l.late)
			}
			l.late = 0
		}
		b.start()
		if cycle%10 == 9 {
			n := 0
			for _, l := range ledgers {
				n += len(l.confirmed)
			}
			fmt.Printf("%d cycles, %d confirms\n", cycle+1, n)
		}
	}

	large.check(t, b)
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
func (l *ledger) fill(b *broker, publish publishFunc, topic string) {
	for {
		l.mu.Lock()
		word := topic + " " + strconv.Itoa(l.attempted)
		l.attempted++
		l.mu.Unlock()
		if err := publish(topicAddress(topic), message{Payload: []byte(word)}); err != nil {
			return
		}
		l.mu.Lock()
		if b.cut.Load() {
			l.late++
		} else {
			l.confirmed = append(l.confirmed, word)
		}
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

// A largeLedger is what was confirmed of messages that are so large that each has
// the log write it in another way: past the page cache.
type largeLedger struct {
	topic     string
	attempted int
	confirmed map[int]string // by number: the offset
}

// payload is the message of a number: 100 to 1,000 KiB that are like no other.
func (*largeLedger) payload(number int) []byte {
	random := rand.NewChaCha8([32]byte{byte(number), byte(number >> 8), byte(number >> 16)})
	b := make([]byte, 100<<10+int(random.Uint64()%(900<<10)))
	random.Read(b)
	return b
}

// fill publishes until the broker is gone.
func (l *largeLedger) fill(b *broker) {
	for ; ; time.Sleep(20 * time.Millisecond) {
		number := l.attempted
		l.attempted++
		answer, err := http.Post("http://"+b.HTTP+"/t/"+l.topic, "application/octet-stream", bytes.NewReader(l.payload(number)))
		if err != nil {
			return
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusCreated {
			return
		}
		if !b.cut.Load() {
			l.confirmed[number] = answer.Header.Get("X-Offset")
		}
	}
}

// check reads each message that was confirmed at its offset.
func (l *largeLedger) check(t *testing.T, b *broker) {
	t.Helper()
	t.Logf("%-14s %d confirmed of %d", l.topic, len(l.confirmed), l.attempted)
	if len(l.confirmed) == 0 {
		t.Errorf("%s: nothing was confirmed", l.topic)
	}
	for number, offset := range l.confirmed {
		answer, err := http.Get("http://" + b.HTTP + "/t/" + l.topic + "?format=raw&limit=1&from=" + offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if at := answer.Header.Get("X-Offset"); at != offset || !bytes.Equal(got, l.payload(number)) {
			t.Errorf("%s: message %d was confirmed at %s; there is another one of %d bytes, at %s", l.topic, number, offset, len(got), at)
		}
	}
}
