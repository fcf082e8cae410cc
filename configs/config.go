// Package configs is Sluice's configuration: one struct, its defaults, and the
// YAML files beside this one, which run as they are.
//
// [Load] begins with [Default], lays a file over it, then the environment. All
// three say the same things by the same keys, which are the yaml tags of
// [Config]. What is wrong is said with file, line and key, all of it at once.
package configs

import (
	"time"

	"github.com/sluicemq/sluice/adapters"
	"github.com/sluicemq/sluice/core"
)

// A Config is everything that can be configured.
type Config struct {
	Data      string          `yaml:"data" doc:"the folder that holds the log"`
	MQTT      Listening       `yaml:"mqtt" doc:"MQTT 3.1.1 and 5 over TCP and TLS"`
	STOMP     STOMP           `yaml:"stomp" doc:"STOMP 1.0 to 1.2 over TCP and TLS"`
	HTTP      HTTP            `yaml:"http" doc:"HTTP, server-sent events and WebSocket"`
	Auth      Auth            `yaml:"auth" doc:"who may connect, and who may do what"`
	Limits    adapters.Limits `yaml:"limits" doc:"the bounds of everything, the same on every protocol"`
	Policies  []Policy        `yaml:"policies" doc:"how long messages are kept; the first policy that matches a topic holds for it"`
	Retention Retention       `yaml:"retention" doc:"how the age of messages is told"`
	Exchanges []Exchange      `yaml:"exchanges" doc:"exchanges that are there from the start"`
	Queues    []Queue         `yaml:"queues" doc:"queues that are there from the start"`
	Log       Log             `yaml:"log" doc:"what the broker says of itself, on standard error"`
	Memory    Memory          `yaml:"memory" doc:"memory"`
	Shutdown  Shutdown        `yaml:"shutdown" doc:"how the broker stops"`
	Metrics   Metrics         `yaml:"metrics" doc:"figures for Prometheus"`
	Sys       Duration        `yaml:"sys_interval" doc:"how often the broker tells of itself in the topics under $SYS/broker/; 0 is never"`
	Debug     Debug           `yaml:"debug" doc:"for those who look into the process"`

	origin map[string]origin // where each key was set
	dir    string            // of the file; relative paths in it begin there
}

// Listening is where a protocol listens.
type Listening struct {
	Listen []Listener `yaml:"listen" doc:"addresses, host:port each; none switches the protocol off"`
}

// STOMP is where STOMP listens and which destinations it takes.
type STOMP struct {
	Listen []Listener `yaml:"listen" doc:"addresses, host:port each; none switches the protocol off"`
	Strict bool       `yaml:"strict" doc:"refuses destinations that begin with no known prefix, instead of taking /a/b for a topic and a for a queue"`
}

// HTTP is where HTTP and WebSocket listen and which pages may use them.
type HTTP struct {
	Listen  []Listener `yaml:"listen" doc:"addresses, host:port each; none switches the protocol off"`
	Origins []string   `yaml:"origins" doc:"web pages of other hosts that may connect, such as https://app.example.com"`
	Hosts   []string   `yaml:"hosts" doc:"names under which the broker is reached, besides the addresses it listens on"`

	Webhooks Webhooks `yaml:"webhooks" doc:"what queues' webhooks may do"`
}

// Webhooks bound what webhooks may do.
type Webhooks struct {
	Allow []Network `yaml:"allow" doc:"networks that are not public and may be called all the same, such as 10.1.0.0/16; left out is none"`
}

// A Listener is an address to listen on. In YAML an address alone is one too.
type Listener struct {
	Address string `yaml:"address" doc:"host:port; an empty host is every address of the machine"`
	TLS     TLS    `yaml:"tls" doc:"encrypts the connections, where it is set"`
}

// TLS is a listener's certificate. A zero TLS is none.
type TLS struct {
	Cert       string `yaml:"cert" doc:"file with the certificate and its chain, PEM; read again on SIGHUP"`
	Key        string `yaml:"key" doc:"file with its private key, PEM"`
	ClientCA   string `yaml:"client_ca" doc:"file with the authorities that sign clients' certificates, PEM; then every client must show one"`
	SelfSigned bool   `yaml:"self_signed" doc:"makes a certificate of its own, for trying TLS out"`
}

// Enabled reports whether the listener speaks TLS.
func (t TLS) Enabled() bool { return t != TLS{} }

// Auth says who may connect and who may do what. Without users, tokens and
// rules everybody may do everything, on loopback addresses only.
type Auth struct {
	Users       string   `yaml:"users" doc:"file of users, made with: sluice user add FILE NAME; read again on SIGHUP"`
	Tokens      []Token  `yaml:"tokens" doc:"whose JSON web tokens are taken, as bearer tokens and in a password's place"`
	Certificate CertName `yaml:"certificate" doc:"what of a client's certificate is its user name: cn, or san for its first alternative name"`
	Rules       []Rule   `yaml:"rules" doc:"who may do what; the first rule that matches decides, and what none matches is refused"`
}

// A Token says whose JSON web tokens (RFC 7519) name users. They are signed by
// HS256, RS256, ES256 or EdDSA and have an exp.
type Token struct {
	Keys     string   `yaml:"keys" doc:"file of keys: a JWKS, PEM public keys or certificates, or a secret for HS256; read again on SIGHUP"`
	Issuer   string   `yaml:"issuer" doc:"what iss must be; left out is anything"`
	Audience string   `yaml:"audience" doc:"what must stand in aud; left out is anything"`
	User     string   `yaml:"user" doc:"the claim that is the user's name; left out is sub. Dots lead into objects"`
	Roles    string   `yaml:"roles" doc:"the claim that holds the roles, a list or a string with spaces; left out is roles. Dots lead into objects"`
	Leeway   Duration `yaml:"leeway" doc:"how far the clocks may differ for exp and nbf"`
}

// A Rule allows or denies some actions on some topics to some users.
type Rule struct {
	Who     []Who     `yaml:"who" doc:"user:NAME, role:NAME, users (all who logged in), anonymous (those who did not)"`
	Allow   []Action  `yaml:"allow" doc:"what is allowed: publish, subscribe, consume, manage, or all"`
	Deny    []Action  `yaml:"deny" doc:"what is denied; a rule allows or denies"`
	Filters []Pattern `yaml:"filters" doc:"topics, with + and #; %u is the user's name and %c the client id; left out is everything. $queue/NAME is a queue, $exchange/NAME/KEY an exchange"`
}

// A Policy says how long the messages of some topics are kept.
type Policy struct {
	Name    string        `yaml:"name" doc:"what it is called"`
	Filters []core.Filter `yaml:"filters" doc:"topics, with + and #; left out is everything"`
	Age     Duration      `yaml:"age" doc:"how long they are kept; 0 is for ever"`
	Bytes   Size          `yaml:"bytes" doc:"how much of them is kept, the newest; 0 is without bound"`
}

// An Exchange is one that is declared at the start.
type Exchange struct {
	Name string       `yaml:"name" doc:"its name, one level"`
	Kind ExchangeKind `yaml:"kind" doc:"direct, fanout, topic or headers"`

	Alternate string            `yaml:"alternate" doc:"the exchange that gets what no binding matches"`
	Bindings  []ExchangeBinding `yaml:"bindings" doc:"what other exchanges lead to it"`
}

// A Queue is one that is declared at the start.
type Queue struct {
	Name         string    `yaml:"name" doc:"its name"`
	Bindings     []Binding `yaml:"bindings" doc:"what leads to it, besides what is sent to it by name"`
	MaxAttempts  int       `yaml:"max_attempts" doc:"deliveries before a message goes to the dead letters; 0 is 16, -1 without bound"`
	Lease        Duration  `yaml:"lease" doc:"how long a consumer may hold a message; 0 is 5m"`
	Backoff      Duration  `yaml:"backoff" doc:"pause before the first redelivery, then doubling; 0 is 1s"`
	BackoffMax   Duration  `yaml:"backoff_max" doc:"the longest pause; 0 is 5m"`
	DeadLetter   string    `yaml:"dead_letter" doc:"queue of dead letters; left out is the name followed by .dead, - drops them"`
	TTL          Duration  `yaml:"ttl" doc:"longest life of a message, whose own expiry holds where it is earlier; 0 is for ever"`
	MaxLength    int64     `yaml:"max_length" doc:"messages that it may hold, those with consumers included; 0 is without bound"`
	MaxBytes     Size      `yaml:"max_bytes" doc:"bytes that it may hold likewise; 0 is without bound"`
	Overflow     Overflow  `yaml:"overflow" doc:"what a full queue does: reject, which left out stands for too, or drop-oldest"`
	Priority     bool      `yaml:"priority" doc:"higher priorities are delivered first"`
	Ordered      bool      `yaml:"ordered" doc:"messages of one key go to one consumer at a time, in order"`
	SingleActive bool      `yaml:"single_active" doc:"one consumer works, the others wait to take over"`
	Expires      Duration  `yaml:"expires" doc:"deletes the queue when unused for so long; 0 is never"`
	DedupWindow  Duration  `yaml:"dedup_window" doc:"how long message ids are remembered; 0 is the limit of that name"`

	DeadLetterExpired bool `yaml:"dead_letter_expired" doc:"what expires goes to the dead letters"`
	AutoDelete        bool `yaml:"auto_delete" doc:"deletes the queue when its last consumer leaves"`

	Unpinned bool `yaml:"unpinned" doc:"lets the topics' policies remove what the queue still needs"`

	Webhook Webhook `yaml:"webhook" doc:"where its messages are posted to, over HTTP"`
}

// ExchangeBinding leads what reaches another exchange to one.
type ExchangeBinding struct {
	From  string `yaml:"from" doc:"the exchange whose messages come"`
	Key   string `yaml:"key" doc:"the key that it compares"`
	Where string `yaml:"where" doc:"a selector that a message must fulfil besides"`
}

// A Webhook is where a queue's messages are posted to. A zero Webhook is none.
type Webhook struct {
	URL      string   `yaml:"url" doc:"the address that gets them, http or https"`
	Secrets  []string `yaml:"secrets" doc:"sign them, as Standard Webhooks has it: whsec_ and 24 to 64 bytes in base64; the first is in force, others are being replaced"`
	Timeout  Duration `yaml:"timeout" doc:"of one attempt; 0 is 15s"`
	InFlight int      `yaml:"in_flight" doc:"how many are posted at once; 0 is 8, with 1 they come in order"`
}

// A Binding leads from a filter, or from an exchange and a key, to a queue.
// In YAML a filter alone is one too.
type Binding struct {
	Filter   core.Filter `yaml:"filter" doc:"topics, with + and #"`
	Exchange string      `yaml:"exchange" doc:"an exchange, instead of a filter"`
	Key      string      `yaml:"key" doc:"the key that the exchange compares"`
	Where    string      `yaml:"where" doc:"a selector that a message must fulfil besides"`
}

// Log is how the broker logs.
type Log struct {
	Level  Level     `yaml:"level" doc:"debug, info, warn or error"`
	Format LogFormat `yaml:"format" doc:"text, json, or auto: coloured text on a terminal and json elsewhere"`
}

// Memory is how much memory the process aims to stay under.
type Memory struct {
	Limit Size `yaml:"limit" doc:"what the process aims to stay under; 0 is nine tenths of what the machine or its control group allows"`
}

// Retention is how the age of messages is told.
type Retention struct {
	TrustClock bool `yaml:"trust_clock" doc:"counts all time that the machine's clock says has passed while the broker was stopped, at once; otherwise up to seven days of it, and once the clock has run evenly for an hour"`
}

// Shutdown is how the broker stops.
type Shutdown struct {
	Timeout Duration `yaml:"timeout" doc:"how long it may take to let connections finish"`
}

// Metrics are the figures at /metrics.
type Metrics struct {
	Enabled bool `yaml:"enabled" doc:"serves /metrics on the HTTP addresses"`
}

// Debug is for those who look into the process.
type Debug struct {
	Pprof string `yaml:"pprof" doc:"loopback address, such as 127.0.0.1:6060, for Go's profiles; left out is none"`
}

// Default is the configuration of a broker that nobody configured: loopback
// only, and everything kept for a day or 8 GiB.
func Default() *Config {
	return &Config{
		Data:     "sluice-data",
		MQTT:     Listening{Listen: []Listener{{Address: "127.0.0.1:1883"}}},
		STOMP:    STOMP{Listen: []Listener{{Address: "127.0.0.1:61613"}}},
		HTTP:     HTTP{Listen: []Listener{{Address: "127.0.0.1:8080"}}},
		Auth:     Auth{Certificate: "cn"},
		Limits:   adapters.DefaultLimits(),
		Policies: []Policy{{Name: "default", Age: Duration(24 * time.Hour), Bytes: 8 << 30}},
		Log:      Log{Level: "info", Format: "auto"},
		Shutdown: Shutdown{Timeout: Duration(20 * time.Second)},
		Metrics:  Metrics{Enabled: true},
		Sys:      Duration(10 * time.Second),
	}
}
