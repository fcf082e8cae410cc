package clienttest

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const examples = "../../../docs/examples"

// TestExamplePages runs the pages of docs/examples as they are, in Chromium.
func TestExamplePages(t *testing.T) {
	t.Parallel()
	pages := httptest.NewServer(http.FileServer(http.Dir(examples)))
	defer pages.Close()
	b := startBroker(t, allowing(pages.URL))
	converse(t, exec.Command(tool(t, "node", "nodejs"), "examples.mjs", pages.URL, "http://"+b.HTTP), func(asked string) {
		switch asked {
		case "stop":
			b.stop()
		case "start":
			b.start()
		case "measure": // as docs/examples/README.md says
			for _, celsius := range []string{"180", "185.25", "190.5"} {
				publish(t, b, publisher{"mosquitto_pub", mosquittoPub}, "sensors/oven/temp", message{Payload: []byte(celsius)})
			}
			publish(t, b, publisher{"curl", curlPub}, "sensors/fridge/temp", message{Payload: []byte(`{"celsius": 4.2}`), ContentType: "application/json"})
		default:
			t.Errorf("it says %q", asked)
		}
	})
}

// publish publishes one message to a topic.
func publish(t *testing.T, b *broker, p publisher, topic string, m message) {
	t.Helper()
	publish, err := opened(t, b, p)
	if err == nil {
		err = publish(topicAddress(topic), m)
	}
	if err != nil {
		t.Errorf("%s: %v", p.name, err)
	}
}

// TestExampleQueue runs the work queue of docs/examples as it is: every job is
// done though a worker is killed in the middle, but for the one that cannot be.
func TestExampleQueue(t *testing.T) {
	t.Parallel()
	// A short backoff, so that what fails comes again soon.
	b := startBroker(t, "queues:\n  - {name: resize, backoff: 20ms}\n")
	dir := t.TempDir()
	for to, from := range map[string]string{
		"queue.mjs": examples + "/queue.mjs", "sluice.mjs": "../../../adapters/http/client/sluice.js",
	} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	modules, err := filepath.Abs("node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(tool(t, "node", "nodejs"), append([]string{"queue.mjs"}, args...)...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "SLUICE=ws://"+b.HTTP)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		cmd.Stderr = os.Stderr
		return cmd
	}
	said := make(chan string, 1000)
	work := func() *exec.Cmd {
		cmd := command("work")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			for s := bufio.NewScanner(out); s.Scan(); {
				said <- s.Text()
			}
		}()
		return cmd
	}
	first, second := work(), work()
	const jobs = 60
	if out, err := command("add", fmt.Sprint(jobs)).Output(); err != nil || !strings.HasPrefix(string(out), "60 jobs") {
		t.Fatalf("%v: %s", err, out)
	}
	over := make(map[string]string)
	deadline := time.After(2 * time.Minute)
	for n := 0; len(over) < jobs; {
		select {
		case line := <-said:
			what, picture, _ := strings.Cut(strings.TrimSuffix(line, ".jpg"), " ")
			if what == "done" || strings.HasPrefix(line, "given up") {
				over[strings.TrimPrefix(picture, "up ")] = what
				n++
			}
			if n == 20 && first != nil {
				first.Process.Kill()
				first.Wait()
				first = nil
			}
		case <-deadline:
			t.Fatalf("%d of %d jobs are over", len(over), jobs)
		}
	}
	for n := range jobs {
		if want := map[bool]string{true: "given", false: "done"}[n == 13]; over[fmt.Sprint(n)] != want && over[fmt.Sprint(n)] != "given" {
			t.Errorf("job %d: %q", n, over[fmt.Sprint(n)])
		}
	}
	second.Process.Signal(syscall.SIGINT)
	if err := second.Wait(); err != nil {
		t.Errorf("the worker ended with %v", err)
	}
	dead, err := http.Get("http://" + b.HTTP + "/q/resize.dead")
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Body.Close()
	lines := bufio.NewScanner(dead.Body)
	found := false
	for lines.Scan() {
		found = found || strings.Contains(lines.Text(), "13.jpg is no picture")
	}
	if !found {
		t.Error("what was given up is not among the dead letters")
	}
}
