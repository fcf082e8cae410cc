package stomp_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/adapters/adaptertest"
	"github.com/sluicemq/sluice/core"
)

// go-stomp's client leaves a goroutine behind where it missed its own wake-up.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/go-stomp/stomp/v3.waitWithTimeout.func1"))
}

// certified lets in who shows a certificate, under its name.
type certified struct{ core.AllowAll }

func (certified) Authenticate(_ context.Context, c core.Credentials) (*core.Principal, error) {
	if c.Certificate == nil {
		return nil, core.ErrUnauthenticated
	}
	return &core.Principal{Name: c.Certificate.Subject.CommonName}, nil
}

// Over TLS a client may be known by its certificate.
func TestTLS(t *testing.T) {
	t.Parallel()
	authority := adaptertest.NewAuthority(t)
	g := startWith(t, t.TempDir(), authority.Server(t, "server"),
		func(_ *adapters.Limits, o *core.Options) { o.Authorizer = certified{} })
	dial := func(name string) *peer {
		c, err := tls.Dial("tcp", g.address, authority.Client(t, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(2 * patience))
		p := &peer{t: t, conn: c, in: bufio.NewReader(c)}
		p.send("CONNECT", "accept-version:1.2", "host:h")
		return p
	}
	dial("").expectError("access refused")
	p := dial("device-7")
	p.expect("CONNECTED\n")
	p.subscribe("0", "/topic/a")
	p.send("SEND", "destination:/topic/a", " x")
	p.expect("MESSAGE\n", "\npublisher:device-7\n")
}

// A peer that speaks TLS to a plain listener is turned away.
func TestWrongTransport(t *testing.T) {
	t.Parallel()
	g := start(t)
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", g.address, &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		c.Close()
		t.Error("a handshake with a plain listener")
	}
	waitFor(t, func() bool { return g.refused("malformed") == 1 })
}
