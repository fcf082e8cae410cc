package configs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// Check says what does not fit together: everything, a line each.
func (c *Config) Check() error {
	var errs []error
	fail := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s%s: %s", c.where(key), key, fmt.Sprintf(format, args...)))
	}
	if c.Data == "" {
		fail("data", "the folder has no name")
	}
	for _, p := range c.protocols() {
		for i, l := range p.listen {
			l.check(fmt.Sprintf("%s.listen[%d]", p.key, i), fail)
		}
	}
	for i, o := range c.HTTP.Origins {
		if u, err := url.Parse(o); o != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "") {
			fail(fmt.Sprintf("http.origins[%d]", i), "%q is not an origin: want scheme://host[:port], such as https://app.example.com, or *", o)
		}
	}
	c.checkAuth(fail)
	if err := c.Limits.Check(); err != nil {
		name, rest, _ := strings.Cut(err.Error(), ": ")
		fail("limits."+name, "%s", rest)
	}
	c.checkDeclared(fail)
	if s := time.Duration(c.Sys); s > 0 && s < time.Second {
		fail("sys_interval", "%v is too short: want 1s or more, or 0 for never", s)
	}
	if d := c.Debug.Pprof; d != "" && !Loopback(d) {
		fail("debug.pprof", "%q is not a loopback address; profiles show what is in memory", d)
	}
	return errors.Join(errs...)
}

func (c *Config) checkAuth(fail func(key, format string, args ...any)) {
	for i, r := range c.Auth.Rules {
		key := fmt.Sprintf("auth.rules[%d]", i)
		if len(r.Who) == 0 {
			fail(key, "who is missing: whom is the rule for?")
		}
		if (len(r.Allow) == 0) == (len(r.Deny) == 0) {
			fail(key, "want either allow or deny, with what is allowed or denied")
		}
	}
	for i, t := range c.Auth.Tokens {
		if t.Keys == "" {
			fail(fmt.Sprintf("auth.tokens[%d]", i), "keys is missing: the file of the keys that verify the tokens")
		}
	}
	if len(c.Auth.Tokens) > 0 && len(c.Auth.Rules) == 0 {
		fail("auth.tokens", "there are tokens but no rules, so nobody could do anything; to let every user do everything add to auth:\n    rules:\n      - {who: [users], allow: [all]}")
	}
	if c.Auth.Users != "" && len(c.Auth.Rules) == 0 {
		fail("auth.users", "there are users but no rules, so nobody could do anything; to let every user do everything add to auth:\n    rules:\n      - {who: [users], allow: [all]}")
	}
}

func (c *Config) checkDeclared(fail func(key, format string, args ...any)) {
	names := make(map[string]bool)
	for i, p := range c.Policies {
		if key := fmt.Sprintf("policies[%d].name", i); p.Name == "" {
			fail(fmt.Sprintf("policies[%d]", i), "name is missing")
		} else if names[p.Name] {
			fail(key, "two policies are named %q", p.Name)
		}
		names[p.Name] = true
	}
	exchanges := make(map[string]bool)
	for i, e := range c.Exchanges {
		key := fmt.Sprintf("exchanges[%d]", i)
		if err := core.CheckExchangeName(e.Name); err != nil {
			fail(key+".name", "%v", err)
		}
		if e.Kind == "" {
			fail(key, "kind is missing: direct, fanout, topic or headers")
		}
		if exchanges[e.Name] {
			fail(key+".name", "two exchanges are named %q", e.Name)
		}
		exchanges[e.Name] = true
		for j, b := range e.Bindings {
			if err := core.CheckExchangeName(b.From); err != nil {
				fail(fmt.Sprintf("%s.bindings[%d].from", key, j), "%v", err)
			}
			if err := core.CheckWhere(b.Where); err != nil {
				fail(fmt.Sprintf("%s.bindings[%d].where", key, j), "%v", err)
			}
		}
	}
	queues := make(map[string]bool)
	for i, q := range c.Queues {
		key := fmt.Sprintf("queues[%d]", i)
		if err := core.CheckQueueName(q.Name); err != nil {
			fail(key+".name", "%v", err)
		}
		if queues[q.Name] {
			fail(key+".name", "two queues are named %q", q.Name)
		}
		queues[q.Name] = true
		if q.MaxAttempts < core.Unlimited {
			fail(key+".max_attempts", "%d is less than -1", q.MaxAttempts)
		}
		if q.MaxLength < 0 {
			fail(key+".max_length", "%d is less than 0", q.MaxLength)
		}
		if q.Priority && q.Ordered {
			fail(key, "want either priority or ordered")
		}
		if w := q.Webhook.Adapter(); q.Webhook.Enabled() {
			if err := w.Check(); err != nil {
				fail(key+".webhook", "%v", err)
			}
		}
		for j, b := range q.Bindings {
			if (b.Filter == "") == (b.Exchange == "") {
				fail(fmt.Sprintf("%s.bindings[%d]", key, j), "want either a filter or an exchange")
			}
			if err := core.CheckWhere(b.Where); err != nil {
				fail(fmt.Sprintf("%s.bindings[%d].where", key, j), "%v", err)
			}
		}
	}
}

// check checks a listener that key names.
func (l Listener) check(key string, fail func(key, format string, args ...any)) {
	if _, port, err := net.SplitHostPort(l.Address); err != nil {
		fail(key, "%q is not host:port, such as 127.0.0.1:1883 or [::1]:1883", l.Address)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		fail(key, "the port %q of %q is not a number up to 65535", port, l.Address)
	}
	if l.TLS.SelfSigned && (l.TLS.Cert != "" || l.TLS.Key != "") {
		fail(key+".tls", "want either self_signed, or cert and key")
	}
	if l.TLS.Enabled() && !l.TLS.SelfSigned && (l.TLS.Cert == "" || l.TLS.Key == "") {
		fail(key+".tls", "want cert and key, or self_signed: true")
	}
}

// Where is "file:line" or "VARIABLE" of a key, as far as it is known.
func (c *Config) Where(key string) string { return strings.TrimSuffix(c.where(key), ": ") }

// where is "file:line: " or "VARIABLE: " of a key, or of what it is in.
func (c *Config) where(key string) string {
	for {
		if o, ok := c.origin[key]; ok && o.file != "" {
			return o.String() + ": "
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return ""
		}
		key = key[:i]
	}
}

type protocolListeners struct {
	key    string
	listen []Listener
}

func (c *Config) protocols() []protocolListeners {
	return []protocolListeners{{"mqtt", c.MQTT.Listen}, {"stomp", c.STOMP.Listen}, {"http", c.HTTP.Listen}}
}

// Open lists the addresses, "KEY ADDRESS" each, on which anybody who reaches
// the machine could do everything: those that are not loopback, where there
// are neither users, tokens nor rules, and which do not ask for a client certificate.
func (c *Config) Open() []string {
	if c.Auth.Enabled() {
		return nil
	}
	var open []string
	for _, p := range c.protocols() {
		for _, l := range p.listen {
			if l.TLS.ClientCA == "" && !Loopback(l.Address) {
				open = append(open, p.key+" "+l.Address)
			}
		}
	}
	return open
}

// Loopback reports whether only this machine reaches an address.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
