package clienttest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var (
	update     = flag.Bool("update", false, "rewrite docs/matrix.md with what was seen")
	prebuilt   = flag.String("sluice", "", "test this binary instead of building one")
	raceBroker = flag.Bool("race-broker", false, "build the broker with the race detector")
	kills      = flag.Int("kills", 5, "how often the broker is killed under load")
	soak       = flag.Duration("soak", 0, "how long the broker is under load and killed at random")
	powerCuts  = flag.Int("powercuts", 0, "how often the power of a file system is cut under load; needs root and loop devices")
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	endDrivers()
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// buildDir is where the binary was built, for TestMain to remove.
var buildDir string

// binary builds the broker once.
var binary = sync.OnceValues(func() (string, error) {
	if *prebuilt != "" {
		return *prebuilt, nil
	}
	dir, err := os.MkdirTemp("", "sluice-clienttest-")
	if err != nil {
		return "", err
	}
	buildDir = dir
	path := filepath.Join(dir, "sluice")
	args := []string{"build", "-o", path}
	if *raceBroker {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/sluicemq/sluice/cmd/sluice")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// tool returns the path of a program that a test needs.
func tool(t testing.TB, name, aptPackage string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: apt-get install -y %s (all that is needed stands in apt-packages.txt)", name, aptPackage)
	}
	return path
}
