package core

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

// fullState is a definition in which every field is set, those too that come to
// be.
func fullState(t testing.TB) (s queueState) {
	s.Bindings = make([]bindingState, 3)
	var fill func(v reflect.Value, salt int)
	fill = func(v reflect.Value, salt int) {
		for i := range v.NumField() {
			f := v.Field(i)
			switch n := salt + i; f.Kind() {
			case reflect.Struct:
				fill(f, n)
			case reflect.Slice:
				if f.Type().Elem().Kind() == reflect.Uint8 {
					f.SetBytes([]byte{byte(n), 0, 255})
					continue
				}
				for j := range f.Len() {
					fill(f.Index(j), 7*n+j)
				}
			case reflect.String:
				f.SetString("größe/" + string(rune('a'+n%26)))
			case reflect.Bool:
				f.SetBool(true)
			case reflect.Int, reflect.Int64:
				f.SetInt(int64(1-2*(n%2)) * int64(time.Hour) * int64(n+1))
			case reflect.Uint8, reflect.Uint64:
				f.SetUint(uint64(n + 1))
			default:
				t.Fatalf("%s: a field of kind %s is not read plainly", v.Type(), f.Kind())
			}
		}
	}
	fill(reflect.ValueOf(&s).Elem(), 0)
	return s
}

// What json.Marshal writes of a queue's definition is read without encoding/json,
// whichever fields it has, and what is read next has nothing of it.
func TestPlainDefinitions(t *testing.T) {
	full := fullState(t)
	session := queueState{
		Settings: QueueSettings{Kind: KindSession, MaxAttempts: Unlimited, Lease: Unlimited, Expires: 7 * 24 * time.Hour, Owner: "me", Once: []byte("device-1")},
		Bindings: []bindingState{{Filter: "commands/device-1/#", Tag: 3<<32 | 1, Settlement: 2, From: 999_999_999_999_999_999}, {Filter: "broadcast/+"}},
	}
	p := newPlainReader[queueState]()
	var got queueState
	for _, want := range []queueState{full, session, full, {Bindings: []bindingState{{Filter: "#"}}}} {
		value, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.read(value, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\nis read as %+v, %v", value, got, err)
		}
	}
	if p.left != 0 {
		t.Errorf("%d were left to encoding/json", p.left)
	}
}

// Reading a session costs no more than what stays of it: its filters, and its
// bytes.
func TestPlainCost(t *testing.T) {
	value, err := json.Marshal(queueState{
		Settings: QueueSettings{Kind: KindSession, Overflow: OverflowDropOldest, DeadLetter: NoDeadLetter, Once: []byte("device-1"), Meta: []byte("{}")},
		Bindings: []bindingState{{Filter: "commands/device-1/#"}, {Filter: "broadcast/+"}, {Filter: "group/1/+"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := newPlainReader[queueState]()
	var s queueState
	if n := testing.AllocsPerRun(100, func() { _ = p.read(value, &s) }); n > 5 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever stands there, it is read as encoding/json reads it.
func FuzzPlainDefinitions(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	full, err := json.Marshal(fullState(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	for _, s := range []string{
		`{}`, `{"settings":{},"bindings":null}`, `{"settings":{},"bindings":[]}`, `{"settings":{},"bindings":[{}]}`, `{"bindings":[{}],"settings":{}}`,
		`{"settings":{"max_attempts":01}}`, `{"settings":{"max_attempts":-0}}`, `{"settings":{"max_attempts":--1}}`, `{"settings":{"max_attempts":1e3}}`,
		`{"settings":{"max_length":9223372036854775807}}`, `{"settings":{"max_length":9223372036854775808}}`, `{"settings":{"max_length":-}}`,
		`{"settings":{"owner":"a\u0062"}}`, "{\"settings\":{\"owner\":\"a\xff\"}}", "{\"settings\":{\"owner\":\"a\tb\"}}", `{"settings":{"owner":"größe"}}`, `{"settings":{"owner":null}}`,
		`{"settings":{"once":"AAE="}}`, `{"settings":{"once":"AAE"}}`, `{"settings":{"once":""}}`, `{"settings":{"once":null}}`, `{"settings":{"ordered":false}}`, `{"settings":{"ordered":truefalse}}`,
		`{"settings":{"unknown":1,"ordered":true}}`, `{"settings":{"ORDERED":true}}`, `{"settings":{"ordered":true},}`, `{"settings":{"ordered":true,}}`, `{,}`, `{"settings":{}}x`, `{"settings":{}`,
		`{"settings":{},"bindings":[{"settlement":255}]}`, `{"settings":{},"bindings":[{"settlement":256}]}`, `{"settings":{},"bindings":[{"until":18446744073709551615}]}`,
		`{"settings":{},"bindings":[{"filter":"a"},]}`, `{"settings":{},"bindings":[,]}`, `{ "settings" : { } }`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(checkPlain)
}

func checkPlain(t *testing.T, value []byte) {
	p := newPlainReader[queueState]()
	// It has read others before.
	got := fullState(t)
	before, err := json.Marshal(got)
	if err != nil || p.read(before, &got) != nil {
		t.Fatal(err)
	}
	var want queueState
	wrong := json.Unmarshal(value, &want)
	if err := p.read(value, &got); (err == nil) != (wrong == nil) {
		t.Fatalf("%q: %v, and encoding/json says %v", value, err, wrong)
	}
	if wrong != nil {
		return
	}
	if len(got.Bindings) == 0 && len(want.Bindings) == 0 {
		got.Bindings, want.Bindings = nil, nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q is read as %+v, by encoding/json as %+v", value, got, want)
	}
}
