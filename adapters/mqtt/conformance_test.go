package mqtt

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/mqtt-conformance.md")

// conformancePage is made of testdata/statements.list and the transcripts.
const conformancePage = "../../docs/mqtt-conformance.md"

// A statement is a normative statement of one of the specifications, such as
// "5.0 3.1.2-30", with what proves it or why nothing has to.
type statement struct {
	name   string
	proofs []string
}

// statements reads the list.
func statements(t *testing.T) (all []*statement, by map[string]*statement) {
	t.Helper()
	text, err := os.ReadFile("testdata/statements.list")
	if err != nil {
		t.Fatal(err)
	}
	by = make(map[string]*statement)
	for i, line := range strings.Split(string(text), "\n") {
		fail := func(why string) { t.Fatalf("testdata/statements.list:%d: %s: %s", i+1, line, why) }
		head, rest, ok := strings.Cut(line, ": ")
		if line == "" || line[0] == '#' {
			continue
		}
		if !ok {
			fail("no colon")
		}
		switch kind, ids, _ := strings.Cut(head, " "); kind {
		case "5.0", "3.1.1":
			first, last, isRange := strings.Cut(rest, "-")
			if !isRange {
				last = first
			}
			from, err1 := strconv.Atoi(first)
			to, err2 := strconv.Atoi(last)
			if err1 != nil || err2 != nil || from > to {
				fail("no numbers")
			}
			for n := from; n <= to; n++ {
				s := &statement{name: fmt.Sprintf("%s-%d", head, n)}
				if by[s.name] != nil {
					fail("listed twice")
				}
				all, by[s.name] = append(all, s), s
			}
		case "why", "test":
			for _, id := range strings.Split(ids, ", ") {
				s := by[id]
				if s == nil {
					fail("there is no statement " + id)
				}
				if kind == "test" {
					rest = provedBy(t, rest)
					kind = ""
				}
				s.proofs = append(s.proofs, rest)
			}
		default:
			fail("neither a statement nor a reason")
		}
	}
	return all, by
}

// provedBy checks that a test exists and names it.
func provedBy(t *testing.T, proof string) string {
	t.Helper()
	where, says, ok := strings.Cut(proof, ": ")
	dir, name, ok2 := strings.Cut(where, " ")
	if !ok || !ok2 {
		t.Fatalf("%q is not FOLDER TEST: TEXT", proof)
	}
	files, _ := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	for _, f := range files {
		if text, _ := os.ReadFile(f); bytes.Contains(text, []byte("func "+name+"(")) {
			return fmt.Sprintf("%s (`%s` in `%s`)", says, name, dir)
		}
	}
	t.Errorf("there is no %s in %s", name, dir)
	return ""
}

// TestConformancePage: every statement is proved by a test or has a reason why
// not, nothing else is claimed, and the page says so.
func TestConformancePage(t *testing.T) {
	all, by := statements(t)
	proved := 0
	for _, tr := range transcripts(t) {
		for _, p := range tr.proves {
			name, isStatement := strings.CutPrefix(p, "5.0 MQTT-")
			v := "5.0 "
			if !isStatement {
				if name, isStatement = strings.CutPrefix(p, "3.1.1 MQTT-"); !isStatement {
					if !strings.HasPrefix(p, "Sluice ") && !strings.HasPrefix(p, "3.1 ") {
						t.Errorf("%s:%d: %q is no statement", tr.file, tr.line, p)
					}
					continue
				}
				v = "3.1.1 "
			}
			s := by[v+name]
			if s == nil {
				t.Errorf("%s:%d: there is no statement %s", tr.file, tr.line, v+name)
				continue
			}
			proof := tr.says + " (`" + filepath.Base(tr.file) + "`)"
			if !slices.Contains(s.proofs, proof) {
				s.proofs = append(s.proofs, proof)
			}
		}
	}
	var page strings.Builder
	page.WriteString(`# MQTT: what the specifications demand, and what proves it

Made by ` + "`go test ./adapters/mqtt -run ConformancePage -update`" + ` from the transcripts in ` + "`adapters/mqtt/testdata/statements`" + `: conversations, byte by byte, that every run of the tests has with the broker. A statement that binds only clients, or other kinds of servers, says so instead.
`)
	version := ""
	for _, s := range all {
		v, name, _ := strings.Cut(s.name, " ")
		if v != version {
			version = v
			fmt.Fprintf(&page, "\n## MQTT %s\n\n| statement | proof, or why there is none |\n|---|---|\n", v)
		}
		if len(s.proofs) == 0 {
			t.Errorf("nothing proves %s, and there is no reason why not", s.name)
			continue
		}
		proved++
		text := strings.Join(s.proofs, "; ")
		fmt.Fprintf(&page, "| MQTT-%s | %s |\n", name, strings.ReplaceAll(text, "|", "\\|"))
	}
	if t.Failed() {
		return
	}
	if *update {
		if err := os.WriteFile(conformancePage, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(conformancePage)
	if err != nil || string(got) != page.String() {
		t.Errorf("%s is stale (%v): go test ./adapters/mqtt -run ConformancePage -update", conformancePage, err)
	}
}
