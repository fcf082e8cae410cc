package core_test

import (
	"bytes"
	"context"
	"log/slog"
	"regexp"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest"
)

// A slowEngine takes its time for each record.
type slowEngine struct {
	*coretest.Engine
	took time.Duration
}

func (g *slowEngine) Read(ctx context.Context, from, limit core.Offset, filters *core.FilterSet, buf *core.ReadBuffer) (core.Offset, error) {
	time.Sleep(g.took)
	buf.MaxRecords = 1
	return g.Engine.Read(ctx, from, limit, filters, buf)
}

// A broker that takes longer than a second to start says each second how far it
// is; one that does not says nothing.
func TestStartTellsItsProgress(t *testing.T) {
	for _, took := range []time.Duration{time.Millisecond, 400 * time.Millisecond} {
		run(t, func(w *world) {
			p := w.peer("p")
			for _, name := range []string{"a", "b"} {
				p.declare(name, core.QueueSettings{MaxLength: 100}, core.Binding{Filter: "t"})
			}
			p.publish("t", "1", "2", "3", "4", "5")
			var said bytes.Buffer
			w.close()
			w.o.Engine = &slowEngine{w.engine, took}
			w.o.Logger = slog.New(slog.NewTextHandler(&said, nil))
			w.open()
			lines := regexp.MustCompile(`msg="broker is being recovered" step="counting what bounded queues hold" percent=(\d+)`).FindAllStringSubmatch(said.String(), -1)
			if took < time.Second/10 {
				if len(lines) > 0 {
					t.Errorf("it said %s", said.String())
				}
				return
			}
			if len(lines) < 3 || lines[0][1] == "0" || lines[0][1] == lines[len(lines)-1][1] {
				t.Errorf("it said %s", said.String())
			}
		})
	}
}
