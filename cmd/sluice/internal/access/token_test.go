package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

// A claimSet is what a token says.
type claimSet map[string]any

// signed is a token. id is the key's, empty for none.
func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, id string, claims claimSet) string {
	t.Helper()
	o := (&jose.SignerOptions{}).WithType("JWT")
	if id != "" {
		o = o.WithHeader("kid", id)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(map[string]any(claims)).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func writeFile(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func pemOf(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func tokens(t *testing.T, list ...configs.Token) *Access {
	t.Helper()
	c := configs.Config{Auth: configs.Auth{Tokens: list, Rules: []configs.Rule{{Who: []configs.Who{"users"}, Allow: []configs.Action{"all"}}}}}
	a, err := New(c.Access())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestTokens(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("0123456789abcdef0123456789abcdef")
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: &rsaKey.PublicKey, KeyID: "r", Algorithm: "RS256", Use: "sig"},
		{Key: edPublic, KeyID: "e"},
		{Key: &rsaKey.PublicKey, KeyID: "other", Use: "enc"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	a := tokens(t,
		configs.Token{Keys: writeFile(t, "jwks.json", set), Issuer: "https://id.example", Audience: "sluice", Roles: "realm.roles", Leeway: configs.Duration(time.Minute)},
		configs.Token{Keys: writeFile(t, "secret", append(secret, '\n')), User: "name"},
		configs.Token{Keys: writeFile(t, "key.pem", pemOf(t, &ecKey.PublicKey))},
	)
	now := time.Now().Truncate(time.Second)
	base := claimSet{
		"iss": "https://id.example", "aud": []string{"x", "sluice"}, "sub": "alice",
		"exp": now.Add(time.Hour).Unix(), "realm": claimSet{"roles": []any{"ops", "a:b", 7, "$x", "dev"}},
	}
	with := func(change claimSet) claimSet {
		c := maps.Clone(base)
		for k, v := range change {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
		return c
	}
	plain := claimSet{"name": "carol", "sub": "no", "exp": now.Add(time.Hour).Unix(), "roles": "ops read"}
	rs := func(change claimSet) string { return signed(t, jose.RS256, rsaKey, "r", with(change)) }
	good := rs(nil)
	for _, c := range []struct {
		name  string
		creds core.Credentials
		want  string // user and roles, or the error
	}{
		{"RS256", core.Credentials{Token: good, Client: "c"}, "alice ops dev client:c"},
		{"EdDSA without kid", core.Credentials{Token: signed(t, jose.EdDSA, edKey, "", base)}, "alice ops dev"},
		{"HS256", core.Credentials{Token: signed(t, jose.HS256, secret, "", plain)}, "carol ops read"},
		{"ES256", core.Credentials{Token: signed(t, jose.ES256, ecKey, "any", claimSet{"sub": "dave", "exp": now.Add(time.Hour).Unix()})}, "dave"},
		{"as password", core.Credentials{Password: []byte(good)}, "alice ops dev"},
		{"as password of its user", core.Credentials{User: "alice", Password: []byte(good)}, "alice ops dev"},
		{"as password of jwt", core.Credentials{User: "jwt", Password: []byte(good)}, "alice ops dev"},
		{"as password of another", core.Credentials{User: "bob", Password: []byte(good)}, "another user"},
		{"expired within the leeway", core.Credentials{Token: rs(claimSet{"exp": now.Add(-10 * time.Second).Unix()})}, "alice ops dev"},
		{"expired", core.Credentials{Token: rs(claimSet{"exp": now.Add(-61 * time.Second).Unix()})}, "has expired"},
		{"expired without leeway", core.Credentials{Token: signed(t, jose.HS256, secret, "", claimSet{"name": "c", "exp": now.Unix()})}, "has expired"},
		{"without exp", core.Credentials{Token: rs(claimSet{"exp": nil})}, "exp is missing"},
		{"exp of 0", core.Credentials{Token: rs(claimSet{"exp": 0})}, "has expired"},
		{"not yet", core.Credentials{Token: rs(claimSet{"nbf": now.Add(2 * time.Minute).Unix()})}, "not valid yet"},
		{"nearly", core.Credentials{Token: rs(claimSet{"nbf": now.Add(50 * time.Second).Unix()})}, "alice ops dev"},
		{"other issuer", core.Credentials{Token: rs(claimSet{"iss": "https://evil.example"})}, "another issuer"},
		{"no issuer", core.Credentials{Token: rs(claimSet{"iss": nil})}, "another issuer"},
		{"other audience", core.Credentials{Token: rs(claimSet{"aud": "x"})}, "another audience"},
		{"one audience", core.Credentials{Token: rs(claimSet{"aud": "sluice"})}, "alice ops dev"},
		{"no user", core.Credentials{Token: rs(claimSet{"sub": nil})}, "has no name"},
		{"the broker's name", core.Credentials{Token: rs(claimSet{"sub": operatorName})}, "dollar sign"},
		{"a number for a user", core.Credentials{Token: rs(claimSet{"sub": 7})}, "not of the types"},
		{"other key", core.Credentials{Token: signed(t, jose.HS256, []byte("another secret of enough bytes!!"), "", plain)}, "no key verifies"},
		{"wrong kid", core.Credentials{Token: signed(t, jose.RS256, rsaKey, "e", base)}, "no key verifies"},
		// The public key, which everybody has, taken for a secret.
		{"confused", core.Credentials{Token: signed(t, jose.HS256, pemOf(t, &rsaKey.PublicKey), "r", base)}, "no key verifies"},
		{"RS512", core.Credentials{Token: signed(t, jose.RS512, rsaKey, "r", base)}, "not a JWT signed by"},
		{"unsigned", core.Credentials{Token: "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9."}, "not a JWT signed by"},
		{"cut", core.Credentials{Token: good[:len(good)-3]}, "no key verifies"},
		{"garbage", core.Credentials{Token: "x"}, "not a JWT"},
		{"large", core.Credentials{Token: strings.Repeat("x", maxTokenBytes+1)}, "at most 16384"},
		{"nothing", core.Credentials{}, "are needed"},
		{"a password", core.Credentials{User: "alice", Password: []byte("x")}, "do not match"},
	} {
		p, err := a.Authenticate(context.Background(), c.creds)
		if err != nil {
			if !strings.Contains(err.Error(), c.want) || !errors.Is(err, core.ErrUnauthenticated) {
				t.Errorf("%s: %v, want %s", c.name, err, c.want)
			}
			continue
		}
		if got := strings.Join(append([]string{p.Name}, p.Roles...), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if p.Until.Before(now) {
			t.Errorf("%s: it ends %v", c.name, p.Until)
		}
	}
	p, err := a.Authenticate(context.Background(), core.Credentials{Token: good})
	if want := now.Add(time.Hour + time.Minute); err != nil || !p.Until.Equal(want) {
		t.Errorf("it ends %v, %v, want %v", p.Until, err, want)
	}
}

func TestKeysAreRefused(t *testing.T) {
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string]string{
		"32 at least":                  "short",
		"P-256":                        string(pemOf(t, &weak.PublicKey)),
		"needs no private one":         "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"no public key in it":          "-----BEGIN PUBLIC KEY",
		"no key for signatures":        `{"keys": []}`,
		"not a set of JSON web keys":   `{"keys": 7}`,
		`key "k" is for HS512`:         `{"keys": [{"kty": "oct", "kid": "k", "alg": "HS512", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`,
		`key "k": the secret has 3 by`: `{"keys": [{"kty": "oct", "kid": "k", "k": "AAAA"}]}`,
	} {
		if _, err := parseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	c := configs.Config{Auth: configs.Auth{Tokens: []configs.Token{{Keys: filepath.Join(t.TempDir(), "none")}}}}
	if _, err := New(c.Access()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
