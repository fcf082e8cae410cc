package ws

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocs holds docs/websocket.md against the protocol: its examples fit the
// schema, and it names every member, every code of an error and every close code.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/websocket.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	rules := loadSchema(t)
	examples := 0
	for line := range strings.Lines(page) {
		for mark, def := range map[string]string{"> {": "command", "< {": "answer"} {
			if strings.HasPrefix(line, mark) {
				examples++
				if err := rules.check(def, line[2:]); err != nil {
					t.Errorf("%s: %v", line, err)
				}
			}
		}
	}
	if examples < 6 {
		t.Errorf("%d examples", examples)
	}
	for _, name := range fieldNames {
		if !regexp.MustCompile(`[{, ("]` + name + `[":]`).MatchString(page) {
			t.Errorf("the member %q is not on the page", name)
		}
	}
	for _, c := range codes {
		if !strings.Contains(page, "`"+c.code+"`") {
			t.Errorf("the code %q is not on the page", c.code)
		}
		if err := rules.check("answer", string(codingJSON.appendError(nil, nil, c.err))); err != nil {
			t.Errorf("the code %q: %v", c.code, err)
		}
	}
	for reason := range refusals {
		if !strings.Contains(page, "\n### "+strings.ReplaceAll(reason, "_", "-")+"\n") {
			t.Errorf("the page has no heading for the refusal %q", reason)
		}
	}
	for _, code := range []string{"4400", "4401", "4408", "4409", "4429"} {
		if !strings.Contains(page, "| "+code+" |") {
			t.Errorf("the close code %s is not on the page", code)
		}
	}
}
