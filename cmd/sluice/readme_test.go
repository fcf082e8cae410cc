package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluicemq/sluice/cmd/sluice/internal/loopback"
)

// A block is a fenced block of the README, and the section that it stands in.
type block struct{ section, language, text string }

// TestReadme runs the README's own lines, as a new user would: "make run",
// each listener in a terminal of its own, the publishers, and then what else
// there is.
func TestReadme(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var first, rest []block
	for _, b := range blocksOf(string(text)) {
		switch b.section {
		case "The first message":
			first = append(first, b)
		case "What else there is":
			rest = append(rest, b)
		}
	}
	if len(first) < 8 || len(rest) != 1 || strings.TrimSpace(first[0].text) != "make run" {
		t.Fatalf("the README has other blocks than this test knows: %d and %d", len(first), len(rest))
	}
	r := &readme{t: t, root: root, ports: readmePorts(t)}
	r.env = append(os.Environ(), "SLUICE_DATA="+t.TempDir(), "SLUICE_LOG_LEVEL=warn")
	for name, port := range r.ports {
		r.env = append(r.env, "SLUICE_"+name+"_LISTEN=127.0.0.1:"+port)
	}
	r.env = append(r.env, "SLUICE_BROKER=127.0.0.1:"+r.ports["HTTP"])

	r.start(first[0])
	for _, name := range []string{"MQTT", "STOMP", "HTTP"} {
		r.until(name+" listens", func() bool {
			c, err := net.Dial("tcp", "127.0.0.1:"+r.ports[name])
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	var listeners []*terminal
	for _, b := range first[1 : len(first)-2] {
		listeners = append(listeners, r.start(b))
	}
	for _, b := range first[len(first)-2:] {
		for _, line := range strings.Split(strings.TrimSpace(b.text), "\n") {
			body := regexp.MustCompile(`'(it works[^']*)'`).FindStringSubmatch(line)
			if body == nil {
				t.Fatalf("%q publishes something else", line)
			}
			// A listener may still be about to subscribe: say it again.
			r.until("all listeners got "+body[1], func() bool {
				r.run(line)
				time.Sleep(100 * time.Millisecond)
				for _, l := range listeners {
					if l.isOver() {
						t.Fatalf("a listener has ended")
					}
					if !strings.Contains(l.out.String(), body[1]) {
						return false
					}
				}
				return true
			})
		}
	}

	want := []string{"it works", "it works over STOMP", `"o":`, "job 1", `"o":`, "21.5"}
	for _, line := range strings.Split(strings.TrimSpace(rest[0].text), "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if out := r.run(line); len(want) == 0 || !strings.Contains(out, want[0]) {
			t.Errorf("%s\nsaid %q, want %q", line, out, want)
		}
		want = want[min(1, len(want)):]
	}
	if len(want) > 0 {
		t.Errorf("not seen: %q", want)
	}
}

func blocksOf(markdown string) []block {
	var list []block
	section, language, text := "", "", []string(nil)
	for _, line := range strings.Split(markdown, "\n") {
		fence, is := strings.CutPrefix(line, "```")
		switch {
		case is && language == "":
			language, text = fence, nil
		case is:
			list = append(list, block{section, language, strings.Join(text, "\n")})
			language = ""
		case language != "":
			text = append(text, line)
		case strings.HasPrefix(line, "## "):
			section = line[3:]
		}
	}
	return list
}

// readmePorts are the ports that the README speaks of, if they are free, or
// others in their place.
func readmePorts(t *testing.T) map[string]string {
	ports := map[string]string{"MQTT": "1883", "STOMP": "61613", "HTTP": "8080"}
	for _, port := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			l.Close()
			continue
		}
		t.Logf("port %s is taken: other ports stand in for those of the README", port)
		for name := range ports {
			address, err := loopback.FreeAddress()
			if err != nil {
				t.Fatal(err)
			}
			_, ports[name], _ = net.SplitHostPort(address)
		}
		break
	}
	return ports
}

// A readme runs lines of the README.
type readme struct {
	t     *testing.T
	root  string
	env   []string
	ports map[string]string
}

// A terminal is a line that runs in the background.
type terminal struct {
	out   lockedBuffer
	ended chan struct{}
}

func (l *terminal) isOver() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// substitute puts in the ports of this run, where they are not the README's.
func (r *readme) substitute(line string) string {
	line = strings.ReplaceAll(line, "127.0.0.1:8080", "127.0.0.1:"+r.ports["HTTP"])
	line = strings.ReplaceAll(line, "-P 61613", "-P "+r.ports["STOMP"])
	line = strings.ReplaceAll(line, "--via stomp", "--via stomp -b 127.0.0.1:"+r.ports["STOMP"])
	if r.ports["MQTT"] != "1883" {
		line = regexp.MustCompile(`^mosquitto_(sub|pub)`).ReplaceAllString(line, "$0 -p "+r.ports["MQTT"])
	}
	return line
}

// start runs a block in the background until the test ends.
func (r *readme) start(b block) *terminal {
	r.t.Helper()
	cmd := exec.Command("bash", "-c", r.substitute(strings.TrimSpace(b.text)))
	if b.language == "js" {
		// What a browser has of its own comes from a module here.
		script := "globalThis.WebSocket = require('ws')\n" + r.substitute(b.text)
		cmd = exec.Command("node", "-e", script)
		r.env = append(r.env, "NODE_PATH="+filepath.Join(r.root, "cmd/sluice/clienttest/node_modules"))
	}
	l := &terminal{ended: make(chan struct{})}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.root, r.env, &l.out, &l.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { cmd.Wait(); close(l.ended) }()
	r.t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-l.ended:
		case <-time.After(time.Minute):
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-l.ended
		}
		if r.t.Failed() {
			r.t.Logf("%s\nwrote: %s", strings.TrimSpace(b.text), l.out.String())
		}
	})
	return l
}

// run runs a line and returns what it wrote.
func (r *readme) run(line string) string {
	r.t.Helper()
	cmd := exec.Command("bash", "-c", r.substitute(line))
	cmd.Dir, cmd.Env = r.root, r.env
	out, err := cmd.CombinedOutput()
	// mosquitto_sub -W ends with 27 once its time is over.
	if err != nil && !(strings.Contains(line, "-W ") && cmd.ProcessState.ExitCode() == 27) {
		r.t.Errorf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

func (r *readme) until(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(4 * time.Minute) // make run may have to build
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("not within four minutes: %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
