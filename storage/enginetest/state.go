package enginetest

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/sluicemq/sluice/core"
)

func testState(t *testing.T, e core.Engine) {
	b := newBatch("t", "t", "t")
	b.Changes = []core.Change{
		{Key: "a/1", Value: []byte("one"), OffsetOf: 2},
		{Key: "a/2", Value: []byte{}},
		{Key: "a/3", Value: []byte("three")},
		{Key: "b", Value: []byte("x")},
		{Key: "b", Value: []byte("y")},
		{Key: "a\xff", Value: []byte("z")},
		{Key: "", Value: []byte("empty key")},
	}
	first := put(t, e, b)
	put(t, e, &core.Batch{Time: start, Sync: true, Changes: []core.Change{{Key: "a/3"}, {Key: "never"}, {Key: "c", Value: []byte("c")}}})

	one := string(binary.BigEndian.AppendUint64([]byte("one"), uint64(first)+1))
	for key, want := range map[string]string{"a/1": one, "b": "y", "c": "c", "": "empty key"} {
		if v, err := e.Get(key); string(v) != want || err != nil {
			t.Errorf("%q is %q, %v, want %q", key, v, err, want)
		}
	}
	if v, err := e.Get("a/2"); v == nil || len(v) != 0 || err != nil {
		t.Errorf("an empty value is %v, %v", v, err)
	}
	for _, key := range []string{"a/3", "never", "a"} {
		if v, err := e.Get(key); v != nil || err != nil {
			t.Errorf("%q is %q, %v", key, v, err)
		}
	}
	for _, c := range []struct {
		prefix, from string
		want         []string
	}{
		{"", "", []string{"", "a/1", "a/2", "a\xff", "b", "c"}},
		{"a/", "", []string{"a/1", "a/2"}},
		{"a", "", []string{"a/1", "a/2", "a\xff"}},
		{"a/", "a/2", []string{"a/2"}},
		{"a/", "a/11", []string{"a/2"}},
		{"a/", "b", nil},
		{"a/", "A", []string{"a/1", "a/2"}},
		{"a\xff", "", []string{"a\xff"}},
		{"d", "", nil},
	} {
		var got []string
		for s, err := range e.State(c.prefix, c.from) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, s.Key)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("state under %q from %q: %q, want %q", c.prefix, c.from, got, c.want)
		}
	}
	n := 0
	for range e.State("", "") {
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("%d steps before the break", n)
	}
}

// testStateMoment: a walk over the state does not see what comes meanwhile.
func testStateMoment(t *testing.T, e core.Engine) {
	var changes []core.Change
	for i := range 100 {
		changes = append(changes, core.Change{Key: fmt.Sprintf("k%03d", i), Value: []byte("old")})
	}
	put(t, e, &core.Batch{Time: start, Sync: true, Changes: changes})
	n := 0
	for s, err := range e.State("k", "") {
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			for i := range changes {
				changes[i].Value = []byte("new")
			}
			put(t, e, &core.Batch{Time: start, Sync: true, Changes: append(changes, core.Change{Key: "k999", Value: []byte("new")})})
		}
		if string(s.Value) != "old" {
			t.Errorf("%s is %q", s.Key, s.Value)
		}
		n++
	}
	if n != 100 {
		t.Errorf("%d keys", n)
	}
}
