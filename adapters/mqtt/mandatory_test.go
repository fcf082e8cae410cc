package mqtt

import (
	"testing"

	"github.com/sluicemq/sluice/core"
)

// The user property asks for it, and stays among the headers.
func TestMandatoryProperty(t *testing.T) {
	for text, want := range map[string]bool{"true": true, "false": false, "": false} {
		var p publishPacket
		var e core.Envelope
		p.user(&property{name: "mandatory", text: text}, &e)
		if p.settleUsers(&e); e.Mandatory != want || len(e.Headers) != 1 {
			t.Errorf("%q: %v, %v", text, e.Mandatory, e.Headers)
		}
	}
}
