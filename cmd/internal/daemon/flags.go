// Package daemon holds what Citadel's daemons do alike: flags that the
// environment can set too and that report every problem at once, logs, the
// monitoring port, the version. It knows nothing of certificates.
package daemon

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// Flags are a daemon's flags, in titled sections. Values that do not parse are
// collected, not returned one by one.
type Flags struct {
	prefix   string
	sections []section
	problems []error
	warnings []string
}

type section struct {
	title string
	set   *pflag.FlagSet
}

// NewFlags returns an empty set of flags, which the environment sets by the
// prefix and the flag's name in capitals, dashes as underscores.
func NewFlags(prefix string) *Flags { return &Flags{prefix: prefix} }

// Section adds a titled group of flags.
func (f *Flags) Section(title string) *pflag.FlagSet {
	set := pflag.NewFlagSet(title, pflag.ContinueOnError)
	set.SortFlags = false
	f.sections = append(f.sections, section{title, set})
	return set
}

// Alias accepts old as another name of the flag that name is in set, with a
// warning.
func (f *Flags) Alias(set *pflag.FlagSet, old, name string) {
	target := set.Lookup(name)
	set.AddFlag(&pflag.Flag{Name: old, Value: warning{target.Value, f, fmt.Sprintf("--%s is called --%s now", old, name), target},
		DefValue: target.DefValue, NoOptDefVal: target.NoOptDefVal, Hidden: true})
}

// Retired accepts a flag that no longer does anything, with a warning that
// says why. A boolean one may be given without a value.
func (f *Flags) Retired(set *pflag.FlagSet, name, why string, boolean bool) {
	flag := &pflag.Flag{Name: name, Value: warning{Value: new(ignored), flags: f, text: fmt.Sprintf("--%s is ignored: %s", name, why)}, Hidden: true}
	if boolean {
		flag.NoOptDefVal = "true"
	}
	set.AddFlag(flag)
}

// AddTo puts all flags into a command's own set, where their values no longer
// fail to parse: Problems tells.
func (f *Flags) AddTo(set *pflag.FlagSet) {
	set.SortFlags = false
	for _, s := range f.sections {
		s.set.VisitAll(func(flag *pflag.Flag) {
			flag.Value = collecting{flag.Value, f, flag.Name}
			set.AddFlag(flag)
		})
	}
}

// ReadEnvironment sets the flags that were not given from their variables.
func (f *Flags) ReadEnvironment(set *pflag.FlagSet) {
	set.VisitAll(func(flag *pflag.Flag) {
		text, ok := os.LookupEnv(f.Variable(flag.Name))
		if !ok || flag.Changed {
			return
		}
		c, isOurs := flag.Value.(collecting)
		if !isOurs || c.stoodIn() {
			return
		}
		flag.Changed = true
		_ = c.Set(text) // collecting never fails
	})
}

// Variable is the environment variable of a flag.
func (f *Flags) Variable(name string) string {
	return f.prefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Problem notes that a flag's value is wrong.
func (f *Flags) Problem(name, format string, args ...any) {
	f.problems = append(f.problems, fmt.Errorf("--%s: "+format, append([]any{name}, args...)...))
}

// Problems is everything that is wrong, in the order it was found.
func (f *Flags) Problems() []error { return f.problems }

// Warnings is what a person should know about the flags that were given, each
// once.
func (f *Flags) Warnings() []string { return f.warnings }

// Usage writes the flags by section.
func (f *Flags) Usage(w io.Writer) {
	for _, s := range f.sections {
		if text := s.set.FlagUsagesWrapped(100); text != "" {
			fmt.Fprintf(w, "\n%s:\n%s", s.title, text)
		}
	}
}

// collecting is a flag's value that keeps its complaints for later.
type collecting struct {
	pflag.Value
	flags *Flags
	name  string
}

// Set never fails. A text that does not parse leaves the value as it was, so
// that no further problem follows from it.
func (c collecting) Set(text string) error {
	old := c.String()
	if err := c.Value.Set(text); err != nil {
		c.flags.Problem(c.name, "%q: %v", text, err)
		_ = c.Value.Set(old) // it was valid before
	}
	return nil
}

// stoodIn tells whether this is an alias of a flag that was given itself.
func (c collecting) stoodIn() bool {
	alias, ok := c.Value.(warning)
	return ok && alias.target != nil && alias.target.Changed
}

// warning is a flag's value that is accepted with a remark.
type warning struct {
	pflag.Value
	flags  *Flags
	text   string
	target *pflag.Flag // what it stands for; may be nil
}

// Set warns and passes the value on.
func (v warning) Set(text string) error {
	for _, w := range v.flags.warnings {
		if w == v.text {
			return v.Value.Set(text)
		}
	}
	v.flags.warnings = append(v.flags.warnings, v.text)
	if v.target != nil {
		v.target.Changed = true
	}
	return v.Value.Set(text)
}

// ignored is the value of a flag that nobody reads.
type ignored struct{}

func (*ignored) String() string   { return "" }
func (*ignored) Set(string) error { return nil }
func (*ignored) Type() string     { return "string" }
