package clienttest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A driver is a process that drives clients of a library. Requests and answers
// are JSON, one a line; events name the connection they belong to.
type driver struct {
	name   string
	origin string // of the page, where there is one
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr logBuffer

	mu      sync.Mutex // guards what follows, and writes to stdin
	next    int
	pending map[int]chan answer
	conns   map[string]func(event)
	err     error
}

type answer struct {
	ok  json.RawMessage
	err error
}

// An event is one line that answers no request. Its fields are those of all
// drivers together; Raw is the line.
type event struct {
	Conn, Event string
	Raw         json.RawMessage
}

// answerWithin bounds one request.
const answerWithin = 90 * time.Second

// startDriver starts a driver's process and waits until it is ready.
func startDriver(name string, argv ...string) (*driver, error) {
	d := &driver{name: name, pending: make(map[int]chan answer), conns: make(map[string]func(event))}
	d.cmd = exec.Command(argv[0], argv[1:]...)
	d.cmd.Stderr = &d.stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var err error
	if d.stdin, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan string, 1)
	go d.read(stdout, ready)
	select {
	case origin, ok := <-ready:
		if !ok {
			return nil, fmt.Errorf("%s ended: %s", strings.Join(argv, " "), d.stderr.String())
		}
		d.origin = origin
		return d, nil
	case <-time.After(2 * time.Minute):
		d.cmd.Process.Kill()
		return nil, fmt.Errorf("%s is not ready: %s", strings.Join(argv, " "), d.stderr.String())
	}
}

// read hands out answers and events until the process ends.
func (d *driver) read(stdout io.Reader, ready chan<- string) {
	defer close(ready)
	lines := bufio.NewReaderSize(stdout, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			d.fail(fmt.Errorf("%s ended: %w: %s", d.name, err, d.stderr.String()))
			return
		}
		var l struct {
			Call        int
			OK          json.RawMessage
			Err         *string
			Conn, Event string
			Origin      string
		}
		if err := json.Unmarshal(line, &l); err != nil {
			d.fail(fmt.Errorf("%s wrote %q: %w", d.name, line, err))
			return
		}
		switch {
		case l.Call != 0:
			a := answer{ok: l.OK}
			if l.Err != nil {
				a.err = fmt.Errorf("%s: %s", d.name, *l.Err)
			}
			d.mu.Lock()
			waiting := d.pending[l.Call]
			delete(d.pending, l.Call)
			d.mu.Unlock()
			if waiting != nil {
				waiting <- a
			}
		case l.Event == "ready":
			ready <- l.Origin
		default:
			d.mu.Lock()
			on := d.conns[l.Conn]
			d.mu.Unlock()
			if on != nil {
				on(event{l.Conn, l.Event, line})
			}
		}
	}
}

func (d *driver) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	for id, waiting := range d.pending {
		delete(d.pending, id)
		waiting <- answer{err: err}
	}
}

// call runs one operation and returns its result.
func (d *driver) call(op string, args map[string]any) (json.RawMessage, error) {
	line := map[string]any{"op": op}
	for k, v := range args {
		line[k] = v
	}
	waiting := make(chan answer, 1)
	d.mu.Lock()
	if d.err != nil {
		d.mu.Unlock()
		return nil, d.err
	}
	d.next++
	id := d.next
	line["call"] = id
	data, err := json.Marshal(line)
	if err == nil {
		d.pending[id] = waiting
		_, err = d.stdin.Write(append(data, '\n'))
	}
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case a := <-waiting:
		return a.ok, a.err
	case <-time.After(answerWithin):
		d.mu.Lock()
		delete(d.pending, id)
		d.mu.Unlock()
		return nil, fmt.Errorf("%s: %s: no answer within %v: %s", d.name, op, answerWithin, d.stderr.String())
	}
}

// A conn is one connection of a driver's client.
type conn struct {
	driver *driver
	name   string
}

var connections atomic.Int64

// connect opens a connection, whose events on gets, one at a time.
func (d *driver) connect(op string, args map[string]any, on func(event)) (*conn, json.RawMessage, error) {
	c := &conn{d, fmt.Sprintf("c%d", connections.Add(1))}
	d.mu.Lock()
	d.conns[c.name] = on
	d.mu.Unlock()
	ok, err := c.call(op, args)
	if err != nil {
		c.forget()
		return nil, nil, err
	}
	return c, ok, nil
}

func (c *conn) call(op string, args map[string]any) (json.RawMessage, error) {
	with := map[string]any{"conn": c.name}
	for k, v := range args {
		with[k] = v
	}
	return c.driver.call(op, with)
}

func (c *conn) forget() {
	c.driver.mu.Lock()
	delete(c.driver.conns, c.name)
	c.driver.mu.Unlock()
}

// close ends the connection in the protocol's own words.
func (c *conn) close() error {
	c.forget()
	_, err := c.call("close", nil)
	return err
}

// drop cuts the connection.
func (c *conn) drop() error {
	c.forget()
	_, err := c.call("drop", nil)
	return err
}

// The drivers, each started when it is first needed.
var (
	startedMu sync.Mutex
	started   []*driver

	pahoDriver    = lazyDriver("Paho", "/usr/bin/python3", "paho_driver.py")
	stompPyDriver = lazyDriver("stomp.py", "/usr/bin/python3", "stomp_driver.py")
	nodeDriver    = lazyDriver("Node", "node", "node_driver.mjs")
	browserDriver = lazyDriver("Chromium", "node", "browser_driver.mjs")
)

// missing says what to install for a driver that did not start.
var missing = map[string]string{
	"Paho":     "apt-get install -y python3-paho-mqtt",
	"stomp.py": "apt-get install -y python3-stomp",
	"Node":     "install Node.js 20 or later and run npm ci in cmd/sluice/clienttest",
	"Chromium": "apt-get install -y chromium, install Node.js 20 or later and run npm ci in cmd/sluice/clienttest",
}

func lazyDriver(name string, argv ...string) func(testing.TB) *driver {
	start := sync.OnceValues(func() (*driver, error) {
		d, err := startDriver(name, argv...)
		if err == nil {
			startedMu.Lock()
			started = append(started, d)
			startedMu.Unlock()
		}
		return d, err
	})
	return func(t testing.TB) *driver {
		t.Helper()
		d, err := start()
		if err != nil {
			t.Fatalf("the driver of %s did not start; if it is missing: %s\n%v", name, missing[name], err)
		}
		return d
	}
}

// endDrivers closes the drivers' standard input, at which they end.
func endDrivers() {
	startedMu.Lock()
	defer startedMu.Unlock()
	for _, d := range started {
		d.stdin.Close()
	}
	for _, d := range started {
		ended := make(chan error, 1)
		go func() { ended <- d.cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			d.cmd.Process.Kill()
			<-ended
		}
	}
}

// errClosed ends an inbox whose connection was closed by the broker.
var errClosed = errors.New("the broker closed the connection")
