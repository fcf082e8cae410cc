package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	nethttp "net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	mqttclient "github.com/eclipse/paho.mqtt.golang"

	"github.com/sluicemq/sluice/configs"
)

// Golden data directories are what a broker of each format has left behind. They
// are never made anew: a format that changes gets a directory of its own, and
// those before it must open for ever. With a name that is not taken,
//
//	go test ./cmd/sluice -run TestGoldenBroker -new-golden NAME
//
// makes another one of today's format; storage/seglog has a flag like it for the
// directories that hold each kind of frame.
var newGolden = flag.String("new-golden", "", "make a golden data directory of this name")

const goldenDir = "../../storage/seglog/testdata/golden"

// goldenBroker runs a broker on a data directory.
func goldenBroker(t *testing.T, data string) (mqtt, http string, stop func()) {
	t.Helper()
	cfg, err := configs.Parse("golden.yaml", []byte("policies: []\nlimits: {session_expiry: 800000h}\n"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Data = data
	for _, list := range [][]configs.Listener{cfg.MQTT.Listen, cfg.STOMP.Listen, cfg.HTTP.Listen} {
		for i := range list {
			list[i].Address = "127.0.0.1:0"
		}
	}
	patient(cfg)
	g, err := openGateway(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve() }()
	for _, d := range g.doors {
		switch d.name {
		case "mqtt":
			mqtt = d.addrs()[0].String()
		case "http":
			http = "http://" + d.addrs()[0].String()
		}
	}
	return mqtt, http, func() {
		if err := g.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

// goldenSession connects as the session that the directory holds.
func goldenSession(t *testing.T, address string, got func(mqttclient.Message)) mqttclient.Client {
	t.Helper()
	o := mqttclient.NewClientOptions().AddBroker("tcp://" + address).SetClientID("golden").SetCleanSession(false).
		SetAutoReconnect(false).SetOrderMatters(true).
		SetDefaultPublishHandler(func(_ mqttclient.Client, m mqttclient.Message) { got(m) })
	c := mqttclient.NewClient(o)
	if k := c.Connect(); !k.WaitTimeout(time.Minute) || k.Error() != nil {
		t.Fatalf("connecting: %v", k.Error())
	}
	return c
}

func ask(t *testing.T, method, url, body string, headers ...string) (string, nethttp.Header) {
	t.Helper()
	r, err := nethttp.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := nethttp.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		t.Fatalf("%s %s: %s %s %v", method, url, res.Status, text, err)
	}
	return string(text), res.Header
}

// makeGolden makes a data directory by what clients do.
func makeGolden(t *testing.T, to string) {
	data := t.TempDir()
	mqtt, http, stop := goldenBroker(t, data)
	c := goldenSession(t, mqtt, func(mqttclient.Message) {})
	if k := c.Subscribe("fleet/#", 1, nil); !k.WaitTimeout(time.Minute) || k.Error() != nil {
		t.Fatal(k.Error())
	}
	c.Disconnect(250)
	ask(t, "PUT", http+"/v1/exchanges/mail", `{"kind":"topic"}`, "Content-Type", "application/json")
	ask(t, "PUT", http+"/v1/queues/orders", `{"settings":{"max_attempts":5},"bindings":[{"filter":"shop/#"},{"exchange":"mail","key":"*.out"}]}`, "Content-Type", "application/json")
	ask(t, "POST", http+"/t/shop/1", "one", "X-Key", "k1", "X-H-Colour", "red", "X-H-Colour", "blue", "Content-Type", "text/plain", "X-Correlation-Id", "c1", "X-Reply-To", "back", "X-Priority", "7")
	ask(t, "POST", http+"/t/shop/2", "two", "Idempotency-Key", "id2")
	ask(t, "POST", http+"/t/last/value?retain=true", "first")
	ask(t, "POST", http+"/t/last/value?retain=true", "second")
	for i := range 3 {
		ask(t, "POST", http+"/t/fleet/"+fmt.Sprint(i), fmt.Sprint("message ", i))
	}
	ask(t, "POST", http+"/x/mail/letter.out", "letter")
	// The queue's first message has been settled.
	lease, _ := ask(t, "POST", http+"/q/orders/lease", "")
	var l struct{ Lease string }
	if err := json.Unmarshal([]byte(lease), &l); err != nil || l.Lease == "" {
		t.Fatalf("%s: %v", lease, err)
	}
	ask(t, "POST", http+"/lease/"+l.Lease+"/accept", "")
	stop()
	if err := os.CopyFS(to, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	// What is written ahead of the log's end is zeros, which need not be kept.
	segments, err := filepath.Glob(filepath.Join(to, "log", "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segments {
		text, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		n := max(len(bytes.TrimRight(text, "\x00")), 4096)
		if err := os.WriteFile(s, text[:(n+7)/8*8], 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGoldenBroker opens a copy of each golden directory with a broker, and
// looks for every record, queue, retained value and session in it.
func TestGoldenBroker(t *testing.T) {
	if *newGolden != "" {
		to := filepath.Join(goldenDir, *newGolden)
		if _, err := os.Stat(to); err == nil {
			t.Fatalf("%s is there already; golden directories are never made anew", to)
		}
		makeGolden(t, to)
	}
	golden, err := filepath.Glob(filepath.Join(goldenDir, "*-broker"))
	if err != nil || len(golden) == 0 {
		t.Fatal(golden, err)
	}
	for _, dir := range golden {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(data, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			checkGolden(t, data)
		})
	}
}

func checkGolden(t *testing.T, data string) {
	mqtt, http, stop := goldenBroker(t, data)
	defer stop()
	read, _ := ask(t, "GET", http+"/t/%23?from=earliest", "")
	for _, want := range []string{
		`"t":"shop/1","o":1,`, `"d":"one"`, `"h":[["colour","red"],["colour","blue"]]`, `"key":"k1"`, `"corr":"c1"`, `"reply":"back"`, `"prio":7`, `"type":"text/plain"`,
		`"t":"shop/2","o":2,`, `"id":"id2"`, `"t":"last/value","o":4,`, `"d":"second"`, `"t":"fleet/2","o":7,`, `"d":"message 2"`,
	} {
		if !strings.Contains(read, want) {
			t.Errorf("the log lacks %s:\n%s", want, read)
		}
	}
	if n := strings.Count(read, "\n"); n != 7 {
		t.Errorf("%d records:\n%s", n, read)
	}
	if last, _ := ask(t, "GET", http+"/last/last/value", ""); last != "second" {
		t.Errorf("the retained value is %q", last)
	}
	queue, _ := ask(t, "GET", http+"/v1/queues/orders", "")
	for _, want := range []string{`"max_attempts":5`, `"filter":"shop/#"`, `"exchange":"mail"`, `"lag":2`} {
		if !strings.Contains(queue, want) {
			t.Errorf("the queue lacks %s: %s", want, queue)
		}
	}
	lease, _ := ask(t, "POST", http+"/q/orders/lease?max=10", "")
	if strings.Contains(lease, `"one"`) || !strings.Contains(lease, `"two"`) || !strings.Contains(lease, `"letter"`) {
		t.Errorf("the queue has %s", lease)
	}
	// A second publish with an id that is known changes nothing for ten
	// minutes, which are over; the next offset is behind all others.
	if _, h := ask(t, "POST", http+"/t/shop/3", "three"); h.Get("X-Offset") != "9" {
		t.Errorf("the next offset is %s", h.Get("X-Offset"))
	}
	got := make(chan string, 10)
	c := goldenSession(t, mqtt, func(m mqttclient.Message) { got <- m.Topic() + " " + string(m.Payload()) })
	defer c.Disconnect(0)
	var all []string
	for len(all) < 3 {
		select {
		case m := <-got:
			all = append(all, m)
		case <-time.After(time.Minute):
			t.Fatalf("the session got %q", all)
		}
	}
	if want := []string{"fleet/0 message 0", "fleet/1 message 1", "fleet/2 message 2"}; !slices.Equal(all, want) {
		t.Errorf("the session got %q, want %q", all, want)
	}
}

// TestNewerDirectory: a data directory that a newer version wrote is refused,
// and not one byte or time of it is changed.
func TestNewerDirectory(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	golden, err := filepath.Glob(filepath.Join(goldenDir, "*-broker"))
	if err != nil || len(golden) == 0 {
		t.Fatal(golden, err)
	}
	if err := os.CopyFS(data, os.DirFS(golden[0])); err != nil {
		t.Fatal(err)
	}
	marker, err := filepath.Glob(filepath.Join(data, "state", "marker.format-version.*"))
	if err != nil || len(marker) != 1 {
		t.Fatal(marker, err)
	}
	if err := os.Rename(marker[0], filepath.Join(data, "state", "marker.format-version.000009.900")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "log", "0000000000000009.index.tmp"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	before := listing(t, data)
	cfg, err := configs.Parse("golden.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Data = data
	_, err = openGateway(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "a newer version of Sluice wrote it, nothing has been changed") {
		t.Errorf("opened with %v", err)
	}
	if after := listing(t, data); after != before {
		t.Errorf("the directory was\n%s\nand is\n%s", before, after)
	}
}

// listing has the name, size, time and content of all files in a directory, but
// for the lock.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() == "LOCK" && filepath.Dir(name) == dir || name == dir {
			return err
		}
		i, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %d %s", name, i.Size(), i.ModTime())
		if !e.IsDir() {
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", text)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
