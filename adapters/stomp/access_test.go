package stomp_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// only lets one user in, who may do nothing with what is secret.
type only struct {
	core.AllowAll
	user, password string
}

func (o only) Authenticate(_ context.Context, c core.Credentials) (*core.Principal, error) {
	if c.User != o.user || string(c.Password) != o.password || c.Protocol != "stomp" || c.Client == "" || c.Remote == nil {
		return nil, core.ErrUnauthenticated
	}
	return &core.Principal{Name: c.User}, nil
}

func (only) Authorize(_ *core.Principal, a core.Action, resource string) error {
	if strings.Contains(resource, "secret") {
		return fmt.Errorf("%w: %s %s", core.ErrNotAuthorized, a, resource)
	}
	return nil
}

func (only) Version() uint64 { return 1 }

func TestAccessIsRefused(t *testing.T) {
	t.Parallel()
	g := start(t, func(_ *adapters.Limits, o *core.Options) { o.Authorizer = only{user: "ann", password: "x"} })
	for name, frame := range map[string][]string{
		"publish":               {"SEND", "destination:/topic/secret"},
		"publish, no receipt":   {"SEND", "destination:/topic/secret", "no-"},
		"publish to a queue":    {"SEND", "destination:/queue/secret"},
		"publish a part":        {"SEND", "destination:/queue/open,/queue/secret"},
		"subscribe":             {"SUBSCRIBE", "id:0", "destination:/topic/secret"},
		"subscribe to a filter": {"SUBSCRIBE", "id:0", "destination:/topic/secret/*"},
		"consume":               {"SUBSCRIBE", "id:0", "destination:/queue/secret"},
		"a group":               {"SUBSCRIBE", "id:0", "destination:/topic/secret", "group:g"},
		"a durable one":         {"SUBSCRIBE", "id:0", "destination:/topic/secret", "durable:true", "auto-delete:false"},
	} {
		t.Run(name, func(t *testing.T) {
			p := g.connect("1.2", "login:ann", "passcode:x")
			if frame[len(frame)-1] == "no-" {
				p.send(frame[0], frame[1:len(frame)-1]...)
				p.expectError("access refused")
				return
			}
			p.send(frame[0], append(frame[1:], "receipt:r")...)
			p.expectError("access refused", "receipt-id:r")
		})
	}
}
