package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newVerifyCommand() *cobra.Command {
	f := &secretFlags{}
	var all bool
	cmd := &cobra.Command{
		Use:   "verify [NAME...]",
		Short: "Tell which workload Secrets are wrong, and why",
		Long: `verify judges workload Secrets as citadel itself does, and shows those that are wrong: with
another's certificate, a key that does not match, a chain that does not lead to the roots of
today, an end that is near or past. It also tells of Secrets whose service account does not
exist. A NAME is a Secret's, istio.<service account>.

It exits with 0 when all are right, with 1 when one is wrong, and with 3 when a named one
or the namespace does not exist, whatever the others are. -o json and -o yaml, too, hold
the wrong ones alone unless --all is given; their summary counts all.`,
		Example: `  citadelctl secret verify -A
  citadelctl secret verify -n web istio.default istio.frontend
  citadelctl secret verify -A --all -o yaml`,
		RunE: func(cmd *cobra.Command, names []string) error { return f.verify(cmd, names, all) },
	}
	flags := plainFlags(cmd)
	flags.BoolVar(&all, "all", false, "show those that are right too")
	f.addTo(flags)
	f.output.complete(cmd)
	return cmd
}

func (f *secretFlags) verify(cmd *cobra.Command, names []string, all bool) error {
	seen, err := f.look(cmd, names)
	if err != nil {
		return err
	}
	shown := seen.report
	if !all {
		shown = seen.report.Only()
	}
	err = f.output.write(cmd.OutOrStdout(), secretDocument{newMeta("WorkloadSecretVerification", seen.now), shown}, func(w io.Writer) error {
		if err := writeSecrets(w, seen.now, shown.Items); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "%d right, %d wrong\n", shown.Summary.Right, shown.Summary.Wrong)
		return err
	})
	switch {
	case err != nil:
		return err
	case seen.missing != nil:
		return seen.missing
	case shown.Summary.Wrong > 0:
		return errWrong
	}
	return nil
}
