//go:build !unix

package mqtt

// openRaw would wait on the socket itself.
func (r *reader) openRaw() bool { return false }
