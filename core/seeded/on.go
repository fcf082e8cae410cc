//go:build seededbugs

package seeded

import "sync/atomic"

var on atomic.Value

// On reports whether a bug is switched on.
func On(b Bug) bool { return on.Load() == b }

// Switch switches one bug on, and any other off; "" is none.
func Switch(b Bug) { on.Store(b) }
