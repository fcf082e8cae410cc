package bench

import (
	"bytes"
	"encoding/json"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every scenario runs on every server, in small, and what it prints is there.
func TestEveryScenario(t *testing.T) {
	them, err := mosquitto()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "sluice")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/sluicemq/sluice/cmd/sluice").CombinedOutput(); err != nil {
		t.Fatalf("building sluice: %v\n%s", err, out)
	}
	var progress bytes.Buffer
	s := &suite{
		kinds: []kind{sluice(program), them}, scenarios: scenarios(), runs: 1,
		span:  span{warm: 20 * time.Millisecond, measure: 200 * time.Millisecond},
		scale: 0.001, size: 100, pause: 2 * time.Millisecond, dir: t.TempDir(), progress: &progress,
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
			if want := name == sluiceName || s.scenarios[i].mosquitto; ok != want {
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
	for _, qos := range []byte{0, 1, 2} {
		for _, level := range []byte{4, 5} {
			s := &suite{
				kinds: []kind{k}, runs: 1, size: 40, dir: t.TempDir(), progress: t.Output(),
				span: span{measure: 100 * time.Millisecond},
				scenarios: []scenario{pubsubScenario("all", "3 to 2", nil,
					mqttShape{publishers: 3, subscribers: 2, qos: qos, level: level, window: 300, flight: 16})},
			}
			o, err := s.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r := o.Sets[0].Results[mosquittoName]
			if len(r.Faults) > 0 || r.value("messages") < 100 {
				t.Errorf("QoS %d level %d: %.0f messages/s, wrong: %v", qos, level, r.value("messages"), r.Faults)
			}
		}
	}
}

// Receiving costs no allocation, whatever is received.
func TestReceivingDoesNotAllocate(t *testing.T) {
	l := &loop{}
	ps := &pubsub{loop: l, deliver: newHistogram(), confirm: newHistogram()}
	for qos := range byte(3) {
		s := &mqttSubscriber{load: ps, level: 4, ledger: newLedger(1)}
		s.peer = &peer{proto: s, loop: l, out: make([]byte, 0, 1<<12)}
		p := &mqttPublisher{load: ps, topic: newMQTTTopic(4, qos, "bench/0/0", 100)}
		p.peer = &peer{proto: p, loop: l, out: make([]byte, 0, 1<<14)}
		if n := testing.AllocsPerRun(100, func() {
			p.out, s.out = p.out[:0], s.out[:0]
			for range 50 {
				p.append(0)
			}
			if taken, err := s.received(s.peer, p.out); taken != len(p.out) || err != nil {
				t.Fatalf("took %d of %d bytes, %v", taken, len(p.out), err)
			}
		}); n != 0 {
			t.Errorf("QoS %d: %g allocations for 50 messages sent and received", qos, n)
		}
		if s.lost+s.late > 0 {
			t.Errorf("QoS %d: lost %d, late %d", qos, s.lost, s.late)
		}
	}
}

func TestLossIsReported(t *testing.T) {
	s := &mqttSubscriber{ledger: newLedger(1)}
	p := &mqttPublisher{sent: 10}
	for _, seq := range []uint64{0, 1, 2, 5, 4} {
		s.note(0, seq)
	}
	ps := &pubsub{groups: []pubsubGroup{{publishers: []*mqttPublisher{p}, subscribers: []*mqttSubscriber{s}}}}
	v := ps.verdict()
	if got := strings.Join(v.faults(measured{stalls: 1}), "; "); got != "lost 5 of 10 messages; 1 messages repeated or out of order; stood still 1 times for 1s" {
		t.Errorf("faults: %s", got)
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
		o := outcome{Sets: []set{{Name: "x", goals: goals, Results: map[string]result{sluiceName: c.ours, mosquittoName: c.theirs}}}}
		if missed := o.missed(); len(missed) != c.missed {
			t.Errorf("missed %q, want %d", missed, c.missed)
		}
	}
}
