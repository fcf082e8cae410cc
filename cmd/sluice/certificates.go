package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sluicemq/sluice/configs"
)

// certificates are what the listeners show, and whose clients they trust.
type certificates struct {
	cfg  *configs.Config
	sets []*certificateSet
}

// A certificateSet is one listener's. Its current configuration is replaced
// when the files are read again; connections that are open keep theirs.
type certificateSet struct {
	protocol            string
	cert, key, clientCA string
	now                 atomic.Pointer[tls.Config]
}

// config is the TLS configuration of a protocol's listener.
func (c *certificates) config(protocol string, index int, t configs.TLS) (*tls.Config, error) {
	key := fmt.Sprintf("%s.listen[%d].tls", protocol, index)
	s := &certificateSet{
		protocol: protocol,
		cert:     c.cfg.Path(key+".cert", t.Cert), key: c.cfg.Path(key+".key", t.Key), clientCA: c.cfg.Path(key+".client_ca", t.ClientCA),
	}
	if t.SelfSigned {
		var err error
		if s.cert, s.key, err = selfSigned(filepath.Join(c.cfg.Path("data", c.cfg.Data), "tls")); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	if err := s.read(); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	c.sets = append(c.sets, s)
	config := s.now.Load().Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.now.Load(), nil }
	return config, nil
}

// reload reads every file again.
func (c *certificates) reload() error {
	var errs []error
	for _, s := range c.sets {
		errs = append(errs, s.read())
	}
	return errors.Join(errs...)
}

func (s *certificateSet) read() error {
	pair, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if s.protocol == "http" {
		config.NextProtos = []string{"http/1.1"}
	}
	if s.clientCA != "" {
		text, err := os.ReadFile(s.clientCA)
		if err != nil {
			return err
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("%s: there is no certificate in it", s.clientCA)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	s.now.Store(config)
	return nil
}

// selfSigned makes a certificate for this machine's names in a folder, unless
// there is one that still holds for a month.
func selfSigned(dir string) (cert, key string, err error) {
	cert, key = filepath.Join(dir, "self-signed.crt"), filepath.Join(dir, "self-signed.key")
	if pair, err := tls.LoadX509KeyPair(cert, key); err == nil && time.Until(pair.Leaf.NotAfter) > 30*24*time.Hour {
		return cert, key, nil
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return "", "", err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "sluice, self-signed"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if host, err := os.Hostname(); err == nil && host != "localhost" {
		template.DNSNames = append(template.DNSNames, host)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return "", "", err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", err
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return "", "", err
	}
	return cert, key, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}
