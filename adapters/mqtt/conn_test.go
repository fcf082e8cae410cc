package mqtt

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/adapters/adaptertest"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// patience bounds every wait of a test: the machine may stand still.
const patience = time.Minute

// A site is a broker with an MQTT server on a loopback port.
type site struct {
	t       testing.TB
	options siteOptions
	broker  *core.Broker
	server  *Server
	limits  adapters.Limits
	metrics *prometheus.Registry
	addr    string
	serve   func(net.Conn) // in a bubble, where there is no port
	close   func()
	disk    disk // of the engine that newSite makes
}

// A disk can stand still.
type disk struct {
	mu       sync.Mutex // guards standing
	standing chan struct{}
}

// wait waits until the disk does not stand still. It is an engine's Hold.
func (d *disk) wait() {
	d.mu.Lock()
	standing := d.standing
	d.mu.Unlock()
	if standing != nil {
		<-standing
	}
}

func (d *disk) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.standing = make(chan struct{})
}

func (d *disk) letGo() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.standing != nil {
		close(d.standing)
		d.standing = nil
	}
}

type siteOption func(*siteOptions)

type siteOptions struct {
	limits     adapters.Limits
	authorizer core.Authorizer
	engine     core.Engine
	log        *slog.Logger // nil discards
	bubble     bool
}

// inBubble is for a site in a bubble of testing/synctest.
func inBubble(o *siteOptions) { o.bubble = true }

func withLimits(change func(*adapters.Limits)) siteOption {
	return func(o *siteOptions) { change(&o.limits) }
}

func withAuthorizer(a core.Authorizer) siteOption {
	return func(o *siteOptions) { o.authorizer = a }
}

func withEngine(e core.Engine) siteOption { return func(o *siteOptions) { o.engine = e } }

// patientLimits give a connection the time that a machine may stand still.
func patientLimits() adapters.Limits {
	l := adapters.DefaultLimits()
	l.Handshake, l.Stall = patience, patience
	return l
}

func newSite(t testing.TB, options ...siteOption) *site {
	t.Helper()
	o := siteOptions{limits: patientLimits()}
	for _, option := range options {
		option(&o)
	}
	s := &site{t: t, options: o, limits: o.limits}
	if o.engine == nil {
		engine := coretest.NewEngine()
		engine.Hold = s.disk.wait
		s.options.engine = &reopened{Engine: engine}
	}
	s.start()
	t.Cleanup(func() {
		s.disk.letGo()
		s.close()
	})
	return s
}

// reopened is an engine that survives its Close, as a log on disk does, and
// that one broker at a time may have, likewise.
type reopened struct {
	*coretest.Engine
	inUse atomic.Bool
}

func (r *reopened) Close(context.Context) error {
	r.inUse.Store(false)
	return nil
}

func (s *site) start() {
	s.t.Helper()
	o, log := s.options, s.options.log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if r, ok := o.engine.(*reopened); ok && !r.inUse.CompareAndSwap(false, true) {
		s.t.Fatal("a second broker on one log")
	}
	broker, err := core.Open(context.Background(), core.Options{Engine: o.engine, Authorizer: o.authorizer, Limits: o.limits.Limits, Logger: log})
	if err != nil {
		s.t.Fatal(err)
	}
	s.broker, s.metrics = broker, prometheus.NewRegistry()
	gate := adapters.NewGate(o.limits)
	s.server = New(broker, Options{Limits: o.limits, Gate: gate, Metrics: adapters.NewMetrics(s.metrics), Logger: log})
	if o.bubble {
		ctx, stop := context.WithCancel(context.Background())
		var serving sync.WaitGroup
		server := s.server
		s.serve = func(c net.Conn) {
			serving.Go(func() {
				defer c.Close()
				adapters.ServeConn(ctx, server, c)
			})
		}
		s.close = sync.OnceFunc(func() {
			s.t.Helper()
			stop()
			serving.Wait()
			if err := broker.Close(context.Background()); err != nil {
				s.t.Error("broker:", err)
			}
		})
		return
	}
	listener := adapters.NewServer("mqtt", []adapters.Endpoint{{Address: "127.0.0.1:0"}}, gate, s.server, log)
	if err := listener.Start(context.Background()); err != nil {
		s.t.Fatal(err)
	}
	s.addr = listener.Addrs()[0].String()
	served := make(chan error, 1)
	go func() { served <- listener.Serve() }()
	s.close = sync.OnceFunc(func() {
		s.t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := listener.Close(ctx); err != nil {
			s.t.Error("listener:", err)
		}
		if err := <-served; err != nil {
			s.t.Error("serve:", err)
		}
		if err := broker.Close(ctx); err != nil {
			s.t.Error("broker:", err)
		}
	})
}

// kill ends the broker as kill -9 does, but for its goroutines, and starts
// another one on what is durable.
func (s *site) kill() {
	s.t.Helper()
	end := s.close
	engine := s.options.engine.(*reopened).Kill()
	engine.Hold = s.disk.wait
	s.options.engine = &reopened{Engine: engine}
	s.disk.letGo()
	s.start()
	end()
}

// restart closes the broker and starts it again on the same log.
func (s *site) restart() {
	s.t.Helper()
	s.close()
	s.start()
}

// delete deletes a client's session, as an operator does.
func (s *site) delete(id string) {
	s.t.Helper()
	ctx := context.Background()
	c, err := s.broker.Connect(ctx, core.Credentials{Client: "operator"}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	if err := c.DeleteQueue(ctx, core.SessionQueue(core.SessionName(id))); err != nil {
		s.t.Fatal(err)
	}
}

// publish has a client publish over another protocol.
func (s *site) publish(protocol, id, topic, payload string) {
	s.t.Helper()
	c, err := s.broker.Connect(context.Background(), core.Credentials{Protocol: protocol, Client: id}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	if err := c.Publish(context.Background(), &core.Envelope{Topic: topic, Payload: []byte(payload)}, 0); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) dial() net.Conn {
	s.t.Helper()
	if s.serve != nil {
		client, server := net.Pipe()
		s.serve(server)
		s.t.Cleanup(func() { client.Close() })
		return adaptertest.NewLine(client)
	}
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// refusals is how often something was refused, by reason.
func (s *site) refusals() map[string]float64 {
	s.t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	n := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != "sluice_refused_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" {
					n[l.GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// poll waits until something holds.
func (s *site) poll(what string, holds func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal(what)
		}
	}
}

func (s *site) conn(id string) *conn {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	return s.server.conns[id]
}

// settled waits until a client has acknowledged all that it was sent.
func (s *site) settled(id string) {
	s.t.Helper()
	s.poll("not all is acknowledged", func() bool {
		c := s.conn(id)
		c.flights.mu.Lock()
		defer c.flights.mu.Unlock()
		return c.flights.byID.len() == 0
	})
}

// gone waits until a client's connection has ended.
func (s *site) gone(id string) {
	s.t.Helper()
	s.poll("the connection has not ended", func() bool { return s.conn(id) == nil })
}
