package clienttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTypes checks types.ts, which uses the whole API, with the TypeScript
// compiler, as a project that has installed the package would be; and the types
// themselves, without passing over what stands in libraries.
func TestTypes(t *testing.T) {
	t.Parallel()
	client, err := filepath.Abs("../../../adapters/http/client")
	if err != nil {
		t.Fatal(err)
	}
	compiler, err := filepath.Abs("node_modules/typescript/bin/tsc")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, err := os.ReadFile("types.ts")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "types.ts"), program, 0o600),
		os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"type":"module"}`), 0o600),
		os.MkdirAll(filepath.Join(dir, "node_modules/@sluicemq"), 0o700),
		os.Symlink(client, filepath.Join(dir, "node_modules/@sluicemq/client")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(tool(t, "node", "nodejs"), compiler, "--noEmit", "--strict", "--exactOptionalPropertyTypes", "--target", "es2022",
		"--module", "nodenext", "--lib", "es2022,dom", "types.ts")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// What is exported is used, all of it.
	types, err := os.ReadFile(filepath.Join(client, "sluice.d.ts"))
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^export (?:declare )?(?:type|interface|class|function) (\w+)|^  (?:readonly )?(\w+)\??[(:<]`).FindAllStringSubmatch(string(types), -1)
	if len(names) < 60 {
		t.Errorf("only %d names were found in the types", len(names))
	}
	for _, n := range names {
		if name := n[1] + n[2]; !regexp.MustCompile(`\b`+name+`\b`).Match(program) && !strings.HasPrefix(name, "Data") {
			t.Errorf("types.ts does not use %s", name)
		}
	}
}
