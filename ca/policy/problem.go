package policy

import (
	"errors"
	"fmt"
	"strings"
)

// Problem is something wrong with an object, and where.
type Problem struct {
	File    string // as the caller named it; empty when there is none
	Line    int    // from 1; 0 when it is not known
	Object  string // Kind/namespace/name, as far as it is known
	Field   string // spec.trafficPolicy.tls.mode; empty for the whole object
	Message string
	Warning bool // the object can be used all the same
}

// Error is file:line: object: field: message, without what is not known.
func (p Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
		if p.Line > 0 {
			fmt.Fprintf(&b, "%d:", p.Line)
		}
		b.WriteByte(' ')
	} else if p.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", p.Line)
	}
	for _, part := range []string{p.Object, p.Field} {
		if part != "" {
			b.WriteString(part + ": ")
		}
	}
	b.WriteString(p.Message)
	return b.String()
}

// join makes one error of the problems that are no warnings; nil for none.
func join(problems []Problem) error {
	var all []error
	for _, p := range problems {
		if !p.Warning {
			all = append(all, p)
		}
	}
	return errors.Join(all...)
}
