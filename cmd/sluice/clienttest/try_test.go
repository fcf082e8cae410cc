package clienttest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTryPage uses the page /try as a person does, in Chromium: try.mjs. What it
// asks for happens here.
func TestTryPage(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	res, err := http.Get("http://" + b.HTTP + "/try")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if policy := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self';") || strings.Contains(policy, "unsafe") {
		t.Errorf("its policy is %q", policy)
	}
	if !strings.Contains(b.log.String(), "http://"+b.HTTP+"/try") {
		t.Error("the broker does not say where it is")
	}
	args := []string{"try.mjs", "http://" + b.HTTP}
	if dir := os.Getenv("TRY_PICTURES"); dir != "" {
		args = append(args, dir)
	}
	converse(t, exec.Command(tool(t, "node", "nodejs"), args...), func(asked string) {
		switch asked {
		case "publish":
			for _, p := range []struct {
				publisher
				to, payload string
			}{
				{publisher{"curl", curlPub}, "from/http", `<b onclick="x">bold</b> & more`},
				{publisher{"Paho", paho.publish}, "from/mqtt", "\x00\xffA"},
				{publisher{"stomp.py", stompPy.publish}, "from/stomp", "hello"},
			} {
				publish(t, b, p.publisher, p.to, message{Payload: []byte(p.payload)})
			}
		case "restart":
			b.stop()
			b.start()
		default:
			t.Errorf("it says %q", asked)
		}
	})
}

// converse runs a program that asks by lines, each of which is answered once do
// has returned, and that says "done" at its end.
func converse(t *testing.T, cmd *exec.Cmd, do func(asked string)) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
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
	late := time.AfterFunc(4*time.Minute, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer late.Stop()
	done := false
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if done = lines.Text() == "done"; done {
			continue
		}
		do(lines.Text())
		if _, err := io.WriteString(stdin, "so\n"); err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Wait(); err != nil || !done {
		t.Errorf("it failed: %v", err)
	}
	if s := stderr.String(); s != "" {
		t.Errorf("it wrote: %s", s)
	}
}

// TestTryLines does what the lines on the page /try say, as they stand there: each
// one that publishes is received by each one that receives, and is replayed.
func TestTryLines(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	shell := func(line string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", line)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(path)+":"+os.Getenv("PATH"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
		return cmd
	}
	port := func(address string) string { _, p, _ := net.SplitHostPort(address); return p }
	ports := fmt.Sprintf(`{"mqtt":{"port":%s},"stomp":{"port":%s}}`, port(b.MQTT), port(b.STOMP))
	const topic, data = "it's/a.b/50%2E/é,*", `it's "$HOME" \ & <works>`

	node := exec.Command(tool(t, "node", "nodejs"), "try_lines.mjs", "http://"+b.HTTP, ports, topic, data)
	node.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var stderr bytes.Buffer
	node.Stderr = &stderr
	script, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		script.Close()
		if err := node.Wait(); err != nil {
			t.Errorf("%v\n%s", err, stderr.String())
		}
	}()
	said := bufio.NewReader(stdout)
	first, err := said.ReadBytes('\n')
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var lines map[string]map[string]string
	if err := json.Unmarshal(first, &lines); err != nil {
		t.Fatal(err)
	}
	isJS := func(name string) bool { return strings.HasSuffix(name, ".js") }

	// Receivers, each with all that it has said.
	heard := make(map[string]*logBuffer)
	fromJS := new(logBuffer)
	copied := make(chan struct{})
	go func() { io.Copy(fromJS, said); close(copied) }()
	for name, line := range lines["receive"] {
		if isJS(name) {
			fmt.Fprintln(script, line)
			continue
		}
		cmd, out := shell(line), new(logBuffer)
		// One that reads commands must not find its input at an end.
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
			in.Close()
			cmd.Wait()
		}()
		heard[name] = out
	}
	if len(heard) != 4 || len(lines["send"]) != 7 || len(lines["replay"]) != 6 {
		t.Fatalf("the lines are %v", lines)
	}
	// They are there once each has said what is published until then.
	marks := 0
	deadline := time.Now().Add(2 * time.Minute)
	missing := func(text string, times int) (who []string) {
		for name, out := range heard {
			if strings.Count(out.String(), text) < times {
				who = append(who, name)
			}
		}
		if strings.Count(fromJS.String(), text) < 3*times {
			who = append(who, "the three of JavaScript")
		}
		return who
	}
	for len(missing("mark", 1)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("nothing has come to %v: %s", missing("mark", 1), fromJS.String())
		}
		publish(t, b, publisher{"curl", curlPub}, topic, message{Payload: fmt.Appendf(nil, "mark%d", marks)})
		marks++
		time.Sleep(200 * time.Millisecond)
	}

	// Each publishes once. The command line of stomp.py has words, not a body.
	for name, line := range lines["send"] {
		if isJS(name) {
			fmt.Fprintln(script, line)
			continue
		}
		if out, err := shell(line).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		all, err := curlRead(t, b, topicAddress(topic), "earliest")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, m := range all {
			if string(m.Payload) == data {
				n++
			}
		}
		if n == 7 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of 7 lines have published\n%v\n%v", n, lines["send"], all)
		}
	}
	plain := func(out *logBuffer) int {
		n := strings.Count(out.String(), data)
		quoted, _ := json.Marshal(data)
		return n + strings.Count(out.String(), strings.Trim(string(quoted), `"`)) +
			strings.Count(out.String(), strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(data))
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var late []string
		for name, out := range heard {
			if plain(out) < 7 {
				late = append(late, name)
			}
		}
		if plain(fromJS) < 3*7 {
			late = append(late, "JavaScript")
		}
		if len(late) == 0 {
			break
		}
		if time.Now().After(end) {
			slices.Sort(late)
			t.Fatalf("not everything came to %v: %s %s", late, heard[late[0]], fromJS)
		}
	}

	// Replays, of which curl's ends by itself.
	if out, err := shell(lines["replay"]["curl"]).CombinedOutput(); err != nil || bytes.Count(out, []byte("\n")) < 7 {
		t.Errorf("%s: %v\n%s", lines["replay"]["curl"], err, out)
	}
	for name, want := range map[string]string{"mosquitto": lines["replay"]["mosquitto"] + " -C 7 -W 20", "sluice": lines["replay"]["sluice"] + " -n 7 --wait 20s"} {
		if out, err := shell(want).CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %v\n%s", name, want, err, out)
		}
	}
	before := plain(fromJS)
	for name, line := range lines["replay"] {
		if isJS(name) {
			fmt.Fprintln(script, line)
		}
	}
	for end := time.Now().Add(2 * time.Minute); plain(fromJS) < before+3*7; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of 21 were replayed: %s", plain(fromJS)-before, fromJS)
		}
	}
}
