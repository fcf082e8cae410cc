// Package selector is the condition that a consumer sets on the messages it
// wants to be sent: a subset of SQL-92's conditional expressions, as JMS 2.0
// section 3.8.1 defines message selectors. It is made for a STOMP client's
// `selector` header and for the `where` of HTTP and WebSocket; it knows none
// of them, only envelopes.
//
//	color = 'red' AND (weight > 2.5 OR priority BETWEEN 7 AND 9)
//	"content-encoding" IS NULL AND topic LIKE 'plant/%/temp'
//
// [Parse] reads a text once (scan.go, parse.go) into a tree (expr.go); [Selector.Match]
// walks the tree for each envelope, in the three-valued logic of SQL (value.go).
//
// # Names
//
// A name is an identifier as in Java, and its case matters. These are the
// broker's own:
//
//	topic                       the topic, or the address that was published to
//	key, JMSXGroupID            the key
//	id, JMSMessageID            the publisher's own name for the message
//	content_type                the content type
//	JMSReplyTo                  the reply-to, as a topic
//	JMSCorrelationID            the correlation id, byte by byte
//	JMSDeliveryMode             'PERSISTENT', or 'NON_PERSISTENT' where nobody waits for durability
//	priority, JMSPriority       0 to 9; NULL where the publisher said none
//	time, JMSTimestamp          when the broker took it, in ms since 1970
//	offset                      its place in the log
//
// Every other name is a header; of several with that name the first counts.
// JMSType is the header `type`, which is where STOMP's clients of JMS put it,
// and not the content type. A name in double quotes is always a header, so
// "x-kind" reaches one whose name is no identifier and "priority" one that the
// broker's own name hides; a double quote in it is doubled. Names that begin
// with JMS are reserved: one that is none of the above is refused, unless it
// begins with JMSX or JMS_, where it is a header. What is unset is NULL; a
// header with an empty value is not.
//
// # Types
//
// A header's value is text. It is compared as a string with a string, and as a
// number or boolean where the other side is one; text in arithmetic, under an
// order (<, >=, BETWEEN) and under a sign is a number, too. A number in text is
// decimal, with an optional fraction and exponent; a boolean is true or false,
// in any case. The broker's own text is the same; the literal '3' is a string
// and never a number.
//
// Values of types that are not alike compare as FALSE, under = and under <>,
// as JMS has it; so does text that is no number with a number. In arithmetic it
// is NULL. A name that stands alone as a condition means: name = TRUE.
//
// Whole numbers are 64 bits and divide as in Java, towards zero; where a result
// does not fit it becomes a double, instead of wrapping around. What has no
// value (a division by zero, a double's overflow) is NULL. A comparison of a
// whole number with a double is one of doubles.
//
// # Grammar
//
// Weakest first: OR; AND; NOT; one of =, <>, <, <=, >, >=, [NOT] BETWEEN,
// [NOT] IN, [NOT] LIKE with ESCAPE, IS [NOT] NULL; + and -; * and /; a sign.
// Keywords are read in any case. Numbers are Java's: 57, 0x1F, 017, 0b11, 5L,
// 7., 6.2, 1E3, 2.5f; no underscores. Beyond JMS, IN takes numbers as well as
// strings. Comments are not allowed, so two minus signs are kept apart.
package selector
