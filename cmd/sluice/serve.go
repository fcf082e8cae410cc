package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sluicemq/sluice/configs"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	config, data      string
	mqtt, stomp, http []string
}

func newServe() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the broker",
		Long: `Runs the broker until it gets SIGTERM or SIGINT, which let connections finish
and stop it cleanly; a second signal stops it at once. On SIGHUP it reads the
users, rules, log level and certificates of its configuration again.

Without a configuration it listens on loopback only, for everybody on this
machine: MQTT on 1883, STOMP on 61613, HTTP and WebSocket on 8080.`,
		Example: `  sluice serve
  sluice serve --data /var/lib/sluice --http 127.0.0.1:9090
  sluice serve --config /etc/sluice.yaml`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.load(c)
			if err != nil {
				return err
			}
			return serve(c.Context(), cfg, func() (*configs.Config, error) { return o.load(c) }, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVarP(&o.config, "config", "c", "", "configuration `file`")
	f.StringVar(&o.data, "data", "", "`folder` that holds the log")
	f.StringSliceVar(&o.mqtt, "mqtt", nil, "`addresses` for MQTT")
	f.StringSliceVar(&o.stomp, "stomp", nil, "`addresses` for STOMP")
	f.StringSliceVar(&o.http, "http", nil, "`addresses` for HTTP and WebSocket")
	return c
}

// load reads the configuration; flags win over the environment and that over
// the file.
func (o *serveOptions) load(c *cobra.Command) (*configs.Config, error) {
	cfg, err := configs.Load(o.configFile(), os.Environ())
	if err != nil {
		return nil, err
	}
	if c.Flags().Changed("data") {
		cfg.Data = o.data
	}
	for flag, at := range map[string]struct {
		addresses []string
		listen    *[]configs.Listener
	}{"mqtt": {o.mqtt, &cfg.MQTT.Listen}, "stomp": {o.stomp, &cfg.STOMP.Listen}, "http": {o.http, &cfg.HTTP.Listen}} {
		if !c.Flags().Changed(flag) {
			continue
		}
		*at.listen = nil
		for _, a := range at.addresses {
			*at.listen = append(*at.listen, configs.Listener{Address: a})
		}
	}
	if err := cfg.Check(); err != nil {
		return nil, usageError{err}
	}
	return cfg, refuseOpen(cfg)
}

func (o *serveOptions) configFile() string {
	if o.config != "" {
		return o.config
	}
	return os.Getenv("SLUICE_CONFIG")
}

// refuseOpen refuses to serve strangers, and says how to go on.
func refuseOpen(cfg *configs.Config) error {
	open := cfg.Open()
	if len(open) == 0 {
		return nil
	}
	what := strings.Fields(open[0])
	loopback := make([]string, len(open))
	for i, o := range open {
		protocol, address, _ := strings.Cut(o, " ")
		loopback[i] = "--" + protocol + " 127.0.0.1" + address[strings.LastIndexByte(address, ':'):]
	}
	return usageError{fmt.Errorf(`not starting: everybody who reaches %s on %s could read and write everything,
because there are neither users nor rules. Do one of these two:

  1. Listen for this machine only:

       sluice serve %s

  2. Have users log in. Make the first one:

       sluice user add users.yaml admin

     and put into the configuration:

       auth:
         users: users.yaml
         rules:
           - {who: [users], allow: [all]}`, what[1], strings.ToUpper(what[0]), strings.Join(loopback, " "))}
}

// serve runs the broker until a signal.
func serve(ctx context.Context, cfg *configs.Config, reload func() (*configs.Config, error), out io.Writer) error {
	level := new(slog.LevelVar)
	log := newLogger(cfg.Log, level, os.Stderr)
	settleProcess(cfg, log)

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)

	// A signal also interrupts a long recovery.
	opening, stopOpening := context.WithCancel(ctx)
	opened := make(chan struct{})
	var early os.Signal
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case early = <-signals:
				if early != syscall.SIGHUP {
					stopOpening()
					return
				}
				early = nil
			case <-opened:
				return
			}
		}
	}()
	g, err := openGateway(opening, cfg, log)
	close(opened)
	<-watched
	defer stopOpening()
	if err != nil {
		if early != nil {
			return nil
		}
		return err
	}
	if early == nil {
		banner(out, cfg, g)
	}

	failed := make(chan error, 1)
	go func() { failed <- g.Serve() }()
	var cause error
	for early == nil && cause == nil {
		select {
		case s := <-signals:
			if s != syscall.SIGHUP {
				early = s
				break
			}
			if err := g.Reload(reload, level); err != nil {
				log.Error("configuration not read again: what held before holds on", "err", err)
			} else {
				log.Info("configuration read again")
			}
		case cause = <-failed:
			if cause == nil {
				cause = errors.New("all listeners have ended")
			}
		case <-ctx.Done():
			cause = ctx.Err()
		}
	}
	if early != nil {
		log.Info("stopping", "signal", early.String())
	}
	go func() {
		for s := range signals {
			if s != syscall.SIGHUP {
				log.Warn("stopped at once by a second signal", "signal", s.String())
				os.Exit(exitFailed)
			}
		}
	}()
	err = g.Close(context.WithoutCancel(ctx))
	if cause != nil {
		return errors.Join(cause, err)
	}
	if err == nil {
		log.Info("stopped")
	}
	return err
}
