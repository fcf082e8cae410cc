//go:build !linux

package vfs

import (
	"errors"
	"os"
)

// writeAsync and syncAsync are Linux's.
func writeAsync(*os.File, []byte, int64) (int, error) { return 0, errors.ErrUnsupported }
func syncAsync(*os.File) error                        { return errors.ErrUnsupported }
