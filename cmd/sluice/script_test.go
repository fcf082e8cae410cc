package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/sluicemq/sluice/cmd/sluice/internal/loopback"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sluice": main})
}

// TestScripts runs the scripts of testdata/script, each against brokers of its
// own: $MQTT, $STOMP and $HTTP are free addresses, and what is started by
// "sluice serve" listens there unless it is told otherwise.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"MQTT", "STOMP", "HTTP"} {
				address, err := loopback.FreeAddress()
				if err != nil {
					return err
				}
				e.Setenv(name, address)
				e.Setenv("SLUICE_"+name+"_LISTEN", address)
			}
			e.Setenv("SLUICE_BROKER", e.Getenv("HTTP"))
			e.Setenv("SLUICE_LOG_LEVEL", "warn")
			// The machine may stand still between a connection and what it says.
			e.Setenv("SLUICE_LIMITS_HANDSHAKE", "1m")
			e.Setenv("SLUICE_LIMITS_STALL", "1m")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"listening": listening, "code": code, "retry": retry, "signal": signalBackground, "half-request": halfRequest, "reply": reply, "damage": damage, "receive": receive},
	})
}

// reply answers the first request to a topic: reply TOPIC BODY.
func reply(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("sluice", "sub", args[0], "--from", "earliest", "-n", "1", "--wait", "1m", "-f", "%r"))
	to := strings.TrimSpace(ts.ReadFile("stdout"))
	ts.Check(ts.Exec("sluice", "pub", to, args[1]))
}

// receive takes the messages of webhooks at $HOOK, which it sets: receive FILE. It
// appends a line for each, and refuses the first, and what is not signed.
func receive(ts *testscript.TestScript, _ bool, args []string) {
	var mu sync.Mutex
	refused := false
	s := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil || !strings.HasPrefix(r.Header.Get("webhook-signature"), "v1,") {
			w.WriteHeader(nethttp.StatusBadRequest)
			return
		}
		f, err := os.OpenFile(args[0], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			fmt.Fprintf(f, "%s %s %s\n", r.Header.Get("X-Queue"), r.Header.Get("X-Attempt"), body)
			err = f.Close()
		}
		if err != nil || !refused {
			refused = true
			w.WriteHeader(nethttp.StatusServiceUnavailable)
		}
	}))
	ts.Defer(s.Close)
	ts.Setenv("HOOK", s.URL)
}

// damage turns over a byte of a file, the first of a text in it: damage FILE TEXT.
func damage(ts *testscript.TestScript, _ bool, args []string) {
	data := []byte(ts.ReadFile(args[0]))
	at := strings.Index(string(data), args[1])
	if at < 0 {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	data[at] ^= 0xff
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}

// listening waits until something listens on each address; with "!", until
// nothing does.
func listening(ts *testscript.TestScript, neg bool, addresses []string) {
	for _, a := range addresses {
		deadline := time.Now().Add(2 * time.Minute)
		for {
			c, err := net.Dial("tcp", a)
			if err == nil {
				c.Close()
			}
			if (err == nil) != neg {
				break
			}
			if time.Now().After(deadline) {
				ts.Fatalf("%s: %v", a, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// code runs a command and wants its exit code.
func code(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("the exit code is %d, want %s", got, args[0])
	}
}

// signalBackground sends TERM or HUP to what runs in the background.
func signalBackground(ts *testscript.TestScript, _ bool, args []string) {
	s := map[string]os.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}[args[0]]
	for _, c := range ts.BackgroundCmds() {
		if err := c.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
			ts.Fatalf("%v", err)
		}
	}
}

// halfRequest begins a request that does not go on, and holds it until the
// script ends.
func halfRequest(ts *testscript.TestScript, _ bool, args []string) {
	c, err := net.Dial("tcp", args[0])
	ts.Check(err)
	ts.Defer(func() { c.Close() })
	_, err = c.Write([]byte("POST /t/a HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"))
	ts.Check(err)
	// The broker asks for the body once it has begun with the request.
	_, err = c.Read(make([]byte, 1))
	ts.Check(err)
}

// retry runs a command again and again until it succeeds.
func retry(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(time.Minute)
	for {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
