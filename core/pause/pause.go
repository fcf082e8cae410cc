// Package pause holds goroutines up at random, for the tests of what happens
// between two of them: what the scheduler brings about once in a million runs
// comes in every few then.
//
// It does so only in programs that are built with the tag pauses. In any other,
// [At] is empty and nothing of it is left.
package pause
