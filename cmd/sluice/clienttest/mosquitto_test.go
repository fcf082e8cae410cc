package clienttest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mosquittoPub publishes over MQTT 3.1.1, one process a message.
func mosquittoPub(t testing.TB, b *broker) (publishFunc, error) {
	path := tool(t, "mosquitto_pub", "mosquitto-clients")
	host, port := hostPort(b.MQTT)
	return func(to address, m message) error {
		args := []string{"-V", "mqttv311", "-h", host, "-p", strconv.Itoa(port), "-q", "1", "-t", mqttAddress(to, selection{})}
		if m.Retain {
			args = append(args, "-r")
		}
		if len(m.Payload) == 0 {
			args = append(args, "-n")
		} else {
			args = append(args, "-s")
		}
		cmd := exec.Command(path, args...)
		cmd.Stdin = bytes.NewReader(m.Payload)
		return run(cmd)
	}, nil
}

// run runs a command whose failure, or word on standard error, is an error.
func run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	if len(out) > 0 {
		return fmt.Errorf("%s: %s", cmd, out)
	}
	return nil
}

// mosquittoSub receives over MQTT 3.1.1.
func mosquittoSub(t testing.TB, b *broker, s selection) (*inbox, error) {
	var args []string
	for _, a := range s.from {
		filter := mqttAddress(a, s)
		if s.start != "" {
			filter = mqttReplay(s.start, filter)
		}
		args = append(args, "-t", filter)
	}
	return startMosquittoSub(t, b, args...)
}

// startMosquittoSub starts mosquitto_sub and waits until its subscriptions are
// granted.
func startMosquittoSub(t testing.TB, b *broker, extra ...string) (*inbox, error) {
	path := tool(t, "mosquitto_sub", "mosquitto-clients")
	host, port := hostPort(b.MQTT)
	// -d tells of the SUBACK; stdbuf, since mosquitto_sub leaves it to a full
	// buffer to write.
	args := append([]string{"-oL", path, "-d", "-V", "mqttv311", "-h", host, "-p", strconv.Itoa(port), "-q", "1", "-F", "msg %r %x %t"}, extra...)
	cmd := exec.Command(tool(t, "stdbuf", "coreutils"), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	in := newInbox()
	subscribed := make(chan error, 2) // whether it is subscribed, and its end
	go func() {
		err := readMosquittoSub(stdout, in, subscribed)
		in.fail(err)
		subscribed <- err
		cmd.Wait()
	}()
	var once sync.Once
	in.end = func() error {
		once.Do(func() { cmd.Process.Signal(syscall.SIGINT) })
		_, err := in.wait(1<<30, arrive) // until it has ended
		_ = err
		return nil
	}
	in.drop = func() error {
		once.Do(func() { cmd.Process.Kill() })
		in.wait(1<<30, arrive)
		return nil
	}
	select {
	case err := <-subscribed:
		if err != nil {
			in.drop()
			return nil, err
		}
		return in, nil
	case <-time.After(arrive):
		in.drop()
		return nil, fmt.Errorf("mosquitto_sub %q got no SUBACK: %v", extra, in.err)
	}
}

// readMosquittoSub reads its lines until it ends.
func readMosquittoSub(stdout io.Reader, in *inbox, subscribed chan<- error) error {
	lines := bufio.NewReaderSize(stdout, 1<<20)
	var last string
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("mosquitto_sub ended: %w: %s", err, last)
		}
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "Subscribed ("):
			if strings.Contains(line, ": 128") {
				return fmt.Errorf("mosquitto_sub was refused: %s", line)
			}
			subscribed <- nil
		case strings.HasPrefix(line, "msg "):
			part := strings.SplitN(line, " ", 4)
			payload, err := unhex(part[2])
			if err != nil {
				return fmt.Errorf("mosquitto_sub wrote %q: %w", line, err)
			}
			in.add(message{Topic: part[3], Payload: payload, Retain: part[1] == "1"})
		default:
			last = line
		}
	}
}

// mosquittoMeta receives over MQTT 3.1.1 what a subscription to $meta/ shows.
func mosquittoMeta(t testing.TB, b *broker, s selection) (*inbox, error) {
	var args []string
	for _, a := range s.from {
		args = append(args, "-t", "$meta/"+a.topic)
	}
	raw, err := startMosquittoSub(t, b, args...)
	if err != nil {
		return nil, err
	}
	in := newInbox()
	in.end, in.drop = raw.end, raw.drop
	go func() {
		for n := 0; ; n++ {
			got, err := raw.wait(n+1, time.Hour)
			var m message
			if err == nil {
				m, err = jsonMessage(got[n].Payload)
			}
			if err != nil {
				in.fail(err)
				return
			}
			in.add(m)
		}
	}()
	return in, nil
}

// TestMosquittoSuite does with mosquitto's programs what the libraries do in
// [TestMQTTSuites]; versions, QoS, wills and groups stand in adapters/mqtt.
func TestMosquittoSuite(t *testing.T) {
	t.Parallel()
	safe := startSafeBroker(t)
	host, port := hostPort(safe.MQTT)
	plain := []string{"-h", host, "-p", strconv.Itoa(port)}
	host, port = hostPort(safe.tls)
	ca, crt, key := safe.files("carl")
	carl := []string{"-h", host, "-p", strconv.Itoa(port), "--cafile", ca, "--cert", crt, "--key", key}
	ann := append([]string{"-u", "ann", "-P", "ann-secret"}, plain...)
	bob := append([]string{"-u", "jwt", "-P", safe.token("bob", time.Hour)}, plain...)
	do := func(program string, who []string, args ...string) (string, error) {
		out, err := exec.Command(tool(t, program, "mosquitto-clients"), slices.Concat(who, args)...).CombinedOutput()
		return string(out), err
	}
	pub := func(who []string, args ...string) {
		t.Helper()
		if out, err := do("mosquitto_pub", who, args...); err != nil || out != "" {
			t.Errorf("mosquitto_pub %q: %s, %v", args, out, err)
		}
	}
	sub := func(who []string, want string, args ...string) {
		t.Helper()
		if out, err := do("mosquitto_sub", who, append([]string{"-W", "20"}, args...)...); err != nil || out != want {
			t.Errorf("mosquitto_sub %q: want %q, got %q, %v", args, want, out, err)
		}
	}

	pub(carl, "-V", "mqttv5", "-t", "m/5", "-q", "2", "-r", "-m", "größe", "-D", "publish", "content-type", "text/plain",
		"-D", "publish", "response-topic", "re/ply", "-D", "publish", "correlation-data", "c", "-D", "publish", "payload-format-indicator", "1",
		"-D", "publish", "user-property", "b", "1", "-D", "publish", "user-property", "a", "2", "-D", "publish", "user-property", "b", "3")
	sub(ann, "m/5 2 1 größe text/plain re/ply c 1 b:1 a:2 b:3\n", "-V", "mqttv5", "-t", "m/+", "-q", "2", "-C", "1", "-F", "%t %q %r %p %C %R %D %F %P")
	sub(bob, "größe\n", "-V", "mqttv311", "-t", "m/#", "-C", "1")
	pub(bob, "-q", "1", "-t", "m/5", "-r", "-n")
	pub(bob, "-q", "1", "-t", "m/6", "-r", "-m", "alone")
	sub(ann, "alone\n", "-t", "m/#", "--retained-only", "-C", "1")
	for _, who := range [][]string{plain, append([]string{"-u", "ann", "-P", "no"}, plain...), append([]string{"-u", "jwt", "-P", safe.token("bob", -time.Hour)}, plain...), carl[:6]} {
		if out, err := do("mosquitto_pub", who, "-t", "m", "-m", "x"); err == nil {
			t.Errorf("%q came in: %s", who, out)
		}
	}

	// A session, over a kill.
	session := append([]string{"-c", "-i", "truck", "-q", "1", "-t", "jobs/+"}, ann...)
	sub(session, "", "-E")
	pub(carl, "-q", "1", "-t", "jobs/1", "-m", "one")
	safe.kill()
	safe.start()
	pub(ann, "-q", "2", "-t", "jobs/2", "-m", "two")
	sub(session, "one\ntwo\n", "-C", "2")

	// What is Sluice's.
	sub(bob, "one\ntwo\n", "-t", "$replay/earliest/jobs/#", "-C", "2")
	pub(bob, "-q", "1", "-t", "$queue/q", "-m", "in the queue")
	sub(ann, "in the queue\n", "-q", "1", "-t", "$queue/q", "-C", "1")
	if out, err := do("mosquitto_sub", ann, "-t", "$SYS/broker/version", "-C", "1", "-W", "20"); err != nil || !strings.HasPrefix(out, "sluice version ") {
		t.Errorf("$SYS: %q, %v", out, err)
	}

	// A request that is answered.
	server, err := openGo5(t, safe.broker, mqttHello{id: "server", user: "ann", password: "ann-secret"})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.subscribe("ask", 1, mqttWishes{}); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		m, err := server.next()
		if err == nil {
			err = server.publish(m.Properties.ResponseTopic, "yes, "+string(m.Payload), 1, false, &mqttProperties{CorrelationData: m.Properties.CorrelationData})
		}
		answered <- err
	}()
	if out, err := do("mosquitto_rr", bob, "-V", "mqttv5", "-q", "1", "-t", "ask", "-e", "answer", "-m", "indeed", "-W", "20"); err != nil || out != "yes, indeed\n" {
		t.Errorf("mosquitto_rr: %q, %v", out, err)
	}
	if err := firstOf(<-answered, server.close()); err != nil {
		t.Error(err)
	}
}
