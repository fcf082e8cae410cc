//go:build !race

package stomp_test

const raceDetector = false
