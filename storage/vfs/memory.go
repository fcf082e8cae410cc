package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Memory is a file system in memory that knows what a crash would leave of it.
type Memory struct {
	mu      sync.Mutex // guards what follows, and the nodes
	names   map[string]*node
	durable map[string]*node // the names as they are on the disk
	pending []naming         // changes to names since then, in order
	loose   map[string]bool  // directories whose names are not kept in order
	locks   map[string]bool
	size    int64 // of all files
	limit   int64 // of size; 0 is none
}

var _ FS = (*Memory)(nil)

// A node is a file or a directory.
type node struct {
	dir     bool
	data    []byte
	durable []byte // the bytes as they are on the disk
	pending []write
}

// A write changes a node's bytes; where data is nil, its size.
type write struct {
	at   int64
	data []byte
}

// A naming gives a node a name, or takes one away where node is nil. A rename
// does both at once: from loses the node.
type naming struct {
	name, from string
	node       *node
}

// NewMemory makes an empty file system.
func NewMemory() *Memory {
	root := &node{dir: true}
	return &Memory{
		names:   map[string]*node{"/": root, ".": root},
		durable: map[string]*node{"/": root, ".": root},
		loose:   make(map[string]bool),
		locks:   make(map[string]bool),
	}
}

// Disorder says that the names in a directory may become durable in any order,
// each for itself. In other directories they do in the order in which they
// changed, as journaling file systems have it.
func (m *Memory) Disorder(dir string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loose[path.Clean(dir)] = true
}

// The seeds of [Memory.Crash] that stand for the two ends of what can happen.
const (
	// CrashStrict: nothing is left that was not synced.
	CrashStrict = 0
	// CrashKind: everything is left, as when just the process dies.
	CrashKind = 1
)

// sector is what a disk writes whole or not at all.
const sector = 512

// Crash returns a file system as a power cut at this moment might leave this
// one, which goes on as if nothing had happened. With other seeds than the two
// above, of what was not synced some sectors are there and others not, whatever
// their order was, and of the names the first few of each directory's, unless
// Disorder was called for it.
func (m *Memory) Crash(seed uint64) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := rand.New(rand.NewPCG(seed, 0x5107ce))
	names := maps.Clone(m.durable)
	for _, group := range m.groups() {
		keep := r.IntN(len(group) + 1)
		switch seed {
		case CrashStrict:
			keep = 0
		case CrashKind:
			keep = len(group)
		}
		for _, n := range group[:keep] {
			n.apply(names)
		}
	}
	left := NewMemory()
	left.names = make(map[string]*node)
	copies := make(map[*node]*node)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n := names[name]
		if parent := path.Dir(name); names[parent] == nil {
			continue // its directory was never made
		}
		if copies[n] == nil {
			data := n.crash(seed, r)
			copies[n] = &node{dir: n.dir, data: slices.Clone(data), durable: data}
			left.size += int64(len(data))
		}
		left.names[name] = copies[n]
	}
	left.durable = maps.Clone(left.names)
	left.loose = maps.Clone(m.loose)
	return left
}

// groups splits the pending namings into runs that must keep their order among
// themselves: those of a directory, or just those that touch the same names.
func (m *Memory) groups() [][]naming {
	of := make(map[string]int)
	var groups [][]naming
	for _, n := range m.pending {
		keys := []string{n.name}
		if dir := path.Dir(n.name); !m.loose[dir] {
			keys = []string{dir + "/"}
		} else if n.from != "" {
			keys = append(keys, n.from)
		}
		g := -1
		for _, key := range keys {
			f, has := of[key]
			switch {
			case !has || f == g:
			case g < 0:
				g = f
			default:
				groups[g] = append(groups[g], groups[f]...)
				groups[f] = nil
				for name, k := range of {
					if k == f {
						of[name] = g
					}
				}
			}
		}
		if g < 0 {
			g = len(groups)
			groups = append(groups, nil)
		}
		groups[g] = append(groups[g], n)
		for _, key := range keys {
			of[key] = g
		}
	}
	return groups
}

func (n naming) apply(names map[string]*node) {
	if n.from != "" {
		delete(names, n.from)
	}
	if n.node == nil {
		delete(names, n.name)
		return
	}
	names[n.name] = n.node
}

// crash is what is left of a file's bytes.
func (n *node) crash(seed uint64, r *rand.Rand) []byte {
	switch seed {
	case CrashStrict:
		return slices.Clone(n.durable)
	case CrashKind:
		return slices.Clone(n.data)
	}
	data := slices.Clone(n.durable)
	share := r.IntN(5) // of the sectors, in quarters
	for _, w := range n.pending {
		if w.data == nil {
			if r.IntN(2) == 0 {
				data = resize(data, w.at)
			}
			continue
		}
		for at, rest := w.at, w.data; len(rest) > 0; {
			k := min(int64(len(rest)), sector-at%sector)
			if r.IntN(4) < share {
				data = patch(data, rest[:k], at)
			}
			at, rest = at+k, rest[k:]
		}
	}
	return data
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func patch(b, data []byte, at int64) []byte {
	if end := at + int64(len(data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[at:], data)
	return b
}

// Limit bounds the bytes of all files together: what would go beyond it is
// ENOSPC. 0 is no bound.
func (m *Memory) Limit(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limit = bytes
}

func (m *Memory) find(op, name string) (string, *node, error) {
	name = path.Clean(name)
	n := m.names[name]
	if n == nil {
		return name, nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return name, n, nil
}

// do changes the names.
func (m *Memory) do(n naming) {
	n.apply(m.names)
	m.pending = append(m.pending, n)
}

// Create makes an empty file.
func (m *Memory) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = path.Clean(name)
	if _, _, err := m.find("create", path.Dir(name)); err != nil {
		return nil, err
	}
	if old := m.names[name]; old != nil {
		if old.dir {
			return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.EISDIR}
		}
		m.size -= int64(len(old.data))
	}
	n := new(node)
	m.do(naming{name: name, node: n})
	return &memoryFile{m: m, node: n, name: name, writable: true}, nil
}

// Open opens a file that exists.
func (m *Memory) Open(name string) (File, error) { return m.open(name, true) }

// OpenRead opens a file that exists for reading.
func (m *Memory) OpenRead(name string) (File, error) { return m.open(name, false) }

func (m *Memory) open(name string, writable bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, n, err := m.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.dir {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	}
	return &memoryFile{m: m, node: n, name: name, writable: writable}, nil
}

// Rename gives a file another name.
func (m *Memory) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, n, err := m.find("rename", from)
	if err != nil {
		return err
	}
	to = path.Clean(to)
	if n.dir {
		return &fs.PathError{Op: "rename", Path: from, Err: syscall.EISDIR}
	}
	if from != to {
		m.do(naming{name: to, from: from, node: n})
	}
	return nil
}

// Link gives a file a second name.
func (m *Memory) Link(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, n, err := m.find("link", from)
	if err != nil {
		return err
	}
	to = path.Clean(to)
	if m.names[to] != nil {
		return &fs.PathError{Op: "link", Path: to, Err: fs.ErrExist}
	}
	m.do(naming{name: to, node: n})
	return nil
}

// Remove removes a file or an empty directory.
func (m *Memory) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, n, err := m.find("remove", name)
	if err != nil {
		return err
	}
	if n.dir && len(m.list(name)) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	m.size -= int64(len(n.data))
	m.do(naming{name: name})
	return nil
}

// MkdirAll makes directories.
func (m *Memory) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir = path.Clean(dir)
	for at := 0; at < len(dir); {
		end := strings.IndexByte(dir[at+1:], '/')
		if end < 0 {
			at = len(dir)
		} else {
			at += 1 + end
		}
		if n := m.names[dir[:at]]; n == nil {
			m.do(naming{name: dir[:at], node: &node{dir: true}})
		} else if !n.dir {
			return &fs.PathError{Op: "mkdir", Path: dir[:at], Err: syscall.ENOTDIR}
		}
	}
	return nil
}

func (m *Memory) list(dir string) []string {
	var names []string
	for name := range m.names {
		if path.Dir(name) == dir && name != dir {
			names = append(names, path.Base(name))
		}
	}
	slices.Sort(names)
	return names
}

// List returns the names in a directory.
func (m *Memory) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, _, err := m.find("list", dir)
	if err != nil {
		return nil, err
	}
	return m.list(dir), nil
}

// Stat describes a file or directory.
func (m *Memory) Stat(name string) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, n, err := m.find("stat", name)
	if err != nil {
		return Info{}, err
	}
	return Info{Size: int64(len(n.data)), Dir: n.dir}, nil
}

// SyncDir makes the names in a directory durable.
func (m *Memory) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, _, err := m.find("syncdir", dir)
	if err != nil {
		return err
	}
	m.pending = slices.DeleteFunc(m.pending, func(n naming) bool {
		if path.Dir(n.name) != dir {
			return false
		}
		n.apply(m.durable)
		return true
	})
	return nil
}

// Lock takes a file for one holder.
func (m *Memory) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = path.Clean(name)
	if m.locks[name] {
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	}
	m.locks[name] = true
	return unlocker{m, name}, nil
}

type unlocker struct {
	m    *Memory
	name string
}

func (u unlocker) Close() error {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	delete(u.m.locks, u.name)
	return nil
}

// Space is what is left of the limit.
func (m *Memory) Space(string) (Space, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	limit := m.limit
	if limit == 0 {
		limit = 1 << 40
	}
	return Space{Free: uint64(max(limit-m.size, 0)), Total: uint64(limit)}, nil
}

// A memoryFile is an open file.
type memoryFile struct {
	m        *Memory
	node     *node
	name     string
	writable bool
}

func (f *memoryFile) ReadAt(b []byte, at int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if at >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memoryFile) ReadAhead(int64, int64) {}

func (f *memoryFile) WriteAt(b []byte, at int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if !f.writable {
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: syscall.EBADF}
	}
	var err error
	n := f.node
	if grown := at + int64(len(b)) - int64(len(n.data)); grown > 0 && f.m.limit > 0 && f.m.size+grown > f.m.limit {
		b = b[:max(int64(len(b))-(f.m.size+grown-f.m.limit), 0)]
		err = &fs.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
	}
	if len(b) > 0 {
		before := len(n.data)
		n.data = patch(n.data, b, at)
		n.pending = append(n.pending, write{at: at, data: slices.Clone(b)})
		f.m.size += int64(len(n.data) - before)
	}
	return len(b), err
}

// WriteDirect fails where a real file's would have to be done in another way.
func (f *memoryFile) WriteDirect(b []byte, at int64) (int, error) {
	if at%Page != 0 || len(b)%Page != 0 || !inPages(b) {
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: syscall.EINVAL}
	}
	return f.WriteAt(b, at)
}

func (f *memoryFile) EndDirect() {}

// drop has what was written since the last sync never get to the disk.
func (f *memoryFile) drop() {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.node.pending = nil
}

func (f *memoryFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	n := f.node
	for _, w := range n.pending {
		if w.data == nil {
			n.durable = resize(n.durable, w.at)
		} else {
			n.durable = patch(n.durable, w.data, w.at)
		}
	}
	n.pending = nil
	return nil
}

func (f *memoryFile) SyncData() error { return f.Sync() }

func (f *memoryFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *memoryFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.m.size += size - int64(len(f.node.data))
	f.node.data = resize(f.node.data, size)
	f.node.pending = append(f.node.pending, write{at: size})
	return nil
}

func (f *memoryFile) Map(size int) (Mapping, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if size > len(f.node.data) {
		return Mapping{}, &fs.PathError{Op: "map", Path: f.name, Err: io.ErrUnexpectedEOF}
	}
	return Mapping{Data: slices.Clone(f.node.data[:size]), Unmap: func() {}, Forget: func() {}}, nil
}

func (f *memoryFile) Close() error { return nil }
