package main

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mqttclient "github.com/eclipse/paho.mqtt.golang"
)

// TestGoldenWills opens what a broker left behind that was killed, of a version
// that named wills by the clients' ids, and kept less of them: the sessions "a"
// and "fleet/7 100%", whose wills wait for the end of their sessions, and the
// clients "d/d" and "e/e", the second without a session, which were connected.
func TestGoldenWills(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(data, os.DirFS(filepath.Join(goldenDir, "v1-wills"))); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 10)
	seen := make(map[string]bool)
	expect := func(want string) {
		t.Helper()
		for late := time.After(time.Minute); ; {
			select {
			case m := <-got:
				if m != want && seen[m] {
					continue // its acknowledgement was lost with the connection
				}
				if seen[m] = true; m != want {
					t.Errorf("got %q, want %q", m, want)
				}
				return
			case <-late:
				t.Fatalf("%q did not come", want)
			}
		}
	}
	end := func(http, id string) {
		t.Helper()
		ask(t, "DELETE", http+"/v1/queues/"+url.PathEscape("$session/"+id), "")
	}
	mqtt, http, stop := goldenBroker(t, data)
	c := goldenSession(t, mqtt, func(m mqttclient.Message) { got <- m.Topic() + " " + string(m.Payload()) })
	expect("left/e was connected without a session")
	end(http, "fleet%2F7 100%25")
	expect("left/b waits, too")
	c.Disconnect(1000)
	stop()
	// Nothing of them is as that version left it any more.
	mqtt, http, stop = goldenBroker(t, data)
	defer stop()
	c = goldenSession(t, mqtt, func(m mqttclient.Message) { got <- m.Topic() + " " + string(m.Payload()) })
	defer c.Disconnect(0)
	end(http, "d%2Fd")
	expect("left/d was connected")
	end(http, "a")
	expect("left/a waits")
	// All have been published once, and those that expire do so in an hour.
	read, _ := ask(t, "GET", http+"/t/left/%23?from=earliest", "")
	if strings.Count(read, "\n") != 4 || strings.Count(read, `"ttl":`) != 2 {
		t.Errorf("the log has\n%s", read)
	}
}
