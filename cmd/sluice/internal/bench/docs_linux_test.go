package bench

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The page names every scenario and shows the others' configurations as they are.
func TestDocumentation(t *testing.T) {
	b, err := os.ReadFile("../../../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, s := range scenarios() {
		if !s.named && !strings.Contains(page, "`"+s.name+"`") {
			t.Errorf("docs/benchmarks.md lacks %s", s.name)
		}
	}
	if !strings.Contains(page, fmt.Sprintf(mosquittoConfig, "PORT")) {
		t.Error("docs/benchmarks.md shows another configuration of mosquitto than the one that is used")
	}
	if !strings.Contains(page, fmt.Sprintf(rabbitmqConfig, "AMQP", "STOMP")) {
		t.Error("docs/benchmarks.md shows another configuration of RabbitMQ than the one that is used")
	}
}
