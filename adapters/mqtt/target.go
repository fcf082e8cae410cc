package mqtt

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
)

// A targetKind says what a subscription's filter names.
type targetKind uint8

const (
	targetTopics   targetKind = iota // a filter of topics
	targetMeta                       // $meta/<filter>
	targetExchange                   // $exchange/e/k
	targetGroup                      // $share/g/f
	targetQueue                      // $queue/q
	targetReplay                     // $replay/<from>/<filter>, or a user property "from"
)

// A target is what a subscription's filter names.
type target struct {
	kind          targetKind
	filter        core.Filter
	group         string
	ordered       bool // the group is to keep the order of each key
	queue         string
	exchange, key string
	from          core.From
}

// own reports whether the subscription is a consumer of its own, not a binding
// of the session's.
func (t *target) own() bool { return t.kind >= targetGroup }

// binding is the session's binding for a target that is one. It keeps nothing
// of the packet's.
func (t *target) binding() core.Binding {
	return core.Binding{
		Filter: core.Filter(strings.Clone(string(t.filter))), Exchange: strings.Clone(t.exchange), Key: strings.Clone(t.key),
	}
}

// parseTarget reads a subscription's filter. from is the user property's.
func parseTarget(s, from string, now time.Time) (t target, err error) {
	prefix, rest, _ := strings.Cut(s, "/")
	switch prefix {
	case "$share":
		// [MQTT-4.8.2-1], [MQTT-4.8.2-2]
		t.kind = targetGroup
		var f string
		var ok bool
		if t.group, f, ok = strings.Cut(rest, "/"); !ok || t.group == "" || strings.ContainsAny(t.group, "+#") {
			return t, fmt.Errorf("%w: %q: want $share/<group>/<filter>", core.ErrInvalidTopic, s)
		}
		if t.filter, err = core.ParseFilter(f); err != nil {
			return t, err
		}
		if from != "" {
			t.from, err = core.ParseFrom(from, now)
		}
		return t, err
	case "$queue":
		t.kind, t.queue = targetQueue, rest
		return t, core.CheckQueueName(rest)
	case "$exchange":
		t.kind = targetExchange
		t.exchange, t.key, _ = strings.Cut(rest, "/")
		return t, core.CheckExchangeName(t.exchange)
	case "$replay":
		var f string
		var ok bool
		if from, f, ok = strings.Cut(rest, "/"); !ok || from == "" {
			return t, fmt.Errorf("%w: %q: want $replay/<from>/<filter>", core.ErrInvalidTopic, s)
		}
		s = f
	case "$meta":
		t.kind = targetMeta
		s = rest
	case "$delayed":
		return t, fmt.Errorf("%w: $delayed is for publishing", core.ErrInvalidTopic)
	}
	if t.filter, err = core.ParseFilter(s); err != nil || from == "" {
		return t, err
	}
	if t.kind == targetMeta {
		return t, fmt.Errorf("%w: $meta has no replay", core.ErrInvalid)
	}
	t.kind = targetReplay
	t.from, err = core.ParseFrom(from, now)
	return t, err
}
