package access

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

// scramAccess is an Access with users of the given names and passwords.
func scramAccess(t *testing.T, users ...string) *Access {
	t.Helper()
	var list []User
	for _, u := range users {
		name, password, _ := strings.Cut(u, ":")
		keys, err := SCRAMKeys([]byte(password))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, User{Name: name, SCRAM: keys, Roles: []string{"ops"}})
	}
	list = append(list, User{Name: "plain", Hash: HashPassword([]byte("pencil"))})
	path := filepath.Join(t.TempDir(), "users.yaml")
	writeUsers(t, path, list...)
	a, err := New(configs.Auth{Users: path})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// scramBy runs an exchange with the client of another library. It returns the
// principal, and whether the client believes the server.
func scramBy(t *testing.T, a *Access, user, password, authzid string, c core.Credentials) (*core.Principal, bool, error) {
	t.Helper()
	client, err := scram.SHA256.NewClient(user, password, authzid)
	if err != nil {
		t.Fatal(err)
	}
	conv := client.NewConversation()
	x, err := a.Exchange(methodSCRAM, c)
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	for {
		message, err := conv.Step(said)
		if err != nil {
			return nil, false, err
		}
		answer, p, err := x.Next([]byte(message))
		if err != nil {
			return nil, false, err
		}
		if said = string(answer); p != nil {
			_, err := conv.Step(said)
			return p, err == nil && conv.Valid(), err
		}
	}
}

func TestSCRAM(t *testing.T) {
	const odd = "x=y,z"
	a := scramAccess(t, "user:pencil", odd+":pen cil", "prep:I\u00ADX") // a soft hyphen is mapped to nothing
	for _, c := range []struct {
		user, password, authzid string
		creds                   core.Credentials
		want                    string
	}{
		{"user", "pencil", "", core.Credentials{Client: "c"}, "user ops client:c"},
		{"user", "pencil", "user", core.Credentials{}, "user ops"},
		{"user", "pencil", "", core.Credentials{User: "user"}, "user ops"},
		{odd, "pen cil", "", core.Credentials{}, odd + " ops"},
		{"prep", "IX", "", core.Credentials{}, "prep ops"},
		{"user", "Pencil", "", core.Credentials{}, "do not match"},
		{"nobody", "pencil", "", core.Credentials{}, "do not match"},
		{"plain", "pencil", "", core.Credentials{}, "do not match"},
		{"user", "pencil", "root", core.Credentials{}, "two users"},
		{"user", "pencil", "", core.Credentials{User: "root"}, "two users"},
	} {
		p, valid, err := scramBy(t, a, c.user, c.password, c.authzid, c.creds)
		if err != nil {
			if !strings.Contains(err.Error(), c.want) || !errors.Is(err, core.ErrUnauthenticated) {
				t.Errorf("%+v: %v, want %s", c, err, c.want)
			}
			continue
		}
		if got := strings.Join(append([]string{p.Name}, p.Roles...), " "); got != c.want || !valid {
			t.Errorf("%+v: %q, the client believes the server: %v", c, got, valid)
		}
	}
	if _, err := a.Exchange("PLAIN", core.Credentials{}); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("PLAIN: %v", err)
	}
	// Who has a SCRAM password only has no other.
	if _, err := a.Authenticate(context.Background(), core.Credentials{User: "user", Password: []byte("pencil")}); !errors.Is(err, core.ErrUnauthenticated) {
		t.Errorf("by password: %v", err)
	}
}

// TestSCRAMOfTheRFC is the example of RFC 7677, section 3.
func TestSCRAMOfTheRFC(t *testing.T) {
	salt, _ := b64.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	keys, err := deriveSCRAM("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	a := scramAccess(t, "user:x")
	a.now.Load().scram["user"] = keys
	x := &scramExchange{access: a, nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"}
	first, _, err := x.Next([]byte("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"))
	if want := "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"; string(first) != want || err != nil {
		t.Fatalf("%s, %v", first, err)
	}
	last, p, err := x.Next([]byte("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
	if want := "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="; string(last) != want || err != nil || p.Name != "user" {
		t.Fatalf("%s, %v", last, err)
	}
}

func TestSCRAMMalformed(t *testing.T) {
	a := scramAccess(t, "user:pencil")
	begin := func(first string) (core.Exchange, string, error) {
		x, err := a.Exchange(methodSCRAM, core.Credentials{})
		if err != nil {
			t.Fatal(err)
		}
		answer, _, err := x.Next([]byte(first))
		return x, string(answer), err
	}
	for _, first := range []string{
		"", "n", "n,,", "n,,n=user", "n,,r=x,n=user", "n,,m=ext,n=user,r=x", "p=tls-unique,,n=user,r=x",
		"z,,n=user,r=x", "n,,n=,r=x", "n,,n=us=er,r=x", "n,,n=user,r=", "n,,n=user,r=\x01", "n,a=root,n=user,r=x",
	} {
		if _, answer, err := begin(first); !errors.Is(err, core.ErrUnauthenticated) {
			t.Errorf("%q: answered %q, %v", first, answer, err)
		}
	}
	proof := b64.EncodeToString(make([]byte, 32))
	for _, final := range []string{
		"", "c=biws", "c=biws,r=NONCE", "c=biws,r=NONCE,p=", "c=biws,r=NONCE,p=AAAA", "c=biws,r=NONCE,p=" + proof,
		"c=biws,r=x,p=" + proof, "c=AAAA,r=NONCE,p=" + proof, "r=NONCE,c=biws,p=" + proof,
	} {
		x, answer, err := begin("n,,n=user,r=abc")
		if err != nil {
			t.Fatal(err)
		}
		nonce, _, _ := strings.Cut(strings.TrimPrefix(answer, "r="), ",")
		if _, p, err := x.Next([]byte(strings.ReplaceAll(final, "NONCE", nonce))); p != nil || !errors.Is(err, core.ErrUnauthenticated) {
			t.Errorf("%q: %v", final, err)
		}
	}
	// Somebody who is not there cannot be told from somebody who is.
	_, one, _ := begin("n,,n=nobody,r=x")
	_, two, _ := begin("n,,n=nobody,r=x")
	if saltOf(one) != saltOf(two) || saltOf(one) == "" || !strings.HasSuffix(one, ",i=4096") {
		t.Errorf("%s and %s", one, two)
	}
}

func saltOf(answer string) string { return strings.Split(answer+",,", ",")[1] }

func TestSCRAMKeysAreRefused(t *testing.T) {
	good, err := SCRAMKeys([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseSCRAM(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "x", good + "$", strings.Replace(good, ":", "", 1), strings.Replace(good, "4096", "1", 1), strings.Replace(good, "4096", "9999999", 1), good[:len(good)-4]} {
		if _, err := parseSCRAM(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := SCRAMKeys([]byte("\x00")); err == nil {
		t.Error("a control character was taken")
	}
}
