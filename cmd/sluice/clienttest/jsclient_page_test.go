package clienttest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The first page of docs/javascript.md runs in Chromium as it stands there,
// with the module from the broker, and goes on over restarts.
func TestClientOfOurOwnInAPage(t *testing.T) {
	text, err := os.ReadFile("../../../docs/javascript.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "```html\n")
	html, _, found := strings.Cut(after, "```")
	if !found || strings.Count(html, "\n") > 7 {
		t.Fatalf("docs/javascript.md has no page in five lines: %q", html)
	}
	b := startBroker(t)
	cmd := exec.Command(tool(t, "node", "nodejs"), "jsclient_page.mjs", "http://"+b.HTTP)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var stderr logBuffer
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
	printed := make(chan string, 100)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(printed)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			printed <- s.Text()
		}
	}()
	defer func() {
		stdin.Close()
		late := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
		defer late.Stop()
		for range printed {
		}
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, stderr.String())
		}
	}()
	want := func(line string) {
		t.Helper()
		select {
		case got := <-printed:
			if got != line {
				t.Fatalf("the page printed %q, want %q\n%s", got, line, stderr.String())
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("the page did not print %q\n%s", line, stderr.String())
		}
	}
	publish := func(text string) {
		t.Helper()
		res, err := http.Post("http://"+b.HTTP+"/t/hello", "text/plain", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusCreated {
			t.Fatal(res.Status)
		}
	}

	if _, err := io.WriteString(stdin, html+"\n.\n"); err != nil {
		t.Fatal(err)
	}
	want("hello from a browser")
	for i, r := range restarts {
		publish(fmt.Sprint("before ", i))
		want(fmt.Sprint("hello before ", i))
		r.end(b)
		b.start()
		for n := range 20 { // some of them before the page is back
			publish(fmt.Sprint(r.name, " ", n))
		}
		for n := range 20 {
			want(fmt.Sprint("hello ", r.name, " ", n))
		}
	}
}
