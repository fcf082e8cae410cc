package adaptertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An Authority signs certificates. They are files of Dir, NAME.crt and NAME.key;
// its own is authority.crt.
type Authority struct {
	Dir string

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority in a folder that goes when the test ends.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{Dir: t.TempDir()}
	a.cert, a.key = a.sign(t, "authority", nil)
	return a
}

// Sign makes a certificate of a common name, for 127.0.0.1.
func (a *Authority) Sign(t testing.TB, name string) {
	t.Helper()
	a.sign(t, name, a)
}

// sign makes a certificate of a common name and writes NAME.crt and NAME.key.
func (a *Authority) sign(t testing.TB, name string, by *Authority) (*x509.Certificate, *ecdsa.PrivateKey) {
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
		if err := os.WriteFile(filepath.Join(a.Dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// Client is what a client uses that trusts the authority and shows a new
// certificate of the name, or none where the name is empty.
func (a *Authority) Client(t testing.TB, name string) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	c := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	if name != "" {
		c.Certificates = []tls.Certificate{a.pair(t, name)}
	}
	return c
}

// Server is what a server uses that shows a new certificate of the name, and
// knows clients by theirs, where they show one.
func (a *Authority) Server(t testing.TB, name string) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{Certificates: []tls.Certificate{a.pair(t, name)}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven}
}

func (a *Authority) pair(t testing.TB, name string) tls.Certificate {
	t.Helper()
	a.sign(t, name, a)
	pair, err := tls.LoadX509KeyPair(filepath.Join(a.Dir, name+".crt"), filepath.Join(a.Dir, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}
