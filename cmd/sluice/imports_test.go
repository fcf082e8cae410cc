package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sluicemq/sluice"

// mayImport says, of our own packages, which may import which. The longest
// prefix that matches a package holds for it; what it may import is a prefix,
// too. The rest of a package's folder is always allowed to it.
var mayImport = map[string][]string{
	// The broker knows no protocol and no disk.
	"core":          {"core/pause", "core/seeded"},
	"core/coretest": {"core"},
	// What the property tests of any package import.
	"core/coretest/sameseed": {},
	// Bugs for the tests of the tests, nothing without their tag.
	"core/seeded": {},
	// Windows between goroutines, widened; nothing without its tag.
	"core/pause": {},
	// What adapters share knows none of them.
	"adapters": {"core"},
	// Connections and certificates for the tests of any door.
	"adapters/adaptertest": {},
	// A protocol knows no other protocol and no storage.
	"adapters/mqtt":  {"core", "adapters"},
	"adapters/stomp": {"core", "adapters"},
	"adapters/http":  {"core", "adapters"},
	"adapters/ws":    {"core", "adapters"},
	// An engine knows no other engine, and no protocol.
	"storage/vfs":        {},
	"storage/enginetest": {"core", "core/coretest", "storage/vfs"},
	"storage/crashtest":  {"core", "core/coretest", "storage/vfs"},
	"storage/seglog":     {"core", "core/pause", "core/seeded", "storage/vfs"},
	"configs":            {"core", "adapters"},
	// Only the command names adapters and engines; its helpers do not.
	"cmd/sluice":                   {"core", "adapters", "adapters/mqtt", "adapters/stomp", "adapters/http", "adapters/ws", "storage/seglog", "storage/vfs", "configs", "cmd/sluice/internal"},
	"cmd/sluice/clienttest":        {"adapters/adaptertest", "cmd/sluice/internal/loopback"},
	"cmd/sluice/internal/access":   {"core", "configs"},
	"cmd/sluice/internal/backup":   {"core", "storage/vfs", "storage/seglog"},
	"cmd/sluice/internal/bench":    {"core", "configs", "storage/seglog", "cmd/sluice/internal/loopback"},
	"cmd/sluice/internal/link":     {"core"},
	"cmd/sluice/internal/loopback": {},
}

// thirdParty bounds what a package may import of others' modules, where it is
// bounded: the core is the standard library alone.
var thirdParty = map[string][]string{"core": {}, "core/coretest": {}, "core/coretest/sameseed": {"pgregory.net/rapid"}}

// TestImports holds the house rules over every package.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, broken := range brokenImports(name, p.Imports) {
			t.Errorf("%s imports %s", name, broken)
		}
	}
	if seen < 10 {
		t.Errorf("only %d packages were looked at", seen)
	}
}

// brokenImports are those of a package's imports that break the rules.
func brokenImports(name string, imports []string) []string {
	rule := ruleOf(name)
	if rule == "" {
		return []string{"anything, as there is no rule for it"}
	}
	var broken []string
	for _, i := range imports {
		own, ours := strings.CutPrefix(i, module+"/")
		switch {
		case ours:
			ok := ruleOf(own) == rule
			for _, allowed := range mayImport[rule] {
				// "adapters" is what they share, not each of them.
				ok = ok || own == allowed || strings.HasPrefix(own, allowed+"/") && strings.HasSuffix(allowed, "internal")
			}
			if !ok {
				broken = append(broken, own)
			}
		case strings.Contains(strings.SplitN(i, "/", 2)[0], "."):
			if allowed, bounded := thirdParty[rule]; bounded && !slices.Contains(allowed, i) {
				broken = append(broken, i)
			}
		}
	}
	return broken
}

// ruleOf is the rule that holds for a package, empty if none does.
func ruleOf(name string) string {
	for mayImport[name] == nil {
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return ""
		}
		name = name[:i]
	}
	return name
}

// TestImportsAreCaught holds the rules themselves to examples.
func TestImportsAreCaught(t *testing.T) {
	for _, c := range []struct {
		name, imports string
		broken        bool
	}{
		{"core", "time", false},
		{"core", "github.com/cockroachdb/pebble/v2", true},
		{"core", module + "/adapters", true},
		{"adapters/mqtt", module + "/core", false},
		{"adapters/mqtt", module + "/adapters", false},
		{"adapters/mqtt", module + "/adapters/stomp", true},
		{"adapters/mqtt", module + "/adapters/mqtt/packet", false},
		{"adapters", module + "/adapters/mqtt", true},
		{"adapters/http", module + "/storage/seglog", true},
		{"storage/seglog", module + "/adapters", true},
		{"storage/other", module + "/core", true},
		{"cmd/sluice", module + "/storage/seglog", false},
		{"cmd/sluice/internal/link", module + "/adapters/http", true},
	} {
		if got := len(brokenImports(c.name, []string{c.imports})) > 0; got != c.broken {
			t.Errorf("%s imports %s: %v", c.name, c.imports, got)
		}
	}
}
