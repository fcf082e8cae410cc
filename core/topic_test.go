package core

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

// naiveMatch is the definition of Filter.Match, read off level by level.
func naiveMatch(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if topic[0] == '$' && (f[0] == "+" || f[0] == "#") {
		return false
	}
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i >= len(t) || level != "+" && level != t[i] {
			return false
		}
		// A "#" that follows the last level stands for none.
		if i == len(t)-1 && i == len(f)-2 && f[i+1] == "#" {
			return true
		}
	}
	return len(f) == len(t)
}

func genTopic(t *rapid.T, label string) string {
	levels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "$x", "é"}), 1, 5).Draw(t, label)
	if s := strings.Join(levels, "/"); s != "" {
		return s
	}
	return "a"
}

func genFilter(t *rapid.T, label string) Filter {
	levels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "$x", "é", "+", "+"}), 1, 5).Draw(t, label)
	if rapid.Bool().Draw(t, label+"#") {
		levels = append(levels, "#")
	}
	s := strings.Join(levels, "/")
	if s == "" {
		s = "+"
	}
	f, err := ParseFilter(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return f
}

func TestFilterMatchesAsDefined(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, topic := genFilter(t, "filter"), genTopic(t, "topic")
		if got, want := f.Match(topic), naiveMatch(string(f), topic); got != want {
			t.Fatalf("%q matches %q: %v, want %v", f, topic, got, want)
		}
		if f.Match(topic) && !strings.HasPrefix(topic, f.Prefix()) {
			t.Fatalf("%q matches %q, which does not begin with %q", f, topic, f.Prefix())
		}
	})
}

// [MQTT-4.7.1-2], [MQTT-4.7.1-3], [MQTT-4.7.3-1], [MQTT-4.7.3-2]
func TestParseFilter(t *testing.T) {
	for _, s := range []string{"a", "/", "//", "+", "#", "a/#", "+/+", "/+/", "a/+/b/#", strings.Repeat("a", 1024)} {
		if _, err := ParseFilter(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+", "##", "a\x00", "\xff", strings.Repeat("a", 1025), strings.Repeat("/", 32)} {
		if _, err := ParseFilter(s); !errors.Is(err, ErrInvalidTopic) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"a+b", "#", "a/+", ""} {
		if err := CheckTopic(s); !errors.Is(err, ErrInvalidTopic) {
			t.Errorf("topic %q: %v", s, err)
		}
	}
}

// The index finds exactly the cursors whose filters match, with the tags in the
// order of their bindings, through any sequence of changes.
func TestIndexFindsWhatMatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newIndex()
		type standing struct {
			c *cursor
			b *bound
		}
		var all []standing
		cursors := []*cursor{{}, {}, {}}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				c := rapid.SampledFrom(cursors).Draw(t, "cursor")
				b := &bound{Binding: Binding{Filter: genFilter(t, "filter"), Tag: uint64(len(all))}, order: len(all)}
				all = append(all, standing{c, b})
				x.add(c, b)
			},
			"remove": func(t *rapid.T) {
				if len(all) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				x.remove(all[i].b)
				all = slices.Delete(all, i, i+1)
			},
			"match": func(t *rapid.T) {
				topic := genTopic(t, "topic")
				want := map[*cursor][]uint64{}
				for _, s := range all {
					if naiveMatch(string(s.b.Filter), topic) {
						want[s.c] = append(want[s.c], s.b.Tag)
					}
				}
				got := x.match(topic)
				if len(got) != len(want) {
					t.Fatalf("%q leads to %d cursors, want %d", topic, len(got), len(want))
				}
				for _, m := range got {
					if !slices.IsSorted(m.tags) || len(m.tags) != len(want[m.cursor]) {
						t.Fatalf("%q: tags %v, want %v", topic, m.tags, want[m.cursor])
					}
				}
			},
		})
		for _, s := range all {
			x.remove(s.b)
		}
		if !x.wild.empty() || len(x.exact) != 0 {
			t.Fatal("something is left in an empty index")
		}
	})
}

func naiveKey(p, k []string) bool {
	if len(p) == 0 {
		return len(k) == 0
	}
	if p[0] == "#" {
		return naiveKey(p[1:], k) || len(k) > 0 && naiveKey(p, k[1:])
	}
	return len(k) > 0 && (p[0] == "*" || p[0] == k[0]) && naiveKey(p[1:], k[1:])
}

func TestMatchKeyAsDefined(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*", "#"}), 1, 7).Draw(t, "pattern")
		k := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 7).Draw(t, "key")
		if got, want := MatchKey(strings.Join(p, "."), strings.Join(k, ".")), naiveKey(p, k); got != want {
			t.Fatalf("%v matches %v: %v, want %v", p, k, got, want)
		}
	})
}

func FuzzFilter(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, s := range []string{"a/b", "a/+/b", "#", "$queue/q", "+/#", "a//b", "\xff/\x00"} {
		f.Add(s, "a/b")
	}
	f.Fuzz(func(t *testing.T, filter, topic string) {
		flt, err := ParseFilter(filter)
		if err != nil || CheckTopic(topic) != nil {
			return
		}
		if got, want := flt.Match(topic), naiveMatch(filter, topic); got != want {
			t.Fatalf("%q matches %q: %v, want %v", filter, topic, got, want)
		}
	})
}

// What begins with a dollar sign is the broker's own by its whole first level.
func TestOwn(t *testing.T) {
	for topic, want := range map[string]bool{
		"": false, "a/$queue": false, "$": false, "$/queue": false, "$fleet/x": false, "$queues/q": false, "$sys/x": false, "$SYSTEM": false,
		"$queue/q": true, "$exchange/e/k": true, "$inbox/x": true, "$delayed/1/t": true, "$SYS": true, "$SYS/broker": true, "$SYS/#": true,
		"$share/g/f": true, "$session/x": true, "$replay/1/t": true, "$meta/#": true,
	} {
		if own(topic) != want {
			t.Errorf("%q: %v", topic, !want)
		}
	}
}
