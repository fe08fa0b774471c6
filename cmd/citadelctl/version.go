package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"citadel/cmd/internal/daemon"
)

func newVersionCommand() *cobra.Command {
	out := &output{}
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  citadelctl version -o json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.validate(); err != nil {
				return usageError(cmd, err)
			}
			v := daemon.BuildVersion()
			return out.write(cmd.OutOrStdout(), struct {
				meta
				daemon.Version
			}{newMeta("Version", time.Time{}), v}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, v)
				return err
			})
		},
	}
	out.addTo(plainFlags(cmd))
	out.complete(cmd)
	return cmd
}
