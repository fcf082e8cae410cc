package vfs

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A direct is a file opened once more, for writes past the page cache.
type direct struct {
	mu    sync.Mutex // guards what follows
	file  *os.File
	asked bool // whether that can be; it is not asked again
}

// open is the file to write to, or nil where there is none. The second opening is
// by the first one, as the file may have another name by now.
func (d *direct) open(f *os.File) *os.File {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.asked {
		d.asked = true
		d.file, _ = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY|unix.O_DIRECT, 0)
	}
	return d.file
}

// close closes it for good.
func (d *direct) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = true
	if d.file != nil {
		d.file.Close()
		d.file = nil
	}
}

// rest closes it until it is asked for again.
func (d *direct) rest() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file != nil {
		d.asked = false
		d.file.Close()
		d.file = nil
	}
}
