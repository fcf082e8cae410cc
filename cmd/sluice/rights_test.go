package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/cmd/sluice/internal/access"
	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

// rightsRules lets ann do with what is named a what eve may do with nothing but
// what is named e.
const rightsRules = `
auth:
  users: users.yaml
  rules:
    - {who: [role:operator], allow: [all]}
    - {who: ["user:ann"], allow: [publish, subscribe], filters: [a/#]}
    - {who: ["user:ann"], allow: [publish, consume], filters: [$queue/a]}
    - {who: ["user:ann"], allow: [publish], filters: [$exchange/amq.topic/a]}
    - {who: ["user:eve"], allow: [publish, subscribe, consume], filters: [e/#, $queue/e, $exchange/amq.topic/e]}
`

// TestOneRuleOnEveryDoor: what the rules allow and refuse they do so over each
// protocol, in its own words, and what is withdrawn ends for who had it.
func TestOneRuleOnEveryDoor(t *testing.T) {
	dir := t.TempDir()
	load := func() (*configs.Config, error) { return configs.Load(filepath.Join(dir, "sluice.yaml"), nil) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("sluice.yaml", rightsRules)
	var users strings.Builder
	users.WriteString("users:\n")
	for name, role := range map[string]string{"root": "operator", "ann": "device", "eve": "device"} {
		fmt.Fprintf(&users, "  - {name: %s, roles: [%s], hash: '%s'}\n", name, role, access.HashPassword([]byte(name)))
	}
	write("users.yaml", users.String())
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	g, addresses := serveGateway(t, cfg)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dial := func(t *testing.T, via, user string) link.Link {
		t.Helper()
		l, err := link.Dial(ctx, via, link.Options{Address: addresses[via], User: user, Password: user, Timeout: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	publish := func(t *testing.T, via, user, topic, payload string) error {
		t.Helper()
		l := dial(t, via, user)
		defer l.Close()
		_, err := l.Publish(ctx, &link.Message{Envelope: core.Envelope{Topic: topic, Payload: []byte(payload), Guarantee: core.AtLeastOnce}})
		return err
	}
	subscribe := func(t *testing.T, via, user string, s link.Subscription, want string) error {
		t.Helper()
		l := dial(t, via, user)
		defer l.Close()
		s.Guarantee, s.Credit = core.AtLeastOnce, 1
		done := errors.New("done")
		err := l.Subscribe(ctx, s, func(m *link.Message) error {
			if s.Queue == "" && string(m.Payload) != want {
				return fmt.Errorf("got %q of %q, want %q", m.Payload, m.Topic, want)
			}
			return done
		})
		if errors.Is(err, done) {
			return nil
		}
		return err
	}

	for _, via := range link.Protocols {
		t.Run(via, func(t *testing.T) {
			for _, topic := range []string{"a/" + via, "$queue/a", "$exchange/amq.topic/a"} {
				if err := publish(t, via, "ann", topic, via); err != nil {
					t.Errorf("ann publishes to %s: %v", topic, err)
				}
				if err := publish(t, via, "eve", topic, "eve's"); !errors.Is(err, core.ErrNotAuthorized) {
					t.Errorf("eve publishes to %s: %v", topic, err)
				}
			}
			for what, s := range map[string]link.Subscription{
				"replays": {Filters: []string{"a/" + via}, From: "earliest"},
				"takes":   {Queue: "a"},
			} {
				if err := subscribe(t, via, "ann", s, via); err != nil {
					t.Errorf("ann %s: %v", what, err)
				}
			}
			for what, s := range map[string]link.Subscription{
				"subscribes":          {Filters: []string{"a/#"}},
				"subscribes to a key": {Filters: []string{"$exchange/amq.topic/a"}},
				"taps every key":      {Filters: []string{"$exchange/amq.topic/#"}},
				"replays":             {Filters: []string{"a/" + via}, From: "earliest"},
				"joins":               {Filters: []string{"a/#"}, Group: "g"},
				"takes":               {Queue: "a"},
			} {
				if err := subscribe(t, via, "eve", s, ""); !errors.Is(err, core.ErrNotAuthorized) && !errors.Is(err, core.ErrInvalidTopic) {
					t.Errorf("eve %s: %v", what, err)
				}
			}
			// Of a filter that is wider than the rules she gets her part.
			if err := publish(t, via, "eve", "e/"+via, "eve's"); err != nil {
				t.Error(err)
			}
			if err := subscribe(t, via, "eve", link.Subscription{Filters: []string{"+/" + via}, From: "earliest"}, "eve's"); err != nil {
				t.Errorf("eve subscribes to more than is hers: %v", err)
			}
		})
	}

	// Who consumes a queue when the right is withdrawn is told so; who
	// subscribes hears nothing more.
	ended, heard := make(map[string]chan error), make(chan string, 100)
	for _, via := range link.Protocols {
		ended[via] = make(chan error, 1)
		for what, s := range map[string]link.Subscription{"queue": {Queue: "e"}, "topic": {Filters: []string{"e/later"}}} {
			ready := make(chan struct{})
			l := dial(t, via, "eve")
			defer l.Close()
			s.Credit, s.Guarantee, s.Ready = 1, core.AtLeastOnce, func() { close(ready) }
			go func() {
				err := l.Subscribe(ctx, s, func(m *link.Message) error {
					heard <- via + " " + m.Topic
					return nil
				})
				if what == "queue" {
					ended[via] <- err
				}
			}()
			select {
			case <-ready:
			case <-ctx.Done():
				t.Fatalf("%s: eve is not subscribed to the %s", via, what)
			}
		}
	}
	write("sluice.yaml", strings.ReplaceAll(rightsRules, "e/#, $queue/e, ", ""))
	if err := g.Reload(load, new(slog.LevelVar)); err != nil {
		t.Fatal(err)
	}
	for _, via := range link.Protocols {
		select {
		case err := <-ended[via]:
			if err == nil {
				t.Errorf("%s: the consumer ended well", via)
			}
		case <-ctx.Done():
			t.Errorf("%s: eve still consumes", via)
		}
	}
	for _, topic := range []string{"e/later", "$queue/e"} {
		if err := publish(t, "mqtt", "root", topic, "x"); err != nil {
			t.Error(err)
		}
	}
	// What root reads behind them has passed all others.
	if err := subscribe(t, "ws", "root", link.Subscription{Queue: "e"}, "x"); err != nil {
		t.Error(err)
	}
	select {
	case got := <-heard:
		t.Errorf("eve got %s", got)
	default:
	}
}
