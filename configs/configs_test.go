package configs

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

var update = flag.Bool("update", false, "write the generated files anew")

var sameSettings = cmp.Options{cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateEmpty()}

// TestGeneratedFiles holds default.yaml and schema.json to the struct; go test
// ./configs -update writes them.
func TestGeneratedFiles(t *testing.T) {
	for name, want := range map[string][]byte{"default.yaml": Template(), "schema.json": Schema()} {
		if *update {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code says: run go test ./configs -update", name)
		}
	}
}

// TestReferencePage holds the tables of docs/configuration.md to the struct.
func TestReferencePage(t *testing.T) {
	const page = "../docs/configuration.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for name, table := range map[string][]byte{"keys": Reference(), "limits": LimitsReference()} {
		begin, end := "<!-- "+name+": generated -->\n\n", "<!-- end -->"
		before, rest, ok := strings.Cut(want, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no place for the %s", page, name)
		}
		want = before + begin + string(table) + "\n" + end + after
	}
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("%s is not what the code says: run go test ./configs -update", page)
	}
}

// TestTemplateSaysTheDefaults takes the comment signs off default.yaml: what
// it says then is Default, and every key is in it.
func TestTemplateSaysTheDefaults(t *testing.T) {
	text := regexp.MustCompile(`(?m)^#   sluice .*$`).ReplaceAll(Template(), nil)
	text = regexp.MustCompile(`(?m)^#([a-z]|  )`).ReplaceAll(text, []byte("$1"))
	c, err := Parse("default.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(Default(), c, sameSettings); diff != "" {
		t.Error(diff)
	}
	c.eachKey(func(key string, _ field) {
		if _, ok := c.origin[key]; !ok {
			t.Errorf("%s is not in the template", key)
		}
	})
}

// TestFilesLoad reads every configuration that ships; cmd/sluice starts them.
func TestFilesLoad(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if file == "users.yaml" {
			continue // not a configuration: auth.yaml names it
		}
		c, err := Load(file, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		again, err := Parse(file, c.YAML())
		if err != nil {
			t.Errorf("%s, written and read again: %v\n%s", file, err, c.YAML())
			continue
		}
		if diff := cmp.Diff(c, again, sameSettings); diff != "" {
			t.Errorf("%s, written and read again: %s", file, diff)
		}
	}
	if len(files) < 5 {
		t.Errorf("only %v", files)
	}
}

func TestErrorsNameLineAndKey(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"dtaa: x", `c.yaml:1: dtaa: unknown key, did you mean "data"?`},
		{"mqtt:\n  lisen: []", `c.yaml:2: mqtt.lisen: unknown key, did you mean "listen"?`},
		{"mqtt:\n  port: 1883", `c.yaml:2: mqtt.port: unknown key; there are listen`},
		{"data: a\nlog: {level: info}\ndata: b", `c.yaml:3: data: said twice, first in line 1`},
		{"mqtt:\n  listen:\n    - address: 127.0.0.1:1\n      tls: {crt: x}", `c.yaml:4: mqtt.listen[0].tls.crt: unknown key, did you mean "cert"?`},
		{"mqtt: 1883", `c.yaml:1: mqtt: want keys with values, not a value ("1883")`},
		{"mqtt: {listen: 127.0.0.1:1883}", `c.yaml:1: mqtt.listen: want a list, not a value ("127.0.0.1:1883")`},
		{"mqtt: {listen: ['1883']}", `c.yaml:1: mqtt.listen[0]: "1883" is not host:port, such as 127.0.0.1:1883 or [::1]:1883`},
		{"mqtt: {listen: ['127.0.0.1:mqtt']}", `c.yaml:1: mqtt.listen[0]: the port "mqtt" of "127.0.0.1:mqtt" is not a number up to 65535`},
		{"mqtt: {listen: [{address: '127.0.0.1:1', tls: {cert: a.pem}}]}", `c.yaml:1: mqtt.listen[0].tls: want cert and key, or self_signed: true`},
		{"limits:\n\n  message: 1 pound", `c.yaml:3: limits.message: "1 pound" is not a size: want a number of bytes such as 4096, 64KiB, 1MiB, 8GiB or 10MB`},
		{"limits: {stall: 10}", `c.yaml:1: limits.stall: "10" is not a duration: want a number with a unit, such as 500ms, 90s, 5m, 1h30m, 7d or 2w`},
		{"limits: {queues: many}", `c.yaml:1: limits.queues: "many" is not a whole number`},
		{"limits: {in_flight: 0}", `c.yaml:1: limits.in_flight: 0: a limit is greater than zero`},
		{"log: {level: loud}", `c.yaml:1: log.level: "loud" is none of debug, info, warn, error`},
		{"metrics: {enabled: yes}", `c.yaml:1: metrics.enabled: "yes" is not true or false`},
		{"policies:\n  - {name: a, filters: ['a/#/b']}", `c.yaml:2: policies[0].filters[0]: invalid topic: the filter "a/#/b" goes on behind its "#"`},
		{"sys_interval: 10ms", `c.yaml:1: sys_interval: 10ms is too short: want 1s or more, or 0 for never`},
		{"policies: [{age: 1d}]", `c.yaml:1: policies[0]: name is missing`},
		{"queues:\n- name: a\n- name: $b", `c.yaml:3: queues[1].name: invalid topic: the queue name "$b" begins with a dollar sign`},
		{"queues: [{name: a, bindings: [{key: k}]}]", `c.yaml:1: queues[0].bindings[0]: want either a filter or an exchange`},
		{"queues: [{name: a, priority: true, ordered: true}]", `c.yaml:1: queues[0]: want either priority or ordered`},
		{"queues: [{name: a, bindings: [{filter: k, where: 'a ='}]}]", `c.yaml:1: queues[0].bindings[0].where: invalid argument: selector: expected a name or a value at byte 3, found the end`},
		{"exchanges: [{name: a, kind: topic, bindings: [{from: ''}]}]", `c.yaml:1: exchanges[0].bindings[0].from: invalid topic: the exchange name "" is empty or contains a slash`},
		{"exchanges: [{name: a, kind: direkt}]", `c.yaml:1: exchanges[0].kind: "direkt" is none of direct, fanout, topic, headers`},
		{"auth: {rules: [{allow: [all]}]}", `c.yaml:1: auth.rules[0]: who is missing: whom is the rule for?`},
		{"auth: {rules: [{who: [alice], allow: [all]}]}", `c.yaml:1: auth.rules[0].who[0]: "alice" is nobody: want user:NAME, role:NAME, users or anonymous`},
		{"auth: {rules: [{who: [users]}]}", `c.yaml:1: auth.rules[0]: want either allow or deny, with what is allowed or denied`},
		{"auth: {rules: [{who: [users], allow: [all], filters: ['a/%x']}]}", `c.yaml:1: auth.rules[0].filters[0]: "a/%x": behind a % want u for the user's name or c for the client id`},
		{"queues: [{name: q, webhook: {url: 'https://a/'}}]", `c.yaml:1: queues[0].webhook: there are 1 to 4 secrets`},
		{"http: {webhooks: {allow: [10.0.0.1]}}", `c.yaml:1: http.webhooks.allow[0]: "10.0.0.1" is not a network: want an address and a number of bits, such as 10.0.0.0/8`},
		{"http: {origins: ['app.example.com']}", `c.yaml:1: http.origins[0]: "app.example.com" is not an origin: want scheme://host[:port], such as https://app.example.com, or *`},
		{"debug: {pprof: '0.0.0.0:6060'}", `c.yaml:1: debug.pprof: "0.0.0.0:6060" is not a loopback address; profiles show what is in memory`},
		{"data: [a", `c.yaml: `},
		{"data: a\n---\ndata: b", `c.yaml: more than one YAML document`},
	} {
		_, err := Parse("c.yaml", []byte(c.yaml))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s\ngot  %v\nwant %s", c.yaml, err, c.want)
		}
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	_, err := Parse("c.yaml", []byte("a: 1\nlog: {level: x}\nlimits: {stall: y}"))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three lines, got %v", err)
	}
}

func TestVariables(t *testing.T) {
	c, err := Load("", []string{
		"HOME=/", "SLUICE_DATA=/var/lib/sluice",
		"SLUICE_MQTT_LISTEN=127.0.0.1:1, [::1]:2",
		`SLUICE_HTTP_LISTEN=[{address: "127.0.0.1:3", tls: {self_signed: true}}, "127.0.0.1:4"]`,
		"SLUICE_STOMP_LISTEN=",
		"SLUICE_LIMITS_MESSAGE=2MiB", "SLUICE_LIMITS_STALL=1m", "SLUICE_LOG_LEVEL=debug", "SLUICE_METRICS_ENABLED=false",
		`SLUICE_POLICIES=[{name: "short", filters: ["a/#"], age: 7d}]`,
		"SLUICE_PORT_1883_TCP_ADDR=10.0.0.1", // set by platforms, not a key
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Data = "/var/lib/sluice"
	want.MQTT.Listen = []Listener{{Address: "127.0.0.1:1"}, {Address: "[::1]:2"}}
	want.HTTP.Listen = []Listener{{Address: "127.0.0.1:3", TLS: TLS{SelfSigned: true}}, {Address: "127.0.0.1:4"}}
	want.STOMP.Listen = nil
	want.Limits.MessageBytes = 2 << 20
	want.Limits.Stall = time.Minute
	want.Log.Level = "debug"
	want.Metrics.Enabled = false
	want.Policies = []Policy{{Name: "short", Filters: c.Policies[0].Filters, Age: Duration(7 * 24 * time.Hour)}}
	if diff := cmp.Diff(want, c, sameSettings); diff != "" {
		t.Error(diff)
	}

	_, err = Load("", []string{"SLUICE_LOG_LEVEL=loud", "SLUICE_MQTT_LISTEN=1883"})
	if want := "SLUICE_LOG_LEVEL: log.level: "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestVariablesAreDistinct holds that no two keys have one variable.
func TestVariablesAreDistinct(t *testing.T) {
	of := make(map[string]string)
	Default().eachKey(func(key string, _ field) {
		if other, ok := of[Variable(key)]; ok {
			t.Errorf("%s is both %s and %s", Variable(key), other, key)
		}
		of[Variable(key)] = key
	})
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]Size{"0": 0, "4096": 4096, "1KiB": 1024, "1.5 GiB": 3 << 29, "8GiB": 8 << 30, "10MB": 10_000_000, "7B": 7} {
		got, err := ParseSize(s)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
		if again, err := ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%s: %s: %d, %v", s, got, again, err)
		}
	}
	for _, s := range []string{"", "-1", "1.5", "KiB", "9999999TiB", "1e3KiB", "NaNKiB", "InfGiB", "1 MiB x", "0x10"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{"0": 0, "90s": 90 * time.Second, "7d": 168 * time.Hour, "2w": 336 * time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "500ms": 500 * time.Millisecond} {
		got, err := ParseDuration(s)
		if err != nil || time.Duration(got) != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
		if again, err := ParseDuration(got.String()); err != nil || again != got {
			t.Errorf("%s: %s: %v, %v", s, got, again, err)
		}
	}
	for _, s := range []string{"", "5", "-5m", "d", "1.5d", "1d-3h", "99999999w", "5 m", "m"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestOpenAddresses(t *testing.T) {
	c := Default()
	if open := c.Open(); open != nil {
		t.Errorf("the defaults: %v", open)
	}
	c.MQTT.Listen = []Listener{{Address: ":1883"}, {Address: "localhost:1"}, {Address: "[::1]:1"}, {Address: "127.1.2.3:1"}, {Address: "[::ffff:127.0.0.1]:1"}, {Address: "192.0.2.1:8883", TLS: TLS{SelfSigned: true}}, {Address: "192.0.2.1:8884", TLS: TLS{ClientCA: "ca.pem"}}, {Address: "localhost.example.com:1"}}
	want := []string{"mqtt :1883", "mqtt 192.0.2.1:8883", "mqtt localhost.example.com:1"}
	if open := c.Open(); !reflect.DeepEqual(open, want) {
		t.Errorf("got %v, want %v", open, want)
	}
	c.Auth.Users = "users.yaml"
	if open := c.Open(); open != nil {
		t.Errorf("with users: %v", open)
	}
}

// FuzzParse reads any text without a panic, and what it takes it can write
// and read again.
func FuzzParse(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	files, _ := filepath.Glob("*.yaml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("mqtt: {listen: [{address: '127.0.0.1:1', tls: {cert: a, key: b}}]}\nqueues: [{name: a, bindings: [b, {exchange: c, key: d}]}]"))
	f.Add([]byte("a: &a [*a, *a]\nlimits: *a"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("c.yaml", text)
		if err != nil {
			return
		}
		again, err := Parse("c.yaml", c.YAML())
		if err != nil {
			t.Fatalf("%v\n%s", err, c.YAML())
		}
		if diff := cmp.Diff(c, again, sameSettings); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestSysPolicy keeps what the broker tells of itself from filling the log.
func TestSysPolicy(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"", "default"},
		{"policies: []", ""},
		{"policies: [{name: a, filters: [a/#], age: 1h}]", "a sys"},
		{"policies: [{name: a, filters: [a/#], age: 1h}, {name: rest}]", "a rest"},
		{"policies: [{name: a, filters: [a/#], age: 1h}]\nsys_interval: 0", "a"},
	} {
		cfg, err := Parse("c.yaml", []byte(c.yaml))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range cfg.CorePolicies() {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: the policies are %q, want %q", c.yaml, got, c.want)
		}
	}
}
