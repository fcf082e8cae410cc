package clienttest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os/exec"
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
		_, err := in.wait(1<<30, 5*time.Second) // until it has ended
		_ = err
		return nil
	}
	in.drop = func() error {
		once.Do(func() { cmd.Process.Kill() })
		in.wait(1<<30, 5*time.Second)
		return nil
	}
	select {
	case err := <-subscribed:
		if err != nil {
			in.drop()
			return nil, err
		}
		return in, nil
	case <-time.After(10 * time.Second):
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
