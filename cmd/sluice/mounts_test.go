package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	nethttp "net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/cmd/sluice/internal/access"
	"github.com/sluicemq/sluice/configs"
)

// at is where one of the gateway's doors is.
func (g *gateway) at(door string) string {
	for _, d := range g.doors {
		if d.name == door {
			return d.addrs()[0].String()
		}
	}
	return ""
}

// TestMountsAreDescribed: what the HTTP door serves for others is in its
// description, and nothing else is said to be; each example is answered by a
// status and in a form that are described.
func TestMountsAreDescribed(t *testing.T) {
	g := startGateway(t, configs.Default())
	answer, err := nethttp.Get("http://" + g.at("http") + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var doc struct {
		Paths map[string]map[string]struct {
			Mounted   bool                      `json:"x-mounted"`
			Samples   []struct{ Source string } `json:"x-codeSamples"`
			Responses map[string]struct{ Content map[string]any }
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	mounts := g.mounts(prometheus.NewRegistry(), adapters.NewGate(adapters.DefaultLimits()))
	for path, methods := range doc.Paths {
		for method, op := range methods {
			at := strings.ToUpper(method) + " " + path
			if op.Mounted != (mounts[at] != nil) {
				t.Errorf("%s: described as mounted: %v, is it: %v", at, op.Mounted, mounts[at] != nil)
			}
			delete(mounts, at)
			if op.Mounted && len(op.Samples) == 0 {
				t.Errorf("%s has no example", at)
			}
			for _, s := range op.Samples {
				if !op.Mounted {
					break // held in adapters/http
				}
				command := strings.NewReplacer("127.0.0.1:8080", g.at("http"), "curl ", "curl -sS -D head ").Replace(s.Source)
				// What has no end goes on until its header is there.
				endless := strings.Contains(command, " --max-time 1 ")
				command = "exec " + strings.Replace(command, " --max-time 1 ", " ", 1)
				cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
				cmd.Dir = t.TempDir()
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				var head []byte
				for end := time.Now().Add(time.Minute); endless && !bytes.HasSuffix(head, []byte("\r\n\r\n")) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
					head, _ = os.ReadFile(filepath.Join(cmd.Dir, "head"))
				}
				if endless {
					cmd.Process.Kill()
				}
				if err := cmd.Wait(); err != nil && !endless {
					t.Errorf("%s: %v: %s", s.Source, err, &out)
					continue
				}
				head, err := os.ReadFile(filepath.Join(cmd.Dir, "head"))
				if err != nil {
					t.Fatal(err)
				}
				got, err := nethttp.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil)
				if err != nil {
					t.Fatalf("%s: %v", s.Source, err)
				}
				media, _, _ := strings.Cut(got.Header.Get("Content-Type"), ";")
				as, ok := op.Responses[fmt.Sprint(got.StatusCode)]
				if _, described := as.Content[media]; !ok || got.StatusCode >= 400 || media != "" && !described {
					t.Errorf("%s: %s in the form %q is not described", s.Source, got.Status, media)
				}
			}
		}
	}
	for at := range mounts {
		t.Errorf("%s is mounted but not described", at)
	}
}

// TestMountsRefuse: what is mounted refuses as everything else does.
func TestMountsRefuse(t *testing.T) {
	g := startGateway(t, withUsers(t))
	for _, c := range []struct {
		method, path, password string
		status                 int
		kind                   string
	}{
		{"GET", "/v1/backup", "right", 405, "method-not-allowed"},
		{"POST", "/v1/backup", "", 401, "unauthenticated"},
		{"POST", "/v1/backup", "wrong", 401, "unauthenticated"},
		{"POST", "/v1/backup", "right", 403, "forbidden"},
		{"GET", "/metrics", "", 401, "unauthenticated"},
		{"GET", "/metrics", "right", 403, "forbidden"},
		{"DELETE", "/metrics", "right", 405, "method-not-allowed"},
		{"POST", "/ws", "right", 405, "method-not-allowed"},
	} {
		a := request(t, g, c.method, c.path, c.password)
		var p struct{ Type, Hint string }
		if err := json.NewDecoder(a.Body).Decode(&p); err != nil || a.StatusCode != c.status || !strings.HasSuffix(p.Type, "#"+c.kind) || p.Hint == "" || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %s %+v (%v)", c.method, c.path, a.Status, p, err)
		}
	}
}

// TestRequestsDoNotHash: a password that comes with each request is hashed once.
func TestRequestsDoNotHash(t *testing.T) {
	g := startGateway(t, withUsers(t))
	for range 30 {
		if a := request(t, g, "POST", "/t/a", "right"); a.StatusCode != 201 {
			t.Fatal(a.Status)
		}
	}
	if n, m := g.access.Hashed(), g.access.Recalled(); n != 1 || m != 29 {
		t.Errorf("30 requests: %d hashed, %d remembered", n, m)
	}
}

// withUsers is a configuration with the user ann, who may publish.
func withUsers(t *testing.T) *configs.Config {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"users.yaml":  "users:\n  - name: ann\n    hash: " + access.HashPassword([]byte("right")) + "\n",
		"sluice.yaml": "auth:\n  users: users.yaml\n  rules:\n    - who: [user:ann]\n      allow: [publish]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := configs.Load(filepath.Join(dir, "sluice.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func request(t *testing.T, g *gateway, method, path, password string) *nethttp.Response {
	t.Helper()
	r, err := nethttp.NewRequestWithContext(t.Context(), method, "http://"+g.at("http")+path, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if password != "" {
		r.SetBasicAuth("ann", password)
	}
	a, err := nethttp.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Body.Close() })
	return a
}
