package seglog

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"strings"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A state that was put together takes the place of the one that is damaged file
// by file, and the process may end in between. So it is written down first, and
// whoever opens the directory next finishes it: SwapName says which of the two
// steps it has come to, and where the old files go. Until it is there, the new
// state is nothing; from then on, it is the state.
const (
	// SwapName is the name of that file in a data directory.
	SwapName = "SWAP"

	swapVersion = 2
	swapHead    = "Sluice swap %d: "
	swapBody    = swapHead + "step %d, old state to %s" // all of a line of version 1
	swapSum     = ", checksum %08x"

	swapOut = 1 // the old files move aside: none of those in state are new
	swapIn  = 2 // the new ones take their place: all of those in state are new
)

// swapLine is a line of the file, of a version.
func swapLine(version, step int, aside string) string {
	line := fmt.Sprintf(swapBody, version, step, aside)
	if version > 1 {
		line += fmt.Sprintf(swapSum, crc32.Checksum([]byte(line), castagnoli))
	}
	return line + "\n"
}

// writeSwap says it twice, with an empty line in between: whichever byte is
// damaged, one of the lines is whole.
func writeSwap(f vfs.FS, dir string, step int, aside string) error {
	line := swapLine(swapVersion, step, aside)
	return writeFile(f, path.Join(dir, SwapName), []byte(line+"\n"+line))
}

// readSwap reads how far a swap has come; step is 0 where there is none.
func readSwap(f vfs.FS, dir string) (step int, aside string, err error) {
	file, err := f.OpenRead(path.Join(dir, SwapName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", err
	}
	b := make([]byte, 512)
	n, err := readFull(file, b, 0)
	if err = errors.Join(err, file.Close()); err != nil {
		return 0, "", err
	}
	var wrong error
	for line := range strings.Lines(string(b[:n])) {
		if step, aside, err = parseSwap(line); err == nil {
			return step, aside, nil
		}
		if wrong == nil || errors.As(err, new(errVersion)) {
			wrong = err
		}
	}
	if wrong == nil {
		wrong = errSwap
	}
	return 0, "", wrong
}

var errSwap = fmt.Errorf("%w: %s does not say how far the state's mending has come", core.ErrCorrupt, SwapName)

// parseSwap reads a line. As with other files, one of a version that is not known
// is errVersion, unless the version is all that is wrong with it.
func parseSwap(line string) (step int, aside string, err error) {
	version := 0
	if _, err := fmt.Sscanf(line, swapHead, &version); err != nil {
		return 0, "", errSwap
	}
	_, err = fmt.Sscanf(line, swapBody, &version, &step, &aside)
	if aside = strings.TrimSuffix(aside, ","); err == nil && (step == swapOut || step == swapIn) && aside == path.Base(aside) {
		switch line {
		case swapLine(1, step, aside), swapLine(swapVersion, step, aside):
			return step, aside, nil
		}
		_, rest, _ := strings.Cut(line, ":")
		if _, known, _ := strings.Cut(swapLine(swapVersion, step, aside), ":"); rest == known {
			return 0, "", errSwap
		}
	}
	if version > swapVersion && version < maxVersion {
		return 0, "", errVersion{SwapName, uint32(version), swapVersion}
	}
	return 0, "", errSwap
}

// finishSwap finishes a swap, if one has begun.
func finishSwap(f vfs.FS, dir string) (done bool, err error) {
	step, aside, err := readSwap(f, dir)
	if err != nil || step == 0 {
		return false, err
	}
	state, salvaged := path.Join(dir, stateDirName), path.Join(dir, salvageName)
	if step == swapOut {
		if err := moveAll(f, state, path.Join(dir, aside)); err != nil {
			return false, err
		}
		if err := writeSwap(f, dir, swapIn, aside); err != nil {
			return false, err
		}
	}
	if err := moveAll(f, salvaged, state); err != nil {
		return false, err
	}
	for _, name := range []string{salvaged, path.Join(dir, SwapName)} {
		if err := f.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, f.SyncDir(dir)
}

// moveAll moves the files of one directory, which may not be there, to another
// one, and makes that durable.
func moveAll(f vfs.FS, from, to string) error {
	if err := f.MkdirAll(to); err != nil {
		return err
	}
	names, err := f.List(from)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.Join(f.SyncDir(to), f.SyncDir(path.Dir(to)))
	case err != nil:
		return err
	}
	for _, name := range names {
		if err := f.Rename(path.Join(from, name), path.Join(to, name)); err != nil {
			return err
		}
	}
	return errors.Join(f.SyncDir(to), f.SyncDir(from), f.SyncDir(path.Dir(to)))
}
