package access

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

func writeUsers(t *testing.T, path string, users ...User) {
	t.Helper()
	f, err := OpenUsers(path, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range users {
		if err := f.Add(u); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
}

func TestAuthenticate(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users.yaml")
	writeUsers(t, users, User{Name: "alice", Hash: HashPassword([]byte("secret")), Roles: []string{"ops"}}, User{Name: "locked", Roles: []string{"ops"}})
	auth := configs.Auth{Users: users, Certificate: "cn", Rules: []configs.Rule{{Who: []configs.Who{"users"}, Allow: []configs.Action{"all"}}}}
	a, err := New(auth)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, URIs: []*url.URL{{Scheme: "spiffe", Host: "x"}}}
	}
	for _, c := range []struct {
		name  string
		creds core.Credentials
		want  string // user and roles, or empty
	}{
		{"right", core.Credentials{User: "alice", Password: []byte("secret"), Client: "c"}, "alice ops client:c"},
		{"right again", core.Credentials{User: "alice", Password: []byte("secret")}, "alice ops"},
		{"wrong password", core.Credentials{User: "alice", Password: []byte("Secret")}, ""},
		{"no password", core.Credentials{User: "alice"}, ""},
		{"unknown", core.Credentials{User: "bob", Password: []byte("secret")}, ""},
		{"no user", core.Credentials{Password: []byte("secret")}, ""},
		{"locked", core.Credentials{User: "locked"}, ""},
		{"the broker's own name", core.Credentials{User: operatorName}, ""},
		{"anonymous", core.Credentials{}, ""},
		{"wrong token", core.Credentials{Token: "x"}, ""},
		{"certificate", core.Credentials{Certificate: certificate("alice")}, "alice ops"},
		{"certificate of a stranger", core.Credentials{Certificate: certificate("bob")}, "bob"},
		{"certificate without a name", core.Credentials{Certificate: certificate("")}, ""},
		{"certificate of the broker", core.Credentials{Certificate: certificate(operatorName)}, ""},
		{"certificate and wrong password", core.Credentials{Certificate: certificate("alice"), User: "alice", Password: []byte("x")}, ""},
		{"operator", a.Operator(), operatorName},
	} {
		p, err := a.Authenticate(context.Background(), c.creds)
		got := ""
		if err == nil {
			got = strings.Join(append([]string{p.Name}, p.Roles...), " ")
		} else if !errors.Is(err, core.ErrUnauthenticated) {
			t.Errorf("%s: %v", c.name, err)
		}
		if got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}

	auth.Certificate = "san"
	if err := a.Reload(auth); err != nil {
		t.Fatal(err)
	}
	if p, err := a.Authenticate(context.Background(), core.Credentials{Certificate: certificate("alice")}); err != nil || p.Name != "spiffe://x" {
		t.Errorf("by its alternative name: %v, %v", p, err)
	}
}

func TestAnonymousNeedsARule(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users.yaml")
	writeUsers(t, users)
	t.Run("users", func(t *testing.T) { anonymousNeedsARule(t, users) })
	t.Run("certificates", func(t *testing.T) { anonymousNeedsARule(t, "") })
}

// anonymousNeedsARule is told where the users stand, if they do not only come by
// certificates.
func anonymousNeedsARule(t *testing.T, users string) {
	rule := configs.Rule{Who: []configs.Who{"users"}, Allow: []configs.Action{"all"}}
	a, err := New(configs.Auth{Users: users, Rules: []configs.Rule{rule}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(context.Background(), core.Credentials{}); !errors.Is(err, core.ErrUnauthenticated) {
		t.Errorf("without a rule: %v", err)
	}
	before := a.Version()
	rule.Who = append(rule.Who, "anonymous")
	if err := a.Reload(configs.Auth{Users: users, Rules: []configs.Rule{rule}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(context.Background(), core.Credentials{}); err != nil {
		t.Errorf("with a rule: %v", err)
	}
	if a.Version() == before {
		t.Error("the version did not change")
	}
}

// TestBadReloadChangesNothing: with a broken file, what held before holds on.
func TestBadReloadChangesNothing(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users.yaml")
	writeUsers(t, users, User{Name: "alice", Hash: HashPassword([]byte("x"))})
	auth := configs.Auth{Users: users, Rules: []configs.Rule{{Who: []configs.Who{"users"}, Allow: []configs.Action{"all"}}}}
	a, err := New(auth)
	if err != nil {
		t.Fatal(err)
	}
	before := a.Version()
	if err := os.WriteFile(users, []byte("users: [{nmae: bob}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(auth); err == nil || !strings.Contains(err.Error(), `users[0].nmae: unknown key, did you mean "name"?`) {
		t.Errorf("got %v", err)
	}
	if _, err := a.Authenticate(context.Background(), core.Credentials{User: "alice", Password: []byte("x")}); err != nil || a.Version() != before {
		t.Errorf("alice is gone: %v", err)
	}
}

// TestChangedPasswordIsNotRemembered: a password that was right before is not
// right any more once its hash has changed.
func TestChangedPasswordIsNotRemembered(t *testing.T) {
	v := newVerifier()
	old := HashPassword([]byte("old"))
	for range 2 {
		if ok, err := v.verify(context.Background(), "u", old, []byte("old")); !ok || err != nil {
			t.Fatalf("%v, %v", ok, err)
		}
	}
	if ok, _ := v.verify(context.Background(), "u", HashPassword([]byte("new")), []byte("old")); ok {
		t.Error("the old password still holds")
	}
}

// TestPasswordsAreHashedOnce: what HTTP sends with each request is hashed with
// the first, also where many come at the same time; a wrong one each time.
func TestPasswordsAreHashedOnce(t *testing.T) {
	v := newVerifier()
	hash := HashPassword([]byte("right"))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if ok, err := v.verify(context.Background(), "u", hash, []byte("right")); !ok || err != nil {
				t.Errorf("%v, %v", ok, err)
			}
		})
	}
	all.Wait()
	if n := v.hashed.Load(); n > uint64(cap(v.slots)) || n+v.recalled.Load() != 20 {
		t.Errorf("%d were hashed with %d slots, %d recalled", n, cap(v.slots), v.recalled.Load())
	}
	before := v.hashed.Load()
	for range 2 {
		if ok, _ := v.verify(context.Background(), "u", hash, []byte("wrong")); ok {
			t.Error("a wrong password is right")
		}
	}
	if n := v.hashed.Load() - before; n != 2 {
		t.Errorf("a wrong password was hashed %d times in 2", n)
	}
}

// TestRememberedEnds: what is remembered ends with its time.
func TestRememberedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier()
		v.remember([32]byte{1})
		time.Sleep(verifiedFor - time.Second)
		if !v.remembered([32]byte{1}) {
			t.Error("it ended early")
		}
		time.Sleep(time.Second)
		if v.remembered([32]byte{1}) {
			t.Error("it did not end")
		}
	})
}

func TestRememberedIsBounded(t *testing.T) {
	v := newVerifier()
	for i := range verifiedMax + 10 {
		v.remember([32]byte{byte(i), byte(i >> 8)})
	}
	if len(v.proved) != verifiedMax || v.order.Len() != verifiedMax {
		t.Errorf("%d and %d are remembered", len(v.proved), v.order.Len())
	}
	if v.remembered([32]byte{0}) || !v.remembered([32]byte{20}) {
		t.Error("the oldest go first")
	}
}

// TestHashingIsBounded: with every slot taken, a login waits as long as its
// context lets it.
func TestHashingIsBounded(t *testing.T) {
	v := newVerifier()
	for range cap(v.slots) {
		v.slots <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := v.verify(ctx, "u", HashPassword(nil), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestUsersFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.yaml")
	start := "# ours\nusers:\n  # the first\n  - name: a\n    roles: [x]\n  - name: b\n"
	if err := os.WriteFile(path, []byte(start), 0o640); err != nil {
		t.Fatal(err)
	}
	f, err := OpenUsers(path, false)
	if err != nil {
		t.Fatal(err)
	}
	hash := HashPassword([]byte("p"))
	if err := f.SetPassword("a", hash, ""); err != nil {
		t.Error(err)
	}
	if err := f.Add(User{Name: "c: #d", Roles: []string{"y", "z"}}); err != nil {
		t.Error(err)
	}
	if err := f.Add(User{Name: "a"}); !errors.Is(err, ErrUserExists) {
		t.Errorf("twice: %v", err)
	}
	if err := f.Remove("b"); err != nil {
		t.Error(err)
	}
	if err := f.Remove("b"); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("gone: %v", err)
	}
	if err := f.SetPassword("b", hash, ""); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("gone: %v", err)
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "# ours\nusers:\n  # the first\n  - name: a\n    roles: [x]\n    hash: " + hash + "\n  - name: 'c: #d'\n    roles: [y, z]\n"
	if strings.ReplaceAll(string(got), `"`, "'") != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestParseUsersRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"users: [{name: $x}]":                     "begin with a dollar sign",
		"users: [{name: ''}]":                     "has no name",
		"users: [{name: a}, {name: a}]":           "two users are named",
		"users: [{name: a, hash: plain}]":         "sluice user passwd",
		"users: [{name: a, roles: ['client:x']}]": "contains a colon",
		"users: [{name: a, password: x}]":         "users[0].password: unknown key",
		"users: [{name: a, hash: '$argon2id$v=19$m=999999999,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'}]": "at most m=262144",
	} {
		if _, err := ParseUsers("u.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestNobodyIsAHash(t *testing.T) {
	if _, err := parseHash(nobody); err != nil {
		t.Error(err)
	}
}

// TestRenewed: on a reload, who was taken out of the users file is nobody any
// more, others have the roles that it says now, and a token's are the token's.
func TestRenewed(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users.yaml")
	file := func(us ...User) configs.Auth {
		t.Helper()
		if err := os.RemoveAll(users); err != nil {
			t.Fatal(err)
		}
		writeUsers(t, users, us...)
		return configs.Auth{Users: users, Rules: []configs.Rule{{Who: []configs.Who{"role:ops"}, Allow: []configs.Action{"all"}}}}
	}
	alice, bob := User{Name: "alice", Roles: []string{"ops"}}, User{Name: "bob"}
	a, err := New(file(alice, bob))
	if err != nil {
		t.Fatal(err)
	}
	p := map[string]*core.Principal{
		"alice": principal("alice", alice.Roles, "c"), "bob": principal("bob", nil, ""), "anonymous": principal("", nil, "c"),
		"certificate": principal("carol", nil, ""), "token": principal("alice", []string{"ops"}, ""), "operator": {Name: operatorName},
	}
	p["token"].Until = time.Now().Add(time.Hour)
	want := func(when string, changed map[string]string) {
		t.Helper()
		for name, before := range p {
			now, err := a.Renewed(before)
			got := "the same"
			if err != nil && !errors.Is(err, core.ErrUnauthenticated) {
				t.Errorf("%s: %s: %v", when, name, err)
			} else if err != nil {
				got = "nobody"
			} else if now != before {
				got = now.Name + " " + strings.Join(now.Roles, " ")
			}
			is := changed[name]
			if is == "" {
				is = "the same"
			}
			if got != is {
				t.Errorf("%s: %s is %s, want %s", when, name, got, is)
			}
		}
	}
	reload := func(us ...User) {
		t.Helper()
		if err := a.Reload(file(us...)); err != nil {
			t.Fatal(err)
		}
	}
	want("at first", nil)
	alice.Roles = nil
	reload(alice)
	want("without bob and alice's role", map[string]string{"alice": "alice client:c", "bob": "nobody"})
	reload(alice)
	want("once more", map[string]string{"alice": "alice client:c", "bob": "nobody"})
	reload(alice, bob)
	want("with bob again", map[string]string{"alice": "alice client:c"})
}
