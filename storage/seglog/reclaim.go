package seglog

import (
	"context"

	"github.com/sluicemq/sluice/core"
)

func (r *recovery) scanRewritten(s *segment, size int64) error { return nil }
func (l *Log) reportDamage(s *segment, pos int64, from, to core.Offset, err error) {
	l.log.Error("log is damaged", "file", s.name, "byte", pos, "from", from, "to", to, "err", err)
}
func (l *Log) Reclaim(ctx context.Context, r core.Retention) (core.Reclaimed, error) {
	first, _ := l.Bounds()
	return core.Reclaimed{First: first}, nil
}
