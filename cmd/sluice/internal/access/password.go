package access

import (
	"container/list"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
)

// The cost of a new hash: 19 MiB, two passes, one lane, as OWASP recommends.
const (
	hashMemory  = 19 << 10 // KiB
	hashPasses  = 2
	hashLanes   = 1
	hashKeySize = 32
)

// maxHashMemory and maxHashPasses bound what a hash in a users file may cost.
const (
	maxHashMemory = 256 << 10 // KiB
	maxHashPasses = 16
)

// nobody is the hash that a user who does not exist is compared with.
const nobody = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// HashPassword makes the hash of a password that stands in a users file.
func HashPassword(password []byte) string {
	salt := make([]byte, 16)
	rand.Read(salt)
	key := argon2.IDKey(password, salt, hashPasses, hashMemory, hashLanes, hashKeySize)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashMemory, hashPasses, hashLanes, b64.EncodeToString(salt), b64.EncodeToString(key))
}

// A passwordHash is a hash in the usual form, taken apart.
type passwordHash struct {
	memory, passes uint32
	lanes          uint8
	salt, key      []byte
}

func parseHash(s string) (h passwordHash, err error) {
	bad := errors.New("the hash is not of the form $argon2id$v=19$m=…,t=…,p=…$salt$key; make one with: sluice user passwd")
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != "v=19" {
		return h, bad
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.lanes); n != 3 || err != nil {
		return h, bad
	}
	if h.memory < 8*uint32(h.lanes) || h.memory > maxHashMemory || h.passes == 0 || h.passes > maxHashPasses || h.lanes == 0 {
		return h, fmt.Errorf("the hash costs m=%d,t=%d,p=%d: at most m=%d and t=%d are allowed, and none is 0", h.memory, h.passes, h.lanes, maxHashMemory, maxHashPasses)
	}
	if h.salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil || len(h.salt) < 8 {
		return h, bad
	}
	if h.key, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil || len(h.key) < 16 {
		return h, bad
	}
	return h, nil
}

// matches hashes a password. It takes tens of milliseconds and megabytes.
func (h *passwordHash) matches(password []byte) bool {
	key := argon2.IDKey(password, h.salt, h.passes, h.memory, h.lanes, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(key, h.key) == 1
}

const (
	// verifiedFor is how long a verified password is remembered, and
	// verifiedMax how many are.
	verifiedFor = 10 * time.Minute
	verifiedMax = 10_000
)

// A verifier checks passwords: a few at a time, since each costs memory, and
// those that were right it remembers, since HTTP brings one with each request.
type verifier struct {
	slots chan struct{} // one for each hash that is computed
	key   [32]byte      // so that what is remembered says nothing about a password

	hashed, recalled atomic.Uint64 // how passwords were checked

	mu     sync.Mutex // guards what follows
	proved map[[32]byte]*list.Element
	order  list.List // of provedEntry, the oldest first
}

type provedEntry struct {
	proof [32]byte
	until time.Time
}

func newVerifier() *verifier {
	v := &verifier{slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0))), proved: make(map[[32]byte]*list.Element)}
	rand.Read(v.key[:])
	return v
}

// verify reports whether a password has a hash. It waits for a slot as long as
// ctx lets it.
func (v *verifier) verify(ctx context.Context, user, hash string, password []byte) (bool, error) {
	proof := v.proof(user, hash, password)
	if v.remembered(proof) {
		return true, nil
	}
	h, err := parseHash(hash)
	if err != nil {
		return false, nil // ParseUsers has refused such
	}
	select {
	case v.slots <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-v.slots }()
	// Those who came together wait for the first of them only.
	if v.remembered(proof) {
		return true, nil
	}
	v.hashed.Add(1)
	right := h.matches(password)
	if right {
		v.remember(proof)
	}
	return right, nil
}

// proof stands for one user, hash and password.
func (v *verifier) proof(user, hash string, password []byte) (sum [32]byte) {
	mac := hmac.New(sha256.New, v.key[:])
	fmt.Fprintf(mac, "%d:%s%d:%s", len(user), user, len(hash), hash)
	mac.Write(password)
	mac.Sum(sum[:0])
	return sum
}

func (v *verifier) remembered(proof [32]byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.proved[proof]
	if ok = ok && time.Now().Before(e.Value.(provedEntry).until); ok {
		v.recalled.Add(1)
	}
	return ok
}

func (v *verifier) remember(proof [32]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e, ok := v.proved[proof]; ok {
		v.order.Remove(e)
	}
	now := time.Now()
	v.proved[proof] = v.order.PushBack(provedEntry{proof, now.Add(verifiedFor)})
	for e := v.order.Front(); len(v.proved) > verifiedMax || now.After(e.Value.(provedEntry).until); e = v.order.Front() {
		delete(v.proved, e.Value.(provedEntry).proof)
		v.order.Remove(e)
	}
}
