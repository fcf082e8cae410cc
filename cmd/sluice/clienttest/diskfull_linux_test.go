package clienttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDiskFull fills the disk under a broker: every protocol refuses publishes
// in its own way, consumers go on, and publishes do by themselves once there is
// room again.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=48m", "none", dir).CombinedOutput(); err != nil {
		t.Skipf("NOT RUN: a small file system cannot be mounted, which takes root: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	b := startBrokerIn(t, filepath.Join(dir, "data"))
	b.failing = true
	publish := make(map[string]publishFunc)
	for _, p := range publishers {
		f, err := opened(t, b, p)
		if err != nil {
			t.Fatal(err)
		}
		publish[p.name] = f
	}
	queue := queueAddress("work")
	m := message{Topic: "full", Payload: []byte("x")}
	for name, f := range publish {
		if err := errors.Join(f(topicAddress("full"), m), f(queue, message{Topic: queue.name(), Payload: []byte(name)})); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}

	ballast := filepath.Join(dir, "ballast")
	if err := fill(ballast); err != nil {
		t.Fatal(err)
	}
	// The broker looks at the disk every second; until it has, it may still
	// find room in what it has written zeros to.
	refusal := map[string]string{"Paho": "0x97", "curl": "507", "WebSocket": "storage_full", "MQTT.js": "", "stomp.py": "storage full", "STOMP.js": "storage full", "mosquitto_pub": ""}
	for _, p := range publishers {
		eventually(t, arrive, func() error {
			f, err := opened(t, b, p)
			if err != nil {
				return err
			}
			err = f(topicAddress("full"), m)
			if err == nil {
				return errors.New(p.name + ": a publish to a full disk was confirmed")
			}
			if !strings.Contains(err.Error(), refusal[p.name]) {
				return fmt.Errorf("%s: refused with %w, want %s", p.name, err, refusal[p.name])
			}
			return nil
		})
	}
	// Consumers go on: what is there can be read, and leased.
	got, err := curlRead(t, b, topicAddress("full"), "earliest")
	if err != nil || len(got) < len(publishers) {
		t.Errorf("%d messages can be read of a full disk, %v", len(got), err)
	}
	leased, err := curlLease(t, b, queue, 100, time.Second)
	if err != nil || len(leased) < len(publishers) {
		t.Errorf("%d messages can be leased, %v", len(leased), err)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for _, p := range publishers {
		eventually(t, arrive, func() error {
			f, err := opened(t, b, p)
			if err != nil {
				return err
			}
			return f(topicAddress("full"), m)
		})
	}
}

// fill writes a file until the disk is full.
func fill(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	piece := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(piece)
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = nil
	}
	return errors.Join(err, f.Close())
}
