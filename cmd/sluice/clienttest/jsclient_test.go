package clienttest

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// This file runs sluice.js, the project's own client, in Node and in Chromium.

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

// newWire makes one; set to before anybody comes.
func newWire(t testing.TB) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, conns: make(map[net.Conn]bool)}
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

// TestClientOfOurOwn runs the scenarios of jsclient_scenarios.mjs in Node.
func TestClientOfOurOwn(t *testing.T) {
	for _, name := range []string{"messages", "restarts", "away", "silence", "queue", "requests", "buffer", "slow", "logins", "tokens"} {
		t.Run(name, func(t *testing.T) {
			var config []string
			switch name {
			case "logins":
				config = []string{usersConfig(t)}
			case "tokens":
				config = []string{tokensConfig(t)}
			}
			b := startBroker(t, config...)
			w := newWire(t)
			w.to = b.HTTP
			runScenario(t, b, w, "jsclient.mjs", name)
		})
	}
}

// TestClientOfOurOwnInChromium runs those that a page may fare otherwise in.
func TestClientOfOurOwnInChromium(t *testing.T) {
	for _, name := range []string{"restarts", "slow", "suspended"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			b := startBroker(t, allowing("http://"+w.Addr().String()))
			w.to = b.HTTP
			runScenario(t, b, w, "jsclient_chromium.mjs", name)
		})
	}
}

// tokenSecret signs the tokens of tokensConfig.
const tokenSecret = "a secret of the broker's and of its issuer's"

// tokensConfig is a configuration that takes tokens.
func tokensConfig(t *testing.T) string {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(keys, []byte(tokenSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("auth:\n  tokens:\n    - {keys: %s}\n  rules:\n    - {who: [users], allow: [all]}\n", keys)
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

// runScenario runs one scenario by a program for Node and does to the broker what
// it asks for.
func runScenario(t *testing.T, b *broker, w *wire, program, name string) {
	t.Helper()
	cmd := exec.Command(tool(t, "node", "nodejs"), program, name, "ws://"+w.Addr().String(), "ws://"+b.HTTP)
	cmd.Env = append(os.Environ(), "TOKEN_SECRET="+tokenSecret)
	converse(t, cmd, func(asked string) {
		ask, about, _ := strings.Cut(asked, " ")
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
		case "publish":
			publishNumbers(t, b, about)
		default:
			t.Errorf("it says %q", asked)
		}
	})
}

// publishNumbers publishes as many messages as about says, from a number on.
func publishNumbers(t *testing.T, b *broker, about string) {
	t.Helper()
	var first, count int
	if _, err := fmt.Sscan(about, &first, &count); err != nil {
		t.Fatal(err)
	}
	for n := first; n < first+count; n++ {
		res, err := http.Post("http://"+b.HTTP+"/t/n/x", "application/json", strings.NewReader(fmt.Sprintf(`{"n":%d}`, n)))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusCreated {
			t.Fatal(res.Status)
		}
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
