package coretest

import (
	"context"

	"github.com/sluicemq/sluice/core"
)

// Reads is an engine that counts the records that are read of it.
type Reads struct {
	core.Engine
	Records int // one reads at a time
}

// Read implements core.Engine.
func (r *Reads) Read(ctx context.Context, from, limit core.Offset, filters *core.FilterSet, buf *core.ReadBuffer) (core.Offset, error) {
	next, err := r.Engine.Read(ctx, from, limit, filters, buf)
	r.Records += len(buf.Records)
	return next, err
}
