package main

import (
	"crypto/tls"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/sluicemq/sluice/configs"
)

// TestShippedConfigurations starts a broker from every file in configs/, with
// free ports and an empty data folder, and connects to each of its addresses.
func TestShippedConfigurations(t *testing.T) {
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if filepath.Base(file) == "users.yaml" {
			continue // not a configuration: auth.yaml names it
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			cfg, err := configs.Load(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := refuseOpen(cfg); err != nil {
				t.Fatal(err)
			}
			startGateway(t, cfg)
		})
	}
}

// startGateway runs a gateway of a configuration, on free ports and in a
// folder of its own, and stops it when the test ends.
func startGateway(t *testing.T, cfg *configs.Config) *gateway {
	t.Helper()
	cfg.Data = t.TempDir()
	for _, list := range [][]configs.Listener{cfg.MQTT.Listen, cfg.STOMP.Listen, cfg.HTTP.Listen} {
		for i := range list {
			list[i].Address = "127.0.0.1:0"
		}
	}
	if cfg.Debug.Pprof != "" {
		cfg.Debug.Pprof = "127.0.0.1:0"
	}
	g, _ := serveGateway(t, cfg)
	banner(io.Discard, cfg, g)
	for _, d := range g.doors {
		for i, a := range d.addrs() {
			var c net.Conn
			var err error
			if d.listen[i].TLS.Enabled() {
				c, err = tls.Dial("tcp", a.String(), &tls.Config{InsecureSkipVerify: true})
			} else {
				c, err = net.Dial("tcp", a.String())
			}
			if err != nil {
				t.Fatalf("%s: %v", d.name, err)
			}
			c.Close()
		}
	}
	return g
}
