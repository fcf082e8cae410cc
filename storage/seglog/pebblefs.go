package seglog

import (
	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/sluicemq/sluice/storage/vfs"
)

func pebbleFS(fs vfs.FS) pebblevfs.FS { return pebblevfs.Default }
