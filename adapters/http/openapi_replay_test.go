package http_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/core"
)

// A description is openapi.json.
type description struct {
	t          *testing.T
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]any }
}

type operation struct {
	Mounted   bool                      `json:"x-mounted"`
	Samples   []struct{ Source string } `json:"x-codeSamples"`
	Responses map[string]struct {
		Content map[string]struct{ Schema any }
	}
}

// Every example of the description is run against a broker, as it stands there,
// and is answered as the description says: by a status that it names, in a form
// that it names, with a body that its schema takes. Every operation has one.
func TestDescriptionsExamples(t *testing.T) {
	d := open(t, func(_ *http.Options, o *core.Options) {
		o.Policies = []core.Policy{{Name: "all", Filters: []core.Filter{"#"}, Bytes: 1 << 30}}
	})
	text, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	doc := description{t: t}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	// What is made comes before what uses it, and what deletes it last.
	order := []string{"PUT", "POST", "GET", "DELETE"}
	type sample struct{ path, method, source string }
	var samples []sample
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if op.Mounted {
				continue
			}
			if len(op.Samples) == 0 {
				t.Errorf("%s %s has no example", method, path)
			}
			for _, s := range op.Samples {
				samples = append(samples, sample{path, strings.ToUpper(method), s.Source})
			}
		}
	}
	slices.SortStableFunc(samples, func(a, b sample) int {
		if c := slices.Index(order, a.method) - slices.Index(order, b.method); c != 0 {
			return c
		}
		// As the document has them: a queue is filled before it is leased from.
		c := bytes.Index(text, []byte(`"`+a.path+`": {`)) - bytes.Index(text, []byte(`"`+b.path+`": {`))
		if a.method == "DELETE" {
			return -c
		}
		return c
	})
	token, leased := "", ""
	for _, s := range samples {
		command := strings.ReplaceAll(strings.ReplaceAll(s.source, "127.0.0.1:8080", d.addr), "curl ", "curl -sSi ")
		endless := strings.Contains(command, " --max-time 1")
		command = strings.Replace(command, " --max-time 1", "", 1)
		if strings.Contains(command, "$TOKEN") && s.path != leased {
			leased, token = s.path, d.want(200, "POST", "/q/jobs/lease", "").messages(t)[0].Lease
		}
		offset := ""
		if strings.Contains(command, "$OFFSET") {
			offset = d.want(201, "POST", "/t/orders/eu", "later", "X-Delay: 1h").Header.Get("X-Offset")
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
		cmd.Env = append(os.Environ(), "TOKEN="+token, "OFFSET="+offset)
		output := cmd.Output
		if endless {
			output = func() ([]byte, error) { return beginning(cmd) }
		}
		out, err := output()
		if err != nil {
			t.Errorf("%s: %v", s.source, err)
			continue
		}
		resp, err := nethttp.ReadResponse(bufio.NewReader(bytes.NewReader(out)), &nethttp.Request{Method: s.method})
		if err != nil {
			t.Errorf("%s: %v\n%s", s.source, err, out)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil && !endless || resp.Header.Get("Content-Encoding") != "" {
			body = out[bytes.Index(out, []byte("\r\n\r\n"))+4:] // curl has decoded it
		}
		if resp.StatusCode >= 400 && s.path != "/v1/clients/{protocol}/{client}" {
			t.Errorf("%s: %s %s", s.source, resp.Status, body)
		}
		doc.check(s.method, s.path, s.source, resp, body)
		if u := regexp.MustCompile(`http://[^ '"]+`).FindString(s.source); !matchesPath(s.path, u) {
			t.Errorf("%s is no example of %s", s.source, s.path)
		}
	}
}

// beginning is what a command that has no end, one curl, says until the first
// empty line behind the answer's header.
func beginning(cmd *exec.Cmd) (said []byte, err error) {
	cmd.Args[len(cmd.Args)-1] = "exec " + cmd.Args[len(cmd.Args)-1]
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for r := bufio.NewReader(out); err == nil && !bytes.HasSuffix(said, []byte("\n\n")); {
		var line []byte
		line, err = r.ReadBytes('\n')
		said = append(said, line...)
	}
	return said, err
}

// matchesPath reports whether an address is one of a path's.
func matchesPath(path, address string) bool {
	u, err := url.Parse(strings.NewReplacer("$TOKEN", "T", "$OFFSET", "1").Replace(address))
	if err != nil {
		return false
	}
	rest := regexp.MustCompile(`\\\{(topic|filter|key)\\\}`).ReplaceAllString(regexp.QuoteMeta(path), ".+")
	return regexp.MustCompile("^" + regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(rest, "[^/]+") + "$").MatchString(u.Path)
}

// check holds an answer to the description.
func (d *description) check(method, path, what string, resp *nethttp.Response, body []byte) {
	responses := d.Paths[path][strings.ToLower(method)].Responses
	described, ok := responses[fmt.Sprint(resp.StatusCode)]
	if !ok && resp.StatusCode >= 400 {
		described, ok = responses["default"]
	}
	if !ok {
		d.t.Errorf("%s: the status %d is not described", what, resp.StatusCode)
		return
	}
	if described.Content == nil || len(body) == 0 {
		return
	}
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	content, ok := described.Content[media]
	if _, any := described.Content["application/octet-stream"]; !ok && any && resp.Header.Get("X-Offset") != "" {
		return // a message as it is
	}
	if !ok {
		d.t.Errorf("%s: the type %q is not described", what, media)
		return
	}
	bodies := [][]byte{body}
	switch {
	case media == "application/x-ndjson":
		bodies = bytes.Split(bytes.TrimSpace(body), []byte("\n"))
	case !strings.HasSuffix(media, "json"):
		return
	}
	for _, b := range bodies {
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			d.t.Errorf("%s: %v: %s", what, err, b)
		} else if err := d.valid("$", content.Schema, v); err != nil {
			d.t.Errorf("%s: %v\n%s", what, err, b)
		}
	}
}

// valid checks the keywords of JSON Schema that the description uses; one that
// it does not know fails the test, so that none is taken for checked.
func (d *description) valid(at string, schema, v any) error {
	rules, _ := schema.(map[string]any)
	object, isObject := v.(map[string]any)
	array, isArray := v.([]any)
	number, isNumber := v.(float64)
	for keyword, arg := range rules {
		ok := true
		switch keyword {
		case "description", "examples", "default", "format":
		case "$ref":
			name := strings.TrimPrefix(arg.(string), "#/components/schemas/")
			if d.Components.Schemas[name] == nil {
				return fmt.Errorf("there is no schema %s", name)
			}
			if err := d.valid(at, d.Components.Schemas[name], v); err != nil {
				return err
			}
		case "type":
			types, many := arg.([]any)
			if !many {
				types = []any{arg}
			}
			_, isString := v.(string)
			_, isBool := v.(bool)
			is := map[string]bool{"object": isObject, "array": isArray, "string": isString, "boolean": isBool, "number": isNumber, "null": v == nil, "integer": isNumber && number == float64(int64(number))}
			ok = slices.ContainsFunc(types, func(t any) bool { return is[t.(string)] })
		case "enum":
			ok = slices.Contains(arg.([]any), v)
		case "minimum":
			ok = !isNumber || number >= arg.(float64)
		case "maximum":
			ok = !isNumber || number <= arg.(float64)
		case "minItems":
			ok = !isArray || len(array) >= int(arg.(float64))
		case "maxItems":
			ok = !isArray || len(array) <= int(arg.(float64))
		case "required":
			for _, name := range arg.([]any) {
				_, there := object[name.(string)]
				ok = ok && (!isObject || there)
			}
		case "items":
			for i, item := range array {
				if err := d.valid(fmt.Sprintf("%s[%d]", at, i), arg, item); err != nil {
					return err
				}
			}
		case "properties":
			// What the broker says is described, all of it.
			for name, member := range object {
				rule, known := arg.(map[string]any)[name]
				if !known {
					return fmt.Errorf("%s has a member %s that is not described", at, name)
				}
				if err := d.valid(at+"."+name, rule, member); err != nil {
					return err
				}
			}
		case "additionalProperties":
			if rule, is := arg.(map[string]any); is {
				for name, member := range object {
					if err := d.valid(at+"."+name, rule, member); err != nil {
						return err
					}
				}
			}
		case "oneOf":
			n := 0
			for _, rule := range arg.([]any) {
				if d.valid(at, rule, v) == nil {
					n++
				}
			}
			ok = n == 1
		default:
			d.t.Fatalf("the description has the keyword %q, which is not checked", keyword)
		}
		if !ok {
			return fmt.Errorf("%s: %s %v: %v", at, keyword, arg, v)
		}
	}
	return nil
}

// What a stream sends is what asyncapi.json says, whose references all lead
// somewhere.
func TestAsyncDescription(t *testing.T) {
	d := open(t)
	text := d.want(200, "GET", "/asyncapi.json", "").body
	doc := description{t: t}
	var tree any
	if json.Unmarshal([]byte(text), &doc) != nil || json.Unmarshal([]byte(text), &tree) != nil {
		t.Fatal("it is not JSON")
	}
	refs := regexp.MustCompile(`"\$ref": "#/([^"]+)"`).FindAllStringSubmatch(text, -1)
	for _, ref := range refs {
		at := tree
		for name := range strings.SplitSeq(ref[1], "/") {
			object, _ := at.(map[string]any)
			at = object[name]
		}
		if at == nil {
			t.Errorf("there is nothing at %s", ref[1])
		}
	}
	if len(refs) < 20 {
		t.Errorf("only %d references", len(refs))
	}
	s := d.stream("/sse/a/%23?format=json")
	d.want(201, "POST", "/t/a/1?retain", "text", "X-H-B: 2", "X-H-A: 1", "X-Key: k", "X-TTL: 1h", "X-Priority: 3", "X-Reply-To: r", "X-Correlation-Id: c", "Idempotency-Key: i")
	d.want(201, "POST", "/t/a/2", "\xff\x00", "X-Correlation-Id-Base64: /w==")
	for range 2 {
		_, data, _ := strings.Cut(s.event(), "|data: ")
		var v any
		if err := json.Unmarshal([]byte(data), &v); err != nil {
			t.Fatal(err)
		}
		if err := doc.valid("$", map[string]any{"$ref": "#/components/schemas/Message"}, v); err != nil {
			t.Errorf("%v: %s", err, data)
		}
	}
}

// The parameters that a path takes in its query are those that the description
// has; every other is refused, by a path of the administration that takes none
// too.
func TestDescriptionAndQueriesAgree(t *testing.T) {
	d := open(t)
	text, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	type parameter struct {
		Ref, Name, In string
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Mounted    bool `json:"x-mounted"`
			Parameters []parameter
		}
		Components struct{ Parameters map[string]parameter }
	}
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte(`"$ref"`), []byte(`"ref"`)), &doc); err != nil {
		t.Fatal(err)
	}
	known := regexp.MustCompile(`is not known here; there (?:is none|are ([a-z_, ]+))`)
	asked := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if op.Mounted || !regexp.MustCompile("^/(t|sse|last|q|x|lease|v1)(/|$)").MatchString(path) {
				continue // pages, which look at no query
			}
			var described []string
			for _, p := range op.Parameters {
				if p.Ref != "" {
					p = doc.Components.Parameters[p.Ref[strings.LastIndexByte(p.Ref, '/')+1:]]
				}
				if p.In == "query" {
					described = append(described, p.Name)
				}
			}
			var taken []string
			verbs := []string{"accept"}
			if strings.Contains(path, "{verb}") {
				verbs = []string{"accept", "release", "reject", "extend"}
			}
			for _, verb := range verbs {
				at := strings.NewReplacer("{verb}", verb, "{offset}", "1").Replace(path)
				at = regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(at, "a")
				a := d.do(strings.ToUpper(method), at+"?unheard=of", "", "Content-Type: application/x-ndjson")
				m := known.FindStringSubmatch(a.body)
				if a.StatusCode != 400 || m == nil {
					t.Errorf("%s %s takes any query: %s %s", method, path, a.Status, a.body)
					continue
				}
				asked++
				if m[1] != "" {
					taken = append(taken, strings.Split(m[1], ", ")...)
				}
			}
			if path == "/t" { // what a batch's lines say for themselves is refused by another problem
				taken = slices.DeleteFunc(taken, func(name string) bool { return !slices.Contains(described, name) })
			}
			slices.Sort(described)
			slices.Sort(taken)
			if !slices.Equal(described, taken) {
				t.Errorf("%s %s takes %v, and %v are described", method, path, taken, described)
			}
		}
	}
	if asked < 45 {
		t.Errorf("only %d paths were asked", asked)
	}
}
