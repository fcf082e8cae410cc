package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTutorial runs the tutorial's lines in turn, against one broker.
func TestTutorial(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs/tutorial.md"))
	if err != nil {
		t.Fatal(err)
	}
	r := &readme{t: t, root: root, ports: readmePorts(t)}
	r.env = append(os.Environ(), "SLUICE_DATA="+t.TempDir(), "SLUICE_LOG_LEVEL=warn", "SLUICE_BROKER=127.0.0.1:"+r.ports["HTTP"])
	for name, port := range r.ports {
		r.env = append(r.env, "SLUICE_"+name+"_LISTEN=127.0.0.1:"+port)
	}
	// What each line prints, or a part of it.
	want := []string{
		`{"o":1}`, `{"o":2}`, `{"o":3}`, // published
		`"t":"plant/4/temp"`, `"d":"19"`, // read, and replayed
		`{"o":4}`, `"d":"running"`, // the last value
		`"name": "orders"`, `{"o":5}`, `{"o":6}`, `{\"id\": 2}`, `{\"id\": 2}`,
		"code 7",
	}
	for i, b := range blocksOf(string(text)) {
		if i == 0 {
			if strings.TrimSpace(b.text) != "make run" {
				t.Fatalf("the tutorial begins with %q", b.text)
			}
			r.start(b)
			r.until("HTTP listens", func() bool {
				c, err := net.Dial("tcp", "127.0.0.1:"+r.ports["HTTP"])
				if err == nil {
					c.Close()
				}
				return err == nil
			})
			continue
		}
		for _, line := range strings.Split(strings.TrimSpace(b.text), "\n") {
			if len(want) == 0 {
				t.Fatalf("%q is not expected here", line)
			}
			if out := r.run(line); !strings.Contains(out, want[0]) {
				t.Errorf("%s\nsaid %q, want %q", line, out, want[0])
			}
			want = want[1:]
		}
	}
	if len(want) > 0 {
		t.Errorf("not seen: %q", want)
	}
}
