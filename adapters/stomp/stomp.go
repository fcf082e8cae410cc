// Package stomp is the door for STOMP 1.0, 1.1 and 1.2, over TCP, TLS or
// anything else that is a net.Conn.
//
// In: one goroutine a connection reads frames ([reader.next]), understands each
// SEND into the connection's scratch envelope ([sending.read]) and hands it to
// core.Client.Publish, which copies it. The RECEIPT leaves when the core
// confirms ([conn.Confirm]), in the order of the frames that asked for one.
//
// Out: a subscription is one core.Consumer: a reader of topics, or a consumer
// of a queue. Its deliveries come to [subscription.Deliver], which encodes them
// straight into the outbox ([messageEncoder.append]).
//
// # What an envelope carries
//
//	envelope         SEND                                  MESSAGE
//	topic            destination                           destination, in the subscriber's style
//	payload          body                                  body, always with content-length
//	Text             -                                     left out and counted
//	content type     content-type                          content-type
//	headers          all others, in order, with repeats    the same
//	reply-to         reply-to, a destination               reply-to
//	correlation id   correlation-id, or                    the same; base64 where it is no text
//	                 correlation-id-base64
//	expiry           expiration (ms from now), or          expires
//	                 expires (ms since 1970, 0 is never)
//	key              key, or JMSXGroupID                   key
//	priority         priority, 0 to 9                      priority
//	message id       message-id                            original-message-id
//	deliver at       delay or AMQ_SCHEDULED_DELAY, in ms   -
//	schedule         AMQ_SCHEDULED_PERIOD (ms), REPEAT,    -
//	                 CRON
//	guarantee        at most once if persistent:false and  persistent:true if at least once
//	                 no receipt, else at least once
//	retain           retain:true                           retain:true on a retained value that was
//	                                                       sent because the subscription began
//	mandatory        mandatory:true: an ERROR where        -
//	                 nobody would get it
//	offset, time     -                                     offset, time (ms since 1970)
//	attempt          -                                     attempt, redelivered
//	publisher        -                                     publisher: the user, or else the client
//
// What the broker says cannot be said by a publisher: subscription, ack,
// offset, time, attempt, redelivered, publisher, gap and original-message-id
// are not taken from a SEND. A header of another protocol's publisher that has
// the name of one that MESSAGE uses is sent as header-<name> and counted. 1.0
// has no escapes: a line feed becomes a space there, and is counted. A MESSAGE
// with the header gap:a-b follows a range of offsets that is lost.
//
// # What a destination names
//
//	/topic/a/b          the topic a/b
//	/topic/a.b          the same: a dot splits where no slash follows the prefix
//	/a/b                the topic "/a/b"; refused where Options.Strict is set
//	/topic/a/*, a/#     a filter: "*" or "+" is one level, a final "#" or ">" the
//	                    rest. %2E is a literal dot; %2A, %3E, %2C, %25 likewise
//	/queue/q, q         the queue q, made at first use; q alone is refused where
//	                    Options.Strict is set
//	/amq/queue/q        the queue q, which must exist
//	/exchange/e/k       the exchange e, with the key k
//	/temp-queue/x       an inbox of this connection's, also /temp-topic/x
//	/reply-queue/...    somebody's inbox, as it stands in reply-to
//	/queue/a,/topic/b   all of them, together or not at all
//
// # What a subscription asks
//
//	ack                 auto, client (cumulative), client-individual
//	from                where in the log a reader begins; x-stream-offset too
//	group               shares the messages with the others of the group
//	durable:true with auto-delete:false, activemq.subscriptionName or
//	durable-subscription-name with client-id: messages are kept while the
//	                    client is away
//	x-queue-name        the messages go through a queue of that name
//	prefetch-count      how many messages may wait to be acknowledged,
//	                    activemq.prefetchSize too; 0 means 1
//	selector            which messages are wanted
//	browser             true: what the queue has, which stays there, and then a
//	                    MESSAGE with browser:end
//	activemq.noLocal, no-local
//	                    not those that this client sends
//	activemq.exclusive  true: no other consumer of the queue is given messages
//	x-message-ttl and others of [arguments], exclusive, auto-delete
//	                    the settings of a queue
//
// A header that would change what a frame means and is not in these tables is
// answered with an ERROR that names it ([subscribeUnsupported]). What clients of
// RabbitMQ and ActiveMQ find is in docs/moving-from-rabbitmq.md and
// docs/moving-from-activemq.md, whose tables are run as tests.
package stomp

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// protocol is the adapter's name in publishers, metrics and logs.
const protocol = "stomp"

// Options are what a Server shares with the other adapters.
type Options struct {
	Limits  adapters.Limits
	Gate    *adapters.Gate
	Metrics *adapters.Metrics
	Logger  *slog.Logger
	// Strict refuses destinations that begin with none of the known prefixes;
	// otherwise /a/b is a topic and a name without a slash a queue.
	Strict bool
}

// A Server serves STOMP connections. It is an adapters.ConnServer.
type Server struct {
	broker  *core.Broker
	limits  adapters.Limits
	gate    *adapters.Gate
	metrics *adapters.ProtocolMetrics
	log     *slog.Logger
	strict  bool
	rests   *messageRests
}

// New makes a server for the connections to a broker.
func New(broker *core.Broker, o Options) *Server {
	m := o.Metrics.Protocol(protocol)
	return &Server{
		broker: broker, limits: o.Limits, gate: o.Gate,
		metrics: m,
		log:     o.Logger.With("protocol", protocol),
		strict:  o.Strict,
		rests:   newMessageRests(m),
	}
}

// OpenConn takes a connection, which never rests. nc carries the stream in pieces
// of any size: a WebSocket's messages need not be frames.
func (s *Server) OpenConn(nc net.Conn) adapters.Conn {
	ctx, stop := context.WithCancel(context.Background())
	c := &conn{
		server: s, nc: nc, ctx: ctx, stop: stop, session: rand.Text(),
		out:           adapters.NewOutbox(nc, s.limits.OutputBytes, s.limits.Stall),
		receipts:      newReceipts(s.limits.PublishInFlight),
		subscriptions: make(map[string]*subscription),
		handshake:     time.Now().Add(s.limits.Handshake),
	}
	c.in = newReader(c, s.limits)
	return c
}

// Serve serves the connection to its end.
func (c *conn) Serve() (rests bool, err error) {
	adapters.Waits(c.nc)
	s := c.server
	s.metrics.Connections.Inc()
	defer s.metrics.Connections.Dec()
	defer c.stop()
	defer c.in.close()
	defer c.nc.Close()
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("connection failed", "client", c.session, "panic", p, "stack", string(debug.Stack()))
			s.metrics.Refused("panic")
			c.abandon()
		}
	}()
	unblock := context.AfterFunc(c.ctx, c.interrupt)
	defer unblock()
	return false, c.serve()
}

// Stop has the reader say goodbye.
func (c *conn) Stop() { c.stop() }
