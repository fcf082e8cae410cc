package stomp_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// go-stomp's client leaves a goroutine behind where it missed its own wake-up.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/go-stomp/stomp/v3.waitWithTimeout.func1"))
}

// certified lets in who shows a certificate, under its name.
type certified struct{ core.AllowAll }

func (certified) Authenticate(_ context.Context, c core.Credentials) (*core.Principal, error) {
	if c.Certificate == nil {
		return nil, core.ErrUnauthenticated
	}
	return &core.Principal{Name: c.Certificate.Subject.CommonName}, nil
}

// selfSigned makes a certificate that vouches for itself.
func selfSigned(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// Over TLS a client may be known by its certificate.
func TestTLS(t *testing.T) {
	t.Parallel()
	server, serverPool := selfSigned(t, "server")
	client, clientPool := selfSigned(t, "device-7")
	g := startWith(t, t.TempDir(), &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clientPool},
		func(_ *adapters.Limits, o *core.Options) { o.Authorizer = certified{} })
	dial := func(certificates ...tls.Certificate) *peer {
		c, err := tls.Dial("tcp", g.address, &tls.Config{RootCAs: serverPool, Certificates: certificates})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(2 * patience))
		p := &peer{t: t, conn: c, in: bufio.NewReader(c)}
		p.send("CONNECT", "accept-version:1.2", "host:h")
		return p
	}
	dial().expectError("access refused")
	p := dial(client)
	p.expect("CONNECTED\n")
	p.subscribe("0", "/topic/a")
	p.send("SEND", "destination:/topic/a", " x")
	p.expect("MESSAGE\n", "\npublisher:device-7\n")
}

// A peer that speaks TLS to a plain listener is turned away.
func TestWrongTransport(t *testing.T) {
	t.Parallel()
	g := start(t)
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", g.address, &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		c.Close()
		t.Error("a handshake with a plain listener")
	}
	waitFor(t, func() bool { return g.refused("malformed") == 1 })
}
