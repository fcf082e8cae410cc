package mqtt

import (
	"context"
	"errors"
	"net"
	"os"

	"github.com/sluicemq/sluice/core"
)

// The reason codes of MQTT 5 that the server uses (section 2.4).
const (
	codeSuccess            = 0x00
	codeNobody             = 0x10
	codeDisconnectWithWill = 0x04
	codeNoSubscription     = 0x11
	codeUnspecified        = 0x80
	codeMalformed          = 0x81
	codeProtocol           = 0x82
	codeImplementation     = 0x83
	codeVersion            = 0x84
	codeClientID           = 0x85
	codeLogin              = 0x86
	codeNotAuthorized      = 0x87
	codeUnavailable        = 0x88
	codeBusy               = 0x89
	codeShutdown           = 0x8B
	codeAuthMethod         = 0x8C
	codeKeepAlive          = 0x8D
	codeTakenOver          = 0x8E
	codeFilter             = 0x8F
	codeTopic              = 0x90
	codeIDInUse            = 0x91
	codeIDNotFound         = 0x92
	codeReceiveMax         = 0x93
	codeTopicAlias         = 0x94
	codeTooLarge           = 0x95
	codeQuota              = 0x97
	codeAdministrative     = 0x98
	codePayloadFormat      = 0x99
	codeConnectRate        = 0x9F
)

// A fault is why the server ends a connection: a reason code for MQTT 5, a word
// for the metric, and a text for the log and the reason string.
type fault struct {
	code   byte
	reason string
	text   string
}

func (f *fault) Error() string { return f.text }

// The faults. Those with a code below 0x80 are no faults of the peer's.
var (
	errVarint         = &fault{codeMalformed, "malformed", "a variable byte integer is longer than four bytes"}
	errLongVarint     = &fault{codeMalformed, "malformed", "the remaining length is not in its shortest form"}
	errFlags          = &fault{codeMalformed, "malformed", "the flags of the fixed header are wrong"}
	errPacketType     = &fault{codeMalformed, "malformed", "there is no such packet type"}
	errMalformed      = &fault{codeMalformed, "malformed", "the packet is malformed"}
	errString         = &fault{codeMalformed, "malformed", "a string is not UTF-8 or holds a NUL"}
	errTrailing       = &fault{codeMalformed, "malformed", "bytes follow the end of the packet"}
	errQoS            = &fault{codeMalformed, "malformed", "there is no QoS 3"}
	errOptions        = &fault{codeMalformed, "malformed", "reserved subscription options are set"}
	errMaximumQoS     = &fault{codeProtocol, "protocol", "there is no QoS 3"}
	errRetainHandling = &fault{codeProtocol, "protocol", "retain handling is 0, 1 or 2"}
	errDup            = &fault{codeMalformed, "malformed", "DUP is set on a QoS 0 message"}
	errProperty       = &fault{codeMalformed, "malformed", "a property is unknown or does not belong to the packet"}
	errPropertyTwice  = &fault{codeProtocol, "protocol", "a property stands twice"}
	errPropertyValue  = &fault{codeProtocol, "protocol", "a property has a value that it must not have"}
	errPacketID       = &fault{codeProtocol, "protocol", "a packet identifier is missing"}
	errWildcard       = &fault{codeTopic, "topic", "the topic contains a wildcard"}
	errResponseTopic  = &fault{codeProtocol, "protocol", "the response topic contains a wildcard"}
	errNoTopic        = &fault{codeProtocol, "protocol", "there is neither a topic nor an alias"}
	errSubID          = &fault{codeProtocol, "protocol", "a client sent a subscription identifier with a message"}
	errAlias          = &fault{codeTopicAlias, "topic_alias", "the topic alias is 0 or above the maximum"}
	errAliasUnknown   = &fault{codeProtocol, "topic_alias", "there is no topic for the alias"}
	errNoFilters      = &fault{codeProtocol, "protocol", "there are no topic filters"}
	errSharedNoLocal  = &fault{codeProtocol, "protocol", "no local is set on a shared subscription"}
	errAckState       = &fault{codeProtocol, "protocol", "the acknowledgement does not fit the message's QoS"}
	errFirstConnect   = &fault{codeProtocol, "protocol", "the first packet is not CONNECT"}
	errSecondConnect  = &fault{codeProtocol, "protocol", "a second CONNECT"}
	errServerPacket   = &fault{codeProtocol, "protocol", "a packet that only a server sends"}
	errAuth           = &fault{codeProtocol, "protocol", "AUTH without an authentication method"}
	errAuthFirst      = &fault{codeProtocol, "protocol", "the authentication is not over: only AUTH and DISCONNECT are taken"}
	errAuthState      = &fault{codeProtocol, "protocol", "AUTH with a reason code that does not fit now"}
	errNoAuthMethod   = &fault{codeProtocol, "protocol", "the authentication method is missing"}
	errAuthMethod     = &fault{codeAuthMethod, "auth_method", "the authentication method is not supported, or not that of CONNECT"}
	errLoginRate      = &fault{codeConnectRate, "login_rate", "too many failed logins from this address"}
	errTooLarge       = &fault{codeTooLarge, "packet_too_large", "the packet is larger than allowed"}
	errSmallPackets   = &fault{codeTooLarge, "client_packet_size", "CONNACK is larger than the client takes"}
	errSmallAnswers   = &fault{codeTooLarge, "client_packet_size", "the answer to so many filters is larger than the client takes"}
	errUsers          = &fault{codeQuota, "user_properties", "there are more user properties than allowed"}
	errReceiveMax     = &fault{codeReceiveMax, "publish_in_flight", "more publishes are unconfirmed than the receive maximum"}
	errPacketIDs      = &fault{codeQuota, "packet_ids", "more messages wait to be acknowledged than there are packet identifiers"}
	errSessionExpiry  = &fault{codeProtocol, "protocol", "DISCONNECT sets a session expiry where CONNECT set none"}

	errHandshake    = &fault{codeKeepAlive, "handshake_timeout", "the handshake was not over within the time allowed"}
	errKeepAlive    = &fault{codeKeepAlive, "keep_alive", "nothing came within one and a half keep-alive times"}
	errTakenOver    = &fault{codeTakenOver, "taken_over", "another connection uses the client id"}
	errForeign      = &fault{codeNotAuthorized, "not_authorized", "the client id is another user's"}
	errExpired      = &fault{codeNotAuthorized, "expired", "the credentials have expired"}
	errDisconnected = &fault{codeAdministrative, "disconnected", "an operator ended the connection"}
	errShed         = &fault{codeBusy, "shed", "memory is short and the client reads too slowly: come again"}
	errShutdown     = &fault{codeShutdown, "shutdown", "the server shuts down"}
	errRevoked      = &fault{codeTakenOver, "taken_over", "the session was taken over"}
	errWithdrawn    = &fault{codeNotAuthorized, "not_authorized", "the right to a subscription was withdrawn"}
	errDeleted      = &fault{codeAdministrative, "deleted", "the session was deleted"}
	errFailed       = &fault{codeUnspecified, "storage", "the log could not be read"}
	errPanic        = &fault{codeUnspecified, "panic", "a packet could not be handled"}
)

// reasonOf maps an error of the core's to a reason code of MQTT 5 that a packet
// of the kind may carry, and to a word for the metric.
func reasonOf(err error, kind byte) (code byte, reason string) {
	var f *fault
	var removed *core.OffsetRemovedError
	switch {
	case err == nil:
		return codeSuccess, ""
	case errors.As(err, &f):
		return f.code, f.reason
	case errors.Is(err, core.ErrInvalidTopic):
		if kind == typeSuback || kind == typeUnsuback {
			return codeFilter, "topic"
		}
		return codeTopic, "topic"
	case errors.Is(err, core.ErrNotAuthorized):
		return codeNotAuthorized, "not_authorized"
	case errors.Is(err, core.ErrUnauthenticated):
		return codeLogin, "login"
	case errors.Is(err, core.ErrTooLarge):
		// 0x95 is for a packet, and no acknowledgement may carry it.
		if kind == typeDisconnect || kind == typeConnack {
			return codeTooLarge, "message_too_large"
		}
		return codeQuota, "message_too_large"
	case errors.Is(err, core.ErrLimit):
		return codeQuota, "limit"
	case errors.Is(err, core.ErrQueueFull):
		return codeQuota, "queue_full"
	case errors.Is(err, core.ErrNoResponders):
		// 0x10, No matching subscribers, is no failure, and ends a handshake of
		// QoS 2 in which nothing was published; only a PUBACK says it.
		if kind == typePuback {
			return codeNobody, "no_responders"
		}
		return codeImplementation, "no_responders"
	case errors.Is(err, core.ErrStorageFull):
		return codeQuota, "storage_full"
	case errors.Is(err, core.ErrNotFound):
		if kind == typeSuback {
			return codeFilter, "not_found"
		}
		if kind == typeUnsuback {
			return codeNoSubscription, "not_found"
		}
		return codeTopic, "not_found"
	case errors.Is(err, core.ErrInvalidFrom), errors.As(err, &removed):
		return codeImplementation, "from"
	case errors.Is(err, core.ErrInvalid), errors.Is(err, core.ErrConflict), errors.Is(err, core.ErrInUse):
		return codeImplementation, "invalid"
	case errors.Is(err, core.ErrClosed):
		if kind == typeConnack {
			return codeUnavailable, "closed"
		}
		return codeUnspecified, "closed"
	case errors.Is(err, core.ErrStorage):
		if kind == typeConnack {
			return codeUnavailable, "storage"
		}
		return codeUnspecified, "storage"
	}
	return codeUnspecified, "other"
}

// connackV5 maps a reason code to one that CONNACK has (table 3-1 of 5.0,
// [MQTT-3.2.2-8]): what ends a connection may happen before it has an answer.
func connackV5(code byte) byte {
	switch code {
	case codeShutdown:
		return codeUnavailable
	case codeKeepAlive, codeTakenOver, codeAdministrative:
		return codeUnspecified
	}
	return code
}

// connackV3 maps a reason code to CONNACK's return code of MQTT 3.1.1 (table
// 3.1); false where there is none and the connection is just closed.
func connackV3(code byte) (byte, bool) {
	switch code {
	case codeVersion:
		return 1, true
	case codeClientID:
		return 2, true
	case codeUnavailable, codeBusy, codeConnectRate, codeUnspecified:
		return 3, true
	case codeLogin:
		return 4, true
	case codeNotAuthorized:
		return 5, true
	}
	return 0, false
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// isEnd reports whether an error is just the end of the connection or of the
// server.
func isEnd(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed)
}
