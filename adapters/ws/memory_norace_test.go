//go:build !race

package ws

// detector is 2 under the race detector.
const detector = 1
