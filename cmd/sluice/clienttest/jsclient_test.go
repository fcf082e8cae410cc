package clienttest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// This file runs sluice.js, the project's own client, in Node.

// A wire is a proxy before a broker's HTTP address, which can be cut, held and
// shut.
type wire struct {
	net.Listener
	to string

	mu    sync.Mutex // guards what follows
	calm  sync.Cond  // nothing is held
	conns map[net.Conn]bool
	held  bool
	shut  bool
}

func newWire(t testing.TB, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, to: to, conns: make(map[net.Conn]bool)}
	w.calm.L = &w.mu
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.carry(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.set(false, true)
		running.Wait()
	})
	return w
}

// carry joins a connection with one to the broker, if there is to be one.
func (w *wire) carry(c net.Conn) {
	defer c.Close()
	b, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer b.Close()
	w.mu.Lock()
	if w.shut {
		w.mu.Unlock()
		return
	}
	w.conns[c], w.conns[b] = true, true
	w.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, b}, {b, c}} {
		both.Go(func() {
			buf := make([]byte, 32<<10)
			for {
				n, err := way[0].Read(buf)
				w.mu.Lock()
				for w.held && !w.shut {
					w.calm.Wait()
				}
				alive := w.conns[c]
				w.mu.Unlock()
				if err == nil && alive {
					_, err = way[1].Write(buf[:n])
				}
				if err != nil || !alive {
					c.Close()
					b.Close()
					return
				}
			}
		})
	}
	both.Wait()
	w.mu.Lock()
	delete(w.conns, c)
	delete(w.conns, b)
	w.mu.Unlock()
}

// set says whether bytes pass and whether connections may be; where they may
// not, those that are there are cut.
func (w *wire) set(held, shut bool) {
	w.mu.Lock()
	w.held, w.shut = held, shut
	w.mu.Unlock()
	if shut {
		w.cut()
	}
	w.calm.Broadcast()
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
		delete(w.conns, c)
	}
}

// TestClientOfOurOwn runs the scenarios of jsclient.mjs.
func TestClientOfOurOwn(t *testing.T) {
	for _, name := range []string{"messages", "restarts", "away", "silence", "queue", "requests", "buffer", "slow", "logins"} {
		t.Run(name, func(t *testing.T) {
			var config []string
			if name == "logins" {
				config = []string{usersConfig(t)}
			}
			b := startBroker(t, config...)
			w := newWire(t, b.HTTP)
			runScenario(t, b, w, name)
		})
	}
}

// usersConfig is a configuration with the user ann.
func usersConfig(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "users.yaml")
	add := exec.Command(path, "user", "add", users, "ann")
	add.Stdin = strings.NewReader("ann-secret\n")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("sluice user add: %v\n%s", err, out)
	}
	return fmt.Sprintf("auth:\n  users: %s\n  rules:\n    - {who: [users], allow: [all]}\n", users)
}

// runScenario runs one scenario in Node and does to the broker what it asks
// for.
func runScenario(t *testing.T, b *broker, w *wire, name string) {
	t.Helper()
	cmd := exec.Command(tool(t, "node", "nodejs"), "jsclient.mjs", name, "ws://"+w.Addr().String(), "ws://"+b.HTTP)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer late.Stop()
	done := false
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		ask, about, _ := strings.Cut(lines.Text(), " ")
		switch ask {
		case "stop":
			b.stop()
		case "kill":
			b.kill()
		case "start":
			b.start()
		case "cut":
			w.cut()
		case "hold":
			w.set(true, false)
		case "shut":
			w.set(false, true)
		case "open":
			w.set(false, false)
		case "delete":
			deleteQueue(t, b, about)
		case "done":
			done = true
			continue
		default:
			t.Errorf("it says %q", lines.Text())
		}
		if _, err := io.WriteString(stdin, "so\n"); err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Wait(); err != nil || !done {
		t.Errorf("the scenario failed: %v\n%s", err, stderr.String())
	}
	if t.Failed() {
		return
	}
	if s := stderr.String(); s != "" {
		t.Errorf("it wrote: %s", s)
	}
}

func deleteQueue(t *testing.T, b *broker, queue string) {
	t.Helper()
	req, err := http.NewRequest("DELETE", "http://"+b.HTTP+"/v1/queues/"+queue, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode >= 300 {
		t.Fatal(res.Status)
	}
}
