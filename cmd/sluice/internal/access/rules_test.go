package access

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
	_ "github.com/sluicemq/sluice/core/coretest/sameseed" // this package's property tests
)

// rulesOf reads the rules of a YAML text.
func rulesOf(t testing.TB, text string) configs.Auth {
	t.Helper()
	c, err := configs.Parse("rules.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c.Auth
}

const sample = `
auth:
  rules:
    - {who: [role:admin], allow: [all]}
    - {who: [users], deny: [all], filters: [secret/#, $queue/secret]}
    - {who: [role:device], allow: [publish], filters: [devices/%u/#, clients/%c]}
    - {who: [users], allow: [subscribe], filters: [+/temp, alarms/#]}
    - {who: ["user:bob"], allow: [consume], filters: [$queue/orders]}
    - {who: [anonymous], allow: [subscribe], filters: [public/#]}
`

func TestRules(t *testing.T) {
	a, err := New(rulesOf(t, sample))
	if err != nil {
		t.Fatal(err)
	}
	admin := principal("root", []string{"admin"}, "c")
	device := principal("s1", []string{"device"}, "client-7")
	hash := principal("#", []string{"device"}, "a/b")
	bob := principal("bob", nil, "")
	nobody := principal("", nil, "x")
	for _, c := range []struct {
		p        *core.Principal
		action   core.Action
		resource string
		want     bool
	}{
		{admin, core.Manage, "$queue/any", true},
		{admin, core.Publish, "secret/x", true},
		{admin, core.Subscribe, "#", true},
		{device, core.Publish, "devices/s1/temp", true},
		{device, core.Publish, "devices/s1", true},
		{device, core.Publish, "devices/s2/temp", false},
		{device, core.Publish, "clients/client-7", true},
		{device, core.Publish, "clients/client-8", false},
		{device, core.Subscribe, "devices/s1/temp", false},
		{hash, core.Publish, "devices/s2/temp", false}, // a name is no wildcard
		{hash, core.Publish, "clients/a/b", false},     // nor does it have levels
		{bob, core.Publish, "devices/bob/x", false},
		{bob, core.Subscribe, "a/temp", true},
		{bob, core.Subscribe, "#", true},         // some of it may be
		{bob, core.Subscribe, "secret/#", false}, // none of it may be
		{bob, core.Bind, "#", false},             // not all of it may be
		{bob, core.Bind, "alarms/#", true},
		{bob, core.Bind, "+/temp", false}, // secret/temp may not
		{bob, core.Bind, "a/temp", true},
		{bob, core.Bind, "secret/temp", false},
		{bob, core.Subscribe, "secret/temp", false},
		{bob, core.Deliver, "secret/temp", false},
		{bob, core.Deliver, "a/temp", true},
		{bob, core.Deliver, "a/b", false},
		{bob, core.Consume, "$queue/orders", true},
		{bob, core.Consume, "$queue/secret", false},
		{bob, core.Consume, "$queue/other", false},
		{bob, core.Consume, "$queue/$session/any", false},
		{bob, core.Publish, "$inbox/abc", true},
		{bob, core.Subscribe, "$inbox/abc", true},
		{bob, core.Subscribe, "$inbox/#", false},
		{bob, core.Manage, "$queue/orders", false},
		{nobody, core.Subscribe, "public/a", true},
		{nobody, core.Subscribe, "alarms/#", false},
		{nobody, core.Publish, "public/a", false},
		{nobody, 99, "public/a", false},
	} {
		err := a.Authorize(c.p, c.action, c.resource)
		if (err == nil) != c.want || err != nil && !errors.Is(err, core.ErrNotAuthorized) {
			t.Errorf("%q %v %q: %v", c.p.Name, c.action, c.resource, err)
		}
	}
}

// topics of up to three levels over a small alphabet, and those with a dollar.
func universe() []string {
	var list []string
	levels := []string{"a", "b", "", "u", "c1"}
	for _, x := range append(levels, "$x") {
		list = append(list, x)
		for _, y := range levels {
			list = append(list, x+"/"+y)
			for _, z := range levels {
				list = append(list, x+"/"+y+"/"+z)
			}
		}
	}
	return list[:]
}

// TestRulesAgainstOracle holds rules to the plainest reading of them: of a
// topic the first rule that names the user, the action and the topic decides;
// a filter is refused to a subscriber only if every topic that it matches is,
// and to a binding if any is.
func TestRulesAgainstOracle(t *testing.T) {
	topics := universe()
	level := rapid.SampledFrom([]string{"a", "b", "", "+", "%u", "%c", "$x"})
	filter := rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(level, 1, 3).Draw(t, "levels")
		if rapid.Bool().Draw(t, "open") {
			parts = append(parts, "#")
		}
		if s := strings.Join(parts, "/"); s != "" {
			return s
		}
		return "a"
	})
	who := rapid.SampledFrom([]configs.Who{"users", "anonymous", "user:u", "user:v", "role:r", "role:s"})
	action := rapid.SampledFrom([]configs.Action{"publish", "subscribe", "all"})
	oneRule := rapid.Custom(func(t *rapid.T) configs.Rule {
		r := configs.Rule{Who: rapid.SliceOfN(who, 1, 2).Draw(t, "who")}
		actions := rapid.SliceOfN(action, 1, 2).Draw(t, "actions")
		if rapid.Bool().Draw(t, "allow") {
			r.Allow = actions
		} else {
			r.Deny = actions
		}
		for _, f := range rapid.SliceOfN(filter, 0, 2).Draw(t, "filters") {
			r.Filters = append(r.Filters, configs.Pattern(f))
		}
		return r
	})
	principals := []*core.Principal{principal("", nil, "c1"), principal("u", []string{"r"}, "c1"), principal("v", nil, "x/y"), principal("+", []string{"s"}, "")}

	rapid.Check(t, func(t *rapid.T) {
		auth := configs.Auth{Rules: rapid.SliceOfN(oneRule, 0, 5).Draw(t, "rules")}
		a, err := New(auth)
		if err != nil {
			t.Fatal(err)
		}
		p := rapid.SampledFrom(principals).Draw(t, "principal")
		for _, topic := range topics {
			if topic == "" {
				continue
			}
			for action, word := range map[core.Action]configs.Action{core.Publish: "publish", core.Deliver: "subscribe", core.Subscribe: "subscribe", core.Bind: "subscribe"} {
				want := oracle(auth.Rules, p, word, topic)
				if got := a.Authorize(p, action, topic) == nil; got != want {
					t.Fatalf("%q %v %q: %v, want %v", p.Name, action, topic, got, want)
				}
			}
		}
		asked := strings.NewReplacer("%u", "u", "%c", "c1").Replace(filter.Draw(t, "asked"))
		subscribes, binds := a.Authorize(p, core.Subscribe, asked) == nil, a.Authorize(p, core.Bind, asked) == nil
		for _, topic := range topics {
			if !core.Filter(asked).Match(topic) {
				continue
			}
			may := a.Authorize(p, core.Deliver, topic) == nil
			if may && !subscribes {
				t.Fatalf("%q may get %q and yet not subscribe to %q", p.Name, topic, asked)
			}
			if binds && !may {
				t.Fatalf("%q may not get %q and yet bind %q", p.Name, topic, asked)
			}
		}
	})
}

func oracle(rules []configs.Rule, p *core.Principal, action configs.Action, topic string) bool {
	client := ""
	for _, r := range p.Roles {
		if id, ok := strings.CutPrefix(r, clientRole); ok {
			client = id
		}
	}
	for _, r := range rules {
		meant := false
		for _, w := range r.Who {
			switch {
			case w == "anonymous":
				meant = meant || p.Name == ""
			case p.Name == "":
			case w == "users" || w == configs.Who("user:"+p.Name):
				meant = true
			default:
				for _, role := range p.Roles {
					meant = meant || w == configs.Who("role:"+role)
				}
			}
		}
		about := false
		for _, a := range append(append([]configs.Action{}, r.Allow...), r.Deny...) {
			about = about || a == action || a == "all"
		}
		matches := len(r.Filters) == 0
		for _, f := range r.Filters {
			s, bad := string(f), false
			for sign, value := range map[string]string{"%u": p.Name, "%c": client} {
				if strings.Contains(s, sign) {
					bad = bad || value == "" || strings.ContainsAny(value, "+#/$%")
					s = strings.ReplaceAll(s, sign, value)
				}
			}
			matches = matches || !bad && core.Filter(s).Match(topic)
		}
		if meant && about && matches {
			return len(r.Allow) > 0
		}
	}
	return false
}

// TestCoversAndOverlaps compares both with a look at every topic of a small
// universe.
func TestCoversAndOverlaps(t *testing.T) {
	var filters []string
	levels := []string{"a", "b", "", "+", "#"}
	for _, x := range append(levels, "$x") {
		for _, y := range append(levels, "-") {
			for _, z := range append(levels, "-") {
				s := x
				if y != "-" {
					s += "/" + y
				}
				if y != "-" && z != "-" {
					s += "/" + z
				}
				if _, err := core.ParseFilter(s); err == nil {
					filters = append(filters, s)
				}
			}
		}
	}
	// Topics with a level more, and with one that no filter names, tell "+"
	// and "#" from what they happen to match.
	var topics []string
	names := []string{"a", "b", "", "other"}
	for _, x := range append(names, "$x", "$y") {
		topics = append(topics, x)
		for _, y := range names {
			topics = append(topics, x+"/"+y)
			for _, z := range names {
				topics = append(topics, x+"/"+y+"/"+z, x+"/"+y+"/"+z+"/other")
			}
		}
	}
	for _, a := range filters {
		for _, b := range filters {
			all, some := true, false
			for _, topic := range topics {
				if core.Filter(b).Match(topic) {
					all = all && core.Filter(a).Match(topic)
					some = some || core.Filter(a).Match(topic)
				}
			}
			if got := covers(a, b); got && !all {
				t.Errorf("covers(%q, %q)", a, b)
			} else if !got && all {
				t.Errorf("not covers(%q, %q)", a, b)
			}
			if got := overlaps(a, b); got != some {
				t.Errorf("overlaps(%q, %q) = %v", a, b, got)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	a, err := New(rulesOf(t, sample))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		user     string
		roles    []string
		action   core.Action
		resource string
		want     string
	}{
		{"bob", nil, core.Subscribe, "alarms/1", "true 3"},
		{"bob", nil, core.Subscribe, "secret/#", "false 1"},
		{"bob", nil, core.Manage, "x", "false -1"},
		{"root", []string{"admin"}, core.Manage, "x", "true 0"},
		{"", nil, core.Subscribe, "public/#", "true 5"},
	} {
		allowed, i, err := a.Explain(c.user, "", c.roles, c.action, c.resource)
		if got := fmt.Sprint(allowed, i); got != c.want || err != nil {
			t.Errorf("%q %v %q: %s, %v, want %s", c.user, c.action, c.resource, got, err, c.want)
		}
	}
	if _, _, err := a.Explain("", "", nil, core.Publish, "a/#"); err == nil {
		t.Error("nobody publishes to a filter")
	}
}
