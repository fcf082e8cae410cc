package vfs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openDirect opens a file that is open once more, for direct writes. It may have
// got another name meanwhile.
func openDirect(f *os.File) (*os.File, error) {
	return os.OpenFile(fmt.Sprint("/proc/self/fd/", f.Fd()), os.O_WRONLY|unix.O_DIRECT, 0)
}
