package access

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/stringprep"

	"github.com/sluicemq/sluice/core"
)

// methodSCRAM is SCRAM-SHA-256 (RFC 5802, RFC 7677): a password is proved
// without being sent, and the broker proves that it knows it, too.
const methodSCRAM = "SCRAM-SHA-256"

// The cost of new SCRAM keys: what RFC 7677 asks for. The client pays it at
// every login, small devices included.
const (
	scramIterations    = 4096
	maxSCRAMIterations = 1_000_000
	scramSalt          = 16
	scramNonce         = 18
)

var b64 = base64.StdEncoding

// SCRAMKeys are what stands in a users file of a password for SCRAM-SHA-256. A
// password that SASLprep (RFC 4013) does not take has none.
func SCRAMKeys(password []byte) (string, error) {
	prepared, err := stringprep.SASLprep.Prepare(string(password))
	if err != nil || prepared == "" {
		return "", errors.New("the password has characters that SCRAM does not allow")
	}
	salt := make([]byte, scramSalt)
	rand.Read(salt)
	k, err := deriveSCRAM(prepared, salt, scramIterations)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s$%d:%s$%s:%s", methodSCRAM, k.iterations, b64.EncodeToString(k.salt), b64.EncodeToString(k.stored), b64.EncodeToString(k.server)), nil
}

// scramKeys are a password's keys (RFC 5802, 3).
type scramKeys struct {
	iterations           int
	salt, stored, server []byte
}

func deriveSCRAM(prepared string, salt []byte, iterations int) (k scramKeys, err error) {
	salted, err := pbkdf2.Key(sha256.New, prepared, salt, iterations, sha256.Size)
	if err != nil {
		return k, err
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	return scramKeys{iterations, salt, stored[:], mac(salted, "Server Key")}, nil
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func parseSCRAM(s string) (k scramKeys, err error) {
	bad := fmt.Errorf("the SCRAM keys are not of the form %s$iterations:salt$key:key; make them with: sluice user passwd", methodSCRAM)
	parts := strings.Split(s, "$")
	if len(parts) != 3 || parts[0] != methodSCRAM {
		return k, bad
	}
	count, salt, ok := strings.Cut(parts[1], ":")
	stored, server, ok2 := strings.Cut(parts[2], ":")
	if !ok || !ok2 {
		return k, bad
	}
	if k.iterations, err = strconv.Atoi(count); err != nil {
		return k, bad
	}
	if k.iterations < scramIterations || k.iterations > maxSCRAMIterations {
		return k, fmt.Errorf("the SCRAM keys have %d iterations: want %d to %d", k.iterations, scramIterations, maxSCRAMIterations)
	}
	for _, f := range []struct {
		text string
		to   *[]byte
		size int
	}{{salt, &k.salt, 0}, {stored, &k.stored, sha256.Size}, {server, &k.server, sha256.Size}} {
		if *f.to, err = b64.DecodeString(f.text); err != nil || len(*f.to) == 0 || f.size > 0 && len(*f.to) != f.size {
			return k, bad
		}
	}
	return k, nil
}

// Exchange begins a login by SCRAM-SHA-256. It does not block.
func (a *Access) Exchange(method string, c core.Credentials) (core.Exchange, error) {
	s := a.now.Load()
	if method != methodSCRAM || !s.hasSCRAM {
		return nil, fmt.Errorf("%w: authentication by %q", core.ErrNotFound, method)
	}
	nonce := make([]byte, scramNonce)
	rand.Read(nonce)
	return &scramExchange{access: a, client: c.Client, user: c.User, nonce: b64.EncodeToString(nonce)}, nil
}

// A scramExchange is the server's part of one exchange (RFC 5802, 5).
type scramExchange struct {
	access *Access
	client string // client id
	user   string // that was named besides, or empty
	nonce  string // the server's part; after the first message, both

	header string // gs2-header
	first  string // client-first-message-bare
	answer string // server-first-message
	name   string
	keys   scramKeys
	known  bool
}

var errSCRAM = fmt.Errorf("%w: the message is not one of SCRAM-SHA-256", core.ErrUnauthenticated)

// Next takes the client's first message, then its final one.
func (x *scramExchange) Next(message []byte) (answer []byte, p *core.Principal, err error) {
	if x.answer == "" {
		return x.begin(string(message))
	}
	return x.finish(string(message))
}

// begin reads the client-first-message and answers with the salt.
func (x *scramExchange) begin(message string) ([]byte, *core.Principal, error) {
	parts := strings.SplitN(message, ",", 3)
	if len(parts) != 3 {
		return nil, nil, errSCRAM
	}
	binding, authzid, bare := parts[0], parts[1], parts[2]
	if strings.HasPrefix(binding, "p=") {
		return nil, nil, fmt.Errorf("%w: there is no channel binding here; use %s without it", core.ErrUnauthenticated, methodSCRAM)
	}
	fields := strings.Split(bare, ",")
	if binding != "n" && binding != "y" || len(fields) < 2 {
		return nil, nil, errSCRAM
	}
	name, ok := strings.CutPrefix(fields[0], "n=")
	nonce, ok2 := strings.CutPrefix(fields[1], "r=")
	if !ok || !ok2 || nonce == "" || !printable(nonce) {
		return nil, nil, errSCRAM // "m=" among them: no extension is known here
	}
	if name, ok = saslName(name); !ok || name == "" {
		return nil, nil, errSCRAM
	}
	// Nobody acts for another one, and there is one user to a connection.
	if as, ok := saslName(strings.TrimPrefix(authzid, "a=")); !ok || as != "" && as != name || x.user != "" && x.user != name {
		return nil, nil, fmt.Errorf("%w: two users are named", core.ErrUnauthenticated)
	}
	s := x.access.now.Load()
	x.header, x.first, x.name = binding+","+authzid+",", bare, name
	if x.keys, x.known = s.scram[name]; !x.known {
		// Who is not there gets a salt, too, the same each time.
		x.keys = scramKeys{iterations: scramIterations, salt: mac(x.access.verifier.key[:], name)[:scramSalt], stored: make([]byte, sha256.Size), server: make([]byte, sha256.Size)}
	}
	x.nonce = nonce + x.nonce
	x.answer = fmt.Sprintf("r=%s,s=%s,i=%d", x.nonce, b64.EncodeToString(x.keys.salt), x.keys.iterations)
	return []byte(x.answer), nil, nil
}

// finish reads the client-final-message and answers with the server's own
// proof.
func (x *scramExchange) finish(message string) ([]byte, *core.Principal, error) {
	at := strings.LastIndex(message, ",p=")
	if at < 0 {
		return nil, nil, errSCRAM
	}
	without := message[:at]
	proof, err := b64.DecodeString(message[at+len(",p="):])
	if err != nil || len(proof) != sha256.Size {
		return nil, nil, errSCRAM
	}
	fields := strings.Split(without, ",")
	if len(fields) < 2 || fields[0] != "c="+b64.EncodeToString([]byte(x.header)) || fields[1] != "r="+x.nonce {
		return nil, nil, errSCRAM
	}
	all := x.first + "," + x.answer + "," + without
	key := make([]byte, sha256.Size)
	subtle.XORBytes(key, proof, mac(x.keys.stored, all))
	stored := sha256.Sum256(key)
	u, there := x.access.now.Load().users[x.name]
	if subtle.ConstantTimeCompare(stored[:], x.keys.stored) != 1 || !x.known || !there {
		return nil, nil, fmt.Errorf("%w: user and password do not match", core.ErrUnauthenticated)
	}
	return []byte("v=" + b64.EncodeToString(mac(x.keys.server, all))), principal(u.Name, u.Roles, x.client), nil
}

// saslName takes the escapes out of a name (RFC 5802, 5.1, "saslname").
func saslName(s string) (string, bool) {
	if strings.Contains(strings.NewReplacer("=2C", "", "=3D", "").Replace(s), "=") {
		return "", false
	}
	return strings.NewReplacer("=2C", ",", "=3D", "=").Replace(s), true
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7E || r == ',' })
}
