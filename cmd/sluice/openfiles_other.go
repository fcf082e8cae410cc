//go:build !unix

package main

// raiseOpenFiles does nothing where there is no such limit.
func raiseOpenFiles() (uint64, error) { return 0, nil }

// makeRoomForFiles does nothing where their number is not bounded.
func makeRoomForFiles(uint64) {}
