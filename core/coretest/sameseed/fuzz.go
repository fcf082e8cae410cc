package sameseed

import (
	"flag"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// Inputs is how many inputs made of its seeds a fuzz target gets where it is
// not being fuzzed.
const Inputs = 1000

// F is a fuzz target that tries more than its seeds in a plain run of the
// tests: Inputs inputs made of them, the same in each run. While go test -fuzz
// runs it, it is a plain *testing.F.
type F struct {
	*testing.F
	seeds [][]any
}

// Fuzz wraps the fuzz target of f, which then adds its seeds to, and is run by,
// what is returned.
func Fuzz(f *testing.F) *F { return &F{F: f} }

// Add adds a seed as testing.F does.
func (f *F) Add(seed ...any) {
	f.F.Add(seed...)
	for i, v := range seed {
		if b, ok := v.([]byte); ok {
			seed[i] = slices.Clone(b)
		}
	}
	f.seeds = append(f.seeds, seed)
}

// Fuzz adds the inputs made of the seeds and runs the target.
func (f *F) Fuzz(target any) {
	f.Helper()
	fuzzing := false
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if given := flag.Lookup(name); given != nil && given.Value.String() != given.DefValue {
			fuzzing = true
		}
	}
	if len(f.seeds) > 0 && !fuzzing {
		random := rand.New(rand.NewPCG(1, uint64(len(f.seeds))))
		for range Inputs {
			one, other := f.seeds[random.IntN(len(f.seeds))], f.seeds[random.IntN(len(f.seeds))]
			f.F.Add(mutated(random, one, other)...)
		}
	}
	f.F.Fuzz(target)
}

// mutated is the seed one with one or some of its values changed, also by
// parts of other.
func mutated(random *rand.Rand, one, other []any) []any {
	values := slices.Clone(one)
	first := random.IntN(len(values))
	for i, v := range values {
		if i != first && random.IntN(3) > 0 {
			continue
		}
		switch v := v.(type) {
		case []byte:
			values[i] = text(random, v, other[i].([]byte))
		case string:
			values[i] = string(text(random, []byte(v), []byte(other[i].(string))))
		case bool:
			values[i] = !v
		default: // a number
			n := reflect.New(reflect.TypeOf(v)).Elem()
			if n.CanInt() {
				n.SetInt(int64(random.Uint64()))
			} else {
				n.SetUint(random.Uint64() >> (64 - n.Type().Bits()))
			}
			values[i] = n.Interface()
		}
	}
	return values
}

// odd are bytes that lengths, texts and grammars end or go wrong at.
var odd = []string{"\x00", "\x01", "\x7f", "\x80", "\xff", "\xff\xff\xff\xff", "\x00\x00\x00\x00", "\n", "\r\n", "\\", "\"", "%", "+", "#", "/", ":", "\u00e9", "\xed\xa0\x80", "-1", "18446744073709551616"}

// text is b after up to eight changes.
func text(random *rand.Rand, b, other []byte) []byte {
	b = slices.Clone(b)
	for range 1 + random.IntN(8) {
		at := random.IntN(len(b) + 1)
		end := min(len(b), at+1+random.IntN(8))
		switch random.IntN(7) {
		case 0: // a bit
			if at < len(b) {
				b[at] ^= 1 << random.IntN(8)
			}
		case 1:
			b = slices.Insert(b, at, []byte(odd[random.IntN(len(odd))])...)
		case 2:
			b = slices.Replace(b, at, end, []byte(odd[random.IntN(len(odd))])...)
		case 3:
			b = slices.Delete(b, at, end)
		case 4: // again
			b = slices.Insert(b, at, slices.Clone(b[at:end])...)
		case 5: // the end of another
			b = append(b[:at], other[random.IntN(len(other)+1):]...)
		case 6:
			b = b[:at]
		}
	}
	return b
}
