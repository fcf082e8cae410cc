package stomp_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
	"testing/synctest"
)

var update = flag.Bool("update", false, "write the generated pages of docs anew")

// A rule is something that the specifications say: every MUST and SHOULD of
// each version, and what else a client relies on. Their own words stand in
// said; what holds them is a test, or a reason why there is none.
type rule struct {
	section, name string
	said          []said
	// test runs once for each version that says so.
	test func(s *spec)
	// by names a test of this package that stands elsewhere.
	by string
	// why there is nothing to test.
	why string
}

// said quotes a specification; versions are separated by a space.
type said struct{ versions, quote string }

// A spec is one run of a rule's test.
type spec struct {
	*testing.T
	g *gateway
	v string // the version
}

// rules are all of them, in the order of STOMP 1.2.
func rules() []rule {
	var all []rule
	for _, some := range [][]rule{frameRules, connectRules, sendRules, subscribeRules, ackRules, transactionRules, serverRules} {
		all = append(all, some...)
	}
	return all
}

// quote returns what a version says, and whether it says anything.
func (r *rule) quote(v string) (string, bool) {
	for _, s := range r.said {
		if strings.Contains(s.versions, v) {
			return s.quote, true
		}
	}
	return "", false
}

// TestSpecification runs the rules: TestSpecification/1.2/SEND/needs_a_destination.
func TestSpecification(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(v, func(t *testing.T) {
			for _, r := range rules() {
				if _, ok := r.quote(v); !ok || r.test == nil {
					continue
				}
				t.Run(r.path(), func(t *testing.T) {
					bubble(t, func(g *gateway) { r.test(&spec{g.t.(*testing.T), g, v}) })
				})
			}
		})
	}
}

func (r *rule) path() string {
	return strings.ReplaceAll(r.section+"/"+r.name, " ", "_")
}

const specificationPage = "../../docs/stomp-conformance.md"

// TestSpecificationPage: the page says what the rules are; with -update it is
// written anew.
func TestSpecificationPage(t *testing.T) {
	functions := testFunctions(t)
	var b strings.Builder
	b.WriteString(`# STOMP 1.0, 1.1 and 1.2, statement by statement

What the three specifications ask of a server, every MUST and SHOULD and what
else a client relies on, with the test that holds it or the reason why there is
none. The tests are in ` + "`adapters/stomp`" + `; run one of them with

` + "```sh\ngo test ./adapters/stomp -run 'TestSpecification/1.2/SEND/needs_a_destination'\n```" + `

This page is made from those tests: ` + "`go test ./adapters/stomp -run SpecificationPage -update`" + `.
`)
	seen := make(map[string]bool)
	for i := len(versions) - 1; i >= 0; i-- {
		v := versions[i]
		fmt.Fprintf(&b, "\n## STOMP %s\n\n| section | it says | held by |\n|---|---|---|\n", v)
		for _, r := range rules() {
			quote, ok := r.quote(v)
			if !ok {
				continue
			}
			held := "`TestSpecification/" + v + "/" + r.path() + "`"
			switch {
			case count(r.test != nil, r.by != "", r.why != "") != 1:
				t.Errorf("%s: want a test, the name of one, or a reason", r.path())
			case r.by != "":
				if !functions[r.by] {
					t.Errorf("%s: there is no %s", r.path(), r.by)
				}
				held = "`" + r.by + "`"
			case r.why != "":
				held = r.why
			}
			if seen[v+r.path()] {
				t.Errorf("%s stands there twice", r.path())
			}
			seen[v+r.path()] = true
			fmt.Fprintf(&b, "| %s | %s | %s |\n", r.section, strings.ReplaceAll(quote, "|", `\|`), held)
		}
	}
	comparePage(t, specificationPage, b.String())
}

// comparePage compares a page with what it should be, or writes it.
func comparePage(t *testing.T, file, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the tests say; write it anew with -update", file)
	}
}

// testFunctions are the names of the tests in this package.
func testFunctions(t *testing.T) map[string]bool {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Recv == nil && strings.HasPrefix(d.Name.Name, "Test") {
				names[d.Name.Name] = true
			}
		}
	}
	return names
}

// connect connects with the version.
func (s *spec) connect(headers ...string) *peer {
	s.Helper()
	return s.g.connect(s.v, headers...)
}

// consume subscribes and waits until that is done. The id is 0.
func (s *spec) consume(destination string, headers ...string) *peer {
	s.Helper()
	p := s.connect()
	p.subscribe("0", destination, headers...)
	return p
}

// sent sends messages with the bodies, one after the other, each durable.
func (s *spec) sent(destination string, bodies ...string) {
	s.Helper()
	p := s.connect()
	for _, b := range bodies {
		p.publish(destination, b)
	}
	p.bye()
}

// messages reads n MESSAGE frames.
func (p *peer) messages(n int) []reply {
	p.t.Helper()
	rs := make([]reply, n)
	for i := range rs {
		rs[i] = p.expect("MESSAGE\n")
	}
	return rs
}

func bodies(rs []reply) string {
	var all []string
	for _, r := range rs {
		all = append(all, r.body)
	}
	return strings.Join(all, " ")
}

// left is what a queue still has for a consumer that comes now.
func (s *spec) left(queue string) string {
	s.Helper()
	synctest.Wait()
	return strings.Join(left(s.g, queue), " ")
}

// since is whether the version is at least that one.
func (s *spec) since(v string) bool { return s.v >= v }

func count(all ...bool) (n int) {
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}
