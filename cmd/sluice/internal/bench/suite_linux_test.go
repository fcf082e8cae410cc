package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every scenario runs on every server, in small, and what it prints is there.
func TestEveryScenario(t *testing.T) {
	// The machine may stand still between a connection and its first packet.
	t.Setenv("SLUICE_LIMITS_HANDSHAKE", "1m")
	t.Setenv("SLUICE_LIMITS_STALL", "1m")
	them, err := mosquitto()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "sluice")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, "github.com/sluicemq/sluice/cmd/sluice").CombinedOutput(); err != nil {
		t.Fatalf("building sluice: %v\n%s", err, out)
	}
	chosen, err := choose(nil)
	if err != nil {
		t.Fatal(err)
	}
	grid, err := choose([]string{"mqtt-q2-pairs-1k"}) // one for all of them
	if err != nil {
		t.Fatal(err)
	}
	chosen = append(chosen, grid...)
	chosen = append(chosen, scaleScenarios()...)
	s := &suite{
		kinds: []kind{sluice(program), them}, scenarios: chosen, runs: 1,
		span:  span{warm: 20 * time.Millisecond, measure: 200 * time.Millisecond, patience: time.Minute},
		scale: 0.001, size: 100, pause: 2 * time.Millisecond, dir: t.TempDir(), progress: t.Output(),
	}
	o, err := s.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Sets) != len(s.scenarios) {
		t.Fatalf("%d results of %d scenarios", len(o.Sets), len(s.scenarios))
	}
	for i, set := range o.Sets {
		for _, name := range []string{sluiceName, mosquittoName} {
			r, ok := set.Results[name]
			if want := name == sluiceName || slices.Contains(s.scenarios[i].rivals, mosquittoName); ok != want {
				t.Errorf("%s on %s: run: %v, want %v", set.Name, name, ok, want)
			}
			for _, f := range r.Faults {
				t.Errorf("%s on %s: %s", set.Name, name, f)
			}
			for _, x := range r.Readings {
				if math.IsNaN(x.Value) || math.IsInf(x.Value, 0) {
					t.Errorf("%s on %s: %s is %v", set.Name, name, x.Name, x.Value)
				}
			}
		}
		for _, g := range set.goals {
			if math.IsNaN(set.Results[sluiceName].value(g.reading)) {
				t.Errorf("%s: a goal for %q, which is not read", set.Name, g.reading)
			}
		}
	}
	var table bytes.Buffer
	if err := o.writeTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, sc := range s.scenarios {
		if !strings.Contains(table.String(), sc.name+": "+sc.about) {
			t.Errorf("the table lacks %s:\n%s", sc.name, &table)
		}
	}
	t.Logf("\n%s", &table)
	var text bytes.Buffer
	if err := o.writeJSON(&text); err != nil || !json.Valid(text.Bytes()) {
		t.Errorf("JSON: %v\n%s", err, &text)
	}
}

func TestMosquittoDeliversEverything(t *testing.T) {
	k, err := mosquitto()
	if err != nil {
		t.Fatal(err)
	}
	s := &suite{
		kinds: []kind{k}, runs: 1, size: 40, dir: t.TempDir(), progress: t.Output(),
		span: span{measure: 100 * time.Millisecond, patience: time.Minute},
	}
	for _, qos := range []byte{0, 1, 2} {
		for _, level := range []byte{4, 5} {
			s.scenarios = append(s.scenarios, pubsubScenario(fmt.Sprintf("QoS %d level %d", qos, level), "3 to 2", nil,
				mqttShape{publishers: 3, subscribers: 2, qos: qos, level: level, window: 300, flight: 16}))
		}
	}
	// A machine that stands still while it is measured has slow servers.
	slow := true
	for try := 0; slow && try < 5; try++ {
		o, err := s.run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slow = false
		for _, set := range o.Sets {
			r := set.Results[mosquittoName]
			for _, f := range r.Faults {
				t.Errorf("%s: %s", set.Name, f)
			}
			if r.value("messages") < 100 {
				slow = true
				t.Logf("%s: %.0f messages/s", set.Name, r.value("messages"))
			}
		}
	}
	if slow {
		t.Error("hardly anything went through")
	}
}

// Sending and receiving cost no allocation, whatever is sent.
func TestMessagesDoNotAllocate(t *testing.T) {
	l := &loop{}
	load := newTraffic(l, 0)
	for qos := range byte(3) {
		r := &mqttReceiver{load: load, level: 4, ledger: newLedger(1)}
		in := &peer{proto: r, loop: l, out: make([]byte, 0, 1<<12)}
		p := &mqttSender{topic: newMQTTTopic(4, qos, "bench/0/0", 100), sender: sender{load: load, size: 100}}
		p.peer = &peer{proto: p, loop: l, out: make([]byte, 0, 1<<14)}
		p.encode = p.message
		if n := testing.AllocsPerRun(100, func() {
			p.out, in.out = p.out[:0], in.out[:0]
			for range 50 {
				p.append(0)
			}
			if taken, err := r.received(in, p.out); taken != len(p.out) || err != nil {
				t.Fatalf("took %d of %d bytes, %v", taken, len(p.out), err)
			}
		}); n != 0 {
			t.Errorf("QoS %d: %g allocations for 50 messages sent and received", qos, n)
		}
		if r.lost+r.late > 0 {
			t.Errorf("QoS %d: lost %d, late %d", qos, r.lost, r.late)
		}
	}
}

func TestLossIsReported(t *testing.T) {
	l := newLedger(1)
	for _, seq := range []uint64{0, 1, 2, 5, 4} {
		l.note(0, seq)
	}
	load := &traffic{groups: []group{{senders: []*sender{{sent: 10}}, receivers: []*ledger{&l}}}}
	if got := strings.Join(load.verdict().faults(1), "; "); got != "lost 5 of 10 messages; 1 messages repeated or out of order; stood still 1 times for 1s" {
		t.Errorf("faults: %s", got)
	}
	one := newShares(1)
	for _, seq := range []uint64{3, 0, 3, 1} {
		one.note(0, seq)
	}
	load = &traffic{groups: []group{{senders: []*sender{{sent: 4}}, one: one}}}
	if got := strings.Join(load.verdict().faults(0), "; "); got != "lost 1 of 4 messages; 1 messages repeated or out of order" {
		t.Errorf("faults of shared messages: %s", got)
	}
}

func TestGoals(t *testing.T) {
	readings := func(msgs, cpu, p99 float64) result {
		var r result
		r.add("messages", "/s", msgs)
		r.addLower("server CPU", "µs/msg", cpu)
		r.addLower("p99", "ms", p99)
		return r
	}
	goals := []goal{{reading: "messages", times: 1}, {reading: "server CPU", times: 2}, {reading: "p99", times: 0.5, bound: 2}}
	for _, c := range []struct {
		ours, theirs result
		missed       int
	}{
		{readings(100, 5, 1.9), readings(90, 10, 0.1), 0},
		{readings(80, 5, 3), readings(90, 10, 1.6), 1},
		{readings(100, 6, 3), readings(90, 10, 1.4), 2},
	} {
		o := outcome{Sets: []set{{Name: "x", goals: goals, rivals: []string{mosquittoName}, Results: map[string]result{sluiceName: c.ours, mosquittoName: c.theirs}}}}
		if missed := o.missed(); len(missed) != c.missed {
			t.Errorf("missed %q, want %d", missed, c.missed)
		}
	}
}

// Beside several others, each is compared, and the goals are for the first.
func TestSeveralRivals(t *testing.T) {
	one := func(msgs float64) (r result) {
		r.add("messages", "/s", msgs)
		return r
	}
	s := set{Name: "x", rivals: []string{rabbitmqName, activemqName}, goals: []goal{{reading: "messages", times: 5}},
		Results: map[string]result{sluiceName: one(100), activemqName: one(50)}}
	o := outcome{Sets: []set{s}}
	if missed := o.missed(); len(missed) != 0 {
		t.Errorf("missed %q beside ActiveMQ alone", missed)
	}
	s.Results[rabbitmqName] = one(25)
	if missed := o.missed(); len(missed) != 1 {
		t.Errorf("missed %q", missed)
	}
	var table bytes.Buffer
	if err := o.writeTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"beside rabbitmq", "4.00×", "5× missed", "beside activemq", "2.00×"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, &table)
		}
	}
}
