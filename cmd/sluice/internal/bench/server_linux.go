package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sluicemq/sluice/cmd/sluice/internal/loopback"
)

// A kind is a broker that can be measured.
type kind struct {
	name string
	// version of the program, in one line.
	version func() (string, error)
	// command that runs the broker in dir, to listen on addresses of at.
	command func(dir string, at addresses) (*exec.Cmd, error)
	// beside is a program that has to run beside the broker; nil is none.
	beside func(at addresses) *exec.Cmd
	// ready says whether the broker takes connections; nil asks by a CONNECT
	// of MQTT.
	ready func(at addresses, d *dialer) bool
}

// addresses are where a server listens.
type addresses struct{ mqtt, stomp, http, pprof string }

// A server is a broker that was started for a run.
type server struct {
	kind
	addresses
	dir string // its data, which a second start finds again
	cmd *exec.Cmd
	// began is the time from its start to its first CONNACK.
	began time.Duration
	// started is when the process was, the last time.
	started time.Time
	ended   chan struct{} // closed when the process has
	// endBeside ends the program beside it.
	endBeside func()
	// external is the process of a server that was not started here.
	external int
}

// start starts a server in dir and waits until it answers a CONNECT.
func (k kind) start(ctx context.Context, dir string, d *dialer) (*server, error) {
	s := &server{kind: k, dir: dir}
	for _, to := range []*string{&s.mqtt, &s.stomp, &s.http, &s.pprof} {
		addr, err := loopback.FreeAddress()
		if err != nil {
			return nil, err
		}
		*to = addr
	}
	return s, s.run(ctx, d)
}

// run runs the process; again after a kill.
func (s *server) run(ctx context.Context, d *dialer) error {
	cmd, err := s.command(s.dir, s.addresses)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.dir+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	if s.beside != nil && s.endBeside == nil {
		b := s.beside(s.addresses)
		ended, err := startBound(b, log)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		s.endBeside = func() {
			b.Process.Kill()
			<-ended
		}
	}
	begin := time.Now()
	s.started = begin
	ended, err := startBound(cmd, log)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	s.cmd, s.ended = cmd, ended
	ready := s.kind.ready
	if ready == nil {
		ready = answersMQTT
	}
	for {
		if ready(s.addresses, d) {
			s.began = time.Since(begin)
			return nil
		}
		select {
		case <-ctx.Done():
			s.stop()
			return ctx.Err()
		case <-ended:
			return fmt.Errorf("%s ended at its start: %v; it said: %s", s.name, cmd.ProcessState, tail(s.dir+".log"))
		case <-time.After(2 * time.Millisecond):
		}
		if time.Since(begin) > 2*time.Minute {
			s.stop()
			return fmt.Errorf("%s does not answer; it said: %s", s.name, tail(s.dir+".log"))
		}
	}
}

// startBound starts a process that ends with this one: a generator that is
// killed leaves no server behind. ended is closed when it has ended.
func startBound(cmd *exec.Cmd, log *os.File) (ended chan struct{}, err error) {
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended = make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	return ended, nil
}

// answersMQTT says whether there is somebody who answers a CONNECT of MQTT.
func answersMQTT(at addresses, d *dialer) bool {
	fd, _, err := d.connectMQTT(at.mqtt, mqttHello{level: 4, id: "bench-ready"})
	if err != nil {
		return false
	}
	syscall.Close(fd)
	return true
}

// pid is the server's process.
func (s *server) pid() int {
	if s.external != 0 {
		return s.external
	}
	return s.cmd.Process.Pid
}

// kill ends the process at once, as a power cut would.
func (s *server) kill() {
	s.cmd.Process.Kill()
	<-s.ended
}

// stop ends the process and waits until it has ended.
func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(30 * time.Second):
		s.kill()
	}
	if s.endBeside != nil {
		s.endBeside()
		s.endBeside = nil
	}
}

func tail(file string) string {
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b[max(0, len(b)-2000):]))
}

// sluice is the kind of this program, or of another build of it.
func sluice(program string) kind {
	return kind{
		name: sluiceName,
		version: func() (string, error) {
			out, err := exec.Command(program, "--version").Output()
			return strings.TrimSpace(string(out)), err
		},
		command: func(dir string, at addresses) (*exec.Cmd, error) {
			cmd := exec.Command(program, "serve", "--data", filepath.Join(dir, "data"),
				"--mqtt", at.mqtt, "--stomp", at.stomp, "--http", at.http)
			// The backlog is more than a session is allowed by default.
			cmd.Env = append(os.Environ(), "SLUICE_DEBUG_PPROF="+at.pprof, "SLUICE_LIMITS_SESSION_MESSAGES=10000000", "SLUICE_LIMITS_SESSION_SIZE=8GiB")
			return cmd, nil
		},
	}
}

// mosquittoConfig is what mosquitto runs with: it keeps nothing on disk, holds
// back and drops nothing, and says nothing.
const mosquittoConfig = `listener %s 127.0.0.1
allow_anonymous true
persistence false
max_connections -1
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 0
sys_interval 0
connection_messages false
log_type error
log_dest stderr
`

// mosquitto is the kind of Debian's broker.
func mosquitto() (kind, error) {
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto"
		if _, err := os.Stat(program); err != nil {
			return kind{}, fmt.Errorf("mosquitto, the broker to compare with, is %w: apt-get install mosquitto", errNotInstalled)
		}
	}
	return kind{
		name: mosquittoName,
		version: func() (string, error) {
			// It exits with 3 after its help text, whose first line is the version.
			out, _ := exec.Command(program, "-h").Output()
			first, _, _ := strings.Cut(string(out), "\n")
			return first, nil
		},
		command: func(dir string, at addresses) (*exec.Cmd, error) {
			_, port, err := net.SplitHostPort(at.mqtt)
			if err != nil {
				return nil, err
			}
			file := filepath.Join(dir, "mosquitto.conf")
			if err := os.WriteFile(file, fmt.Appendf(nil, mosquittoConfig, port), 0o644); err != nil {
				return nil, err
			}
			return exec.Command(program, "-c", file), nil
		},
	}, nil
}
