// Package bench generates load for a broker and measures what the broker
// spends on it: `sluice bench`.
//
//	suite ── scenario ── rig ── load ── loop ── sockets ── server under test
//	  │         │         │                                      │
//	  │         │         └ start, stop, kill ───────────────────┤
//	  └ median, ratio     └ /proc/PID: CPU, memory ──────────────┘
//
// The generator shares the machine with the server that it measures, so it is
// built to cost much less than any server: one thread, one epoll set, no
// goroutine for a connection, PUBLISH packets written straight into the buffer
// that goes to the socket, and a receiver that counts and checks without
// allocating. What it costs itself is printed with every figure.
//
// It is the same for every server: the same bytes to each, the same windows,
// the same pauses. Each payload begins with a header (publisher, sequence, time
// of sending) and goes on with bytes that no compressor gains from; each
// receiver checks every header, and a run in which a message was lost, repeated
// or out of order is marked as such. Unconfirmed messages are held back by what
// the receivers have got, so that no server is driven into dropping them.
//
// Everything happens on loopback, and is bounded in time and in count.
package bench
