package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	nethttp "net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

// An authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.sign(t, "authority", nil)
	return a
}

// sign makes a certificate of a common name and writes NAME.crt and NAME.key.
func (a *authority) sign(t *testing.T, name string, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: by == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func (a *authority) client(t *testing.T, name string) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	c := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	if name != "" {
		a.sign(t, name, a)
		pair, err := tls.LoadX509KeyPair(filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

const certificateRules = `
auth:
  rules:
    - {who: ["user:device-1"], allow: [publish], filters: ["devices/%u"]}
    - {who: ["user:reader"], allow: [subscribe], filters: ["$SYS/metrics"]}
`

// TestCertificatesNameUsers: over every protocol, who a certificate names is
// who the rules speak of, and nobody comes in without one.
func TestCertificatesNameUsers(t *testing.T) {
	a := newAuthority(t)
	a.sign(t, "server", a)
	cfg, err := configs.Parse("test.yaml", []byte(certificateRules))
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(a.dir, name) }
	listen := []configs.Listener{{Address: "127.0.0.1:0", TLS: configs.TLS{Cert: at("server.crt"), Key: at("server.key"), ClientCA: at("authority.crt")}}}
	cfg.MQTT.Listen, cfg.STOMP.Listen, cfg.HTTP.Listen = listen, append([]configs.Listener(nil), listen...), append([]configs.Listener(nil), listen...)
	cfg.Data = t.TempDir()
	g, err := openGateway(context.Background(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve() }()
	defer func() {
		if err := errors.Join(g.Close(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	}()
	addresses := make(map[string]string)
	for _, d := range g.doors {
		addresses[d.name] = d.addrs()[0].String()
	}
	addresses["ws"] = addresses["http"]

	for _, via := range link.Protocols {
		o := link.Options{Address: addresses[via], TLS: a.client(t, "device-1"), Timeout: 10 * time.Second}
		publish := func(o link.Options, topic string) error {
			l, err := link.Dial(context.Background(), via, o)
			if err != nil {
				return err
			}
			defer l.Close()
			m := &link.Message{Envelope: core.Envelope{Topic: topic, Payload: []byte("x"), Guarantee: core.AtLeastOnce}}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
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
		o.TLS = a.client(t, "")
		if err := publish(o, "devices/device-1"); err == nil {
			t.Errorf("%s: without a certificate it came in", via)
		}
	}

	// The figures are for who may subscribe to them.
	figures := func(name string) (int, string) {
		transport := &nethttp.Transport{TLSClientConfig: a.client(t, name)}
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
	a.sign(t, "server", a)
	if err := g.certs.reload(); err != nil {
		t.Fatal(err)
	}
	if after := shown(t, addresses["mqtt"], a); after == before {
		t.Error("the old certificate is still shown")
	}
}

// shown is the serial number of the certificate that an address shows.
func shown(t *testing.T, address string, a *authority) string {
	t.Helper()
	c, err := tls.Dial("tcp", address, a.client(t, "device-1"))
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
