package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
)

// A connecting holds the flags by which a command reaches a broker.
type connecting struct {
	via, broker, user, password, client string
	ca, cert, key                       string
	secure, insecure                    bool
	timeout                             time.Duration
}

// defaultVia is the protocol that tells the most: offsets at publish, headers
// in order, acknowledgement one by one.
const defaultVia = "ws"

func (o *connecting) flags(f *pflag.FlagSet, via bool) {
	if via {
		f.StringVar(&o.via, "via", envOr("SLUICE_VIA", defaultVia), "`protocol`: ws, http, mqtt or stomp")
	}
	f.StringVarP(&o.broker, "broker", "b", os.Getenv("SLUICE_BROKER"), "`address` of the broker: host, host:port or a URL (default 127.0.0.1)")
	f.StringVarP(&o.user, "user", "u", os.Getenv("SLUICE_USER"), "`user` to log in, or user:password")
	f.StringVarP(&o.password, "password", "P", "", "`password`; better SLUICE_PASSWORD, which nobody sees")
	if via {
		f.StringVar(&o.client, "client-id", "", "client `id`")
	}
	f.BoolVar(&o.secure, "tls", false, "use TLS")
	f.BoolVar(&o.insecure, "insecure", false, "do not check the broker's certificate")
	f.StringVar(&o.ca, "ca", "", "`file` with the authority of the broker's certificate")
	f.StringVar(&o.cert, "cert", "", "`file` with our certificate")
	f.StringVar(&o.key, "cert-key", "", "`file` with its key")
	f.DurationVar(&o.timeout, "timeout", 10*time.Second, "how long connecting may take")
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// options are the flags in the link's terms.
func (o *connecting) options() (link.Options, error) {
	out := link.Options{User: o.user, Password: o.password, Client: o.client, Timeout: o.timeout}
	if out.Password == "" {
		out.Password = os.Getenv("SLUICE_PASSWORD")
	}
	if name, password, ok := strings.Cut(o.user, ":"); ok {
		out.User, out.Password = name, password
	}
	address := o.broker
	if scheme, _, ok := strings.Cut(address, "://"); ok {
		u, err := url.Parse(address)
		// The path is the protocol's own; that of the banner may stay.
		if err != nil || u.Path != "" && u.Path != "/" && u.Path != "/ws" {
			return out, usageError{fmt.Errorf("%q is not the address of a broker: want scheme://host:port", address)}
		}
		address = u.Host
		switch scheme {
		case "https", "wss", "mqtts", "ssl", "tls", "stomp+ssl":
			o.secure = true
		}
		if u.User != nil && out.User == "" {
			out.User = u.User.Username()
			out.Password, _ = u.User.Password()
		}
	}
	o.secure = o.secure || o.insecure || o.ca != "" || o.cert != ""
	if address == "" {
		address = "127.0.0.1"
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), link.DefaultPort(o.via, o.secure))
	}
	out.Address = address
	if !o.secure {
		return out, nil
	}
	host, _, _ := net.SplitHostPort(address)
	out.TLS = &tls.Config{ServerName: host, InsecureSkipVerify: o.insecure, MinVersion: tls.VersionTLS12}
	if o.ca != "" {
		text, err := os.ReadFile(o.ca)
		if err != nil {
			return out, err
		}
		out.TLS.RootCAs = x509.NewCertPool()
		if !out.TLS.RootCAs.AppendCertsFromPEM(text) {
			return out, fmt.Errorf("%s: there is no certificate in it", o.ca)
		}
	}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return out, err
		}
		out.TLS.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// dial connects by the chosen protocol.
func (o *connecting) dial(ctx context.Context) (link.Link, error) {
	if !slices.Contains(link.Protocols, o.via) {
		return nil, usageError{fmt.Errorf("--via %s: want %s", o.via, strings.Join(link.Protocols, ", "))}
	}
	options, err := o.options()
	if err != nil {
		return nil, err
	}
	return link.Dial(ctx, o.via, options)
}

// interruptible is a context that ends at the first SIGINT or SIGTERM, after
// which the next one ends the process.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// readBody is the body of a message: the argument, or standard input where it
// is "-" or left out and something is piped in.
func readBody(c *cobra.Command, args []string) ([]byte, error) {
	if len(args) > 0 && args[0] != "-" {
		return []byte(args[0]), nil
	}
	in := c.InOrStdin()
	if f, ok := in.(*os.File); len(args) == 0 && ok && term.IsTerminal(int(f.Fd())) {
		return nil, usageError{errors.New("there is no body: give one, pipe one in, or - to type it")}
	}
	return io.ReadAll(in)
}
