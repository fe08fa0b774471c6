package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"citadel/cmd/citadelctl/health"
)

// checkDocument is the form for programs.
type checkDocument struct {
	meta
	// Right is true when nothing failed and all could be looked at.
	Right   bool           `json:"right"`
	Checks  []health.Check `json:"checks"`
	Summary checkSummary   `json:"summary"`
}

// checkSummary counts outcomes.
type checkSummary struct {
	Passed   int `json:"passed"`
	Warnings int `json:"warnings"`
	Failed   int `json:"failed"`
	Unknown  int `json:"unknown"`
}

// checkFlags are what check is told besides.
type checkFlags struct {
	installFlags
	pre     bool
	account string
}

func newCheckCommand() *cobra.Command {
	f := &checkFlags{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check an installation, or with --pre whether a cluster is ready for one",
		Long: `check goes through an installation: replicas and their leader, the CA and its life, the roots and
where they are published, Secrets, the rights of citadel's service account, and what the
replicas say of themselves. With --pre it goes through a cluster before citadel is installed:
the API server, your rights, the namespace, and what an earlier authority has left.

Each check is a line with its mark, and has its remedy below where it failed. It only reads.
It exits with 0 when nothing failed, with 1 when something did, and with 4 when nothing wrong
was found but not all could be looked at. A warning is no failure.`,
		Example: `  citadelctl check --pre && kubectl apply -k deploy/
  citadelctl check
  citadelctl check -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.check(cmd) },
	}
	flags := plainFlags(cmd)
	flags.BoolVar(&f.pre, "pre", false, "check a cluster before citadel is installed")
	flags.StringVar(&f.account, "service-account", "", "`name` of citadel's service account; empty: the Deployment's, else "+health.ServiceAccount)
	f.addTo(flags)
	f.output.complete(cmd)
	return cmd
}

func (f *checkFlags) check(cmd *cobra.Command) error {
	c, err := f.prepare(cmd)
	if err != nil {
		return err
	}
	look := f.installation
	if f.pre {
		look = f.preflight
	}
	checks, err := look(cmd.Context(), c, cmd)
	if err != nil {
		return err
	}
	document := checkDocument{newMeta("Check", c.clock.now()), health.Verdict(checks) == health.Passed, checks, summarize(checks)}
	err = f.output.write(cmd.OutOrStdout(), document, func(w io.Writer) error {
		return writeChecks(w, checks, document.Summary)
	})
	if err != nil {
		return err
	}
	return unfinished(checks)
}

// installation is the checks of one that is there. Where there is none, those
// that ask it are left out.
func (f *checkFlags) installation(ctx context.Context, c *cluster, cmd *cobra.Command) ([]health.Check, error) {
	world, err := f.read(ctx, c, cmd.Flags())
	if err != nil {
		return nil, err
	}
	checks := health.Look(world).Checks
	account := citadelsAccount(f.account, world)
	rights, err := f.accountRights(ctx, c, world, account)
	if err != nil {
		return nil, err
	}
	checks = append(append(checks, rights), f.tokenReviews(ctx, c, world, account)...)
	others, err := c.others(ctx, world)
	if err != nil {
		return nil, err
	}
	own, err := c.askReplicas(ctx, world)
	return append(append(checks, others), own...), err
}

func summarize(checks []health.Check) checkSummary {
	var s checkSummary
	for _, c := range checks {
		switch c.Outcome {
		case health.Passed:
			s.Passed++
		case health.Warned:
			s.Warnings++
		case health.Failed:
			s.Failed++
		default:
			s.Unknown++
		}
	}
	return s
}

// mark is how a line begins.
func mark(o health.Outcome) string {
	switch o {
	case health.Passed:
		return "ok  "
	case health.Warned:
		return "warn"
	case health.Failed:
		return "FAIL"
	}
	return "?   "
}

func writeChecks(w io.Writer, checks []health.Check, s checkSummary) error {
	section := ""
	for _, c := range checks {
		if c.Section != section {
			section = c.Section
			fmt.Fprintln(w, section)
		}
		fmt.Fprintf(w, "  %s  %s: %s\n", mark(c.Outcome), c.Name, printable(c.Message))
		if c.Remedy != "" && c.Outcome != health.Passed {
			fmt.Fprintf(w, "        remedy: %s\n", printable(c.Remedy))
		}
	}
	_, err := fmt.Fprintf(w, "\n%d passed, %d failed, %s, %d unknown\n", s.Passed, s.Failed, count(s.Warnings, "warning"), s.Unknown)
	return err
}
