package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"citadel/ca/regular"
)

// ReadFile sets the flags that neither the command line nor the environment
// gave from a YAML file, whose keys are the flags' names, and those of
// Structured. Values count as they are written, for 0640 is a mode and no number.
// Lists are joined by commas.
func (f *Flags) ReadFile(set *pflag.FlagSet, path string) {
	text, err := regular.Read(path)
	if err != nil {
		f.Report(fmt.Errorf("read the configuration file: %w", err))
		return
	}
	entries, err := entriesOf(text)
	if err != nil {
		f.Report(fmt.Errorf("configuration file %s: %w", path, err))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(entries); i += 2 {
		name, line := entries[i].Value, entries[i].Line
		if before, ok := seen[name]; ok {
			f.Report(fmt.Errorf("configuration file %s: line %d: %s stands in line %d already", path, line, name, before))
			continue
		}
		seen[name] = line
		if read := f.structured[name]; read != nil {
			read(path, entries[i+1])
			continue
		}
		f.setFromFile(set, fmt.Sprintf("%s, line %d", path, line), name, entries[i+1])
	}
}

// Structured has read take what stands under a key of the configuration file
// that is no flag's: more than flags can say. It is called once, with the file's
// name and the value, and reports what is wrong itself.
func (f *Flags) Structured(key string, read func(path string, value *yaml.Node)) {
	f.structured[key] = read
}

// ReadKey is what stands under a key of the YAML file now, nil where the key is not
// there, and the other keys with what they say, as text to compare.
func ReadKey(path, key string) (found *yaml.Node, others map[string]string, err error) {
	text, err := regular.Read(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read the configuration file: %w", err)
	}
	entries, err := entriesOf(text)
	if err != nil {
		return nil, nil, fmt.Errorf("configuration file %s: %w", path, err)
	}
	others = map[string]string{}
	for i := 0; i+1 < len(entries); i += 2 {
		if entries[i].Value != key {
			said, _ := scalar(entries[i+1])
			others[entries[i].Value] = said
			continue
		}
		if found != nil {
			return nil, nil, fmt.Errorf("configuration file %s: line %d: %s stands there twice", path, entries[i].Line, key)
		}
		found = entries[i+1]
	}
	return found, others, nil
}

// entriesOf are the keys and values, in turns, of the one mapping that a file
// is.
func entriesOf(text []byte) ([]*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, another yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if err := decoder.Decode(&another); !errors.Is(err, io.EOF) {
		return nil, errors.New("holds more than one document")
	}
	top := document.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return nil, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, errors.New("holds no flags: write lines of NAME: VALUE")
	}
	return top.Content, nil
}

func (f *Flags) setFromFile(set *pflag.FlagSet, place, name string, value *yaml.Node) {
	flag := set.Lookup(name)
	text, isText := scalar(value)
	switch {
	case flag == nil:
		f.Report(fmt.Errorf("configuration file %s: there is no flag --%s", place, name))
		return
	case !isText:
		f.Report(fmt.Errorf("configuration file %s: the value of %s is neither a text, a number, a truth value nor a list of these", place, name))
		return
	}
	c, isOurs := flag.Value.(collecting)
	if flag.Changed || !isOurs || c.stoodIn() {
		return
	}
	flag.Changed = true
	f.SetBy(name, place)
	if alias, ok := c.Value.(warning); ok && alias.target != nil {
		f.SetBy(alias.target.Name, place)
	}
	_ = c.Set(text) // collecting never fails
}

// scalar is a value of YAML as a flag takes it.
func scalar(value *yaml.Node) (string, bool) {
	switch {
	case value.Kind == yaml.ScalarNode && value.Tag == "!!null":
		return "", true
	case value.Kind == yaml.ScalarNode:
		return value.Value, true
	case value.Kind != yaml.SequenceNode:
		return "", false
	}
	var parts []string
	for _, item := range value.Content {
		if item.Kind != yaml.ScalarNode {
			return "", false
		}
		parts = append(parts, item.Value)
	}
	return strings.Join(parts, ","), true
}
