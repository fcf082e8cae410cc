package backup

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/vfs"
)

// A Manifest says what a backup holds.
type Manifest struct {
	// Format of the backup; see formatVersion.
	Format int `json:"format"`
	// Time at which the broker took the snapshot, and the log's bounds then.
	Time  time.Time   `json:"time"`
	First core.Offset `json:"first"`
	End   core.Offset `json:"end"`
	Files []File      `json:"files"`
}

// A File is one file of a backup.
type File struct {
	// Name is slash-separated, below the data directory.
	Name string `json:"name"`
	Size int64  `json:"size"`
	// ID names the content where the broker has a name for it.
	ID string `json:"id,omitempty"`
	// SHA256 of the content, in hexadecimal.
	SHA256 string `json:"sha256,omitempty"`
}

const (
	formatVersion = 1

	manifestName = "MANIFEST.json"
	// sumName holds the manifest's own checksum, as sha256sum writes it.
	sumName         = "MANIFEST.sha256"
	temporarySuffix = ".tmp"

	// manifestBytes bounds a manifest, and a plan.
	manifestBytes = 256 << 20
)

// ErrDamaged says that a backup is not what it was.
var ErrDamaged = errors.New("the backup is damaged")

// ErrUnfinished says that a backup was not finished.
var ErrUnfinished = errors.New("the backup was not finished")

// Bytes are those of all files.
func (m *Manifest) Bytes() (n int64) {
	for i := range m.Files {
		n += m.Files[i].Size
	}
	return n
}

// file finds a file by name.
func (m *Manifest) file(name string) *File {
	if m == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(m.Files, name, func(f File, name string) int { return cmp.Compare(f.Name, name) })
	if !ok {
		return nil
	}
	return &m.Files[i]
}

// check says what is wrong with a manifest, or with a plan, that came from
// elsewhere.
func (m *Manifest) check(sums bool) error {
	if m.Format != formatVersion {
		return fmt.Errorf("%w: a backup of format %d; this program knows %d", core.ErrInvalid, m.Format, formatVersion)
	}
	for i := range m.Files {
		f := &m.Files[i]
		if err := checkName(f.Name); err != nil {
			return err
		}
		if i > 0 && f.Name <= m.Files[i-1].Name {
			return fmt.Errorf("%w: its files are not in order at %q", ErrDamaged, f.Name)
		}
		if sum, err := hex.DecodeString(f.SHA256); f.Size < 0 || sums && (err != nil || len(sum) != sha256.Size) {
			return fmt.Errorf("%w: the manifest's entry of %q", ErrDamaged, f.Name)
		}
	}
	return nil
}

// checkName says whether a file may have a name: it is in the log or in the
// state, and nowhere else.
func checkName(name string) error {
	dir, base, ok := strings.Cut(name, "/")
	if !ok || dir != "log" && dir != "state" || base == "" || base == "." || base == ".." || strings.ContainsAny(base, "/\\\x00") {
		return fmt.Errorf("%w: a file named %q", ErrDamaged, name)
	}
	return nil
}

// readManifest reads and checks the manifest of a backup.
func readManifest(f vfs.FS, dir string) (*Manifest, error) {
	text, err := readAll(f, path.Join(dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrUnfinished)
	}
	if err != nil {
		return nil, err
	}
	said, err := readAll(f, path.Join(dir, sumName))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(said, sumLine(text)) {
		return nil, fmt.Errorf("%s: %w: %s does not match %s", dir, ErrDamaged, manifestName, sumName)
	}
	m := new(Manifest)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("%s: %w: %s: %w", dir, ErrDamaged, manifestName, err)
	}
	if err := m.check(true); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return m, nil
}

// writeManifest ends a backup, whose files are durable.
func writeManifest(f vfs.FS, dir string, m *Manifest) error {
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if err := writeFile(f, path.Join(dir, sumName), sumLine(text)); err != nil {
		return err
	}
	return writeFile(f, path.Join(dir, manifestName), text)
}

func sumLine(text []byte) []byte {
	sum := sha256.Sum256(text)
	return fmt.Appendf(nil, "%x  %s\n", sum, manifestName)
}

// readAll reads a small file.
func readAll(f vfs.FS, name string) ([]byte, error) {
	file, err := f.OpenRead(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	if size > manifestBytes {
		return nil, fmt.Errorf("%s: %w: it has %d bytes", name, ErrDamaged, size)
	}
	return io.ReadAll(io.NewSectionReader(file, 0, size))
}

// writeFile makes a small file, whole and durable.
func writeFile(f vfs.FS, name string, content []byte) error {
	file, err := f.Create(name + temporarySuffix)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(content, 0)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := f.Rename(name+temporarySuffix, name); err != nil {
		return err
	}
	return f.SyncDir(path.Dir(name))
}

// copyChunk is how much is copied at once.
const copyChunk = 1 << 20

// copyFile makes a file of what r has, durable but for its name, and returns
// its size and checksum.
func copyFile(f vfs.FS, name string, r io.Reader, progress func(int)) (size int64, sum string, err error) {
	file, err := f.Create(name)
	if err != nil {
		return 0, "", err
	}
	hash := sha256.New()
	buf := make([]byte, copyChunk)
	for err == nil {
		var n int
		n, err = io.ReadFull(r, buf)
		if n == 0 {
			break
		}
		hash.Write(buf[:n])
		if _, werr := file.WriteAt(buf[:n], size); werr != nil {
			err = werr
			break
		}
		size += int64(n)
		progress(n)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if err == nil {
		err = file.Sync()
	}
	return size, hex.EncodeToString(hash.Sum(nil)), errors.Join(err, file.Close())
}

// sumFile is a file's size and checksum.
func sumFile(f vfs.FS, name string, progress func(int)) (int64, string, error) {
	file, err := f.OpenRead(name)
	if err != nil {
		return 0, "", err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return 0, "", err
	}
	hash := sha256.New()
	_, err = io.CopyBuffer(hash, &told{io.NewSectionReader(file, 0, size), progress}, make([]byte, copyChunk))
	return size, hex.EncodeToString(hash.Sum(nil)), err
}

// A told reader tells how much was read.
type told struct {
	io.Reader
	progress func(int)
}

func (t *told) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	t.progress(n)
	return n, err
}

// verify compares the files below dir with a manifest and names every one that
// is not as it says.
func verify(f vfs.FS, dir string, m *Manifest, progress func(int)) error {
	var bad []error
	for i := range m.Files {
		want := &m.Files[i]
		size, sum, err := sumFile(f, path.Join(dir, want.Name), progress)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			bad = append(bad, fmt.Errorf("%w: %s is missing", ErrDamaged, want.Name))
		case err != nil:
			bad = append(bad, err)
		case size != want.Size:
			bad = append(bad, fmt.Errorf("%w: %s has %d bytes, not %d", ErrDamaged, want.Name, size, want.Size))
		case sum != want.SHA256:
			bad = append(bad, fmt.Errorf("%w: %s has another checksum than it had", ErrDamaged, want.Name))
		}
	}
	return errors.Join(bad...)
}
