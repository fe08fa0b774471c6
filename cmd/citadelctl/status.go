package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"citadel/cmd/citadelctl/health"
)

// statusDocument is the form for programs.
type statusDocument struct {
	meta
	// Right is true when nothing needs a person and all could be looked at.
	Right bool `json:"right"`
	health.Report
}

func newStatusCommand() *cobra.Command {
	f := &installFlags{}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say in one screen how citadel is: CA, roots, replicas, Secrets",
		Long: `status shows the CA and the roots with the life that they have left, the replicas and which of
them leads, the Secrets, and what needs a person, with its remedy. It only reads, and shows
no private key.

What you have no right to read is unknown, and the rest is shown all the same. It exits with 0
when all is well, with 1 when something needs a person, and with 4 when nothing wrong was
found but not all could be looked at.`,
		Example: `  citadelctl status
  citadelctl status -o json
  citadelctl status --citadel-storage-namespace mesh`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.status(cmd) },
	}
	f.addTo(plainFlags(cmd))
	f.output.complete(cmd)
	return cmd
}

func (f *installFlags) status(cmd *cobra.Command) error {
	c, err := f.prepare(cmd)
	if err != nil {
		return err
	}
	world, err := f.read(cmd.Context(), c, cmd.Flags())
	if err != nil {
		return err
	}
	report := health.Look(world)
	if err := f.addRights(cmd.Context(), c, world, &report); err != nil {
		return err
	}
	document := statusDocument{newMeta("Status", world.Now), health.Verdict(report.Checks) == health.Passed, report}
	err = f.output.write(cmd.OutOrStdout(), document, func(w io.Writer) error {
		return writeStatus(w, world.Now, report)
	})
	if err != nil {
		return err
	}
	return unfinished(report.Checks)
}

// addRights adds the rights that citadel lacks, where a Deployment says whose they
// are. Who may not ask for them has looked at all the rest.
func (f *installFlags) addRights(ctx context.Context, c *cluster, w health.World, report *health.Report) error {
	if w.Deployment.Value == nil {
		return nil
	}
	rights, err := f.accountRights(ctx, c, w, citadelsAccount("", w))
	if err == nil && rights.Outcome == health.Failed {
		report.Checks = append(report.Checks, rights)
	}
	return err
}
