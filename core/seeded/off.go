//go:build !seededbugs

package seeded

// On reports whether a bug is switched on: never, in this program.
func On(Bug) bool { return false }
