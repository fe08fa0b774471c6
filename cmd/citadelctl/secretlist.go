package main

import (
	"io"

	"github.com/spf13/cobra"
)

func newListCommand() *cobra.Command {
	f := &secretFlags{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List workload Secrets, when they expire, and whether they are right",
		Long: `list shows every workload Secret (type istio.io/key-and-cert): whose certificate it holds,
when that expires and is replaced, and whether it is right by the judgement of citadel itself.
DNS names are taken as they are; -o json shows them.

A list is no verdict: it exits with 0 whatever its rows say. For an exit code that tells
whether all are right, use 'citadelctl secret verify'.`,
		Example: `  citadelctl secret list
  citadelctl secret list -A
  citadelctl secret list -n web -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			seen, err := f.look(cmd, nil)
			if err != nil {
				return err
			}
			return f.output.write(cmd.OutOrStdout(), secretDocument{newMeta("WorkloadSecretList", seen.now), seen.report}, func(w io.Writer) error {
				return writeSecrets(w, seen.now, seen.report.Items)
			})
		},
	}
	f.addTo(plainFlags(cmd))
	f.output.complete(cmd)
	return cmd
}
