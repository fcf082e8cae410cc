//go:build !unix

package ws

// openRaw would wait on the socket itself.
func (w *wire) openRaw() {}
