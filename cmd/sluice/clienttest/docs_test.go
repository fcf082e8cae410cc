package clienttest

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// matrixPath is the page that shows what these tests saw.
const matrixPath = "../../../docs/matrix.md"

// markdown is the four tables of the matrix.
func (g *grid) markdown() string {
	var b strings.Builder
	for _, k := range patterns {
		fmt.Fprintf(&b, "### %s\n\n%s\n\n", patternTitles[k.name], patternNotes[k.name])
		g.table(&b, k.name, receivers)
	}
	return b.String()
}

// table writes one pattern's table.
func (g *grid) table(b *strings.Builder, pattern string, columns []receiver) {
	b.WriteString("| from \\ to |")
	for _, r := range columns {
		b.WriteString(" " + r.name + " |")
	}
	b.WriteString("\n|---" + strings.Repeat("|:-:", len(columns)) + "|\n")
	for _, p := range publishers {
		b.WriteString("| " + p.name + " |")
		for _, r := range columns {
			mark := "·"
			if ok, tried := g.passed[[3]string{pattern, p.name, r.name}]; tried {
				mark = map[bool]string{true: "✓", false: "✗"}[ok]
			}
			b.WriteString(" " + mark + " |")
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
}

var patternTitles = map[string]string{
	"topic":    "Topic: a live subscription",
	"queue":    "Queue, with acknowledgement",
	"retained": "Retained value",
	"replay":   "Replay from `earliest`",
}

// fidelityMarkdown is the table of fields and what the clients leave out.
func fidelityMarkdown(g *grid) string {
	var b strings.Builder
	g.table(&b, "fields", fidelityReceivers)
	b.WriteString("What a client itself cannot say or see, and what arrives instead:\n\n")
	for _, p := range publishers {
		if d, ok := publisherDialects[p.name]; ok {
			fmt.Fprintf(&b, "- %s, publishing: %s.\n", p.name, d.note)
		}
	}
	for _, r := range fidelityReceivers {
		if d, ok := receiverDialects[r.name]; ok {
			fmt.Fprintf(&b, "- %s, receiving: %s.\n", r.name, d.note)
		}
	}
	return b.String()
}

// compareDocs compares one part of the page, between two marks, with what was
// seen, or rewrites it with -update.
func compareDocs(t *testing.T, part, seen string, complete bool) {
	t.Helper()
	if !complete {
		t.Log("not compared with docs/matrix.md: -run left cells out")
		return
	}
	page, err := os.ReadFile(matrixPath)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf("<!-- %s: begin -->\n", part), fmt.Sprintf("<!-- %s: end -->", part)
	before, rest, ok := strings.Cut(string(page), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("docs/matrix.md lacks %q or %q", begin, end)
	}
	if old == seen {
		return
	}
	if *update {
		if err := os.WriteFile(matrixPath, []byte(before+begin+seen+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("docs/matrix.md shows another result; go test ./cmd/sluice/clienttest -run '%s' -update rewrites it", t.Name())
}

// patternNotes say what a cell of each table means.
var patternNotes = map[string]string{
	"topic": "The receiver subscribes, then the publisher publishes: all samples arrive, each once, on the\ntopic and with the bytes that were published.",
	"queue": "Some samples are published to the queue before the receiver comes, some while it is there.\nIt acknowledges each in its protocol's own way, leaves, and the queue is empty.\n" +
		"mosquitto_sub subscribes to `$queue/<name>` with QoS 1. Long poll leases\n(`POST /q/<name>/lease?wait=`) and accepts each lease. An event stream cannot acknowledge and\n" +
		"reads no queue: its column is a group on a topic (`/sse/<topic>?group=`), where what was written\nis accepted.",
	"retained": "All samples are published with retain, over others before them; then the receiver comes and\ngets the last value of each topic, and nothing for the topic whose last value is empty. Long poll\nreads `/last/<topic>`.",
	"replay":   "All samples are published; then the receiver comes and asks for the earliest on, gets all of\nthem, and then what is published next. mosquitto_sub asks by `$replay/earliest/<filter>`, MQTT 5 by\nthe user property `from`, STOMP by the header `from`, HTTP by `?from=`, WebSocket by `\"from\"`.",
}
