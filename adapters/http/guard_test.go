package http_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/core"
)

func TestHost(t *testing.T) {
	d := open(t, func(o *http.Options, _ *core.Options) { o.Hosts = []string{"Broker.example:8080"} })
	for _, host := range []string{"localhost", "LOCALHOST:1", "127.0.0.1:9", "127.9.9.9", "[::1]:80", "x.localhost", "broker.example", "broker.example.:99"} {
		d.want(200, "GET", "/healthz", "", "Host: "+host)
	}
	paths := []string{"/", "/t/a", "/sse/a", "/last/a", "/q/a", "/v1/queues", "/healthz", "/nothing"}
	for _, path := range paths {
		d.refused(421, "foreign-host", "GET", path, "", "Host: evil.example")
	}
	for _, host := range []string{"10.1.1.1", "localhost.evil.example", "evil.example:8080", "127.0.0.1.evil.example"} {
		d.refused(421, "foreign-host", "GET", "/", "", "Host: "+host)
	}
	if n := d.refusals("foreign_host"); n != float64(len(paths)+4) {
		t.Errorf("counted %v", n)
	}
}

func TestOrigin(t *testing.T) {
	d := open(t, func(o *http.Options, _ *core.Options) { o.Origins = []string{"https://App.example/"} })
	own := "http://" + d.addr
	for _, origin := range []string{own, "https://app.example"} {
		a := d.want(201, "POST", "/t/a", "x", "Origin: "+origin)
		if got := a.Header.Get("Access-Control-Allow-Origin"); (got == origin) != (origin != own) {
			t.Errorf("%s: allowed %q", origin, got)
		}
	}
	a := d.want(204, "OPTIONS", "/t/a", "", "Origin: https://app.example", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-key,content-type")
	if a.Header.Get("Access-Control-Allow-Headers") != "x-key,content-type" || a.Header.Get("Access-Control-Allow-Methods") == "" {
		t.Errorf("preflight %v", a.Header)
	}
	for _, h := range []string{"Origin: https://evil.example", "Origin: null", "Origin: http://localhost:1", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"} {
		d.refused(403, "foreign-origin", "GET", "/t/a", "", h)
		d.refused(403, "foreign-origin", "POST", "/t/a", "x", h)
		d.refused(403, "foreign-origin", "OPTIONS", "/t/a", "", h)
	}
	// A problem is told to a page that may call.
	if a := d.refused(404, "not-found", "GET", "/last/none", "", "Origin: https://app.example"); a.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("%v", a.Header)
	}
	// A link from elsewhere may be followed, but takes no messages.
	d.want(200, "GET", "/t/a?from=1", "", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
	d.refused(403, "foreign-origin", "GET", "/t/a?group=g", "", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
	d.refused(403, "foreign-origin", "GET", "/t/a?gr%6fup=g", "", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
	d.want(200, "GET", "/t/a?from=1", "", "Sec-Fetch-Site: same-origin")
}

// A door keeper knows one user and one token, and lets nobody write to "closed".
type keeper struct{ core.AllowAll }

func (keeper) Authenticate(_ context.Context, c core.Credentials) (*core.Principal, error) {
	if c.User == "ann" && string(c.Password) == "s:cret" || c.Token == "tok" {
		return &core.Principal{Name: "ann"}, nil
	}
	return nil, fmt.Errorf("%w: nobody", core.ErrUnauthenticated)
}

func (keeper) Authorize(_ *core.Principal, _ core.Action, resource string) error {
	if resource == "closed" {
		return core.ErrNotAuthorized
	}
	return nil
}

func TestCredentials(t *testing.T) {
	d := open(t, func(o *http.Options, c *core.Options) {
		c.Authorizer = keeper{}
		o.Limits.LoginFailuresPerAddress = 3
	})
	// Whoever shows nothing has not failed to log in.
	for range 5 {
		a := d.refused(401, "unauthenticated", "POST", "/t/a", "x")
		if got := a.Header.Values("Www-Authenticate"); len(got) != 2 {
			t.Fatalf("WWW-Authenticate %q", got)
		}
	}
	for _, right := range []string{"Basic YW5uOnM6Y3JldA==", "basic YW5uOnM6Y3JldA==", "Bearer tok"} {
		d.want(201, "POST", "/t/a", "x", "Authorization: "+right)
	}
	for _, path := range []string{"/t/a", "/sse/a", "/last/a", "/q/a", "/v1/queues", "/v1/exchanges"} {
		d.refused(401, "unauthenticated", "GET", path, "")
	}
	d.refused(403, "forbidden", "POST", "/t/closed", "x", "Authorization: Bearer tok")
	d.refused(403, "forbidden", "GET", "/t/closed", "", "Authorization: Bearer tok")
	if m := d.want(200, "GET", "/t/a?from=1", "", "Authorization: Bearer tok").body; m == "" {
		t.Error("nothing to read")
	}
	d.refused(401, "unauthenticated", "GET", "/t/a", "", "Authorization: Digest x")
	d.refused(401, "unauthenticated", "GET", "/t/a", "", "Authorization: Basic ???")
	d.refused(400, "bad-request", "GET", "/t/a", "", "Authorization: Bearer tok", "Authorization: Bearer tok")
	for _, wrong := range []string{"Bearer wrong", "Basic YW5uOm5v", "Basic Om5v"} { // the last without a user
		d.refused(401, "unauthenticated", "GET", "/t/a", "", "Authorization: "+wrong)
	}
	a := d.refused(429, "too-many-logins", "GET", "/t/a", "", "Authorization: Bearer tok")
	if a.Header.Get("Retry-After") == "" {
		t.Errorf("%v", a.Header)
	}
}
