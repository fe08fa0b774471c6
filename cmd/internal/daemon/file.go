package daemon

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// ReadFile sets the flags that neither the command line nor the environment
// gave from a YAML file, whose keys are the flags' names. Lists are joined by
// commas.
func (f *Flags) ReadFile(set *pflag.FlagSet, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		f.Report(fmt.Errorf("read the configuration file: %w", err))
		return
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		f.Report(fmt.Errorf("configuration file %s: %w", path, err))
		return
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f.setFromFile(set, path, name, values[name])
	}
}

func (f *Flags) setFromFile(set *pflag.FlagSet, path, name string, value any) {
	flag := set.Lookup(name)
	text, isText := scalar(value)
	switch {
	case flag == nil:
		f.Report(fmt.Errorf("configuration file %s: there is no flag --%s", path, name))
		return
	case !isText:
		f.Report(fmt.Errorf("configuration file %s: the value of %s is neither a text, a number, a truth value nor a list of these", path, name))
		return
	}
	c, isOurs := flag.Value.(collecting)
	if flag.Changed || !isOurs || c.stoodIn() {
		return
	}
	flag.Changed = true
	f.SetBy(name, path)
	_ = c.Set(text) // collecting never fails
}

// scalar is a value of YAML as a flag takes it.
func scalar(value any) (string, bool) {
	switch v := value.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	case bool, float64, int64:
		return fmt.Sprint(v), true
	case []any:
		var parts []string
		for _, item := range v {
			text, ok := scalar(item)
			if _, isList := item.([]any); !ok || isList {
				return "", false
			}
			parts = append(parts, text)
		}
		return strings.Join(parts, ","), true
	}
	return "", false
}
