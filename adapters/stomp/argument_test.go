package stomp

import (
	"testing"

	"github.com/sluicemq/sluice/core"
)

// Each argument sets something, is told apart from the others' absence, and
// counts once.
func TestArguments(t *testing.T) {
	values := map[string][2]string{
		"x-overflow": {"", ""}, "x-queue-type": {"", ""}, // which alone set nothing
		"x-dead-letter-exchange": {"dlx", "other"}, "x-dead-letter-routing-key": {"dead", "other"}, "x-single-active-consumer": {"true", "false"}, "x-ordered": {"true", "false"},
	}
	for name := range arguments {
		v, ok := values[name]
		if !ok {
			v = [2]string{"100", "7"}
		}
		if v[0] == "" {
			continue
		}
		var a queueArguments
		for _, value := range v {
			if err := a.read(&core.Header{Name: name, Value: value}); err != nil {
				t.Fatal(err)
			}
		}
		var once queueArguments
		once.read(&core.Header{Name: name, Value: v[0]})
		has, want := a.of("q"), once.of("q")
		if a.first != name || !sameSettings(&has, &want) {
			t.Errorf("%s: %+v, %+v", name, a, once)
		}
		if sameSettings(&has, &core.QueueSettings{}) {
			t.Errorf("%s sets nothing that is compared: %+v", name, has)
		}
	}
}

// Two arguments make one setting.
func TestArgumentsTogether(t *testing.T) {
	for _, test := range []struct {
		arguments []core.Header
		want      core.QueueSettings
	}{
		{[]core.Header{{Name: "x-dead-letter-exchange", Value: "e"}}, core.QueueSettings{DeadLetter: "$exchange/e/q", DeadLetterExpired: true}},
		{[]core.Header{{Name: "x-dead-letter-exchange", Value: "e"}, {Name: "x-dead-letter-routing-key", Value: "k"}}, core.QueueSettings{DeadLetter: "$exchange/e/k", DeadLetterExpired: true}},
		{[]core.Header{{Name: "x-dead-letter-exchange"}, {Name: "x-dead-letter-routing-key", Value: "k"}}, core.QueueSettings{DeadLetter: "k", DeadLetterExpired: true}},
		{[]core.Header{{Name: "x-dead-letter-exchange"}}, core.QueueSettings{}},
		{[]core.Header{{Name: "x-overflow", Value: "reject-publish"}, {Name: "x-max-length", Value: "5"}}, core.QueueSettings{MaxLength: 5}},
		{[]core.Header{{Name: "x-max-length", Value: "5"}, {Name: "x-overflow", Value: "drop-head"}}, core.QueueSettings{MaxLength: 5, Overflow: core.OverflowDropOldest}},
	} {
		var a queueArguments
		for i := range test.arguments {
			if err := a.read(&test.arguments[i]); err != nil {
				t.Fatal(err)
			}
		}
		if got := a.of("q"); !sameSettings(&got, &test.want) {
			t.Errorf("%v: %+v", test.arguments, got)
		}
	}
}
