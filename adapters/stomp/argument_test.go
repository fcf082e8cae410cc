package stomp

import (
	"testing"

	"github.com/sluicemq/sluice/core"
)

// Each argument sets something, is told apart from the others' absence, and
// counts once.
func TestArguments(t *testing.T) {
	values := map[string][2]string{
		"x-overflow": {"", ""}, "x-queue-type": {"", ""}, "x-dead-letter-exchange": {"", ""}, // which alone set nothing
		"x-dead-letter-routing-key": {"dead", "other"}, "x-single-active-consumer": {"true", "false"}, "x-ordered": {"true", "false"},
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
		a.done()
		var once queueArguments
		once.read(&core.Header{Name: name, Value: v[0]})
		once.done()
		if a.first != name || !sameSettings(&a.settings, &once.settings) {
			t.Errorf("%s: %+v, %+v", name, a, once)
		}
		if sameSettings(&a.settings, &core.QueueSettings{}) {
			t.Errorf("%s sets nothing that is compared: %+v", name, a.settings)
		}
	}
}
