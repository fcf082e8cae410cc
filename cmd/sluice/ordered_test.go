package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

// TestOrderedGroup has each protocol make a group that keeps the order of keys, and
// ask that of one that was made without.
func TestOrderedGroup(t *testing.T) {
	_, addresses := serveGateway(t, configs.Default())
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	publisher, err := link.Dial(ctx, "http", link.Options{Address: addresses["http"], Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	consume := func(via, group string, ordered bool) error {
		l, err := link.Dial(ctx, via, link.Options{Address: addresses[via], Timeout: time.Minute})
		if err != nil {
			return err
		}
		defer l.Close()
		s := link.Subscription{Filters: []string{"t"}, Group: group, Ordered: ordered, From: "earliest", Guarantee: core.AtLeastOnce, Credit: 1}
		if err = l.Subscribe(ctx, s, func(*link.Message) error { return link.ErrStop }); errors.Is(err, link.ErrStop) {
			return nil
		}
		return err
	}
	if _, err := publisher.Publish(ctx, &link.Message{Envelope: core.Envelope{Topic: "t", Payload: []byte("x"), Guarantee: core.AtLeastOnce}}); err != nil {
		t.Fatal(err)
	}
	if err := consume("http", "without", false); err != nil {
		t.Fatal(err)
	}
	for _, via := range link.Protocols {
		if err := consume(via, via, true); err != nil {
			t.Errorf("%s: %v", via, err)
		}
		res, err := http.Get("http://" + addresses["http"] + "/v1/queues/" + url.PathEscape("$share/"+via+"/t"))
		if err != nil {
			t.Fatal(err)
		}
		var q struct{ Settings struct{ Ordered bool } }
		if err := errors.Join(json.NewDecoder(res.Body).Decode(&q), res.Body.Close()); err != nil || !q.Settings.Ordered {
			t.Errorf("%s: the group is %+v, %v", via, q, err)
		}
		if err := consume(via, "without", true); err == nil {
			t.Errorf("%s: the group without order is taken for one with it", via)
		}
	}
	for _, wrong := range [][]string{{"--ordered", "t"}, {"--ordered", "--queue", "q"}} {
		c := newSub()
		c.SetArgs(wrong)
		if err := c.ExecuteContext(ctx); !errors.As(err, new(usageError)) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}
