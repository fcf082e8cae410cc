package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	nethttp "net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/configs"
)

var corruptEvery = flag.Int("corrupt", 401, "of the bytes of a broker's data directory, every n-th is damaged (make corrupt)")

// TestCorruptBroker damages a broker's data directory in many places, one after
// the other. Either it starts, and a reader gets every message or is told of
// exactly those that are missing, and the queue is there; or it does not, and
// names the command that says more.
func TestCorruptBroker(t *testing.T) {
	t.Parallel()
	golden := filepath.Join(goldenDir, "v1-broker")
	var files []string
	err := filepath.WalkDir(golden, func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			name, err = filepath.Rel(golden, name)
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	started, refused, gaps := 0, 0, 0
	dir, tried := t.TempDir(), 0
	for _, name := range files {
		was, err := os.ReadFile(filepath.Join(golden, name))
		if err != nil {
			t.Fatal(err)
		}
		for at := len(name) % min(7, *corruptEvery); at < len(was); at += *corruptEvery {
			tried++
			data := filepath.Join(dir, fmt.Sprint(tried))
			if err := os.CopyFS(data, os.DirFS(golden)); err != nil {
				t.Fatal(err)
			}
			now := bytes.Clone(was)
			now[at] ^= 0x5a
			if err := os.WriteFile(filepath.Join(data, name), now, 0o644); err != nil {
				t.Fatal(err)
			}
			ok, missing := corruptBroker(t, data)
			switch {
			case !ok:
				refused++
			case missing:
				gaps++
			default:
				started++
			}
			if t.Failed() {
				t.Fatalf("%s, byte %d", name, at)
			}
			if err := os.RemoveAll(data); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d bytes flipped in %d files: %d started with everything, %d without a message, %d did not start", tried, len(files), started, gaps, refused)
	if started == 0 || gaps == 0 {
		t.Error("not all that can happen was tried")
	}
}

func corruptBroker(t *testing.T, data string) (ok, missing bool) {
	cfg, err := configs.Parse("golden.yaml", []byte("policies: []\nlimits: {session_expiry: 800000h}\n"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Data = data
	cfg.MQTT.Listen, cfg.STOMP.Listen = nil, nil
	for i := range cfg.HTTP.Listen {
		cfg.HTTP.Listen[i].Address = "127.0.0.1:0"
	}
	patient(cfg)
	g, err := openGateway(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		if !strings.Contains(err.Error(), "sluice doctor "+data) {
			t.Errorf("it does not start: %v", err)
		}
		return false, false
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve() }()
	var http string
	for _, d := range g.doors {
		if d.name == "http" {
			http = "http://" + d.addrs()[0].String()
		}
	}
	// Not "earliest", which is the first that is left.
	res, err := nethttp.Get(http + "/t/%23?from=1&format=json")
	if err != nil {
		t.Fatal(err)
	}
	var page struct {
		Messages []struct {
			O    uint64
			T, D string
		}
		Gaps []struct{ From, To uint64 }
	}
	err = json.NewDecoder(res.Body).Decode(&page)
	res.Body.Close()
	if err != nil || res.StatusCode != 200 && res.StatusCode != 410 {
		t.Errorf("reading: %s, %v", res.Status, err)
	}
	if res.StatusCode == 200 {
		want := map[uint64]string{1: "one", 2: "two", 3: "first", 4: "second", 5: "message 0", 6: "message 1", 7: "message 2"}
		for _, m := range page.Messages {
			if want[m.O] != m.D {
				t.Errorf("offset %d is %s %q", m.O, m.T, m.D)
			}
			delete(want, m.O)
		}
		for at := range want {
			told := false
			for _, gap := range page.Gaps {
				told = told || gap.From <= at && at <= gap.To
			}
			if !told {
				t.Errorf("offset %d is missing, told were %v", at, page.Gaps)
			}
		}
		missing = len(want) > 0
	}
	if queue, _ := ask(t, "GET", http+"/v1/queues/orders", ""); !strings.Contains(queue, `"max_attempts":5`) {
		t.Errorf("the queue is %s", queue)
	}
	if err := g.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	return true, missing || res.StatusCode == 410
}
