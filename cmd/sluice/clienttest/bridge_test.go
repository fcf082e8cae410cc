package clienttest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// bridgeConfig is mosquitto's with a bridge to a broker: as it is by default,
// but that it does not wait for half a minute until it connects again.
const bridgeConfig = `listener %d 127.0.0.1
allow_anonymous true
connection sluice
address %s
bridge_protocol_version %s
restart_timeout 1
remote_clientid plant
topic in/# in 2
topic out/# out 2
topic both/# both 2
`

// startBridge starts a mosquitto that is bridged to the broker.
func startBridge(t *testing.T, b *broker, version string) (theirs *broker) {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto" // not in everybody's PATH
		if _, err := os.Stat(program); err != nil {
			tool(t, "mosquitto", "mosquitto")
		}
	}
	theirs = &broker{MQTT: freeAddress(t)}
	_, port := hostPort(theirs.MQTT)
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, bridgeConfig, port, b.MQTT, version), 0o644); err != nil {
		t.Fatal(err)
	}
	var log logBuffer
	cmd := exec.Command(program, "-c", file)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("mosquitto wrote:\n%s", log.String())
		}
	})
	eventually(t, 2*time.Minute, func() error {
		c, err := net.Dial("tcp", theirs.MQTT)
		if err == nil {
			c.Close()
		}
		return err
	})
	return theirs
}

// TestMosquittoBridge bridges a mosquitto to the broker, over each protocol that
// it has for it: what is published on one side comes to the other once, with each
// QoS and what is retained, to the side that published it not again, and over a
// kill of the broker.
func TestMosquittoBridge(t *testing.T) {
	for _, version := range []string{"mqttv311", "mqttv50"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			ours := startBroker(t)
			once := make(map[string]bool) // what is published with QoS 2
			publish := func(b *broker, topic, payload string, qos int, more ...string) {
				t.Helper()
				host, port := hostPort(b.MQTT)
				args := append([]string{"-h", host, "-p", strconv.Itoa(port), "-q", strconv.Itoa(qos), "-t", topic}, more...)
				if qos == 2 {
					once[topic+" "+payload] = true
				}
				if payload == "" {
					args = append(args, "-n")
				} else {
					args = append(args, "-m", payload)
				}
				if err := run(exec.Command(tool(t, "mosquitto_pub", "mosquitto-clients"), args...)); err != nil {
					t.Fatal(err)
				}
			}
			listen := func(b *broker, filters ...string) *inbox {
				t.Helper()
				args := []string{"-q", "2"}
				for _, f := range filters {
					args = append(args, "-t", f)
				}
				in, err := startMosquittoSub(t, b, args...)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { in.drop() })
				return in
			}
			// wants waits for what is to have come, in any order, and nothing else.
			// What was not published with QoS 2 may come again after the kill.
			wants := func(what string, in *inbox, want []string) {
				t.Helper()
				want = slices.Sorted(slices.Values(want))
				eventually(t, arrive, func() error {
					var got []string
					for _, m := range in.messages() {
						if text := m.Topic + " " + string(m.Payload); once[text] || !slices.Contains(got, text) {
							got = append(got, text)
						}
					}
					if slices.Sort(got); !slices.Equal(got, want) {
						return fmt.Errorf("%s: got %q, want %q", what, got, want)
					}
					return nil
				})
			}
			// keeps wants a topic's retained value.
			keeps := func(b *broker, topic, payload string) {
				t.Helper()
				got, err := listen(b, topic).wait(1, arrive)
				if err != nil || string(got[0].Payload) != payload || !got[0].Retain {
					t.Fatalf("%s: %v, %v", topic, got, err)
				}
			}

			// What is retained comes when the bridge does, which shows that it has.
			publish(ours, "both/kept", "1", 1, "-r")
			theirs := startBridge(t, ours, version)
			there := listen(theirs, "#")
			all := []string{"both/kept 1"}
			wants("there, at first", there, all)
			keeps(ours, "$SYS/broker/connection/plant/state", "1")

			for qos := range 3 {
				at := strconv.Itoa(qos)
				publish(ours, "in/"+at, "to there", qos)
				publish(theirs, "out/"+at, "to here", qos)
				publish(ours, "both/here/"+at, "to there", qos)
				publish(theirs, "both/there/"+at, "to here", qos)
				all = append(all, "in/"+at+" to there", "out/"+at+" to here", "both/here/"+at+" to there", "both/there/"+at+" to here")
			}
			publish(ours, "in/kept", "2", 1, "-r")
			publish(theirs, "out/kept", "3", 2, "-r")
			all = append(all, "in/kept 2", "out/kept 3")
			wants("there", there, all)
			here := listen(ours, "$replay/earliest/#")
			wants("here", here, all)
			keeps(theirs, "in/kept", "2")
			keeps(ours, "out/kept", "3")

			// An empty one removes them, or they would come again with the bridge.
			for _, x := range []struct {
				at    *broker
				topic string
			}{{ours, "both/kept"}, {ours, "in/kept"}, {theirs, "out/kept"}} {
				publish(x.at, x.topic, "", 1, "-r")
				all = append(all, x.topic+" ")
			}
			wants("there, removed", there, all)
			wants("here, removed", here, all)

			ours.kill()
			publish(theirs, "out/while", "to here", 1)
			publish(theirs, "both/while", "to here", 2)
			ours.start()
			all = append(all, "out/while to here", "both/while to here")
			if version == "mqttv50" {
				// It asks for no session expiry: what is published while it is
				// away is not for it.
				wants("here, after a kill", listen(ours, "$replay/earliest/#"), all)
			}
			publish(ours, "in/after", "to there", 2)
			all = append(all, "in/after to there")
			wants("there, after a kill", there, all)
			wants("here, after a kill", listen(ours, "$replay/earliest/#"), all)
			// Nothing has come twice that had not come yet.
			publish(theirs, "both/end", "", 2)
			all = append(all, "both/end ")
			wants("there, at last", there, all)
			wants("here, at last", listen(ours, "$replay/earliest/#"), all)
			keeps(ours, "$SYS/broker/connection/plant/state", "1")
		})
	}
}
