package access

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

// A rule is a configs.Rule, made ready to be asked.
type rule struct {
	anonymous, everyUser bool
	users, roles         []string
	actions              [core.Manage + 1]bool
	allow                bool
	all                  bool // every topic, queue and exchange
	patterns             []pattern
}

// A pattern is a filter, perhaps with the user's name or the client id to be
// put in.
type pattern struct {
	text         string
	user, client bool
}

func compile(r configs.Rule) rule {
	out := rule{allow: len(r.Allow) > 0, all: len(r.Filters) == 0}
	for _, who := range r.Who {
		kind, name, _ := strings.Cut(string(who), ":")
		switch kind {
		case "anonymous":
			out.anonymous = true
		case "users":
			out.everyUser = true
		case "user":
			out.users = append(out.users, name)
		case "role":
			out.roles = append(out.roles, name)
		}
	}
	for _, action := range append(slices.Clone(r.Allow), r.Deny...) {
		for a := core.Publish; a <= core.Manage; a++ {
			// What may be subscribed to may be delivered, and led to queues.
			if string(action) == "all" || string(action) == a.String() || action == "subscribe" && (a == core.Deliver || a == core.Bind) {
				out.actions[a] = true
			}
		}
	}
	for _, f := range r.Filters {
		s := string(f)
		out.patterns = append(out.patterns, pattern{text: s, user: strings.Contains(s, "%u"), client: strings.Contains(s, "%c")})
	}
	return out
}

func (r *rule) isFor(p *core.Principal) bool {
	if p.Name == "" {
		return r.anonymous
	}
	if r.everyUser || slices.Contains(r.users, p.Name) {
		return true
	}
	for _, role := range r.roles {
		if slices.Contains(p.Roles, role) {
			return true
		}
	}
	return false
}

// filter is the pattern for one principal. It is none where the name to be put
// in is missing, or contains what would change the meaning of the filter.
func (t *pattern) filter(p *core.Principal) (core.Filter, bool) {
	s := t.text
	if t.user {
		if !oneLevel(p.Name) {
			return "", false
		}
		s = strings.ReplaceAll(s, "%u", p.Name)
	}
	if t.client {
		client := clientOf(p)
		if !oneLevel(client) {
			return "", false
		}
		s = strings.ReplaceAll(s, "%c", client)
	}
	return core.Filter(s), true
}

func oneLevel(s string) bool { return s != "" && !strings.ContainsAny(s, "/+#%$\x00") }

// allowed asks the rules in order.
func (s *state) allowed(p *core.Principal, action core.Action, resource string) bool {
	if int(action) >= len(rule{}.actions) {
		return false
	}
	if action == core.Publish || action == core.Subscribe {
		// A reply inbox is anybody's who knows its name.
		if strings.HasPrefix(resource, core.InboxPrefix) && core.Filter(resource).Exact() {
			return true
		}
	}
	for i := range s.rules {
		r := &s.rules[i]
		if r.actions[action] && r.isFor(p) && r.matches(p, action, resource) {
			return r.allow
		}
	}
	return false
}

// matches reports whether the rule decides about a resource. Of a filter with
// wildcards that is subscribed to a denial must cover all, whereas an allowance
// of some is enough; with one that is bound it is the other way round.
func (r *rule) matches(p *core.Principal, action core.Action, resource string) bool {
	if r.all {
		return true
	}
	for i := range r.patterns {
		f, ok := r.patterns[i].filter(p)
		if !ok {
			continue
		}
		switch {
		case action != core.Subscribe && action != core.Bind || core.Filter(resource).Exact():
			ok = f.Match(resource)
		case r.allow == (action == core.Subscribe):
			ok = overlaps(string(f), resource)
		default:
			ok = covers(string(f), resource)
		}
		if ok {
			return true
		}
	}
	return false
}

// covers reports whether a matches every topic that b matches. There is no
// empty topic, so that "+/#" matches as much as "#" does, and "/+/#" as "/#".
func covers(a, b string) bool {
	if wild(a) && dollar(b) || dollar(a) && wild(b) {
		return false
	}
	noParent := true // what b has matched so far is no topic by itself
	for depth := 0; ; depth++ {
		la, restA, moreA := strings.Cut(a, "/")
		lb, restB, moreB := strings.Cut(b, "/")
		if la == "#" {
			return true
		}
		if lb == "#" {
			return noParent && la == "+" && restA == "#"
		}
		if la != "+" && la != lb {
			return false
		}
		switch {
		case !moreB:
			return !moreA || restA == "#"
		case !moreA:
			return false
		}
		noParent = depth == 0 && lb == ""
		a, b = restA, restB
	}
}

// overlaps reports whether some topic is matched by both.
func overlaps(a, b string) bool {
	if wild(a) && dollar(b) || dollar(a) && wild(b) {
		return false
	}
	for depth := 0; ; depth++ {
		la, restA, moreA := strings.Cut(a, "/")
		lb, restB, moreB := strings.Cut(b, "/")
		if la == "#" || lb == "#" {
			return true
		}
		if la != "+" && lb != "+" && la != lb {
			return false
		}
		if !moreA || !moreB {
			empty := depth == 0 && (la == "" || lb == "")
			return !empty && (moreA == moreB || restA == "#" || restB == "#")
		}
		a, b = restA, restB
	}
}

func dollar(s string) bool { return strings.HasPrefix(s, "$") }

func wild(s string) bool { return s != "" && (s[0] == '+' || s[0] == '#') }

// Explain says what the rules answer to somebody, and which of them: its
// place in the list, or -1 where none matches.
func (a *Access) Explain(user, client string, roles []string, action core.Action, resource string) (allowed bool, index int, err error) {
	s := a.now.Load()
	if user != "" {
		if err := checkName("the user", user); err != nil {
			return false, -1, err
		}
	}
	if len(roles) == 0 {
		roles = s.users[user].Roles
	}
	if action == core.Subscribe {
		_, err = core.ParseFilter(resource)
	} else {
		err = core.CheckTopic(resource)
	}
	if err != nil {
		return false, -1, err
	}
	p := principal(user, roles, client)
	for i := range s.rules {
		r := &s.rules[i]
		if r.actions[action] && r.isFor(p) && r.matches(p, action, resource) {
			return r.allow, i, nil
		}
	}
	return s.allowed(p, action, resource), -1, nil
}

// ParseAction reads the name of what a rule is about.
func ParseAction(s string) (core.Action, error) {
	for a := core.Publish; a <= core.Manage; a++ {
		if a.String() == s && a != core.Deliver && a != core.Bind {
			return a, nil
		}
	}
	return 0, fmt.Errorf("%q is none of publish, subscribe, consume, manage", s)
}
