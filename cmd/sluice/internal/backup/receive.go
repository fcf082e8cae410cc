package backup

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A Folder holds backups, each in a directory that is named by its time. It is
// locked while it is open.
type Folder struct {
	fs   vfs.FS
	dir  string
	lock io.Closer
	last string // directory of the newest whole backup, "" if there is none
	had  *Manifest
	// unfinished are the directories of backups that were not finished.
	unfinished []string
}

// A Result says what became of a backup.
type Result struct {
	Dir string `json:"backup"`
	// Manifest of it; Copied and Kept are the bytes that came and those that
	// were there from the backup before.
	Manifest *Manifest `json:"-"`
	Copied   int64     `json:"copied"`
	Kept     int64     `json:"kept"`
}

const (
	nameFormat = "20060102T150405.000Z"
	lockName   = "LOCK"
)

var namePattern = regexp.MustCompile(`^\d{8}T\d{6}\.\d{3}Z$`)

// OpenFolder opens a folder of backups, and makes it if it is missing.
func OpenFolder(f vfs.FS, dir string) (_ *Folder, err error) {
	if _, err := f.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := f.MkdirAll(dir); err != nil {
			return nil, err
		}
		if err := f.SyncDir(path.Dir(dir)); err != nil {
			return nil, err
		}
	}
	o := &Folder{fs: f, dir: dir}
	if o.lock, err = f.Lock(path.Join(dir, lockName)); err != nil {
		return nil, err
	}
	whole, unfinished, err := list(f, dir)
	if err == nil && len(whole) > 0 {
		o.last = whole[len(whole)-1]
		o.had, err = readManifest(f, o.last)
	}
	o.unfinished = unfinished
	if err != nil {
		return nil, errors.Join(err, o.lock.Close())
	}
	return o, nil
}

// Close unlocks the folder.
func (o *Folder) Close() error { return o.lock.Close() }

// Request is what to ask the broker for.
func (o *Folder) Request() Request {
	r := Request{Have: []File{}}
	if o.had != nil {
		r.Have = o.had.Files
	}
	return r
}

// List returns the directories of the whole backups in a folder, oldest first.
func List(f vfs.FS, dir string) ([]string, error) {
	whole, _, err := list(f, dir)
	return whole, err
}

func list(f vfs.FS, dir string) (whole, unfinished []string, err error) {
	names, err := f.List(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if !namePattern.MatchString(name) {
			continue
		}
		at := path.Join(dir, name)
		_, err := f.Stat(path.Join(at, manifestName))
		switch {
		case err == nil:
			whole = append(whole, at)
		case errors.Is(err, fs.ErrNotExist):
			unfinished = append(unfinished, at)
		default:
			return nil, nil, err
		}
	}
	return whole, unfinished, nil
}

// Receive makes a backup of the stream that Send wrote for the folder's
// Request. plan is told how many bytes will come, progress of each part.
// What came is durable when it returns; a backup that fails, or that is cut
// off by a crash, is not taken for one, and the next one removes it.
func (o *Folder) Receive(r io.Reader, plan func(bytes int64), progress func(int)) (*Result, error) {
	for _, dir := range o.unfinished {
		if err := removeAll(o.fs, dir); err != nil {
			return nil, err
		}
	}
	o.unfinished = nil
	t := tar.NewReader(r)
	var p Plan
	if err := receiveJSON(t, planName, &p); err != nil {
		return nil, err
	}
	if err := p.check(false); err != nil {
		return nil, err
	}
	plan(p.sent())
	m := &p.Manifest
	dir := path.Join(o.dir, o.name(m.Time))
	result := &Result{Dir: dir, Manifest: m}
	if err := makeDirs(o.fs, dir); err != nil {
		return nil, err
	}
	for i := range m.Files {
		if err := o.receiveFile(t, dir, &p, i, result, progress); err != nil {
			return nil, err
		}
	}
	var end Manifest
	if err := receiveJSON(t, manifestName, &end); err != nil {
		return nil, err
	}
	if err := sameSums(&p, &end); err != nil {
		return nil, err
	}
	if _, err := t.Next(); err == nil {
		return nil, fmt.Errorf("%w: the broker sent more than it said", core.ErrInvalid)
	} else if err != io.EOF {
		return nil, cut(err)
	}
	// Whoever sends is let finish.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, cut(err)
	}
	for _, d := range []string{"log", "state"} {
		if err := o.fs.SyncDir(path.Join(dir, d)); err != nil {
			return nil, err
		}
	}
	if err := writeManifest(o.fs, dir, m); err != nil {
		return nil, err
	}
	return result, o.fs.SyncDir(o.dir)
}

// name is a backup's. It is behind the names of those before, also where the
// broker's clock went back.
func (o *Folder) name(t time.Time) string {
	if last, err := time.Parse(nameFormat, path.Base(o.last)); err == nil && !t.Truncate(time.Millisecond).After(last) {
		t = last.Add(time.Millisecond)
	}
	return t.UTC().Format(nameFormat)
}

// makeDirs makes the directories of a backup, or of a data directory, and their
// names durable.
func makeDirs(f vfs.FS, dir string) error {
	for _, d := range []string{"log", "state"} {
		if err := f.MkdirAll(path.Join(dir, d)); err != nil {
			return err
		}
	}
	if err := f.SyncDir(dir); err != nil {
		return err
	}
	return f.SyncDir(path.Dir(dir))
}

// receiveFile takes the plan's i-th file, from the stream or from the backup
// before.
func (o *Folder) receiveFile(t *tar.Reader, dir string, p *Plan, i int, result *Result, progress func(int)) error {
	f := &p.Files[i]
	name := path.Join(dir, f.Name)
	if p.kept(f.Name) {
		had := o.had.file(f.Name)
		if had == nil || had.Size != f.Size {
			return fmt.Errorf("%w: the broker keeps %s back, which is not here", core.ErrInvalid, f.Name)
		}
		f.SHA256 = had.SHA256
		result.Kept += f.Size
		return o.keep(path.Join(o.last, f.Name), name, had)
	}
	h, err := t.Next()
	if err != nil {
		return cut(err)
	}
	if h.Name != f.Name || h.Size != f.Size {
		return fmt.Errorf("%w: the broker sent %q, %d bytes, where %q, %d bytes, was to come", core.ErrInvalid, h.Name, h.Size, f.Name, f.Size)
	}
	size, sum, err := copyFile(o.fs, name, t, progress)
	if err != nil {
		return cut(err)
	}
	if size != f.Size {
		return cut(io.ErrUnexpectedEOF)
	}
	f.SHA256 = sum
	result.Copied += size
	return nil
}

// keep gives a file of the backup before a second name, or copies it where the
// file system has no such thing.
func (o *Folder) keep(from, to string, had *File) error {
	if o.fs.Link(from, to) == nil {
		return nil
	}
	file, err := o.fs.OpenRead(from)
	if err != nil {
		return err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return err
	}
	_, sum, err := copyFile(o.fs, to, io.NewSectionReader(file, 0, size), func(int) {})
	if err == nil && sum != had.SHA256 {
		err = fmt.Errorf("%w: %s has another checksum than it had", ErrDamaged, from)
	}
	return err
}

// sameSums compares what was received with what the broker read.
func sameSums(p *Plan, end *Manifest) error {
	if err := end.check(false); err != nil {
		return err
	}
	for i := range p.Files {
		f, of := &p.Files[i], end.file(p.Files[i].Name)
		if of == nil || !p.kept(f.Name) && of.SHA256 != f.SHA256 {
			return fmt.Errorf("%w: %s came otherwise than it was sent", ErrDamaged, f.Name)
		}
	}
	return nil
}

func receiveJSON(t *tar.Reader, name string, into any) error {
	h, err := t.Next()
	if err != nil {
		return cut(err)
	}
	if h.Name != name || h.Size > manifestBytes {
		return fmt.Errorf("%w: the broker sent %q, %d bytes, where %s was to come", core.ErrInvalid, h.Name, h.Size, name)
	}
	text, err := io.ReadAll(t)
	if err != nil {
		return cut(err)
	}
	return json.Unmarshal(text, into)
}

// cut says that a stream ended early.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the broker ended the stream early: %w", ErrUnfinished, err)
	}
	return err
}

// removeAll removes a directory, its manifest first, so that what is left of it
// after a crash is not taken for whole.
func removeAll(f vfs.FS, dir string) error {
	names, err := f.List(dir)
	if err != nil {
		return err
	}
	if i := slices.Index(names, manifestName); i > 0 {
		names[0], names[i] = names[i], names[0]
	}
	for _, name := range names {
		at := path.Join(dir, name)
		info, err := f.Stat(at)
		if err != nil {
			return err
		}
		if info.Dir {
			err = removeAll(f, at)
		} else {
			err = f.Remove(at)
		}
		if err != nil {
			return err
		}
	}
	return f.Remove(dir)
}
