package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"citadel/ca/policy"
)

// problemItem is something wrong with an object.
type problemItem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Object  string `json:"object,omitempty"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	// Warning says that the object can be used all the same.
	Warning bool `json:"warning,omitempty"`
}

// validationDocument is the form for programs.
type validationDocument struct {
	meta
	Generation string `json:"generation"`
	Valid      bool   `json:"valid"`
	Objects    int    `json:"objects"`
	// PassedOver are objects of kinds that do not decide about mTLS.
	PassedOver int           `json:"passedOver,omitempty"`
	Problems   []problemItem `json:"problems"`
}

// validateFlags are what policy validate is told.
type validateFlags struct {
	output
	files      []string
	meshConfig string
	generation string
}

func newValidateCommand() *cobra.Command {
	f := &validateFlags{}
	cmd := &cobra.Command{
		Use:   "validate -f FILE | --mesh-config FILE",
		Short: "Say what is wrong with policy objects, before they are applied",
		Long: `validate judges objects in files as the admission of their Istio release would, in its words:
unknown fields and values, names that are no DNS names, hosts with an asterisk in the wrong
place, and what contradicts itself. It says file, line, object and field.

Kinds outside of Istio's API groups that do not decide about mTLS are passed over, and counted.

It exits with 1 when an object cannot be used. Warnings alone exit with 0.`,
		Example: `  citadelctl policy validate -f strict.yaml
  citadelctl policy validate -f policies/ --generation v1alpha1
  kubectl get destinationrules -A -o yaml | citadelctl policy validate -f -`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := plainFlags(cmd)
	flags.StringArrayVarP(&f.files, "filename", "f", nil, "YAML or JSON `file` of objects; a folder is all such files in it, - standard input; may be given again")
	flags.StringVar(&f.meshConfig, "mesh-config", "", "`file` of a mesh config")
	addGeneration(flags, &f.generation)
	f.output.addTo(flags)
	f.output.complete(cmd)
	return cmd
}

func (f *validateFlags) run(cmd *cobra.Command) error {
	g, err := parseGeneration(f.generation)
	if len(f.files) == 0 && f.meshConfig == "" {
		err = errors.Join(err, errors.New("give -f FILE or --mesh-config FILE"))
	}
	if err := errors.Join(err, f.output.validate()); err != nil {
		return usageError(cmd, err)
	}
	files, err := readPaths(cmd, f.files)
	if err != nil {
		return err
	}
	document := validate(g, files)
	if f.meshConfig != "" {
		file, err := readPath(cmd, f.meshConfig)
		if err != nil {
			return err
		}
		document.Objects++
		document.add(policy.ValidateMeshConfig(g, file.name, file.text)...)
	}
	document.meta = newMeta("PolicyValidation", time.Now())
	err = f.output.write(cmd.OutOrStdout(), document, func(w io.Writer) error { return writeProblems(w, document) })
	if err == nil && !document.Valid {
		return errWrong
	}
	return err
}

// validate judges files. Auto is what their objects make of it, as one mesh.
func validate(g policy.Generation, files []meshFile) validationDocument {
	var objects []policy.Object
	passed := 0
	for _, file := range files {
		some, over, _ := policy.DecodeDump(file.name, file.text) // errors are told below
		objects, passed = append(objects, some...), passed+over
	}
	g = policy.New(g, objects...).Generation()
	d := validationDocument{Generation: g.String(), Valid: true, Objects: len(objects), PassedOver: passed, Problems: []problemItem{}}
	for _, file := range files {
		d.add(policy.ValidateDump(g, file.name, file.text)...)
	}
	return d
}

func (d *validationDocument) add(problems ...policy.Problem) {
	for _, p := range problems {
		d.Problems = append(d.Problems, problemItem(p))
		d.Valid = d.Valid && p.Warning
	}
}

func writeProblems(w io.Writer, d validationDocument) error {
	wrong := 0
	for _, p := range d.Problems {
		text := policy.Problem(p).Error()
		if p.Warning {
			text = "warning: " + text
		} else {
			wrong++
		}
		fmt.Fprintln(w, printable(text))
	}
	over := ""
	if d.PassedOver > 0 {
		over = fmt.Sprintf("; %s passed over: of kinds that do not decide about mTLS", count(d.PassedOver, "object"))
	}
	_, err := fmt.Fprintf(w, "%s, %s, %s%s\n", count(d.Objects, "object"), count(wrong, "error"), count(len(d.Problems)-wrong, "warning"), over)
	return err
}
