package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	nethttp "net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/adapters/mqtt"
	"github.com/sluicemq/sluice/adapters/stomp"
	"github.com/sluicemq/sluice/adapters/ws"
	"github.com/sluicemq/sluice/cmd/sluice/internal/access"
	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/seglog"
)

// A gateway is a broker with its log and its doors.
type gateway struct {
	config *configs.Config
	log    *slog.Logger
	broker *core.Broker
	access *access.Access // nil where everybody may do everything
	certs  *certificates

	doors []door
	ws    *ws.Server
	debug *nethttp.Server

	backups *backupServer
	watch   *watch
	sys     *sysReporter // nil where the broker does not tell of itself
}

// A door is an adapter that listens.
type door struct {
	name string
	adapters.Adapter
	addrs  func() []net.Addr
	listen []configs.Listener
}

// openGateway opens the log, starts the broker, declares what the
// configuration declares, and takes the sockets.
func openGateway(ctx context.Context, cfg *configs.Config, log *slog.Logger) (g *gateway, err error) {
	g = &gateway{config: cfg, log: log, certs: &certificates{cfg: cfg}}
	defer func() {
		if err != nil {
			g.Close(context.WithoutCancel(ctx))
		}
	}()
	authorizer, err := g.openAccess()
	if err != nil {
		return g, err
	}
	data := cfg.Path("data", cfg.Data)
	engine, err := seglog.Open(ctx, seglog.Options{Dir: data, Logger: log})
	if err != nil {
		return g, fmt.Errorf("data folder %s: %w", cfg.Data, explain(data, err))
	}
	g.backups = newBackupServer(engine, cfg.Limits.Stall, log)
	g.broker, err = core.Open(ctx, core.Options{
		Engine: engine, Authorizer: authorizer, Policies: cfg.CorePolicies(), TrustClock: cfg.Retention.TrustClock, Limits: cfg.Limits.Limits, Logger: log,
	})
	if err != nil {
		return g, errors.Join(explain(data, err), engine.Close(context.WithoutCancel(ctx)))
	}
	g.watch = startWatch(g.broker, data)
	if err := g.declare(ctx); err != nil {
		return g, err
	}
	if err := g.makeDoors(); err != nil {
		return g, err
	}
	for _, d := range g.doors {
		if err := d.Start(ctx); err != nil {
			return g, fmt.Errorf("%w; another address: --%s HOST:PORT", err, d.name)
		}
	}
	return g, g.startDebug()
}

// openAccess makes the authorizer, where the configuration asks for one.
func (g *gateway) openAccess() (core.Authorizer, error) {
	if !g.config.Auth.Enabled() {
		return nil, nil
	}
	var err error
	g.access, err = access.New(g.config.Access())
	return g.access, err
}

// declare makes the exchanges and queues of the configuration.
func (g *gateway) declare(ctx context.Context) error {
	if len(g.config.Exchanges) == 0 && len(g.config.Queues) == 0 {
		return nil
	}
	client, err := g.broker.Connect(ctx, g.operator(), nil)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, x := range g.config.CoreExchanges() {
		if err := client.DeclareExchange(ctx, x); err != nil {
			return fmt.Errorf("exchange %q of the configuration: %w", x.Name, err)
		}
	}
	for _, bd := range g.config.CoreExchangeBindings() {
		if err := client.BindExchange(ctx, bd); err != nil {
			return fmt.Errorf("binding of the exchange %q to %q of the configuration: %w", bd.From, bd.To, err)
		}
	}
	for _, q := range g.config.CoreQueues() {
		err := client.DeclareQueue(ctx, q)
		if errors.Is(err, core.ErrConflict) {
			// It has messages, perhaps: what it is stays until it is deleted.
			g.log.Warn("queue has other settings than the configuration says; they stay until it is deleted", "queue", q.Name, "err", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("queue %q of the configuration: %w", q.Name, err)
		}
	}
	return nil
}

// makeDoors makes the adapters. A new protocol is a line here.
func (g *gateway) makeDoors() error {
	cfg, limits := g.config, g.config.Limits
	gate := adapters.NewGate(limits)
	registry := prometheus.NewRegistry()
	metrics := adapters.NewMetrics(registry)
	collectProcess(registry, g.broker, g.access)
	if cfg.Sys > 0 {
		g.sys = startSysReporter(g.broker, gate, metrics, time.Duration(cfg.Sys), g.log)
	}

	m := mqtt.New(g.broker, mqtt.Options{Limits: limits, Gate: gate, Metrics: metrics, Logger: g.log})
	s := stomp.New(g.broker, stomp.Options{Limits: limits, Gate: gate, Metrics: metrics, Logger: g.log, Strict: cfg.STOMP.Strict})
	g.ws = ws.New(g.broker, ws.Options{
		Limits: limits, Gate: gate, Metrics: metrics, Logger: g.log,
		MQTT: m, STOMP: s, Origins: cfg.HTTP.Origins,
	})

	mqttAt, err := g.endpoints("mqtt", cfg.MQTT.Listen)
	if err != nil {
		return err
	}
	stompAt, err := g.endpoints("stomp", cfg.STOMP.Listen)
	if err != nil {
		return err
	}
	httpAt, err := g.endpoints("http", cfg.HTTP.Listen)
	if err != nil {
		return err
	}
	mq := adapters.NewServer("mqtt", mqttAt, gate, m, g.log)
	st := adapters.NewServer("stomp", stompAt, gate, s, g.log)
	h := http.New(g.broker, http.Options{
		Limits: limits, Gate: gate, Metrics: metrics, Logger: g.log,
		Endpoints: httpAt, Mount: g.mounts(registry, gate), Ports: g.ports, Origins: cfg.HTTP.Origins, Hosts: cfg.HTTP.Hosts,
		Webhooks: g.webhooks(), Allow: cfg.WebhookNetworks(), Operator: g.operator(),
	})
	for _, d := range []door{
		{name: "mqtt", Adapter: mq, addrs: mq.Addrs, listen: cfg.MQTT.Listen},
		{name: "stomp", Adapter: st, addrs: st.Addrs, listen: cfg.STOMP.Listen},
		{name: "http", Adapter: h, addrs: h.Addrs, listen: cfg.HTTP.Listen},
	} {
		if len(d.listen) > 0 {
			g.doors = append(g.doors, d)
		}
	}
	if len(g.doors) == 0 {
		return errors.New("nothing to listen on: mqtt.listen, stomp.listen and http.listen are all empty")
	}
	return nil
}

// mounts are what the HTTP door serves for others, by method and path.
func (g *gateway) mounts(figures prometheus.Gatherer, gate *adapters.Gate) map[string]nethttp.Handler {
	mounts := map[string]nethttp.Handler{
		"GET /ws": g.ws, "GET /mqtt": g.ws, "GET /stomp": g.ws,
		"POST " + backupPath: onlyFor(core.Manage, backupTopic, gate, g.access, g.backups),
	}
	if g.config.Metrics.Enabled {
		mounts["GET /metrics"] = metricsHandler(figures, gate, g.access)
	}
	return mounts
}

// ports tells where MQTT and STOMP are spoken, without TLS if they are.
func (g *gateway) ports() map[string]http.Port {
	ports := make(map[string]http.Port)
	for _, d := range g.doors {
		if d.name == "http" {
			continue
		}
		for i, a := range d.addrs() {
			t, ok := a.(*net.TCPAddr)
			if before, known := ports[d.name]; ok && (!known || before.TLS) {
				ports[d.name] = http.Port{Port: t.Port, TLS: d.listen[i].TLS.Enabled()}
			}
		}
	}
	return ports
}

// operator are the credentials by which the broker does what its configuration
// says.
func (g *gateway) operator() core.Credentials {
	if g.access == nil {
		return core.Credentials{}
	}
	return g.access.Operator()
}

// webhooks are those of the configuration's queues.
func (g *gateway) webhooks() map[string]adapters.Webhook {
	hooks := make(map[string]adapters.Webhook)
	for _, q := range g.config.Queues {
		if w := q.Webhook; w.Enabled() {
			hooks[q.Name] = w.Adapter()
		}
	}
	return hooks
}

func (g *gateway) endpoints(protocol string, listen []configs.Listener) ([]adapters.Endpoint, error) {
	var list []adapters.Endpoint
	for i, l := range listen {
		e := adapters.Endpoint{Address: l.Address}
		if l.TLS.Enabled() {
			var err error
			if e.TLS, err = g.certs.config(protocol, i, l.TLS); err != nil {
				return nil, err
			}
		}
		list = append(list, e)
	}
	return list, nil
}

// Serve accepts connections until Close, or until a door fails.
func (g *gateway) Serve() error {
	failed := make(chan error, len(g.doors))
	for _, d := range g.doors {
		go func() { failed <- d.Serve() }()
	}
	for range g.doors {
		if err := <-failed; err != nil {
			return err
		}
	}
	return nil
}

// brokerCloses is what is left for the broker, whatever the doors took.
const brokerCloses = 10 * time.Second

// Close lets connections finish within the configured time, then stops the
// broker, which makes durable and confirms what it was given.
func (g *gateway) Close(ctx context.Context) error {
	draining, cancel := context.WithTimeout(ctx, time.Duration(g.config.Shutdown.Timeout))
	defer cancel()
	if g.backups != nil {
		g.backups.close()
	}
	if g.broker != nil {
		g.broker.Stopping()
	}
	closers := []func(context.Context) error{}
	for _, d := range g.doors {
		closers = append(closers, d.Close)
	}
	if g.ws != nil {
		closers = append(closers, g.ws.Close)
	}
	errs := make([]error, len(closers))
	var wait sync.WaitGroup
	for i, c := range closers {
		wait.Go(func() { errs[i] = c(draining) })
	}
	wait.Wait()
	for _, err := range errs {
		if errors.Is(err, context.DeadlineExceeded) {
			g.log.Warn("connections that did not finish in time were cut", "timeout", time.Duration(g.config.Shutdown.Timeout))
			break
		}
	}
	if g.debug != nil {
		g.debug.Close()
	}
	if g.watch != nil {
		g.watch.close()
	}
	if g.sys != nil {
		g.sys.close()
	}
	if g.broker == nil {
		return nil
	}
	closing, cancel := context.WithTimeout(ctx, brokerCloses)
	defer cancel()
	return g.broker.Close(closing)
}

// Reload reads users, keys, rules, certificates and the log's level again.
func (g *gateway) Reload(load func() (*configs.Config, error), level *slog.LevelVar) error {
	cfg, err := load()
	if err != nil {
		return err
	}
	if cfg.Auth.Enabled() != (g.access != nil) {
		return errors.New("auth: users and rules can be changed while the broker runs, but not be switched on or off")
	}
	if g.access != nil {
		if err := g.access.Reload(cfg.Access()); err != nil {
			return err
		}
		g.broker.RightsChanged()
	}
	level.Set(cfg.Log.Level.Slog())
	return g.certs.reload()
}
