//go:build race

package ws

// detector is how much more the race detector makes everything take.
const detector = 2
