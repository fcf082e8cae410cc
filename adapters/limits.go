package adapters

import (
	"fmt"
	"time"

	"github.com/sluicemq/sluice/core"
)

// Limits are the bounds that every adapter keeps: one table, the same on every
// door. A field that one protocol alone has says so.
type Limits struct {
	core.Limits

	// PreAuthBytes bounds a packet, frame or header before authentication.
	PreAuthBytes int
	// Handshake is the absolute time for TLS, CONNECT, or an HTTP header.
	Handshake time.Duration
	// ClientIDBytes bounds a client id.
	ClientIDBytes int
	// SubscriptionsPacket bounds the subscriptions of one packet.
	SubscriptionsPacket int
	// PublishInFlight is how many publishes of one connection may wait for
	// their confirmation.
	PublishInFlight int
	// KeepAlive is the longest keep-alive or heart-beat interval.
	KeepAlive time.Duration
	// SessionExpiry is the longest time that a session outlives its
	// connection.
	SessionExpiry time.Duration
	// OutputBytes bounds what is buffered for a connection that does not
	// read; one that reads nothing for Stall with it full is closed.
	OutputBytes int
	Stall       time.Duration
	// ConnsPerAddress bounds the connections of one remote address,
	// ConnRatePerAddress how many a second may come from it, and
	// LoginFailuresPerAddress how many failed logins a minute. Of IPv6, an
	// address is a network of 64 bits.
	ConnsPerAddress         int
	ConnRatePerAddress      float64
	LoginFailuresPerAddress int

	// StompHeaders, StompHeaderBytes and StompHeadersBytes bound the number
	// of a frame's headers, one of them, and all together.
	StompHeaders, StompHeaderBytes, StompHeadersBytes int
	// StompTransactions bounds the open transactions of a connection.
	StompTransactions int
	// StompTransactionsBytes bounds what they hold together, and what a SEND to
	// several destinations comes to.
	StompTransactionsBytes int
	// HTTPHeaderBytes bounds a request's header.
	HTTPHeaderBytes int
	// MQTTUserProperties and MQTTUserPropertyBytes bound a packet's user
	// properties.
	MQTTUserProperties, MQTTUserPropertyBytes int
	// MQTTTopicAliases bounds a client's topic aliases, and those it is sent.
	MQTTTopicAliases int
}

// DefaultLimits is the table as documented.
func DefaultLimits() Limits {
	return Limits{
		Limits:                  core.DefaultLimits(),
		PreAuthBytes:            16 << 10,
		Handshake:               5 * time.Second,
		ClientIDBytes:           256,
		SubscriptionsPacket:     100,
		PublishInFlight:         1024,
		KeepAlive:               20 * time.Minute,
		SessionExpiry:           7 * 24 * time.Hour,
		OutputBytes:             1 << 20,
		Stall:                   10 * time.Second,
		ConnsPerAddress:         1000,
		ConnRatePerAddress:      20,
		LoginFailuresPerAddress: 10,
		StompHeaders:            64,
		StompHeaderBytes:        8 << 10,
		StompHeadersBytes:       64 << 10,
		StompTransactions:       100,
		StompTransactionsBytes:  8 << 20,
		HTTPHeaderBytes:         32 << 10,
		MQTTUserProperties:      32,
		MQTTUserPropertyBytes:   8 << 10,
		MQTTTopicAliases:        64,
	}
}

// A Limit is one row of the table.
type Limit struct {
	// Name is the row's key in configuration.
	Name string
	// Bounds says what it bounds, as a phrase.
	Bounds string
	// Unit says how the value is written.
	Unit LimitUnit
	// Value points into the Limits that the row was taken from: *int,
	// *float64 or *time.Duration.
	Value any
	// Max is the largest value that is taken; 0 is no such bound.
	Max int64
}

// A LimitUnit says how a limit's value is written.
type LimitUnit uint8

// The units: a plain number, a size such as "1MiB", a duration such as "5m", a
// number per second.
const (
	Count LimitUnit = iota
	Bytes
	Span
	PerSecond
)

// Table lists every limit, for configuration and documentation. Values are
// read and changed through the rows.
func (l *Limits) Table() []Limit {
	return []Limit{
		{Name: "message", Bounds: "the payload of a message", Unit: Bytes, Value: &l.MessageBytes, Max: 256 << 20},
		{Name: "headers", Bounds: "the headers of a message", Value: &l.HeaderCount},
		{Name: "headers_size", Bounds: "the headers of a message together", Unit: Bytes, Value: &l.HeaderBytes, Max: 16 << 20},
		{Name: "subscriptions", Bounds: "the subscriptions of a session", Value: &l.Subscriptions},
		{Name: "subscriptions_packet", Bounds: "the subscriptions in one packet", Value: &l.SubscriptionsPacket},
		{Name: "in_flight", Bounds: "messages in flight to a consumer that does not say", Value: &l.InFlight, Max: 65535},
		{Name: "in_flight_max", Bounds: "messages in flight that a consumer may ask for", Value: &l.MaxInFlight, Max: 65535},
		{Name: "publish_in_flight", Bounds: "unconfirmed publishes of a connection", Value: &l.PublishInFlight, Max: 65535},
		{Name: "session_messages", Bounds: "the messages that wait for a session whose client is away; the oldest make room", Value: &l.SessionMessages},
		{Name: "session_size", Bounds: "those messages together", Unit: Bytes, Value: &l.SessionBytes},
		{Name: "outstanding", Bounds: "messages of one queue that are held, or wait for redelivery or behind one of their key", Value: &l.Outstanding},
		{Name: "pending", Bounds: "what publishers have handed in and the log has not yet taken; then they wait", Unit: Bytes, Value: &l.PendingBytes},
		{Name: "queues", Bounds: "queues, groups and sessions", Value: &l.Queues},
		{Name: "exchanges", Bounds: "exchanges", Value: &l.Exchanges},
		{Name: "dedup_window", Bounds: "how long a message id is remembered", Unit: Span, Value: &l.DedupWindow},
		{Name: "dedup_ids", Bounds: "how many message ids are remembered", Value: &l.DedupIDs},
		{Name: "disk_low", Bounds: "the share of the disk below which publishes are slowed down, in percent", Value: &l.DiskLow, Max: 100},
		{Name: "disk_low_size", Bounds: "what must be free, too, for that not to happen", Unit: Bytes, Value: &l.DiskLowBytes},
		{Name: "disk_full", Bounds: "the share of the disk below which publishes are refused, in percent", Value: &l.DiskFull, Max: 100},
		{Name: "disk_full_size", Bounds: "what must be free, too, for that not to happen", Unit: Bytes, Value: &l.DiskFullBytes},
		{Name: "memory_high", Bounds: "the share of the memory above which nobody new may publish, in percent", Value: &l.MemoryHigh, Max: 100},
		{Name: "memory_full", Bounds: "the share of the memory above which publishes are refused and slow connections are ended, in percent", Value: &l.MemoryFull, Max: 100},
		{Name: "pre_auth", Bounds: "a packet, frame or request header before authentication", Unit: Bytes, Value: &l.PreAuthBytes},
		{Name: "handshake", Bounds: "the time for TLS, CONNECT or a request header, all together", Unit: Span, Value: &l.Handshake},
		{Name: "client_id", Bounds: "a client id", Unit: Bytes, Value: &l.ClientIDBytes, Max: 65535},
		{Name: "keep_alive", Bounds: "the keep-alive or heart-beat interval that a client may ask for", Unit: Span, Value: &l.KeepAlive, Max: int64(65535 * time.Second)},
		{Name: "session_expiry", Bounds: "how long a session outlives its connection", Unit: Span, Value: &l.SessionExpiry},
		{Name: "output", Bounds: "what is buffered for a connection that does not read", Unit: Bytes, Value: &l.OutputBytes},
		{Name: "stall", Bounds: "how long a connection with a full buffer may read nothing", Unit: Span, Value: &l.Stall},
		{Name: "connections_per_address", Bounds: "the connections of one remote address that is not loopback; of IPv6, a network of 64 bits is one", Value: &l.ConnsPerAddress},
		{Name: "connection_rate_per_address", Bounds: "new connections of one such address", Unit: PerSecond, Value: &l.ConnRatePerAddress},
		{Name: "login_failures_per_address", Bounds: "failed logins a minute of one remote address", Value: &l.LoginFailuresPerAddress},
		{Name: "stomp_headers", Bounds: "the headers of a STOMP frame", Value: &l.StompHeaders},
		{Name: "stomp_header_size", Bounds: "one header of a STOMP frame", Unit: Bytes, Value: &l.StompHeaderBytes},
		{Name: "stomp_headers_size", Bounds: "the headers of a STOMP frame together", Unit: Bytes, Value: &l.StompHeadersBytes},
		{Name: "stomp_transactions", Bounds: "the open transactions of a STOMP connection", Value: &l.StompTransactions},
		{Name: "stomp_transactions_size", Bounds: "the payloads of those together, and of a SEND to several destinations", Unit: Bytes, Value: &l.StompTransactionsBytes},
		{Name: "http_header_size", Bounds: "the header of an HTTP request", Unit: Bytes, Value: &l.HTTPHeaderBytes},
		{Name: "mqtt_user_properties", Bounds: "the user properties of an MQTT packet", Value: &l.MQTTUserProperties},
		{Name: "mqtt_user_properties_size", Bounds: "the user properties of an MQTT packet together", Unit: Bytes, Value: &l.MQTTUserPropertyBytes},
		{Name: "mqtt_topic_aliases", Bounds: "the topic aliases that an MQTT client may set, and those that it is sent", Value: &l.MQTTTopicAliases, Max: 65535},
	}
}

// Check says which limit makes no sense.
func (l *Limits) Check() error {
	for _, row := range l.Table() {
		var v int64
		switch p := row.Value.(type) {
		case *int:
			v = int64(*p)
		case *time.Duration:
			v = int64(*p)
		case *float64:
			if *p <= 0 {
				return fmt.Errorf("%s: %v: a limit is greater than zero", row.Name, *p)
			}
			continue
		}
		switch {
		case v <= 0 && row.Unit == Span:
			return fmt.Errorf("%s: %v: a limit is greater than zero", row.Name, time.Duration(v))
		case v <= 0:
			return fmt.Errorf("%s: %d: a limit is greater than zero", row.Name, v)
		case row.Max > 0 && v > row.Max && row.Unit == Span:
			return fmt.Errorf("%s: %v: at most %v is possible", row.Name, time.Duration(v), time.Duration(row.Max))
		case row.Max > 0 && v > row.Max:
			return fmt.Errorf("%s: %d: at most %d is possible", row.Name, v, row.Max)
		}
	}
	if l.InFlight > l.MaxInFlight {
		return fmt.Errorf("in_flight: %d is more than in_flight_max, %d", l.InFlight, l.MaxInFlight)
	}
	return nil
}
