package stomp_test

import (
	"fmt"
	"strings"
	"testing/synctest"
	"time"

	"github.com/sluicemq/sluice/core"
)

// sharedRows are rows that both pages have.
var sharedRows = map[string]func(r *row){
	"/queue/q":    sharedQueue,
	"/topic/a.b":  sharedTopic,
	"heart-beat":  sharedHeartBeat,
	"id":          sharedID,
	"ack":         sharedAck,
	"priority":    sharedPriority,
	"reply-to":    sharedReplyTo,
	"persistent":  sharedPersistent,
	"receipt":     sharedReceipt,
	"transaction": sharedTransaction,
	"redelivered": sharedRedelivered,

	"login and passcode": sharedLogin,
}

// rabbitRows are the other rows of docs/moving-from-rabbitmq.md.
var rabbitRows = map[string]func(r *row){
	"/amq/queue/q": func(r *row) {
		for _, command := range []string{"SEND", "SUBSCRIBE"} {
			p := r.g.connect("1.2")
			p.send(command, "id:0", "destination:/amq/queue/q")
			p.expectError("not found", `"q"`)
		}
		if err := r.g.admin().DeclareQueue(r.Context(), core.QueueDefinition{Name: "q"}); err != nil {
			r.Fatal(err)
		}
		r.one("/amq/queue/q", nil, nil)
	},
	"/topic/a.*.#": func(r *row) {
		p := r.g.connect("1.2")
		p.subscribe("0", "/topic/a.*.#")
		for _, to := range []string{"a", "b.x", "a.x", "a.x.y.z"} {
			p.publish("/topic/"+to, to)
		}
		if got := bodies(p.messages(2)); got != "a.x a.x.y.z" {
			r.Error(got)
		}
		p.quiet(calm)
	},
	"/exchange/e/k": func(r *row) {
		r.exchange("e", core.TopicExchange)
		p := r.g.connect("1.2")
		p.subscribe("0", "/exchange/e/#.k")
		p.publish("/exchange/e/a.b.k", "x")
		p.publish("/exchange/e/a.b", "y")
		p.expect("MESSAGE\nsubscription:0\ndestination:/exchange/e/a.b.k\n")
		p.quiet(calm)
	},
	"/exchange/amq.topic/k": func(r *row) {
		for _, x := range []string{"amq.topic", "amq.direct", "amq.fanout", "amq.headers"} {
			p := r.g.connect("1.2")
			p.subscribe("0", "/exchange/"+x+"/k")
			p.subscribe("1", "/topic/k")
			p.publish("/exchange/"+x+"/k", "x")
			p.expect("MESSAGE\nsubscription:0\n")
			p.quiet(calm)
		}
	},
	"/temp-queue/x": func(r *row) {
		client, service := r.g.connect("1.2"), r.g.connect("1.2")
		service.subscribe("0", "/queue/service")
		client.send("SEND", "destination:/queue/service", "reply-to:/temp-queue/x", " ask")
		m := service.expect("MESSAGE\n", "\nreply-to:/reply-queue/")
		service.publish(m.header("reply-to"), "answer")
		client.expect("MESSAGE\nsubscription:/temp-queue/x\ndestination:/temp-queue/x\n", "answer")
	},
	"/reply-queue/…": func(r *row) {
		p, q := r.g.connect("1.2"), r.g.connect("1.2")
		p.subscribe("mine", "/temp-queue/x")
		p.subscribe("service", "/queue/service")
		p.publish("/queue/service", "ask", "reply-to:/temp-queue/x")
		q.publish(p.expect("MESSAGE\nsubscription:service\n").header("reply-to"), "answer")
		p.expect("MESSAGE\nsubscription:mine\n", "answer")
	},
	"host": func(r *row) {
		for _, host := range []string{"/", "vhost", ""} {
			p := r.g.dial()
			p.send("CONNECT", "accept-version:1.2", "host:"+host)
			p.expect("CONNECTED\n")
		}
	},
	"prefetch-count": prefetched("prefetch-count"),
	"durable":        durably("durable:true", "auto-delete:false"),
	"auto-delete": func(r *row) {
		p, q := r.g.connect("1.2"), r.g.connect("1.2")
		p.publish("/queue/q", "x", "auto-delete:true")
		p.subscribe("0", "/queue/q", "auto-delete:true")
		q.subscribe("0", "/queue/q", "auto-delete:true")
		p.bye()
		if !r.g.admin().HasQueue("q") {
			r.Error("it is gone with the first subscription")
		}
		q.bye()
		synctest.Wait()
		if r.g.admin().HasQueue("q") {
			r.Error("it is still there")
		}
	},
	"exclusive": func(r *row) {
		p, q := r.g.connect("1.2"), r.g.connect("1.2")
		p.subscribe("0", "/queue/q", "exclusive:true")
		q.send("SUBSCRIBE", "id:0", "destination:/queue/q", "receipt:r")
		q.expectError("in use", "receipt-id:r")
		p.publish("/queue/q", "x")
		p.expect("MESSAGE\n")
		p.bye()
		synctest.Wait()
		if r.g.admin().HasQueue("q") {
			r.Error("it is still there")
		}
	},
	"x-queue-name": func(r *row) {
		r.exchange("e", core.Fanout)
		for i, from := range []string{"/topic/a.*", "/exchange/e"} {
			queue := fmt.Sprint("q", i)
			p := r.g.connect("1.2")
			p.subscribe("0", from, "x-queue-name:"+queue)
			p.bye()
			p = r.g.connect("1.2")
			p.publish(strings.Replace(from, "*", "b", 1), "kept")
			p.subscribe("0", from, "x-queue-name:"+queue)
			p.expect("MESSAGE\n", "kept")
		}
	},
	"x-message-ttl": func(r *row) {
		p := r.g.connect("1.2")
		p.publish("/queue/q", "gone", "x-message-ttl:60000")
		time.Sleep(time.Minute)
		p.publish("/queue/q", "there", "x-message-ttl:60000")
		p.subscribe("0", "/queue/q", "x-message-ttl:60000")
		p.expect("MESSAGE\n", "\n\nthere^@")
	},
	"x-expires": func(r *row) {
		p := r.g.connect("1.2")
		p.publish("/queue/q", "x", "x-expires:60000")
		time.Sleep(59 * time.Second)
		if !r.g.admin().HasQueue("q") {
			r.Error("it is gone too early")
		}
		time.Sleep(2 * time.Second)
		if r.g.admin().HasQueue("q") {
			r.Error("it is still there")
		}
	},
	"x-max-length": func(r *row) {
		p := r.g.connect("1.2")
		for i := range 5 {
			p.publish("/queue/q", fmt.Sprint(i), "x-max-length:3")
		}
		synctest.Wait()
		if got := r.has("q"); got != "2 3 4" {
			r.Error(got)
		}
	},
	"x-max-length-bytes": func(r *row) {
		p := r.g.connect("1.2")
		for range 10 {
			p.publish("/queue/q", strings.Repeat("x", 1000), "x-max-length-bytes:3500")
		}
		synctest.Wait()
		if got := strings.Fields(r.has("q")); len(got) == 0 || len(got) > 3 {
			r.Errorf("%d messages", len(got))
		}
	},
	"x-overflow": func(r *row) {
		p := r.g.connect("1.2")
		for i := range 3 {
			p.publish("/queue/drops", fmt.Sprint(i), "x-max-length:2", "x-overflow:drop-head")
		}
		for i := range 2 {
			p.publish("/queue/rejects", fmt.Sprint(i), "x-max-length:2", "x-overflow:reject-publish")
		}
		p.send("SEND", "destination:/queue/rejects", "x-max-length:2", "x-overflow:reject-publish", "receipt:full", " 2")
		p.expectError("queue full", "receipt-id:full")
		if got := r.has("drops") + "," + r.has("rejects"); got != "1 2,0 1" {
			r.Error(got)
		}
	},
	"x-max-priority": sharedPriority,
	"x-dead-letter-exchange": func(r *row) {
		r.exchange("dlx", core.Direct)
		dead := r.g.connect("1.2")
		dead.subscribe("q", "/exchange/dlx/q")
		dead.subscribe("k", "/exchange/dlx/k")
		p := r.g.connect("1.2")
		p.subscribe("0", "/queue/q", "x-dead-letter-exchange:dlx", "ack:client-individual")
		p.subscribe("1", "/queue/r", "x-dead-letter-exchange:dlx", "x-dead-letter-routing-key:k", "ack:client-individual")
		for queue, key := range map[string]string{"q": "q", "r": "k"} {
			p.publish("/queue/"+queue, "dead of "+queue)
			p.acks("NACK", "1.2", p.messages(1)[0], "requeue:false")
			dead.expect("MESSAGE\nsubscription:"+key+"\n", "\ndead-letter-reason:rejected\n", "dead of "+queue)
		}
		p.send("UNSUBSCRIBE", "id:0")
		p.publish("/queue/q", "expired", "expiration:1000", "x-dead-letter-exchange:dlx")
		dead.expect("MESSAGE\nsubscription:q\n", "\ndead-letter-reason:expired\n")
	},
	"x-dead-letter-routing-key": func(r *row) {
		p := r.g.connect("1.2")
		p.subscribe("0", "/queue/q", "x-dead-letter-exchange:", "x-dead-letter-routing-key:graves", "ack:client")
		p.publish("/queue/q", "x")
		p.acks("NACK", "1.2", p.messages(1)[0], "requeue:false", "receipt:n")
		p.receipt("n")
		if got := r.has("graves"); got != "x" {
			r.Error(got)
		}
	},
	"x-single-active-consumer": func(r *row) {
		p, q := r.g.connect("1.2"), r.g.connect("1.2")
		p.subscribe("0", "/queue/q", "x-single-active-consumer:true")
		q.subscribe("0", "/queue/q", "x-single-active-consumer:true")
		for range 10 {
			q.publish("/queue/q", "x", "x-single-active-consumer:true")
		}
		p.messages(10)
		q.quiet(calm)
		p.bye()
		q.publish("/queue/q", "x", "x-single-active-consumer:true")
		q.messages(1)
	},
	"x-delivery-limit": func(r *row) {
		p := r.g.connect("1.2")
		p.subscribe("0", "/queue/q", "x-delivery-limit:2", "ack:client")
		p.publish("/queue/q", "x", "x-delivery-limit:2")
		for range 3 {
			p.acks("NACK", "1.2", p.messages(1)[0])
		}
		p.quiet(time.Hour)
		if got := r.has("q.dead"); got != "x" {
			r.Error(got)
		}
	},
	"x-consumer-timeout": func(r *row) {
		p := r.g.connect("1.2")
		p.subscribe("0", "/queue/q", "x-consumer-timeout:60000", "ack:client")
		p.publish("/queue/q", "x", "x-consumer-timeout:60000")
		p.messages(1)
		p.quiet(59 * time.Second)
		p.expect("MESSAGE\n", "\nredelivered:true\n")
	},
	"x-queue-type": func(r *row) {
		for _, kind := range []string{"classic", "quorum"} {
			p := r.g.connect("1.2")
			p.subscribe("0", "/queue/q", "x-queue-type:"+kind)
		}
	},
	"x-stream-offset": func(r *row) {
		p := r.g.connect("1.2")
		for i := range 4 {
			p.publish("/topic/a", fmt.Sprint(i+1))
		}
		for value, want := range map[string]string{"first": "1 2 3 4", "last": "4", "next": "", "offset=3": "3 4", "timestamp=1000": "1 2 3 4"} {
			s := r.g.connect("1.2")
			s.subscribe("0", "/topic/a", "x-stream-offset:"+value)
			if got := bodies(s.messages(len(strings.Fields(want)))); got != want {
				r.Errorf("%s: %s", value, got)
			}
			s.quiet(time.Second)
		}
	},
	"expiration": func(r *row) {
		p := r.g.connect("1.2")
		p.publish("/queue/q", "gone", "expiration:1000")
		p.publish("/queue/q", "there", "expiration:3000")
		time.Sleep(2 * time.Second)
		p.subscribe("0", "/queue/q")
		p.expect("MESSAGE\n", "\n\nthere^@")
	},
	"correlation-id": carried("correlation-id:c 1"),
	"content-type":   carried("content-type:text/csv;charset=utf-8"),
	"type":           carried("type:order", "app-id:shop", "user-id:ann", "amqp-message-id:7", "content-encoding:gzip", "timestamp:1700000000", "x-own:mine"),
	"requeue": func(r *row) {
		p := r.g.connect("1.2")
		p.subscribe("0", "/queue/q", "ack:client-individual")
		p.publish("/queue/q", "dead")
		p.publish("/queue/q", "again")
		ms := p.messages(2)
		p.acks("NACK", "1.2", ms[0], "requeue:false")
		p.acks("NACK", "1.2", ms[1], "requeue:true")
		p.expect("MESSAGE\n", "\n\nagain^@")
		if got := r.has("q.dead"); got != "dead" {
			r.Error(got)
		}
	},

	"/topic/#.b":                    refused("/topic/#.b", "x:y", "invalid destination", "behind its"),
	"/exchange/none/k":              refused("/exchange/none/k", "x:y", "not found", `"none"`),
	"x-queue-type:stream":           refused("/queue/q", "x-queue-type:stream", "x-queue-type", "read with from"),
	"x-message-ttl:0":               refused("/queue/q", "x-message-ttl:0", "x-message-ttl"),
	"x-overflow:reject-publish-dlx": refused("/queue/q", "x-overflow:reject-publish-dlx", "drop-head or reject-publish"),
	"x-priority:5":                  refused("/queue/q", "x-priority:5", "x-priority", "in turn"),
	"x-stream-filter:a":             refused("/topic/a", "x-stream-filter:a", "x-stream-filter", "selector"),
	"x-max-length:5 for /topic/a":   refused("/topic/a", "x-max-length:5", "x-queue-name"),
	"other settings for the same queue": func(r *row) {
		r.one("/queue/q", []string{"x-max-length:5"}, nil)
		refused("/queue/q", "x-max-length:6", "exists with other settings", "max_length=5", "not max_length=6")(r)
	},
}

// activeRows are the other rows of docs/moving-from-activemq.md.
var activeRows = map[string]func(r *row){
	"/topic/a.*.>": func(r *row) {
		p := r.g.connect("1.2")
		p.subscribe("0", "/topic/a.*.>")
		for _, to := range []string{"a", "b.x", "a.x", "a.x.y.z"} {
			p.publish("/topic/"+to, to)
		}
		if got := bodies(p.messages(2)); got != "a.x a.x.y.z" {
			r.Error(got)
		}
		p.quiet(calm)
	},
	"/queue/a,/topic/b": func(r *row) {
		p := r.g.connect("1.2")
		p.subscribe("b", "/topic/b")
		p.publish("/queue/a,/topic/b", "x")
		p.expect("MESSAGE\nsubscription:b\ndestination:/topic/b\n")
		if got := r.has("a"); got != "x" {
			r.Error(got)
		}
		p.send("SEND", "destination:/queue/a,/exchange/none/k", "receipt:r", " y")
		p.expectError("not found", "receipt-id:r")
		if got := r.has("a"); got != "x" {
			r.Error(got)
		}
	},
	"/topic/a,/topic/b": func(r *row) {
		p := r.g.connect("1.2")
		p.subscribe("0", "/topic/a,/topic/b.*")
		p.publish("/topic/a", "1")
		p.publish("/topic/b.c", "2")
		p.publish("/topic/c", "3")
		if got := bodies(p.messages(2)); got != "1 2" {
			r.Error(got)
		}
		p.quiet(calm)
	},
	"/temp-queue/x": tempDestination("/temp-queue/x"),
	"/temp-topic/x": tempDestination("/temp-topic/x"),
	"client-id": func(r *row) {
		durably("activemq.subscriptionName:s")(r)
		p := r.g.connect("1.2")
		p.send("SUBSCRIBE", "id:0", "destination:/topic/a", "activemq.subscriptionName:s")
		p.expectError("client-id in CONNECT")
	},
	"selector": func(r *row) {
		p := r.g.connect("1.2")
		for i, colour := range []string{"red", "blue", "red"} {
			p.publish("/queue/q", fmt.Sprint(colour, i), "colour:"+colour, "priority:"+fmt.Sprint(3*i), "type:t", "correlation-id:c")
		}
		p.subscribe("0", "/queue/q", "selector:colour = 'red' AND JMSPriority BETWEEN 5 AND 9 AND JMSType = 't' AND JMSCorrelationID LIKE 'c%' AND JMSTimestamp > 0")
		p.expect("MESSAGE\n", "\n\nred2^@")
		p.quiet(calm)
		if got := r.has("q"); got != "red0 blue1" {
			r.Error(got)
		}
	},
	"activemq.prefetchSize": prefetched("activemq.prefetchSize"),
	"activemq.noLocal": func(r *row) {
		for _, name := range []string{"activemq.noLocal", "no-local"} {
			p, q := r.g.connect("1.2"), r.g.connect("1.2")
			p.subscribe("0", "/topic/a", name+":true")
			p.publish("/topic/a", "mine")
			q.publish("/topic/a", "theirs")
			p.expect("MESSAGE\n", "theirs")
			p.bye()
		}
	},
	"activemq.exclusive": func(r *row) {
		pub, p, q, s := r.g.connect("1.2"), r.g.connect("1.2"), r.g.connect("1.2"), r.g.connect("1.2")
		pub.publish("/queue/q", "made by a sender")
		s.subscribe("0", "/queue/q", "ack:client")
		s.messages(1)
		p.subscribe("0", "/queue/q", "activemq.exclusive:true")
		q.subscribe("0", "/queue/q", "activemq.exclusive:true")
		for range 10 {
			pub.publish("/queue/q", "x")
		}
		p.messages(10)
		p.bye()
		pub.publish("/queue/q", "x")
		q.messages(1)
		s.quiet(time.Second)
	},
	"activemq.subscriptionName": durably("activemq.subscriptionName:s"),
	"durable-subscription-name": durably("durable-subscription-name:s"),
	"browser": func(r *row) {
		p := r.g.connect("1.2")
		p.publish("/queue/q", "1")
		p.publish("/queue/q", "2")
		for range 2 {
			p.subscribe("b", "/queue/q", "browser:true")
			if got := bodies(p.messages(2)); got != "1 2" {
				r.Error(got)
			}
			p.expect("MESSAGE\nsubscription:b\n", "\nbrowser:end\n")
			p.send("UNSUBSCRIBE", "id:b")
		}
	},
	"expires": func(r *row) {
		p := r.g.connect("1.2")
		at := func(d time.Duration) string { return fmt.Sprint("expires:", time.Now().Add(d).UnixMilli()) }
		p.publish("/queue/q", "gone", at(time.Second))
		p.publish("/queue/q", "there", at(time.Hour))
		p.publish("/queue/q", "stays", "expires:0")
		time.Sleep(time.Minute)
		if got := r.has("q"); got != "there stays" {
			r.Error(got)
		}
	},
	"correlation-id": carried("correlation-id:c 1"),
	"type":           carried("type:order", "own:mine", "JMSXGroupSeq:3"),
	"JMSXGroupID": func(r *row) {
		p, q, pub := r.g.connect("1.2"), r.g.connect("1.2"), r.g.connect("1.2")
		for _, c := range []*peer{p, q} {
			c.subscribe("0", "/queue/q", "x-ordered:true", "ack:client-individual")
		}
		for i := range 20 {
			pub.publish("/queue/q", fmt.Sprint(i/2), "x-ordered:true", fmt.Sprint("JMSXGroupID:", i%2))
		}
		last := map[string]int{"0": -1, "1": -1}
		for n := 0; n < 20; {
			synctest.Wait()
			for _, c := range []*peer{p, q} {
				c.skipEnds()
				if c.in.Buffered() == 0 {
					continue
				}
				m := c.expect("MESSAGE\n")
				group := m.header("JMSXGroupID")
				if m.body != fmt.Sprint(last[group]+1) || m.header("key") != group {
					r.Fatalf("after %d comes\n%s", last[group], m)
				}
				last[group]++
				c.acks("ACK", "1.2", m)
				n++
			}
		}
	},
	"AMQ_SCHEDULED_DELAY": func(r *row) {
		p := r.g.connect("1.2")
		p.subscribe("0", "/queue/q")
		p.publish("/queue/q", "later", "AMQ_SCHEDULED_DELAY:60000")
		p.quiet(59 * time.Second)
		p.expect("MESSAGE\n", "\n\nlater^@")
	},
	"AMQ_SCHEDULED_PERIOD": repeated,
	"AMQ_SCHEDULED_REPEAT": func(r *row) {
		repeated(r)
		p := r.g.connect("1.2")
		p.subscribe("0", "/queue/ever")
		p.publish("/queue/ever", "x", "AMQ_SCHEDULED_PERIOD:60000", "AMQ_SCHEDULED_REPEAT:-1")
		p.messages(100)
		// Without a period, or without a number, it comes once.
		p.subscribe("1", "/queue/once")
		p.publish("/queue/once", "1", "AMQ_SCHEDULED_REPEAT:5")
		p.publish("/queue/once", "2", "AMQ_SCHEDULED_PERIOD:5000")
		n := 0
		for range 20 {
			if m := p.expect("MESSAGE\n"); m.header("subscription") == "1" {
				n++
			}
		}
		if n != 2 {
			r.Errorf("%d messages", n)
		}
	},
	"AMQ_SCHEDULED_CRON": func(r *row) {
		p := r.g.connect("1.2")
		p.subscribe("0", "/queue/q")
		p.publish("/queue/q", "on the hour", "AMQ_SCHEDULED_CRON:0 * * * *", "AMQ_SCHEDULED_DELAY:60000", "AMQ_SCHEDULED_PERIOD:1000", "AMQ_SCHEDULED_REPEAT:2")
		for range 3 {
			ms := p.messages(3)
			for i, m := range ms {
				if at := time.Now().Add(time.Duration(i-2) * time.Second); m.header("time") == "" || at.Minute() != 1 {
					r.Errorf("at %v comes %s", at, m)
				}
			}
			p.quiet(58 * time.Minute)
		}
	},
	"activemq.dispatchAsync": func(r *row) {
		r.one("/queue/q", []string{"activemq.dispatchAsync:true", "activemq.maximumPendingMessageLimit:5"}, nil)
	},

	"/queue/a.>":                     refused("/queue/a.>", "x:y", "wildcard"),
	"/queue/a,/queue/b in SUBSCRIBE": refused("/queue/a,/queue/b", "x:y", "one queue, or topics"),
	"AMQ_SCHEDULED_CRON:at noon": func(r *row) {
		p := r.g.connect("1.2")
		p.send("SEND", "destination:/queue/q", "AMQ_SCHEDULED_CRON:at noon", "receipt:r")
		p.expectError("receipt-id:r", "at noon")
	},
	"activemq.retroactive:true":         refused("/topic/a", "activemq.retroactive:true", "activemq.retroactive", "from:earliest"),
	"activemq.priority:5":               refused("/queue/q", "activemq.priority:5", "activemq.priority"),
	"activemq.noLocal:true for a queue": refused("/queue/q", "activemq.noLocal:true", "activemq.noLocal"),
	"/topic/ActiveMQ.Advisory.Connection": func(r *row) {
		p := r.g.connect("1.2")
		p.subscribe("0", "/topic/ActiveMQ.Advisory.Connection")
		r.g.connect("1.2")
		p.quiet(calm)
	},
}

// repeated sends a message that comes four times.
func repeated(r *row) {
	p := r.g.connect("1.2")
	p.subscribe("0", "/queue/q")
	p.publish("/queue/q", "x", "AMQ_SCHEDULED_DELAY:60000", "AMQ_SCHEDULED_PERIOD:10000", "AMQ_SCHEDULED_REPEAT:3")
	p.quiet(59 * time.Second)
	p.messages(1)
	for range 3 {
		p.quiet(8 * time.Second)
		p.messages(1)
	}
	p.quiet(time.Hour)
	// Also where a transaction kept it.
	p.send("BEGIN", "transaction:t")
	p.send("SEND", "destination:/queue/q", "transaction:t", "AMQ_SCHEDULED_CRON:30 * * * *", " y")
	p.send("COMMIT", "transaction:t", "receipt:c")
	p.receipt("c")
	p.expect("MESSAGE\n", "\n\ny^@")
}

// tempDestination asks and is answered by way of a temporary destination.
func tempDestination(destination string) func(r *row) {
	return func(r *row) {
		client, service := r.g.connect("1.2"), r.g.connect("1.2")
		client.subscribe("mine", destination)
		service.subscribe("0", "/queue/service")
		client.publish("/queue/service", "ask", "reply-to:"+destination)
		m := service.expect("MESSAGE\n", "\nreply-to:/reply-queue/")
		service.publish(m.header("reply-to"), "answer")
		client.expect("MESSAGE\nsubscription:mine\ndestination:"+destination+"\n", "answer")
		// Another connection's of that name is another.
		other := r.g.connect("1.2")
		other.subscribe("mine", destination)
		service.publish(m.header("reply-to"), "again")
		client.expect("MESSAGE\n")
		other.quiet(calm)
	}
}
