// Package daemon holds what Citadel's daemons do alike: flags that the
// environment can set too and that report every problem at once, logs, the
// monitoring port, the version. It knows nothing of certificates.
package daemon

import (
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// Flags are a daemon's flags, in titled sections. Values that do not parse are
// collected, not returned one by one.
type Flags struct {
	prefix   string
	sections []section
	problems []error
	warnings []string
	setBy    map[string]string // by flag, the variable that its value is of

	structured map[string]func(path string, value *yaml.Node) // by key of the file
}

type section struct {
	title string
	set   *pflag.FlagSet
}

// NewFlags returns an empty set of flags, which the environment sets by the
// prefix and the flag's name in capitals, dashes as underscores.
func NewFlags(prefix string) *Flags {
	return &Flags{prefix: prefix, setBy: map[string]string{}, structured: map[string]func(string, *yaml.Node){}}
}

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
	set.AddFlag(&pflag.Flag{Name: old, Value: warning{target.Value, f, old, fmt.Sprintf("is called --%s now", name), target},
		DefValue: target.DefValue, NoOptDefVal: target.NoOptDefVal, Hidden: true})
}

// Retired accepts a flag that no longer does anything, with a warning that
// says why. A boolean one may be given without a value; one of a single letter
// with one dash or two.
func (f *Flags) Retired(set *pflag.FlagSet, name, why string, boolean bool) {
	flag := &pflag.Flag{Name: name, Value: warning{Value: new(ignored), flags: f, name: name, rest: "is ignored: " + why}, Hidden: true}
	if len(name) == 1 {
		flag.Shorthand = name
	}
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

// ReportUnknown notes the flags among a command's arguments that are not in
// set, for a command that goes on past them: they must not hide what else is
// wrong. Their values are not told: they may be secrets.
func (f *Flags) ReportUnknown(set *pflag.FlagSet, args []string) {
	for _, given := range unknown(set, args) {
		f.Report(fmt.Errorf("unknown flag: %s", strings.ToValidUTF8(given, "\uFFFD")))
	}
}

// WellFormed puts flags that are merely unknown in the place of those that
// nothing can be called, as in ---x and --=x: pflag reads nothing after these.
func WellFormed(set *pflag.FlagSet, args []string) []string {
	args = slices.Clone(args)
	for i, given := range unknown(set, args) {
		switch {
		case !strings.HasPrefix(given, "---") && given != "--=":
		case strings.Contains(args[i], "="):
			args[i] = "--?="
		default:
			args[i] = "--?"
		}
	}
	return args
}

// unknown goes through the flags among the arguments that are not in set, by
// their place and as they are written, without their values.
func unknown(set *pflag.FlagSet, args []string) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for i := 0; i < len(args) && args[i] != "--"; i++ {
			given, _, hasValue := strings.Cut(args[i], "=")
			var flag *pflag.Flag
			switch {
			case len(args[i]) < 2 || args[i][0] != '-':
				continue // a value of the flag before it, or the command's own argument
			case given == "-" || given == "--":
				given += "=" // no name at all
			case strings.HasPrefix(given, "--"):
				flag = set.Lookup(given[2:])
			default:
				_, size := utf8.DecodeRuneInString(given[1:])
				hasValue = hasValue || len(given) > 1+size
				given = given[:1+size]
				if size == 1 { // all that pflag knows
					flag = set.ShorthandLookup(given[1:])
				}
			}
			switch {
			case flag == nil:
				if !yield(i, given) {
					return
				}
			case !hasValue && flag.NoOptDefVal == "":
				i++ // its value, whatever that looks like
			}
		}
	}
}

// Name is how messages call a flag: with the variable that set it, if one did.
func (f *Flags) Name(flag string) string {
	name := "--" + flag
	if len(flag) == 1 {
		name = "-" + flag
	}
	if variable, ok := f.setBy[flag]; ok {
		name += " (set by " + variable + ")"
	}
	return name
}

// Problem notes that a flag's value is wrong.
func (f *Flags) Problem(name, format string, args ...any) {
	f.Report(fmt.Errorf("%s: "+format, append([]any{f.Name(name)}, args...)...))
}

// Report notes a problem that names its flags itself.
func (f *Flags) Report(err error) { f.problems = append(f.problems, err) }

// Problems is everything that is wrong, in the order it was found.
func (f *Flags) Problems() []error { return f.problems }

func (f *Flags) warn(text string) {
	if !slices.Contains(f.warnings, text) {
		f.warnings = append(f.warnings, text)
	}
}

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
	if looksLikeToken(text) {
		c.flags.Problem(c.name, tokenInSight)
		return nil
	}
	old := c.String()
	if err := c.Value.Set(text); err != nil {
		c.flags.Problem(c.name, "%q: %v", text, err)
		_ = c.Value.Set(old) // it was valid before
	}
	return nil
}

const tokenInSight = "this is a token itself, and others can see it here: make another, write it to a file, and name that"

// looksLikeToken finds join tokens and JWTs, which people give to flags by
// mistake. No flag takes one, and no message repeats it.
func looksLikeToken(text string) bool {
	text = strings.TrimSpace(text)
	return strings.Contains(text, "citadel-join.") || strings.Contains(text, "citadel-join-v1.") ||
		strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2
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
	name   string
	rest   string      // what is said after the name
	target *pflag.Flag // what it stands for; may be nil
}

// Set warns and passes the value on.
func (v warning) Set(text string) error {
	v.flags.warn(v.flags.Name(v.name) + " " + v.rest)
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
