package access

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

// Bounds of a token, so that a stranger's costs little.
const (
	maxTokenBytes = 16 << 10
	maxTokenRoles = 64
)

// anyTokenUser is the user name that goes with every token in place of a
// password: some clients cannot send a password without a user.
const anyTokenUser = "jwt"

// algorithms are those that tokens may be signed by. Which of them holds is
// the key's to say, never the token's.
var algorithms = []jose.SignatureAlgorithm{jose.HS256, jose.RS256, jose.ES256, jose.EdDSA}

// An issuer is one configs.Token with its keys.
type issuer struct {
	configs.Token
	keys []tokenKey
}

// A tokenKey verifies one algorithm's signatures.
type tokenKey struct {
	id        string // empty: any token's
	algorithm jose.SignatureAlgorithm
	key       any
}

// openIssuer reads the keys that a configuration names.
func openIssuer(t configs.Token) (i issuer, err error) {
	i.Token = t
	text, err := os.ReadFile(t.Keys)
	if err != nil {
		return i, err
	}
	i.keys, err = parseKeys(text)
	if err != nil {
		return i, fmt.Errorf("%s: %w", t.Keys, err)
	}
	return i, nil
}

// parseKeys reads a JWKS (RFC 7517), public keys or certificates in PEM, or a
// secret: anything else of 32 bytes or more.
func parseKeys(text []byte) ([]tokenKey, error) {
	trimmed := strings.TrimSpace(string(text))
	switch {
	case strings.HasPrefix(trimmed, "{"):
		var set jose.JSONWebKeySet
		if err := json.Unmarshal(text, &set); err != nil {
			return nil, fmt.Errorf("not a set of JSON web keys: %w", err)
		}
		var keys []tokenKey
		for _, k := range set.Keys {
			if k.Use != "" && k.Use != "sig" {
				continue
			}
			alg, err := algorithmOf(k.Key)
			if err != nil {
				return nil, fmt.Errorf("key %q: %w", k.KeyID, err)
			}
			if k.Algorithm != "" && k.Algorithm != string(alg) {
				return nil, fmt.Errorf("key %q is for %s: want one of HS256, RS256, ES256, EdDSA", k.KeyID, k.Algorithm)
			}
			keys = append(keys, tokenKey{k.KeyID, alg, publicOf(k.Key)})
		}
		if len(keys) == 0 {
			return nil, errors.New("there is no key for signatures in it")
		}
		return keys, nil
	case strings.HasPrefix(trimmed, "-----BEGIN "):
		return parsePEM(text)
	}
	if _, err := algorithmOf([]byte(trimmed)); err != nil {
		return nil, err
	}
	return []tokenKey{{algorithm: jose.HS256, key: []byte(trimmed)}}, nil
}

func parsePEM(text []byte) ([]tokenKey, error) {
	var keys []tokenKey
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PUBLIC KEY":
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			key, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case "CERTIFICATE":
			var c *x509.Certificate
			if c, err = x509.ParseCertificate(block.Bytes); err == nil {
				key = c.PublicKey
			}
		default:
			err = fmt.Errorf("a %q is no public key; a broker needs no private one", block.Type)
		}
		if err != nil {
			return nil, err
		}
		alg, err := algorithmOf(key)
		if err != nil {
			return nil, err
		}
		keys = append(keys, tokenKey{algorithm: alg, key: key})
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no public key in it")
	}
	return keys, nil
}

// algorithmOf is the one algorithm that a key is for, so that no token can have
// a public key taken for a secret.
func algorithmOf(key any) (jose.SignatureAlgorithm, error) {
	switch k := key.(type) {
	case []byte:
		if len(k) < 32 {
			return "", fmt.Errorf("the secret has %d bytes: HS256 needs 32 at least, such as openssl rand -hex 32 makes", len(k))
		}
		return jose.HS256, nil
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return "", fmt.Errorf("the RSA key has %d bits, at least 2048 are needed", k.N.BitLen())
		}
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return "", errors.New("the curve is not P-256, which ES256 needs")
		}
		return jose.ES256, nil
	case ed25519.PublicKey:
		return jose.EdDSA, nil
	case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
		return algorithmOf(publicOf(k))
	}
	return "", fmt.Errorf("a key of the type %T is for none of HS256, RS256, ES256, EdDSA", key)
}

// publicOf is the public part of a key that has one.
func publicOf(key any) any {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return &k.PublicKey
	case *ecdsa.PrivateKey:
		return &k.PublicKey
	case ed25519.PrivateKey:
		return k.Public()
	}
	return key
}

// isToken reports whether a password is a token by its form: three parts, the
// first of which begins as base64url of an object does (RFC 7519, 3.1).
func isToken(password []byte) bool {
	s := string(password)
	return strings.HasPrefix(s, "eyJ") && strings.Count(s, ".") == 2
}

// token is the principal that a token names. user is the user name that came
// with it, if one did.
func (s *state) token(raw, user, client string, now time.Time) (*core.Principal, error) {
	if len(raw) > maxTokenBytes {
		return nil, fmt.Errorf("%w: the token has %d bytes, at most %d are allowed", core.ErrUnauthenticated, len(raw), maxTokenBytes)
	}
	parsed, err := jwt.ParseSigned(raw, algorithms)
	if err != nil || len(parsed.Headers) != 1 {
		return nil, fmt.Errorf("%w: the token is not a JWT signed by HS256, RS256, ES256 or EdDSA", core.ErrUnauthenticated)
	}
	why := errors.New("no key verifies the token")
	for i := range s.issuers {
		p, err := s.issuers[i].verify(parsed, client, now)
		switch {
		case err != nil:
			if err != errNoKey {
				why = err
			}
		case user != "" && user != anyTokenUser && user != p.Name:
			return nil, fmt.Errorf("%w: the token is that of another user than the one that is named with it", core.ErrUnauthenticated)
		default:
			return p, nil
		}
	}
	return nil, fmt.Errorf("%w: %w", core.ErrUnauthenticated, why)
}

var errNoKey = errors.New("no key of the issuer's fits")

// verify checks a token's signature, then what it claims (RFC 7519, 4.1).
func (i *issuer) verify(token *jwt.JSONWebToken, client string, now time.Time) (*core.Principal, error) {
	header := token.Headers[0]
	var claims jwt.Claims
	var all map[string]any
	verified := false
	for _, k := range i.keys {
		if k.algorithm != jose.SignatureAlgorithm(header.Algorithm) || k.id != "" && header.KeyID != "" && k.id != header.KeyID {
			continue
		}
		err := token.Claims(k.key, &claims, &all)
		if errors.Is(err, jose.ErrCryptoFailure) {
			continue
		}
		if err != nil {
			return nil, errors.New("the token's claims are not of the types that RFC 7519 names")
		}
		verified = true
		break
	}
	leeway := time.Duration(i.Leeway)
	switch {
	case !verified:
		return nil, errNoKey
	case claims.Expiry == nil:
		return nil, errors.New("the token never expires: exp is missing")
	case !now.Before(claims.Expiry.Time().Add(leeway)):
		return nil, errors.New("the token has expired")
	case claims.NotBefore != nil && now.Add(leeway).Before(claims.NotBefore.Time()):
		return nil, errors.New("the token is not valid yet")
	case i.Issuer != "" && claims.Issuer != i.Issuer:
		return nil, errors.New("the token is another issuer's")
	case i.Audience != "" && !slices.Contains(claims.Audience, i.Audience):
		return nil, errors.New("the token is for another audience")
	}
	name, _ := claimAt(all, i.User).(string)
	if err := checkName("the user in the token", name); err != nil {
		return nil, err
	}
	p := principal(name, rolesIn(claimAt(all, i.Roles)), client)
	p.Until = claims.Expiry.Time().Add(leeway)
	return p, nil
}

// claimAt is the claim that a name stands for: the one of that name, or else
// the one that its parts, separated by dots, lead to.
func claimAt(claims map[string]any, name string) any {
	if v, ok := claims[name]; ok {
		return v
	}
	first, rest, ok := strings.Cut(name, ".")
	if !ok {
		return nil
	}
	inner, _ := claims[first].(map[string]any)
	return claimAt(inner, rest)
}

// rolesIn reads roles: a list of strings, or one string with spaces between
// them, as scopes have it. What could not be a role's name is left out.
func rolesIn(claim any) (roles []string) {
	var names []any
	switch v := claim.(type) {
	case string:
		for name := range strings.FieldsSeq(v) {
			names = append(names, name)
		}
	case []any:
		names = v
	}
	for _, n := range names {
		if role, ok := n.(string); ok && checkRole(role) == nil && len(roles) < maxTokenRoles {
			roles = append(roles, role)
		}
	}
	return roles
}
