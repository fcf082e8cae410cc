package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/seglog"
	"github.com/sluicemq/sluice/storage/vfs"
)

// Find is the directory of a backup: dir itself, or the newest whole one in it.
func Find(f vfs.FS, dir string) (string, error) {
	_, err := f.Stat(path.Join(dir, manifestName))
	if err == nil {
		return dir, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	whole, unfinished, err := list(f, dir)
	switch {
	case err != nil:
		return "", err
	case len(whole) > 0:
		return whole[len(whole)-1], nil
	case len(unfinished) > 0 || namePattern.MatchString(path.Base(dir)):
		return "", fmt.Errorf("%s: %w", dir, ErrUnfinished)
	}
	return "", fmt.Errorf("%w: there is no backup in %s", core.ErrNotFound, dir)
}

// Verify compares every file of a backup with its manifest and names each that
// is not as it was.
func Verify(f vfs.FS, dir string, plan func(bytes int64), progress func(int)) (*Manifest, error) {
	m, err := readManifest(f, dir)
	if err != nil {
		return nil, err
	}
	plan(m.Bytes())
	if err := verify(f, dir, m, progress); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return m, nil
}

// Open reads the manifest of a whole backup.
func Open(f vfs.FS, dir string) (*Manifest, error) { return readManifest(f, dir) }

// ErrNotEmpty is what restoring over what is there gets.
var ErrNotEmpty = errors.New("not empty; restore into an empty or missing directory")

// Restore writes a backup into a data directory, which must be empty, or hold a
// restore that was not finished. Before it returns, all of it is durable and
// has been compared with the manifest. Until then the directory is not opened
// as a log.
func Restore(f vfs.FS, from, to string, plan func(bytes int64), progress func(int)) (_ *Manifest, err error) {
	m, err := readManifest(f, from)
	if err != nil {
		return nil, err
	}
	if err := f.MkdirAll(to); err != nil {
		return nil, err
	}
	lock, err := f.Lock(path.Join(to, lockName))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := beginRestore(f, to); err != nil {
		return nil, err
	}
	// Each byte is read, and what was written is read again.
	plan(2 * m.Bytes())
	if err := makeDirs(f, to); err != nil {
		return nil, err
	}
	for i := range m.Files {
		if err := restoreFile(f, from, to, &m.Files[i], progress); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{"log", "state"} {
		if err := f.SyncDir(path.Join(to, d)); err != nil {
			return nil, err
		}
	}
	if err := verify(f, to, m, progress); err != nil {
		return nil, fmt.Errorf("what was written to %s is not what is in the backup: %w", to, err)
	}
	if err := f.Rename(path.Join(to, seglog.RestoringName), path.Join(to, seglog.RestoredName)); err != nil {
		return nil, err
	}
	return m, f.SyncDir(to)
}

const restoringText = "sluice restore is writing this directory. It is not opened as a log until that\nhas ended; where it was interrupted, run it again.\n"

// beginRestore refuses a directory with something in it, and marks it as one
// that is being restored. What a restore left that was not finished is removed.
func beginRestore(f vfs.FS, dir string) error {
	names, err := f.List(dir)
	if err != nil {
		return err
	}
	marker := path.Join(dir, seglog.RestoringName)
	again := slices.Contains(names, seglog.RestoringName)
	for _, name := range names {
		switch name {
		case lockName, "lost+found", seglog.RestoringName, seglog.RestoringName + temporarySuffix:
			continue
		}
		if !again {
			return fmt.Errorf("%s: %w: there is %q", dir, ErrNotEmpty, name)
		}
		if name == "log" || name == "state" {
			if err := removeAll(f, path.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	if again {
		return nil
	}
	if err := f.SyncDir(path.Dir(dir)); err != nil {
		return err
	}
	return writeFile(f, marker, []byte(restoringText))
}

func restoreFile(f vfs.FS, from, to string, file *File, progress func(int)) error {
	in, err := f.OpenRead(path.Join(from, file.Name))
	if err != nil {
		return err
	}
	defer in.Close()
	size, err := in.Size()
	if err != nil {
		return err
	}
	_, sum, err := copyFile(f, path.Join(to, file.Name), io.NewSectionReader(in, 0, size), progress)
	if err == nil && (sum != file.SHA256 || size != file.Size) {
		err = fmt.Errorf("%w: %s is not as the manifest says; see sluice backup verify", ErrDamaged, file.Name)
	}
	return err
}
