package http

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	nethttp "net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
)

// The description has every route of the router, and no other; and each of its
// references leads somewhere.
func TestDescriptionAndRouterAgree(t *testing.T) {
	s := New(nil, Options{
		Limits: adapters.DefaultLimits(), Metrics: adapters.NewMetrics(prometheus.NewRegistry()),
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	routes := make(map[string]bool)
	err := chi.Walk(s.mux, func(method, route string, _ nethttp.Handler, _ ...func(nethttp.Handler) nethttp.Handler) error {
		for prefix, name := range map[string]string{"/t/*": "{topic}", "/sse/*": "{filter}", "/last/*": "{topic}", "/x/{exchange}/*": "{key}"} {
			if route == prefix {
				route = strings.TrimSuffix(route, "*") + name
			}
		}
		if method != nethttp.MethodHead { // as GET, which the description says once
			routes[strings.ToLower(method)+" "+route] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths      map[string]map[string]json.RawMessage
		Components map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(openapi, &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if strings.Contains(string(op), `"x-mounted": true`) {
				continue // held where it is mounted
			}
			if !routes[method+" "+path] {
				t.Errorf("%s %s is described but not routed", method, path)
			}
			delete(routes, method+" "+path)
			for p := range strings.SplitSeq(path, "{") {
				if name, _, ok := strings.Cut(p, "}"); ok && !strings.Contains(string(op), `"#/components/parameters/`+name+`"`) && !strings.Contains(string(op), `"name": "`+name+`"`) {
					t.Errorf("%s %s does not describe %s", method, path, name)
				}
			}
		}
	}
	for r := range routes {
		t.Errorf("%s is routed but not described", r)
	}
	for part := range strings.SplitSeq(string(openapi), `"$ref": "#/components/`) {
		kind, rest, ok := strings.Cut(part, "/")
		name, _, _ := strings.Cut(rest, `"`)
		if ok && (kind == "parameters" || kind == "schemas") && doc.Components[kind][name] == nil {
			t.Errorf("nothing at components/%s/%s", kind, name)
		}
	}
}

// Every kind of problem has the heading that its type leads to.
func TestProblemsAreDocumented(t *testing.T) {
	var source []byte
	for _, file := range []string{"problem.go", "unread.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, text...)
	}
	doc, err := os.ReadFile("../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	kinds := regexp.MustCompile(`kind: "([^"]+)"`).FindAllSubmatch(source, -1)
	if len(kinds) < 20 {
		t.Fatalf("only %d kinds found", len(kinds))
	}
	for _, k := range kinds {
		if !bytes.Contains(doc, []byte("\n### "+string(k[1])+"\n")) {
			t.Errorf("docs/http.md has no heading %s", k[1])
		}
	}
}
