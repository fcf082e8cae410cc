package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"

	"github.com/sluicemq/sluice/configs"
)

// banner says where the broker listens and how to try it.
func banner(w io.Writer, cfg *configs.Config, g *gateway) {
	data := cfg.Path("data", cfg.Data)
	if abs, err := filepath.Abs(data); err == nil {
		data = abs
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Sluice %s is ready. Its log is in %s\n\n", versionString(), data)
	plain := make(map[string]string) // address without TLS, by protocol
	for _, d := range g.doors {
		for i, a := range d.addrs() {
			address := reachable(a)
			scheme, secure := map[string]string{"mqtt": "mqtt", "stomp": "stomp", "http": "http"}[d.name], ""
			if d.listen[i].TLS.Enabled() {
				scheme, secure = map[string]string{"mqtt": "mqtts", "stomp": "stomp+ssl", "http": "https"}[d.name], "s"
			} else if plain[d.name] == "" {
				plain[d.name] = address
			}
			switch d.name {
			case "http":
				fmt.Fprintf(&b, "  %-10s %s://%s  (in a browser: %s://%s/try)\n", "HTTP", scheme, address, scheme, address)
				fmt.Fprintf(&b, "  %-10s ws%s://%s/ws  (MQTT and STOMP too, by subprotocol)\n", "WebSocket", secure, address)
			default:
				fmt.Fprintf(&b, "  %-10s %s://%s\n", strings.ToUpper(d.name), scheme, address)
			}
		}
	}
	if g.access == nil {
		if try := tryLines(plain); try != "" {
			b.WriteString("\nTry it, in two terminals:\n\n" + try)
		}
	}
	b.WriteString("\nCtrl-C stops it.\n")
	io.WriteString(w, b.String())
}

// tryLines are a subscriber and a publisher for the addresses.
func tryLines(plain map[string]string) string {
	var b strings.Builder
	if at := plain["mqtt"]; at != "" {
		host, port, _ := net.SplitHostPort(at)
		where := ""
		if host != "127.0.0.1" && host != "::1" {
			where += " -h " + host
		}
		if port != "1883" {
			where += " -p " + port
		}
		fmt.Fprintf(&b, "  mosquitto_sub%s -t hello\n", where)
	} else if at := plain["http"]; at != "" {
		fmt.Fprintf(&b, "  curl -N %s/sse/hello\n", at)
	}
	if at := plain["http"]; at != "" {
		fmt.Fprintf(&b, "  curl -d 'it works' %s/t/hello\n", at)
	} else if b.Len() > 0 {
		fmt.Fprintf(&b, "  %s -m 'it works'\n", strings.Replace(strings.TrimSpace(b.String()), "mosquitto_sub", "mosquitto_pub", 1))
	}
	return b.String()
}

// reachable is an address as somebody on this machine can write it.
func reachable(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok || !t.IP.IsUnspecified() {
		return a.String()
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(t.Port))
}
