package seglog

import (
	"context"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Golden data directories are what each format has left behind on a disk, with
// what they hold beside them. They are never made anew: a format that changes
// gets directories of its own, and those before them must open for ever.
//
//	go test ./storage/seglog -run TestGoldenDirectories -new-golden v2 -update
//
// makes v2-whole and v2-reclaimed of today's format: the first has all kinds of
// frames, retention has copied segments of the second. Another one, which a
// broker made, comes from cmd/sluice. -update writes what a directory holds
// beside it where that is missing; what is there is never changed.
var newGolden = flag.String("new-golden", "", "make golden data directories whose names begin with this")

const goldenDir = "testdata/golden"

func TestGoldenDirectories(t *testing.T) {
	if *newGolden != "" {
		for _, reclaimed := range []bool{false, true} {
			dir := filepath.Join(goldenDir, *newGolden+map[bool]string{false: "-whole", true: "-reclaimed"}[reclaimed])
			if _, err := os.Stat(dir); err == nil {
				t.Fatalf("%s is there already; golden directories are never made anew", dir)
			}
			export(t, newSpecimen(t, reclaimed).fs, "/data", dir)
		}
	}
	dirs, err := filepath.Glob(filepath.Join(goldenDir, "v*[^n]"))
	if err != nil || len(dirs) < 3 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(data, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			if x, err := Examine(context.Background(), Options{Dir: data}, Progress{}); err != nil || !x.Healthy() {
				t.Errorf("%+v, %v", x, err)
			}
			held := dir + ".ndjson"
			got := holdings(t, data)
			if _, err := os.Stat(held); err != nil && *update {
				if err := os.WriteFile(held, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(held)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("it holds\n%s\nwant\n%s", got, want)
			}
			// It can be written to, and opened again.
			for range 2 {
				l, err := Open(context.Background(), Options{Dir: data})
				if err != nil {
					t.Fatal(err)
				}
				appendWait(t, l, batchOf(true, "after"))
				if err := l.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			if got := holdings(t, data); strings.Count(got, `"topic":"after"`) != 2 || strings.Count(got, "\n") != strings.Count(string(want), "\n")+2 {
				t.Errorf("it holds now\n%s", got)
			}
		})
	}
}

// TestGoldenSecondReader reads the golden directories with both readers.
func TestGoldenSecondReader(t *testing.T) {
	t.Parallel()
	needPython(t)
	for _, name := range []string{"v1-whole", "v1-reclaimed", "v1-broker"} {
		data := filepath.Join(t.TempDir(), "data")
		if err := os.CopyFS(data, os.DirFS(filepath.Join(goldenDir, name))); err != nil {
			t.Fatal(err)
		}
		compareReaders(t, data, name != "v1-reclaimed")
	}
}

// holdings are the records and the state of a data directory, a line each.
func holdings(t *testing.T, dir string) string {
	t.Helper()
	l, err := Open(context.Background(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	records, gaps, err := everything(l)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, at := range slices.Sorted(maps.Keys(records)) {
		r := records[at]
		if r.Topic == "after" {
			r.Time = 0
		}
		b.WriteString(secondOf(t, r) + "\n")
	}
	for _, g := range gaps {
		if g.Lost {
			t.Errorf("%v is lost", g)
		}
	}
	state := maps.Collect(l.stateStrings())
	for _, key := range slices.Sorted(maps.Keys(state)) {
		line, err := json.Marshal(struct{ Key, Value []byte }{[]byte(key), []byte(state[key])})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.String()
}
