// Package http is the door for everybody with curl and for every browser:
// publish, finite reads, long polls, server-sent events, retained values,
// queues with leases, request and reply, and the administration under /v1/.
//
// A connection begins on a lane, which serves plain publishes and nothing else,
// and goes over to net/http with the first request that is anything else.
//
// In: a request passes the guard (Host, Origin), gets a client of the core
// (its connection's, or one made for its credentials), and its path, query,
// header and body become a [core.Envelope]; the answer waits until the message
// is durable. Out: a read is one finite pull of pages or leases; a stream takes
// its connection over and is a [core.Receiver] whose deliveries are encoded
// into the connection's outbox. Nothing is held for a peer between requests
// but leases, and those are the core's.
//
// The words of the core on this door:
//
//	topic a/b            /t/a/b, each level percent-decoded once; empty levels count; no %2F
//	filter               the same in reads: + and %23 (#) are the wildcards
//	queue q              /q/q, one path segment, a slash in it is %2F
//	exchange e, key k    /x/e/k
//	group g on f         /t/f?group=g, /sse/f?group=g
//	replay               ?from=, and Last-Event-ID on /sse/
//	reply inbox          ?reply=5s waits for one reply on an $inbox/ topic
//	retained             ?retain to publish, /last/a/b to read
//	settle               POST /lease/<token>/accept, /release, /reject, /extend
//
// What an envelope carries, as a raw request or answer and as JSON (one object
// a message: the lines of NDJSON, ?format=json on streams):
//
//	payload              body                    "d": text or a JSON value; "b": base64
//	content type         Content-Type            "type"
//	headers              X-H-Name, X-Headers     "h": pairs, or an object where none repeats
//	trace, CloudEvents   traceparent, tracestate, ce-*    in "h"
//	reply-to             X-Reply-To              "reply"
//	correlation id       X-Correlation-Id        "corr"; "corr64" where it is not UTF-8
//	expiry               X-TTL: 90s              "ttl" in ms
//	key                  X-Key                   "key"
//	priority             X-Priority              "prio"
//	durable              ?durable=false          "durable"
//	message id           Idempotency-Key         "id"
//	delay                X-Delay: 10s            "delay" in ms
//	retain               ?retain                 "retain"
//	offset, time         X-Offset, X-Time        "o", "ts" in ms
//	attempt, topic       X-Attempt, X-Topic      "n", "t"
//	publisher            X-Publisher             "pub"
//	lease                X-Lease, X-Lease-Until  "lease", "until" in ms
//
// net/http sorts the names of headers and knows them without case, so X-H-
// names are lower case on the way in. Where an envelope's headers would lose
// something that way, X-Headers carries all of them as a JSON list of pairs,
// in order, and on the way in it replaces them. A key, topic, reply-to or
// message id that is not plain ASCII stands in NAME* too, as RFC 8187 has it;
// a correlation id that is not, in X-Correlation-Id-Base64.
package http
