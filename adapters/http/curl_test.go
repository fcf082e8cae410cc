package http_test

import (
	"bufio"
	"context"
	"os/exec"
	"strings"
	"testing"
)

// curl runs curl with a server's address in front of the path, and returns what
// it prints.
func (d *door) curl(args ...string) string {
	d.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i, a := range args {
		if strings.HasPrefix(a, "/") {
			args[i] = "http://" + d.addr + a
		}
	}
	out, err := exec.CommandContext(ctx, "curl", append([]string{"-sS", "--path-as-is"}, args...)...).CombinedOutput()
	if err != nil {
		d.Fatalf("curl %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("the test needs curl: ", err)
	}
	d := open(t)
	cmd := exec.CommandContext(t.Context(), "curl", "-sSN", "http://"+d.addr+"/sse/hello")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	shown := bufio.NewScanner(stdout)
	for shown.Scan() && shown.Text() != "" { // retry and id: it listens
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{`{"t":"hello","o":1}` + "\n", []string{"-d", "it works", "/t/hello"}},
		{"it works", []string{"/t/hello?format=raw"}},
		{`{"t":"hello","o":2}` + "\n", []string{"--data-binary", "a\nb", "-H", "X-H-Colour: blue", "-H", "X-H-Colour: green", "-H", "X-TTL: 1h", "/t/hello"}},
		{"a\nb", []string{"-H", "Accept: application/octet-stream", "/t/hello"}},
		{`{"t":"a//b/","o":3}` + "\n", []string{"-d", "x", "/t/a//b/"}},
		{`{"t":"$queue/jobs","o":4}` + "\n", []string{"-d", "job", "/q/jobs"}},
		{"job", []string{"-X", "POST", "/q/jobs/lease?format=raw&settle=auto"}},
		{"", []string{"/q/jobs"}},
		{`{"t":"room/temp","o":5}` + "\n", []string{"-d", "21.5", "/t/room/temp?retain"}},
		{"21.5", []string{"/last/room/temp"}},
		{`{"o":6}` + "\n" + `{"o":7}` + "\n", []string{"-H", "Content-Type: application/x-ndjson", "--data-binary", "{\"d\":1}\n{\"d\":2}\n", "/t/lines"}},
	} {
		if got := d.curl(c.args...); got != c.want {
			t.Errorf("curl %q: %q, want %q", c.args, got, c.want)
		}
	}
	var lines []string
	for len(lines) < 6 && shown.Scan() {
		lines = append(lines, shown.Text())
	}
	if got := strings.Join(lines, "|"); got != "id: 1|data: it works||id: 2|data: a|data: b" {
		t.Errorf("curl -N shows %s", got)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if got := d.curl("-i", "/t/hello?limit=1"); !strings.Contains(got, "X-Next: ") || !strings.Contains(got, `"h":[["colour","blue"],["colour","green"]]`) {
		t.Errorf("%s", got)
	}
}
