package access

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sluicemq/sluice/configs"
	"github.com/sluicemq/sluice/core"
)

// A User is one entry of a users file.
type User struct {
	Name  string   `yaml:"name" doc:"the user's name"`
	Hash  string   `yaml:"hash" doc:"the hash of the password; left out is none, and then no password is right"`
	SCRAM string   `yaml:"scram" doc:"the keys of the password for SCRAM-SHA-256; left out is none, and then that method lets nobody in"`
	Roles []string `yaml:"roles" doc:"the roles that rules speak of"`
}

// usersFile is the whole of a users file.
type usersFile struct {
	Users []User `yaml:"users" doc:"the users"`
}

// ParseUsers reads a users file that is called name in errors.
func ParseUsers(name string, text []byte) ([]User, error) {
	var file usersFile
	if err := configs.Decode(name, text, &file); err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	var errs []error
	for i, u := range file.Users {
		key := fmt.Sprintf("%s: users[%d]", name, i)
		if err := checkName("the user", u.Name); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
		if seen[u.Name] {
			errs = append(errs, fmt.Errorf("%s: two users are named %q", key, u.Name))
		}
		seen[u.Name] = true
		if u.Hash != "" {
			if _, err := parseHash(u.Hash); err != nil {
				errs = append(errs, fmt.Errorf("%s (%s): %w", key, u.Name, err))
			}
		}
		if u.SCRAM != "" {
			if _, err := parseSCRAM(u.SCRAM); err != nil {
				errs = append(errs, fmt.Errorf("%s (%s): %w", key, u.Name, err))
			}
		}
		for _, role := range u.Roles {
			if err := checkRole(role); err != nil {
				errs = append(errs, fmt.Errorf("%s (%s): %w", key, u.Name, err))
			}
		}
	}
	return file.Users, errors.Join(errs...)
}

func checkRole(role string) error {
	if strings.Contains(role, ":") {
		return fmt.Errorf("the role %q contains a colon", role)
	}
	return checkName("the role", role)
}

// A UsersFile is a users file that is changed. Comments and order stay.
type UsersFile struct {
	path string
	doc  yaml.Node
}

// OpenUsers reads a users file to change it. With create, one that is not
// there is begun.
func OpenUsers(path string, create bool) (*UsersFile, error) {
	text, err := os.ReadFile(path)
	if create && errors.Is(err, fs.ErrNotExist) {
		text = []byte("# Users of a Sluice broker; changed with: sluice user\nusers: []\n")
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if _, err := ParseUsers(path, text); err != nil {
		return nil, err
	}
	f := &UsersFile{path: path}
	if err := yaml.Unmarshal(text, &f.doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Users lists them.
func (f *UsersFile) Users() ([]User, error) {
	text, err := f.text()
	if err != nil {
		return nil, err
	}
	return ParseUsers(f.path, text)
}

// Has reports whether there is a user of that name.
func (f *UsersFile) Has(name string) bool {
	_, n := f.find(name)
	return n != nil
}

// ErrUserExists is what adding a user twice gets.
var ErrUserExists = errors.New("there is such a user already; to change the password: sluice user passwd")

// Add adds a user; one that is there is ErrUserExists.
func (f *UsersFile) Add(u User) error {
	if _, n := f.find(u.Name); n != nil {
		return fmt.Errorf("user %q: %w", u.Name, ErrUserExists)
	}
	entry := &yaml.Node{Kind: yaml.MappingNode}
	set(entry, "name", text(u.Name))
	if u.Hash != "" {
		set(entry, "hash", text(u.Hash))
	}
	if u.SCRAM != "" {
		set(entry, "scram", text(u.SCRAM))
	}
	if len(u.Roles) > 0 {
		roles := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, r := range u.Roles {
			roles.Content = append(roles.Content, text(r))
		}
		set(entry, "roles", roles)
	}
	list := f.list()
	list.Style = 0
	list.Content = append(list.Content, entry)
	return nil
}

// SetPassword changes a user's password, its hash and its SCRAM keys, which may
// be empty; a user who is not there is core.ErrNotFound.
func (f *UsersFile) SetPassword(name, hash, scram string) error {
	_, n := f.find(name)
	if n == nil {
		return fmt.Errorf("user %q: %w", name, core.ErrNotFound)
	}
	set(n, "hash", text(hash))
	unset(n, "scram")
	if scram != "" {
		set(n, "scram", text(scram))
	}
	return nil
}

// Remove removes a user; one that is not there is core.ErrNotFound.
func (f *UsersFile) Remove(name string) error {
	i, n := f.find(name)
	if n == nil {
		return fmt.Errorf("user %q: %w", name, core.ErrNotFound)
	}
	list := f.list()
	list.Content = append(list.Content[:i:i], list.Content[i+1:]...)
	if len(list.Content) == 0 {
		list.Style = yaml.FlowStyle
	}
	return nil
}

// Save replaces the file whole, readable by its owner alone.
func (f *UsersFile) Save() error {
	out, err := f.text()
	if err != nil {
		return err
	}
	if _, err := ParseUsers(f.path, out); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(f.path), ".users-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	if info, err := os.Stat(f.path); err == nil {
		if err := temp.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
	}
	_, err = temp.Write(out)
	if err == nil {
		err = temp.Sync()
	}
	if closed := temp.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), f.path)
}

func (f *UsersFile) text() ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&f.doc); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// list is the node of the list of users, which is made where it is missing.
func (f *UsersFile) list() *yaml.Node {
	if len(f.doc.Content) == 0 || f.doc.Content[0].Kind != yaml.MappingNode {
		f.doc = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
	}
	root := f.doc.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "users" {
			if root.Content[i+1].Kind != yaml.SequenceNode {
				root.Content[i+1] = &yaml.Node{Kind: yaml.SequenceNode}
			}
			return root.Content[i+1]
		}
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	root.Content = append(root.Content, text("users"), list)
	return list
}

func (f *UsersFile) find(name string) (int, *yaml.Node) {
	for i, n := range f.list().Content {
		for j := 0; j+1 < len(n.Content); j += 2 {
			if n.Content[j].Value == "name" && n.Content[j+1].Value == name {
				return i, n
			}
		}
	}
	return -1, nil
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

func set(mapping *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			mapping.Content[i+1] = value
			return
		}
	}
	mapping.Content = append(mapping.Content, text(key), value)
}

func unset(mapping *yaml.Node, key string) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			mapping.Content = append(mapping.Content[:i:i], mapping.Content[i+2:]...)
			return
		}
	}
}
