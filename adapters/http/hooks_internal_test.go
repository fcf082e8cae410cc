package http

import (
	"net/netip"
	"testing"
)

// Only public addresses are called, however they are written, and those that
// are allowed.
func TestWebhookAddresses(t *testing.T) {
	allow := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")}
	for address, ok := range map[string]bool{
		"93.184.216.34:443": true, "[2606:4700::1]:443": true, "10.1.2.3:80": true, "[::ffff:10.1.2.3]:80": true, "[fd00:1::5]:80": true,
		"127.0.0.1:80": false, "127.8.8.8:80": false, "[::1]:80": false, "[::ffff:127.0.0.1]:80": false, "0.0.0.0:80": false, "[::]:80": false, "0.1.2.3:80": false,
		"10.2.0.1:80": false, "172.16.0.1:80": false, "192.168.1.1:80": false, "[::ffff:192.168.1.1]:80": false, "[fd00:2::5]:80": false,
		"169.254.169.254:80": false, "[fe80::1]:80": false, "[fe80::1%eth0]:80": false, "100.64.0.1:80": false, "224.0.0.1:80": false, "[ff02::1]:80": false, "255.255.255.255:80": false,
		"192.0.2.1:80": false, "198.18.0.1:80": false, "[64:ff9b::7f00:1]:80": false, "[2002:7f00:1::]:80": false, "[::7f00:1]:80": false, "[2001:db8::1]:80": false, "240.0.0.1:80": false,
		"192.88.99.1:80": false, "[3fff::1]:80": false, "[5f00::1]:80": false, "[::127.0.0.1]:80": false, "[64:ff9b:1::a00:1]:80": false, "[2001::7f00:1]:80": false,
		"example.com:80": false, "": false,
	} {
		if err := checkAddress(address, allow); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}
