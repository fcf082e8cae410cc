package bench

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// errNotInstalled says that a broker to compare with is not there.
var errNotInstalled = errors.New("not installed")

// rabbitmqConfig is what RabbitMQ runs with: STOMP and AMQP on loopback, and
// otherwise its defaults, by which /queue/q is a classic durable queue.
const rabbitmqConfig = `listeners.tcp.1 = %s
stomp.listeners.tcp.1 = %s
stomp.default_user = guest
stomp.default_pass = guest
log.console = true
log.console.level = error
log.file = false
`

// rabbitmqHome is where Debian has it.
const rabbitmqHome = "/usr/lib/rabbitmq"

// rabbitmq is the kind of Debian's RabbitMQ with its STOMP plugin. It keeps all
// its files in dir, and its node and the port mapper that it needs beside it
// listen on loopback.
func rabbitmq() (kind, error) {
	program := filepath.Join(rabbitmqHome, "bin", "rabbitmq-server")
	mapper, err := exec.LookPath("epmd")
	if _, missing := os.Stat(program); missing != nil || err != nil {
		return kind{}, fmt.Errorf("RabbitMQ is %w: apt-get install rabbitmq-server", errNotInstalled)
	}
	port := func(address string) string {
		_, p, _ := net.SplitHostPort(address)
		return p
	}
	return kind{
		name: rabbitmqName,
		version: func() (string, error) {
			found, err := filepath.Glob(filepath.Join(rabbitmqHome, "lib", "rabbitmq_server-*"))
			if err != nil || len(found) == 0 {
				return "", fmt.Errorf("no version below %s", rabbitmqHome)
			}
			return "RabbitMQ " + strings.TrimPrefix(filepath.Base(found[0]), "rabbitmq_server-"), nil
		},
		// Of the addresses, AMQP has MQTT's, the port mapper pprof's, and the
		// node HTTP's.
		beside: func(at addresses) *exec.Cmd {
			return exec.Command(mapper, "-port", port(at.pprof), "-address", "127.0.0.1")
		},
		ready: func(at addresses, d *dialer) bool { return answersSTOMP(at.stomp, d) },
		command: func(dir string, at addresses) (*exec.Cmd, error) {
			for name, text := range map[string]string{
				"rabbitmq.conf": fmt.Sprintf(rabbitmqConfig, at.mqtt, at.stomp), "plugins": "[rabbitmq_stomp].",
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					return nil, err
				}
			}
			cmd := exec.Command(program)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "HOME="+dir,
				"ERL_EPMD_PORT="+port(at.pprof), "ERL_EPMD_ADDRESS=127.0.0.1",
				"RABBITMQ_NODENAME=bench@localhost", "RABBITMQ_DIST_PORT="+port(at.http),
				"RABBITMQ_MNESIA_BASE="+filepath.Join(dir, "mnesia"), "RABBITMQ_LOG_BASE="+filepath.Join(dir, "log"),
				"RABBITMQ_CONF_ENV_FILE="+filepath.Join(dir, "none"), "RABBITMQ_ADVANCED_CONFIG_FILE="+filepath.Join(dir, "none"),
				"RABBITMQ_CONFIG_FILE="+filepath.Join(dir, "rabbitmq"), "RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(dir, "plugins"),
				"RABBITMQ_PID_FILE="+filepath.Join(dir, "pid"),
				// Without a shell in front of it that would have to be ended too.
				"RABBITMQ_ALLOW_INPUT=1",
				"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput -kernel inet_dist_use_interface {127,0,0,1}")
			return cmd, nil
		},
	}, nil
}

// activemqHome is where Debian has it.
const activemqHome = "/usr/share/activemq"

// activemq is the kind of Debian's ActiveMQ (Classic) with STOMP, its messages
// in KahaDB, which syncs.
func activemq() (kind, error) {
	program := filepath.Join(activemqHome, "bin", "activemq.jar")
	java, err := exec.LookPath("java")
	if _, missing := os.Stat(program); missing != nil || err != nil {
		return kind{}, fmt.Errorf("ActiveMQ is %w: apt-get install activemq", errNotInstalled)
	}
	return kind{
		name: activemqName,
		version: func() (string, error) {
			out, err := exec.Command("dpkg-query", "-W", "-f=${Version}", "activemq").Output()
			return "ActiveMQ " + strings.TrimSpace(string(out)), err
		},
		ready: func(at addresses, d *dialer) bool { return answersSTOMP(at.stomp, d) },
		command: func(dir string, at addresses) (*exec.Cmd, error) {
			conf, data := filepath.Join(dir, "conf"), filepath.Join(dir, "data")
			if err := os.MkdirAll(conf, 0o755); err != nil {
				return nil, err
			}
			cmd := exec.Command(java, "-Xms512M", "-Xmx1G", "-Djava.io.tmpdir="+dir,
				"-Dactivemq.home="+activemqHome, "-Dactivemq.base="+dir, "-Dactivemq.conf="+conf, "-Dactivemq.data="+data, "-Dactivemq.classpath="+conf,
				"-jar", program, "start",
				fmt.Sprintf("broker:(stomp://%s)?persistent=true&useJmx=false&brokerName=bench&dataDirectory=%s", at.stomp, data))
			cmd.Dir = dir
			return cmd, nil
		},
	}, nil
}

// answersSTOMP says whether there is somebody who answers a CONNECT of STOMP.
func answersSTOMP(addr string, d *dialer) bool {
	fd, err := d.connectSTOMP(addr)
	if err != nil {
		return false
	}
	syscall.Close(fd)
	return true
}
