package clienttest

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluicemq/sluice/cmd/sluice/internal/loopback"
)

// A broker is one sluice process with its data directory. It can be stopped or
// killed and started again at the same addresses.
type broker struct {
	MQTT, STOMP, HTTP string // host:port

	t      testing.TB
	dir    string
	config string // path, or empty
	cmd    *exec.Cmd
	ended  chan error
	log    logBuffer
	// ownMQTT says that the configuration names where MQTT is spoken.
	ownMQTT bool
	// failing says that its disk is made to fail, so that it may call that an
	// error.
	failing bool
	// cut says that its disk is losing its power, or has lost it.
	cut atomic.Bool
}

// A logBuffer is a bounded buffer of what a process wrote.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() < 256<<10 {
		l.buf.Write(p)
	}
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// startBroker starts a broker on free ports with an empty data directory and
// stops it when the test ends. A configuration may be given as YAML.
func startBroker(t testing.TB, config ...string) *broker {
	t.Helper()
	return startBrokerIn(t, t.TempDir(), config...)
}

// startBrokerIn is startBroker with a data directory of the caller's.
func startBrokerIn(t testing.TB, dir string, config ...string) *broker {
	t.Helper()
	b := &broker{t: t, dir: dir, MQTT: freeAddress(t), STOMP: freeAddress(t), HTTP: freeAddress(t)}
	for _, c := range config {
		b.config = filepath.Join(t.TempDir(), "sluice.yaml")
		b.ownMQTT = strings.Contains(c, "$MQTT")
		c = strings.ReplaceAll(c, "$MQTT", b.MQTT)
		if err := os.WriteFile(b.config, []byte(c), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if b.cmd != nil {
			b.kill()
		}
		// What it calls an error, a panic it survived, and a race are its own.
		for _, bad := range []string{`"level":"ERROR"`, `"panic"`, "DATA RACE"} {
			if b.failing && bad == `"level":"ERROR"` {
				continue
			}
			if strings.Contains(b.log.String(), bad) {
				t.Errorf("the broker's log has %s", bad)
			}
		}
		if t.Failed() {
			t.Logf("the broker wrote:\n%s", b.log.String())
		}
	})
	b.start()
	return b
}

// freeAddress is an address on which nothing listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	address, err := loopback.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// start starts the process and waits until every door answers.
func (b *broker) start() {
	b.t.Helper()
	b.cut.Store(false)
	path, err := binary()
	if err != nil {
		b.t.Fatal(err)
	}
	args := []string{"serve", "--data", b.dir, "--stomp", b.STOMP, "--http", b.HTTP}
	if !b.ownMQTT {
		args = append(args, "--mqtt", b.MQTT)
	}
	if b.config != "" {
		args = append(args, "--config", b.config)
	}
	b.cmd = exec.Command(path, args...)
	// The machine may stand still between a connection and its first packet.
	b.cmd.Env = append(os.Environ(), "SLUICE_LIMITS_HANDSHAKE=1m", "SLUICE_LIMITS_STALL=1m")
	b.cmd.Stdout, b.cmd.Stderr = &b.log, &b.log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	cmd, ended := b.cmd, make(chan error, 1)
	b.ended = ended
	go func() { ended <- cmd.Wait() }()

	deadline := time.Now().Add(2 * time.Minute)
	for _, address := range []string{b.MQTT, b.STOMP, b.HTTP} {
		for {
			c, err := net.Dial("tcp", address)
			if err == nil {
				c.Close()
				break
			}
			select {
			case err := <-ended:
				b.cmd = nil
				b.t.Fatalf("sluice serve ended: %v\n%s", err, b.log.String())
			case <-time.After(10 * time.Millisecond):
			}
			if time.Now().After(deadline) {
				b.t.Fatalf("nothing listens on %s\n%s", address, b.log.String())
			}
		}
	}
}

// stop ends the broker with SIGTERM and wants it to end cleanly.
func (b *broker) stop() {
	b.t.Helper()
	began := time.Now()
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.t.Fatal(err)
	}
	select {
	case err := <-b.ended:
		if err != nil {
			b.t.Errorf("after SIGTERM the broker ended with: %v\n%s", err, b.log.String())
		}
		b.t.Logf("the broker ended %v after SIGTERM", time.Since(began).Round(time.Millisecond))
	case <-time.After(90 * time.Second):
		b.cmd.Process.Signal(syscall.SIGQUIT)
		<-b.ended
		b.t.Errorf("the broker did not end within 90s of SIGTERM\n%s", b.log.String())
	}
	b.cmd = nil
}

// kill ends the broker with SIGKILL.
func (b *broker) kill() {
	b.cmd.Process.Kill()
	<-b.ended
	b.cmd = nil
}

// restarts are the two ways in which a broker ends before it is started again.
var restarts = []struct {
	name string
	end  func(*broker)
}{
	{"SIGTERM", (*broker).stop},
	{"SIGKILL", (*broker).kill},
}

// hostPort is an address as the drivers take it.
func hostPort(address string) (host string, port int) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	port, err = strconv.Atoi(p)
	if err != nil {
		panic(err)
	}
	return host, port
}

// eventually polls until ok reports nil, for what has no event to wait for.
func eventually(t testing.TB, within time.Duration, ok func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %v", within, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
