// Package mqtt is the door for MQTT 3.1, 3.1.1 and 5.0, over TCP, TLS or
// anything else that is a net.Conn.
//
// In: one goroutine at a time reads many packets at once ([conn.Serve]),
// decodes each PUBLISH into the connection's scratch envelope
// ([publishPacket.decode]) and hands it to core.Client.Publish, which copies
// it. PUBACK and PUBREC leave when the core confirms ([conn.Confirm]).
//
// Out: a session is one core.Consumer with a binding for each subscription; a
// binding's tag holds the subscription's options. Deliveries come to
// [attachment.Deliver], which encodes them straight into the outbox.
// A session that outlives its connection is the core's queue
// core.SessionQueue(client id); its packet ids follow from offsets, so that
// they are the same when a message is sent again.
//
// # What an envelope carries
//
//	envelope         MQTT 5                                    MQTT 3.1, 3.1.1
//	topic            topic, or its alias                       topic
//	payload          payload                                   payload
//	Text, Bytes      payload format indicator 1, 0             -
//	content type     content type                              -
//	headers          user properties, in order                 -
//	reply-to         response topic                            -
//	correlation id   correlation data                          -
//	expiry           message expiry interval, rounded up,      checked when it is sent
//	                 what remains of it
//	key              user property "key"                       -
//	priority         user property "priority", 0 to 9          -
//	message id       user property "message-id"                -
//	mandatory        user property "mandatory", true: PUBACK   -
//	                 0x10, PUBREC 0x83 where nobody takes it
//	deliver at       user property "delay" (seconds, or 90s),  $delayed/<seconds>/<topic>
//	                 or $delayed/<seconds>/<topic>
//	guarantee        QoS                                       QoS
//	retain           RETAIN                                    RETAIN
//	offset           user property "offset"; where asked       -
//	time             user property "time", ms; where asked     -
//	attempt          user property "attempt"; where asked; DUP DUP
//
// User properties are forwarded as they are and in their order, and nothing is
// added to them ([MQTT-3.3.2-17], [MQTT-3.3.2-18]). Who wants offset, time and
// attempt asks for them by the SUBSCRIBE user property "meta" of "true", which
// holds for all subscriptions of the session that are no $share, $queue or
// $replay; they then stand behind the publisher's, whose own of these names are
// left out. With $queue and $replay they come unless "meta" is "false". What 3.1.1 cannot express is left out and counted;
// a client that wants it subscribes to $meta/<filter>.
//
// # What a subscription names
//
//	a/+/b, a/#             topics; $exchange/e/k binds to an exchange
//	$share/g/f             the group g on the filter f, in every version. It
//	                       outlives its last session by a week, unlike MQTT 5's
//	                       shared subscriptions (section 4.8.2)
//	$queue/q               the queue q, made at first use
//	$replay/<from>/f       the filter f from an earlier offset or time on; the
//	                       same as the MQTT 5 SUBSCRIBE user property "from".
//	                       It ends with the connection.
//	$meta/f                the filter f, each message as a JSON object
//
// # Bridges
//
// A bridge of mosquitto's sets the highest bit of the protocol level of 3.1.1
// and 3.1. Its subscriptions have what MQTT 5 calls no local and retain as
// published ([conn.checkProtocol]).
//
// # Who logs in
//
// By user and password, where the password may be a token, by certificate, or
// by an authentication method of MQTT 5 ([conn.beginLogin]), which the core
// knows. A client of such a method may authenticate again at any time.
//
// # What is refused, and how
//
// MQTT 5 gets the reason code ([reasonOf]). MQTT 3.1.1 has none for a refused
// PUBLISH and loses its connection, as [MQTT-3.3.5-2] allows; a QoS 0 PUBLISH
// that is refused is dropped and counted.
package mqtt
