package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"citadel/ca/policy"
)

// failedCase is a case whose answer is another one than expected.
type failedCase struct {
	File     string   `json:"file"`
	Name     string   `json:"name"`
	Failures []string `json:"failures"`
}

// testDocument is the form for programs.
type testDocument struct {
	meta
	Passed int          `json:"passed"`
	Failed int          `json:"failed"`
	Items  []failedCase `json:"items"`
}

func newPolicyTestCommand() *cobra.Command {
	o := &output{}
	cmd := &cobra.Command{
		Use:   "test CASES.yaml...",
		Short: "Run files of cases: this mesh, this client, this server, expect that",
		Long: `test runs case files, in which people write what must hold in their mesh, and prints the names
of the cases that fail, with what was expected and what the answer is. README.md shows how a
case is written.

It exits with 1 when a case fails, and when a file has no cases.`,
		Example: `  citadelctl policy test cases.yaml
  citadelctl policy test tests/*.yaml -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError(cmd, errors.New("give the files of cases"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runCases(cmd, o, args) },
	}
	o.addTo(plainFlags(cmd))
	o.complete(cmd)
	return cmd
}

func runCases(cmd *cobra.Command, o *output, paths []string) error {
	if err := o.validate(); err != nil {
		return usageError(cmd, err)
	}
	files, err := readPaths(cmd, paths)
	if err != nil {
		return err
	}
	document := testDocument{meta: newMeta("PolicyTest", time.Now()), Items: []failedCase{}}
	for _, file := range files {
		cases, err := policy.DecodeCases(file.name, file.text)
		if err != nil {
			return err
		}
		if len(cases.Resolve)+len(cases.Validate) == 0 {
			return fmt.Errorf("%s has no cases: nothing was tested", file.name)
		}
		document.add(file.name, cases)
	}
	err = o.write(cmd.OutOrStdout(), document, func(w io.Writer) error { return writeTest(w, document) })
	if err == nil && document.Failed > 0 {
		return errWrong
	}
	return err
}

func (d *testDocument) add(file string, cases *policy.Cases) {
	note := func(name string, failures []string) {
		if len(failures) == 0 {
			d.Passed++
			return
		}
		d.Failed++
		d.Items = append(d.Items, failedCase{file, name, failures})
	}
	for i := range cases.Resolve {
		note(cases.Resolve[i].Name, cases.Resolve[i].Failures())
	}
	for i := range cases.Validate {
		note(cases.Validate[i].Name, cases.Validate[i].Failures())
	}
}

func writeTest(w io.Writer, d testDocument) error {
	for _, c := range d.Items {
		fmt.Fprintf(w, "%s\n", printable(c.Name))
		for _, failure := range c.Failures {
			fmt.Fprintf(w, "    %s\n", printable(failure))
		}
	}
	_, err := fmt.Fprintf(w, "%d passed, %d failed\n", d.Passed, d.Failed)
	return err
}
