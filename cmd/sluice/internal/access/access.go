// Package access is the broker's [core.Authorizer]: users with passwords and
// roles from a file, users named by tokens or TLS certificates, and an ordered
// list of rules about topics.
//
//	Authenticate: token (a JWT), also in a password's place → its claims
//	              password → users file (argon2id, bounded, remembered)
//	              SCRAM-SHA-256 → users file, in two messages (Exchange)
//	              certificate → its common or alternative name
//	              nothing → anonymous, where a rule speaks of them
//	Authorize:    the first rule that matches decides; none is a refusal
//
// A filter that somebody subscribes to is allowed if some topic that it
// matches may be allowed: each delivery is asked for by its topic.
package access

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

// Access answers who is who and who may do what.
type Access struct {
	now      atomic.Pointer[state]
	verifier *verifier
	operator string // the token of Operator
}

// state is what one reading of users and rules gave. It is not changed.
type state struct {
	version   uint64
	users     map[string]User
	removed   map[string]bool // who was among them before
	scram     map[string]scramKeys
	hasSCRAM  bool
	issuers   []issuer
	rules     []rule
	anonymous bool // a rule speaks of them
	san       bool // a certificate's alternative name counts, not its common name
}

// operatorName is the name of the broker's own principal. No user can have it.
const operatorName = "$broker"

// clientRole begins the role that carries a principal's client id for %c. No
// user's role can begin so.
const clientRole = "client:"

// New reads the users and the keys that auth names, and takes its rules
// ([configs.Config.Access] gives it).
func New(auth configs.Auth) (*Access, error) {
	token := make([]byte, 32)
	rand.Read(token)
	a := &Access{verifier: newVerifier(), operator: hex.EncodeToString(token)}
	return a, a.Reload(auth)
}

// Reload reads users, keys and rules again; on an error what held before holds on.
func (a *Access) Reload(auth configs.Auth) error {
	users := auth.Users
	s := &state{users: make(map[string]User), scram: make(map[string]scramKeys), hasSCRAM: users != "", san: auth.Certificate == "san", version: 1}
	if users != "" {
		text, err := os.ReadFile(users)
		if err != nil {
			return err
		}
		list, err := ParseUsers(users, text)
		if err != nil {
			return err
		}
		for _, u := range list {
			s.users[u.Name] = u
			if u.SCRAM != "" {
				if s.scram[u.Name], err = parseSCRAM(u.SCRAM); err != nil {
					return err
				}
			}
		}
	}
	for _, t := range auth.Tokens {
		i, err := openIssuer(t)
		if err != nil {
			return err
		}
		s.issuers = append(s.issuers, i)
	}
	for _, r := range auth.Rules {
		rule := compile(r)
		s.rules = append(s.rules, rule)
		s.anonymous = s.anonymous || rule.anonymous
	}
	if before := a.now.Load(); before != nil {
		s.version = before.version + 1
		s.removed = before.without(s.users)
	}
	a.now.Store(s)
	return nil
}

// without is who was among the users at some time and is not among those there
// are now.
func (s *state) without(now map[string]User) map[string]bool {
	removed := make(map[string]bool)
	for name := range s.users {
		removed[name] = true
	}
	for name := range s.removed {
		removed[name] = true
	}
	for name := range now {
		delete(removed, name)
	}
	return removed
}

// Hashed is how many passwords were checked by their hash, so far, which takes
// tens of milliseconds and megabytes each.
func (a *Access) Hashed() uint64 { return a.verifier.hashed.Load() }

// Recalled is how many were known to be right from a check shortly before.
func (a *Access) Recalled() uint64 { return a.verifier.recalled.Load() }

// Operator are the credentials by which the broker itself does what its
// configuration declares. They hold in this process only.
func (a *Access) Operator() core.Credentials {
	return core.Credentials{Protocol: "config", Client: operatorName, Token: a.operator}
}

// Version changes with every Reload.
func (a *Access) Version() uint64 { return a.now.Load().version }

// Renewed is who a principal is with the users file as it is now: one who stands
// in it has the roles that it says, and one who was taken out of it is nobody any
// more. Who a token names is as the token says.
func (a *Access) Renewed(p *core.Principal) (*core.Principal, error) {
	s := a.now.Load()
	if p.Name == "" || p.Name == operatorName || !p.Until.IsZero() {
		return p, nil
	}
	if s.removed[p.Name] {
		return nil, fmt.Errorf("%w: the user %q was removed", core.ErrUnauthenticated, p.Name)
	}
	now := principal(p.Name, s.users[p.Name].Roles, clientOf(p))
	if slices.Equal(now.Roles, p.Roles) {
		return p, nil
	}
	return now, nil
}

// Authenticate finds out who a peer is. It blocks while a password is hashed.
func (a *Access) Authenticate(ctx context.Context, c core.Credentials) (*core.Principal, error) {
	s := a.now.Load()
	switch {
	case c.Token != "":
		if subtle.ConstantTimeCompare([]byte(c.Token), []byte(a.operator)) == 1 {
			return &core.Principal{Name: operatorName}, nil
		}
		return s.token(c.Token, c.User, c.Client, time.Now())
	case len(s.issuers) > 0 && isToken(c.Password):
		return s.token(string(c.Password), c.User, c.Client, time.Now())
	case c.User != "" || len(c.Password) > 0:
		u, known := s.users[c.User]
		hash := u.Hash
		if !known || hash == "" {
			known, hash = false, nobody
		}
		// An unknown user takes as long as a wrong password.
		right, err := a.verifier.verify(ctx, c.User, hash, c.Password)
		if err != nil {
			return nil, err
		}
		if !right || !known {
			return nil, fmt.Errorf("%w: user and password do not match", core.ErrUnauthenticated)
		}
		return principal(u.Name, u.Roles, c.Client), nil
	case c.Certificate != nil:
		name, err := certificateName(c.Certificate, s.san)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", core.ErrUnauthenticated, err)
		}
		return principal(name, s.users[name].Roles, c.Client), nil
	case !s.anonymous:
		return nil, fmt.Errorf("%w: a user and a password, or a token, are needed", core.ErrUnauthenticated)
	}
	return principal("", nil, c.Client), nil
}

func principal(name string, roles []string, client string) *core.Principal {
	p := &core.Principal{Name: name, Roles: make([]string, 0, len(roles)+1)}
	p.Roles = append(p.Roles, roles...)
	if client != "" {
		p.Roles = append(p.Roles, clientRole+client)
	}
	return p
}

// clientOf is the client id that a principal was made with.
func clientOf(p *core.Principal) string {
	for _, role := range p.Roles {
		if id, ok := strings.CutPrefix(role, clientRole); ok {
			return id
		}
	}
	return ""
}

// certificateName is the user that a verified certificate names.
func certificateName(cert *x509.Certificate, san bool) (string, error) {
	name := cert.Subject.CommonName
	if san {
		name = ""
		switch {
		case len(cert.DNSNames) > 0:
			name = cert.DNSNames[0]
		case len(cert.EmailAddresses) > 0:
			name = cert.EmailAddresses[0]
		case len(cert.URIs) > 0:
			name = cert.URIs[0].String()
		}
	}
	return name, checkName("the user in the certificate", name)
}

// checkName says what is wrong with the name of a user or a role.
func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s has no name", what)
	case len(name) > 256:
		return fmt.Errorf("%s has a name of %d bytes, at most 256 are allowed", what, len(name))
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%s is named %q: control characters are not allowed", what, name)
	case name[0] == '$':
		return fmt.Errorf("%s is named %q: names that begin with a dollar sign are the broker's own", what, name)
	}
	return nil
}

// Authorize asks the rules. It does not block.
func (a *Access) Authorize(p *core.Principal, action core.Action, resource string) error {
	if p.Name == operatorName {
		return nil
	}
	if a.now.Load().allowed(p, action, resource) {
		return nil
	}
	who := "anonymous"
	if p.Name != "" {
		who = fmt.Sprintf("user %q", p.Name)
	}
	what := action.String()
	if action == core.Bind {
		what = "subscribe to all of" // which is what the rules call it
	}
	return fmt.Errorf("%w: no rule lets %s %s %q", core.ErrNotAuthorized, who, what, resource)
}
