// Package ws is the WebSocket door: the native protocol, as sluice.v1.json and
// sluice.v1.cbor, and the carriage of MQTT and STOMP, which their own adapters
// serve. It takes no sockets; the HTTP adapter mounts it. docs/websocket.md
// describes the protocol for its users, docs/sluice.v1.schema.json its objects.
//
// The path in: ServeHTTP upgrades ([Server.speak]); conn.read takes a message,
// command.decode decodes it in place, conn.do does it; conn.publish fills an
// envelope that aliases the message and hands it to [core.Client.Publish];
// conn.Confirm answers.
//
// The path out: subscription.Deliver appends messages, each in a frame of its
// own, to the connection's outbox, which writes all that has gathered in one
// call. What goes to many subscribers is encoded once ([adapters.Bursts],
// [adapters.Bodies]). The WebSocket library reads only: its own frames (a pong,
// the answer to a broken frame) go through the outbox too, so none gets into the
// middle of another.
//
// A WebSocket that carries another protocol has no outbox here, as that would
// be a second queue behind the adapter's own: carrier.Write writes a frame and
// returns when the socket has taken it.
//
// What an envelope carries stands in a message as:
//
//	topic            "topic" (or "queue", or "exchange" and "key") in, "t" out
//	payload          "d": text, or a JSON value that is not a string; "b": base64
//	text             set by "d"
//	content type     "type"
//	headers          "h": a list of pairs, or an object where none repeats
//	reply-to         "reply"
//	correlation id   "corr"; "corr64" where it is not UTF-8
//	expires          "ttl", milliseconds from now
//	key              "key"; with "exchange" that is the routing key
//	priority         "prio"
//	guarantee        "durable": true (the default) is at least once
//	message id       "id"
//	deliver at       "delay", milliseconds from now
//	retain           "retain" in, "retained" out for a retained value
//	offset           "o"
//	time             "ts", milliseconds since 1970
//	attempt          "n", where it is not the first
//	publisher        "pub": "user", "client", "via"
//
// One grammar ([command]) reads both codings, by a [decoder] for each, and one
// [object] writes both. In CBOR, "b" and "corr64" are bytes.
//
// A request's own number is "req", so that "id" is the message's everywhere.
package ws
