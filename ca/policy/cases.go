package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Cases is a case file: testdata/FORMAT.md describes it.
type Cases struct {
	Resolve  []Case
	Validate []ValidationCase
}

// Case is one question with the answer that is expected.
type Case struct {
	Name       string
	Generation Generation
	Mesh       *MeshConfig // nil: all defaults
	Objects    []Object
	Query      Query
	Expect     Expected
}

// Expected is what a case expects of an answer; what is empty is not compared.
type Expected struct {
	Server    string    `yaml:"server"`
	Client    string    `yaml:"client"`
	Verdict   string    `yaml:"verdict"`
	Symptom   string    `yaml:"symptom"`
	DecidedBy DecidedBy `yaml:"decidedBy"`
	Warnings  []string  `yaml:"warnings"` // codes that must be among those given
}

// DecidedBy names what decided each side.
type DecidedBy struct {
	Server string `yaml:"server"`
	Client string `yaml:"client"`
}

// ValidationCase is one object with the judgement that is expected.
type ValidationCase struct {
	Name     string
	Expect   Judgement
	Problems []Problem // what was found
}

// Judgement is what a case expects of validation. The texts are parts of
// messages, in any case of letters.
type Judgement struct {
	Valid           bool   `yaml:"valid"`
	ErrorContains   string `yaml:"errorContains"`
	WarningContains string `yaml:"warningContains"`
}

// caseFile is the file as it is written.
type caseFile struct {
	FormatVersion int32      `yaml:"formatVersion"`
	Cases         []caseText `yaml:"cases"`
	Validation    []caseText `yaml:"validation"`
}

type caseText struct {
	_          struct{}    `ignored:"id family source note"`
	Name       string      `yaml:"name"`
	Generation Generation  `yaml:"generation"`
	MeshConfig yaml.Node   `yaml:"meshConfig"`
	Objects    []yaml.Node `yaml:"objects"`
	Object     yaml.Node   `yaml:"object"`
	Query      Query       `yaml:"query"`
	Expect     struct {
		Expected  `yaml:",inline"`
		Judgement `yaml:",inline"`
	} `yaml:"expect"`
}

// DecodeCases reads a case file. file is only said in errors, which are those of
// Decode. Objects of validation cases may be wrong; those of the others must be
// readable.
func DecodeCases(file string, text []byte) (*Cases, error) {
	all, err := documents(file, text)
	if err != nil {
		return nil, err
	}
	s, cases := newStrict(file), &Cases{}
	s.object = "case file"
	for _, n := range all {
		var f caseFile
		s.into(n, "", reflect.ValueOf(&f).Elem())
		if f.FormatVersion != 1 {
			s.fail(n, "formatVersion", "must be 1")
		}
		for i := range f.Cases {
			cases.Resolve = append(cases.Resolve, s.resolveCase(&f.Cases[i]))
		}
		for i := range f.Validation {
			cases.Validate = append(cases.Validate, s.validationCase(&f.Validation[i]))
		}
	}
	if err := join(s.problems); err != nil {
		return nil, err
	}
	return cases, nil
}

func (s *strict) resolveCase(t *caseText) Case {
	c := Case{Name: t.Name, Generation: t.Generation, Expect: t.Expect.Expected, Query: t.Query}
	if t.MeshConfig.Kind != 0 {
		c.Mesh = s.meshConfig(&t.MeshConfig)
		for _, p := range broken(c.Mesh) {
			s.problems = append(s.problems, s.locate(p))
		}
	}
	for i := range t.Objects {
		for _, o := range s.objects(&t.Objects[i], false) {
			c.Objects = append(c.Objects, o.Object)
		}
	}
	return c
}

func (s *strict) validationCase(t *caseText) ValidationCase {
	v := ValidationCase{Name: t.Name, Expect: t.Expect.Judgement}
	own := newStrict(s.file)
	if t.Object.Kind == 0 {
		mesh := own.meshConfig(&t.MeshConfig)
		v.Problems = append(own.problems, Validate(t.Generation, mesh)...)
		return v
	}
	objects := own.objects(&t.Object, false)
	v.Problems = own.problems
	for _, o := range objects {
		v.Problems = append(v.Problems, Validate(t.Generation, o.Object)...)
	}
	return v
}

// Snapshot is what the case asks.
func (c *Case) Snapshot() *Snapshot {
	objects := c.Objects
	if c.Mesh != nil {
		objects = append(slices.Clip(objects), c.Mesh)
	}
	return New(c.Generation, objects...)
}

// Failures says what is other than expected; empty for a case that passes.
func (c *Case) Failures() []string { return c.Expect.Compare(c.Snapshot().Resolve(c.Query)) }

// Compare says in which ways a decision is other than expected.
func (e *Expected) Compare(d Decision) (failures []string) {
	for _, x := range []struct{ what, want, got string }{
		{"server", e.Server, d.Server.String()},
		{"client", e.Client, d.Client.String()},
		{"verdict", e.Verdict, d.Verdict.String()},
		{"symptom", e.Symptom, string(d.Symptom)},
		{"decidedBy.server", e.DecidedBy.Server, d.ServerBy.String()},
		{"decidedBy.client", e.DecidedBy.Client, d.ClientBy.String()},
	} {
		if x.want != "" && x.want != x.got {
			failures = append(failures, fmt.Sprintf("%s: expected %s, got %s", x.what, x.want, x.got))
		}
	}
	if len(e.Warnings) > 0 {
		given := d.Explain().Warnings
		for _, code := range e.Warnings {
			if !slices.ContainsFunc(given, func(w Warning) bool { return w.Code == code }) {
				failures = append(failures, fmt.Sprintf("warnings: expected %s, got %v", code, given))
			}
		}
	}
	return failures
}

// Failures says what is other than expected; empty for a case that passes.
func (v *ValidationCase) Failures() (failures []string) {
	if valid := sound(v.Problems); valid != v.Expect.Valid {
		failures = append(failures, fmt.Sprintf("valid: expected %t, got %t", v.Expect.Valid, valid))
	}
	for _, x := range []struct {
		want    string
		warning bool
	}{{v.Expect.ErrorContains, false}, {v.Expect.WarningContains, true}} {
		if x.want != "" && !slices.ContainsFunc(v.Problems, func(p Problem) bool {
			return p.Warning == x.warning && strings.Contains(strings.ToLower(p.Message), strings.ToLower(x.want))
		}) {
			failures = append(failures, fmt.Sprintf("no message contains %q: %v", x.want, v.Problems))
		}
	}
	return failures
}
