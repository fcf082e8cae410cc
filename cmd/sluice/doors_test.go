package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	nethttp "net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/adapters/adaptertest"
	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

const certificateRules = `
auth:
  rules:
    - {who: ["user:device-1"], allow: [publish], filters: ["devices/%u"]}
    - {who: ["user:reader"], allow: [subscribe], filters: ["$SYS/metrics"]}
`

// patient gives connections the time that a machine may stand still, where the
// configuration does not say otherwise.
func patient(cfg *configs.Config) {
	plain := configs.Default()
	for limit, is := range map[*time.Duration]time.Duration{&cfg.Limits.Handshake: plain.Limits.Handshake, &cfg.Limits.Stall: plain.Limits.Stall} {
		if *limit == is {
			*limit = time.Minute
		}
	}
}

// serveGateway runs a broker with a configuration until the test ends. Doors that
// listen where an unconfigured broker does get free ports instead, and its log is in
// a folder of the test. It returns the addresses by protocol.
func serveGateway(t *testing.T, cfg *configs.Config) (*gateway, map[string]string) {
	t.Helper()
	plain := configs.Default()
	for l, is := range map[*[]configs.Listener][]configs.Listener{
		&cfg.MQTT.Listen: plain.MQTT.Listen, &cfg.STOMP.Listen: plain.STOMP.Listen, &cfg.HTTP.Listen: plain.HTTP.Listen,
	} {
		if reflect.DeepEqual(*l, is) {
			*l = []configs.Listener{{Address: "127.0.0.1:0"}}
		}
	}
	patient(cfg)
	if cfg.Data == configs.Default().Data {
		cfg.Data = t.TempDir()
	}
	g, err := openGateway(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(g.Close(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	addresses := make(map[string]string)
	for _, d := range g.doors {
		addresses[d.name] = d.addrs()[0].String()
	}
	addresses["ws"] = addresses["http"]
	return g, addresses
}

// TestCertificatesNameUsers: over every protocol, who a certificate names is
// who the rules speak of, and nobody comes in without one.
func TestCertificatesNameUsers(t *testing.T) {
	a := adaptertest.NewAuthority(t)
	a.Sign(t, "server")
	cfg, err := configs.Parse("test.yaml", []byte(certificateRules))
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(a.Dir, name) }
	listen := []configs.Listener{{Address: "127.0.0.1:0", TLS: configs.TLS{Cert: at("server.crt"), Key: at("server.key"), ClientCA: at("authority.crt")}}}
	cfg.MQTT.Listen, cfg.STOMP.Listen, cfg.HTTP.Listen = listen, append([]configs.Listener(nil), listen...), append([]configs.Listener(nil), listen...)
	g, addresses := serveGateway(t, cfg)

	for _, via := range link.Protocols {
		o := link.Options{Address: addresses[via], TLS: a.Client(t, "device-1"), Timeout: time.Minute}
		publish := func(o link.Options, topic string) error {
			l, err := link.Dial(context.Background(), via, o)
			if err != nil {
				return err
			}
			defer l.Close()
			m := &link.Message{Envelope: core.Envelope{Topic: topic, Payload: []byte("x"), Guarantee: core.AtLeastOnce}}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, err = l.Publish(ctx, m)
			return err
		}
		if err := publish(o, "devices/device-1"); err != nil {
			t.Errorf("%s: its own topic: %v", via, err)
		}
		if err := publish(o, "devices/device-2"); !errors.Is(err, core.ErrNotAuthorized) {
			t.Errorf("%s: another's topic: %v", via, err)
		}
		o.TLS = a.Client(t, "")
		if err := publish(o, "devices/device-1"); err == nil {
			t.Errorf("%s: without a certificate it came in", via)
		}
	}

	// The figures are for who may subscribe to them.
	figures := func(name string) (int, string) {
		transport := &nethttp.Transport{TLSClientConfig: a.Client(t, name)}
		defer transport.CloseIdleConnections()
		res, err := (&nethttp.Client{Transport: transport}).Get("https://" + addresses["http"] + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(text)
	}
	if status, _ := figures("device-1"); status != nethttp.StatusForbidden {
		t.Errorf("device-1 got status %d", status)
	}
	if status, text := figures("reader"); status != nethttp.StatusOK || !strings.Contains(text, "\nsluice_published_total 4\n") || !strings.Contains(text, "\ngo_goroutines ") {
		t.Errorf("reader got status %d and\n%s", status, text)
	}

	// A certificate that is read again is shown to the next connection.
	before := shown(t, addresses["mqtt"], a)
	a.Sign(t, "server")
	if err := g.certs.reload(); err != nil {
		t.Fatal(err)
	}
	if after := shown(t, addresses["mqtt"], a); after == before {
		t.Error("the old certificate is still shown")
	}
}

// shown is the serial number of the certificate that an address shows.
func shown(t *testing.T, address string, a *adaptertest.Authority) string {
	t.Helper()
	c, err := tls.Dial("tcp", address, a.Client(t, "device-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// TestSelfSignedIsKept: the certificate that the broker makes for itself stays
// the same over restarts, and its key is nobody else's to read.
func TestSelfSignedIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	cert, key, err := selfSigned(dir)
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, _, err := selfSigned(dir); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(cert); err != nil || string(again) != string(first) {
		t.Error("there is another one now")
	}
}

// TestDeclaredAgain: what a configuration declares is there after a restart,
// and other settings in the configuration do not keep the broker from starting.
func TestDeclaredAgain(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{
		"queues: [{name: orders, bindings: [shop/orders], max_attempts: 5, lease: 1m}]\nexchanges: [{name: x, kind: direct}]",
		"queues: [{name: orders, bindings: [shop/orders], max_attempts: 5, lease: 1m}]\nexchanges: [{name: x, kind: direct}]",
		"queues: [{name: orders, max_attempts: 6}]",
	} {
		cfg, err := configs.Parse("test.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Data = dir
		cfg.STOMP.Listen, cfg.HTTP.Listen = nil, nil
		cfg.MQTT.Listen[0].Address = "127.0.0.1:0"
		var said strings.Builder
		g, err := openGateway(context.Background(), cfg, slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn})))
		if err != nil {
			t.Fatal(err)
		}
		client, err := g.broker.Connect(context.Background(), core.Credentials{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := client.Queue("orders")
		if err != nil || info.Settings.MaxAttempts != 5 || info.Settings.Lease != time.Minute {
			t.Errorf("%+v, %v", info.Settings, err)
		}
		if told := strings.Contains(said.String(), "has max_attempts=5 lease=1m0s, not max_attempts=6"); told != strings.Contains(text, "6") {
			t.Errorf("with %s it said %q", text, said.String())
		}
		client.Close()
		if err := g.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}
