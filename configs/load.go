package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"
)

// EnvPrefix begins the name of every variable that sets a key.
const EnvPrefix = "SLUICE_"

// Load makes the configuration of the defaults, the file (none if its name is
// empty) and the environment ("NAME=value" each), and checks it. The error
// tells everything that is wrong, a line each, with file, line and key.
func Load(file string, environ []string) (*Config, error) {
	c := Default()
	var data []byte
	if file != "" {
		var err error
		if data, err = os.ReadFile(file); err != nil {
			return nil, err
		}
		c.dir = filepath.Dir(file)
	}
	if err := c.read(file, data, environ); err != nil {
		return nil, err
	}
	return c, nil
}

// Parse is Load of a text that is called name in errors.
func Parse(name string, text []byte) (*Config, error) {
	c := Default()
	if err := c.read(name, text, nil); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) read(name string, text []byte, environ []string) error {
	c.origin = make(map[string]origin)
	d := &decoder{source: name, lines: true, origin: c.origin}
	if err := d.text(text, reflect.ValueOf(c).Elem()); err != nil {
		return err
	}
	for _, v := range environ {
		if name, value, ok := strings.Cut(v, "="); ok && strings.HasPrefix(name, EnvPrefix) {
			c.setVariable(d, name, value)
		}
	}
	if len(d.errs) > 0 {
		return errors.Join(d.errs...)
	}
	return c.Check()
}

// Decode lays a YAML text, called name in errors, over a struct with tags such
// as those of Config, as strictly.
func Decode(name string, text []byte, into any) error {
	d := &decoder{source: name, lines: true, origin: make(map[string]origin)}
	if err := d.text(text, reflect.ValueOf(into).Elem()); err != nil {
		return err
	}
	return errors.Join(d.errs...)
}

// text lays the one document of a YAML text over a struct.
func (d *decoder) text(text []byte, v reflect.Value) error {
	loader := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	switch err := loader.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", d.source, err)
	}
	if err := loader.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more than one YAML document", d.source)
	}
	root := &doc
	if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
		root = doc.Content[0]
	}
	d.decode(root, v, "")
	return nil
}

// setVariable sets the key that a variable names: the key in capitals, with
// underscores for its dots. The value is YAML, and a list may also be written
// with commas. Variables that name no key are not ours: container platforms
// set such for every service of the name.
func (c *Config) setVariable(d *decoder, name, value string) {
	key, v, ok := c.lookup(name)
	if !ok {
		return
	}
	inner := &decoder{source: name, origin: d.origin}
	defer func() { d.errs = append(d.errs, inner.errs...) }()
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
	if t := strings.TrimSpace(value); strings.HasPrefix(t, "[") || strings.HasPrefix(t, "{") {
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(value), &doc); err != nil {
			inner.errs = append(inner.errs, fmt.Errorf("%s: %s: %w", name, key, err))
			return
		}
		node = doc.Content[0]
	}
	inner.decode(node, v, key)
}

// lookup finds the key that a variable names.
func (c *Config) lookup(variable string) (key string, v reflect.Value, ok bool) {
	c.eachKey(func(k string, f field) {
		if Variable(k) == variable {
			key, v, ok = k, f.value, true
		}
	})
	return key, v, ok
}

// Variable is the name of the variable that sets a key.
func Variable(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// eachKey visits every key that holds a value or a list, in order.
func (c *Config) eachKey(visit func(key string, f field)) {
	var walk func(v reflect.Value, prefix string)
	walk = func(v reflect.Value, prefix string) {
		for _, f := range fieldsOf(v) {
			if f.value.Kind() == reflect.Struct {
				walk(f.value, join(prefix, f.name))
				continue
			}
			visit(join(prefix, f.name), f)
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
}

// Path is a file's name as a key gives it: relative to the configuration file
// that the key stands in, or to the working directory if the key came
// otherwise.
func (c *Config) Path(key, name string) string {
	if name == "" || filepath.IsAbs(name) || c.dir == "" || c.origin[key].line == 0 {
		return name
	}
	return filepath.Join(c.dir, name)
}
