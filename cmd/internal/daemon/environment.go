package daemon

import (
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Variable is the environment variable of a flag.
func (f *Flags) Variable(name string) string {
	return f.prefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// ReadEnvironment sets the flags that were not given from their variables, and
// warns of variables with the prefix that are no flag's.
func (f *Flags) ReadEnvironment(set *pflag.FlagSet) {
	known := map[string]bool{}
	set.VisitAll(func(flag *pflag.Flag) {
		variable := f.Variable(flag.Name)
		known[variable] = true
		text, ok := os.LookupEnv(variable)
		if !ok || flag.Changed || serviceLink(variable, text) {
			return
		}
		c, isOurs := flag.Value.(collecting)
		if !isOurs || c.stoodIn() {
			return
		}
		flag.Changed = true
		f.SetBy(flag.Name, variable)
		if alias, ok := c.Value.(warning); ok && alias.target != nil {
			f.SetBy(alias.target.Name, variable)
		}
		_ = c.Set(text) // collecting never fails
	})
	f.warnOfUnknown(known)
}

// SetBy notes that a flag's value is of a variable, so that messages name it.
func (f *Flags) SetBy(flag, variable string) { f.setBy[flag] = variable }

// SetByVariable tells whether a flag's value is of a variable.
func (f *Flags) SetByVariable(flag string) bool { return f.setBy[flag] != "" }

func (f *Flags) warnOfUnknown(known map[string]bool) {
	environment := os.Environ()
	slices.Sort(environment)
	for _, entry := range environment {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, f.prefix) && !known[name] && !serviceLink(name, value) {
			f.warn(name + " is ignored: no flag has this variable") // its value may be a secret
		}
	}
}

// serviceLinkName matches what Kubernetes sets in every pod for each Service of
// its namespace: for one called citadel-x, CITADEL_X_SERVICE_HOST,
// CITADEL_X_SERVICE_PORT and the same with a port's name, CITADEL_X_PORT, and
// CITADEL_X_PORT_80_TCP with its three parts.
var serviceLinkName = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)?)$`)

// serviceLink tells whether a variable is of Kubernetes and not of a person. A
// name that just ends in _PORT may be a flag's: Kubernetes' holds a URL then.
func serviceLink(name, value string) bool {
	if strings.HasSuffix(name, "_PORT") && !strings.Contains(name, "_SERVICE_") && !strings.Contains(name, "_PORT_") {
		return strings.Contains(value, "://")
	}
	return serviceLinkName.MatchString(name)
}
