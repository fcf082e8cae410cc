package stomp_test

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"testing"
	"time"

	gostomp "github.com/go-stomp/stomp/v3"
	"github.com/go-stomp/stomp/v3/frame"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// TestStompPy runs stomp.py's own suite in testdata, in every version. Debian
// has it as python3-stomp.
func TestStompPy(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import stomp").CombinedOutput(); err != nil {
		t.Fatalf("python3-stomp is not installed: %v: %s", err, out)
	}
	for _, v := range versions {
		t.Run(v, func(t *testing.T) {
			g := start(t)
			host, port, _ := net.SplitHostPort(g.address)
			out, err := exec.CommandContext(t.Context(), python, "testdata/suite.py", host, port, v).CombinedOutput()
			if want := "topic\nbinary\nacknowledge\ntransaction\nerrors\n"; err != nil || string(out) != want {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

// TestGoStomp uses go-stomp's client.
func TestGoStomp(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(v, func(t *testing.T) {
			g := start(t, func(_ *adapters.Limits, o *core.Options) { o.Authorizer = only{user: "ann", password: "pw"} })
			dial := func() *gostomp.Conn {
				c, err := gostomp.Dial("tcp", g.address, gostomp.ConnOpt.AcceptVersion(gostomp.Version(v)),
					gostomp.ConnOpt.Login("ann", "pw"), gostomp.ConnOpt.HeartBeat(time.Minute, time.Minute), gostomp.ConnOpt.UnsubscribeReceiptTimeout(time.Second))
				if err != nil {
					t.Fatal(err)
				}
				if got := c.Version().String(); got != v {
					t.Errorf("version %s", got)
				}
				return c
			}
			c := dial()
			mode := gostomp.AckClientIndividual
			if v == "1.0" {
				mode = gostomp.AckClient
			}
			sub, err := c.Subscribe("/queue/go", mode)
			if err != nil {
				t.Fatal(err)
			}
			body := "a\x00b"
			if err := c.Send("/queue/go", "application/octet-stream", []byte(body), gostomp.SendOpt.Receipt, gostomp.SendOpt.Header("n", "x")); err != nil {
				t.Fatal(err)
			}
			m, err := sub.Read()
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Body) != body || m.ContentType != "application/octet-stream" || m.Destination != "/queue/go" || m.Header.Get("n") != "x" {
				t.Errorf("%+v", m)
			}
			if err := c.Ack(m); err != nil {
				t.Fatal(err)
			}
			tx := c.Begin()
			for i := range 3 {
				if err := tx.Send("/queue/go", "", []byte(fmt.Sprint(i))); err != nil {
					t.Fatal(err)
				}
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				m, err := sub.Read()
				if err != nil || string(m.Body) != fmt.Sprint(i) {
					t.Fatal(i, m, err)
				}
				if err := c.Ack(m); err != nil {
					t.Fatal(err)
				}
			}
			// The client can miss its own wake-up when the receipt is quicker
			// than its wait, so what counts is what the broker knows.
			if err := sub.Unsubscribe(); err != nil && !errors.Is(err, &gostomp.ErrUnsubscribeReceiptTimeout) {
				t.Error(err)
			}
			ann, err := g.broker.Connect(t.Context(), core.Credentials{Protocol: "stomp", Client: "test", User: "ann", Password: []byte("pw"), Remote: &net.TCPAddr{}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { info, err := ann.Queue("go"); return err == nil && info.Consumers == 0 })
			if err := c.Disconnect(); err != nil {
				t.Error(err)
			}
			c = dial()
			if err := c.Send("/queue/secret", "", nil, gostomp.SendOpt.Receipt); err == nil {
				t.Error("allowed to send to a secret queue")
			} else if e, ok := err.(gostomp.Error); ok && e.Frame != nil && e.Frame.Command != frame.ERROR {
				t.Error(err)
			}
		})
	}
}
