package backup

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/sluicemq/sluice/storage/seglog"
)

// The stream is a tar: first planName, a Plan; then the files that are not kept,
// in the order of the plan; at the end manifestName, a Manifest with the
// checksums of the files that were sent. A stream without it was cut.
const planName = "PLAN.json"

// A Request is what the receiver of a backup has from the one before.
type Request struct {
	Have []File `json:"have"`
}

// A Plan says what a snapshot holds and what of it will be sent.
type Plan struct {
	Manifest
	// Kept are the files that the receiver has, by name.
	Kept []string `json:"kept"`
}

func (p *Plan) kept(name string) bool {
	_, ok := slices.BinarySearch(p.Kept, name)
	return ok
}

// sent are the bytes of the files that are sent.
func (p *Plan) sent() (n int64) {
	for i := range p.Files {
		if !p.kept(p.Files[i].Name) {
			n += p.Files[i].Size
		}
	}
	return n
}

// Send writes a snapshot to w, but for the files that the receiver has.
func Send(w io.Writer, s *seglog.Snapshot, r Request) error {
	plan := Plan{Manifest: Manifest{Format: formatVersion, Time: s.Time, First: s.First, End: s.End}, Kept: []string{}}
	have := Manifest{Files: r.Have}
	if err := checkHave(&have); err != nil {
		return err
	}
	for i := range s.Files {
		f := &s.Files[i]
		out := File{Name: f.Name, Size: f.Size, ID: f.ID}
		same, err := sameFile(s, f, have.file(f.Name))
		if err != nil {
			return fmt.Errorf("reading %s: %w", f.Name, err)
		}
		if same {
			plan.Kept = append(plan.Kept, f.Name)
		}
		plan.Files = append(plan.Files, out)
	}
	t := tar.NewWriter(w)
	if err := sendJSON(t, planName, &plan); err != nil {
		return err
	}
	end := plan.Manifest
	end.Files = slices.Clone(plan.Files)
	sum := sha256.New()
	for i := range s.Files {
		f := &s.Files[i]
		if plan.kept(f.Name) {
			continue
		}
		if err := t.WriteHeader(header(f.Name, f.Size)); err != nil {
			return err
		}
		sum.Reset()
		if err := s.Copy(&summed{t, sum}, f); err != nil {
			return fmt.Errorf("sending %s: %w", f.Name, err)
		}
		end.Files[i].SHA256 = hex.EncodeToString(sum.Sum(nil))
	}
	if err := sendJSON(t, manifestName, &end); err != nil {
		return err
	}
	return t.Close()
}

// checkHave sorts what a receiver says that it has.
func checkHave(m *Manifest) error {
	m.Format = formatVersion
	slices.SortFunc(m.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return m.check(true)
}

// sameFile says whether the receiver has a file already. Where no ID says so,
// its content does.
func sameFile(s *seglog.Snapshot, f *seglog.SnapshotFile, has *File) (bool, error) {
	if has == nil || has.Size != f.Size || has.ID != f.ID {
		return false, nil
	}
	if f.ID != "" {
		return true, nil
	}
	sum := sha256.New()
	if err := s.Copy(sum, f); err != nil {
		return false, err
	}
	return hex.EncodeToString(sum.Sum(nil)) == has.SHA256, nil
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatPAX}
}

func sendJSON(t *tar.Writer, name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := t.WriteHeader(header(name, int64(len(text)))); err != nil {
		return err
	}
	_, err = t.Write(text)
	return err
}

// A summed writer sums up what is written.
type summed struct {
	io.Writer
	hash hash.Hash
}

func (s *summed) Write(b []byte) (int, error) {
	n, err := s.Writer.Write(b)
	s.hash.Write(b[:n])
	return n, err
}
