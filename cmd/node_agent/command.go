package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"citadel/cmd/internal/daemon"
)

const example = `  # join by a token that citadelctl token create printed, and keep /etc/certs filled
  node_agent --join-token-file /etc/credstore/citadel-join-token

  # as Istio's node agent was started: key, chain and root are in /etc/certs already
  node_agent --ca-address istio-citadel:8060 --workload-cert-ttl 24h

  # nginx reads the files anew after each renewal
  node_agent --reload-command 'nginx -s reload'

  # how is it going?
  node_agent status`

// run is the whole program but for the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return daemon.Execute(ctx, newCommand(args, stdout, stderr), stderr)
}

func newCommand(args []string, stdout, stderr io.Writer) *cobra.Command {
	flags := daemon.NewFlags("NODE_AGENT_")
	opts := newOptions(flags)
	cmd := &cobra.Command{
		Use:   "node_agent",
		Short: "Keeps a host's workload certificate",
		Long: "node_agent has a key certified by a Citadel, keeps key, chain and root in files, and renews them\n" +
			"in time. Each flag can also be set by the environment (NODE_AGENT_ and its name in capitals, with\n" +
			"_ for -) and in the YAML file of --config. Flags of Istio's node agent that do nothing here are\n" +
			"accepted with a warning, and not listed.",
		Example: example,
		RunE: func(cmd *cobra.Command, rest []string) error {
			flags.ReportUnknown(cmd.Flags(), args)
			if err := noArguments(cmd, rest); err != nil {
				flags.Report(err)
			}
			flags.ReadEnvironment(cmd.Flags())
			opts.ancestorsVariables(cmd.Flags()) // before the file, which counts less
			if opts.configFile != "" {
				flags.ReadFile(cmd.Flags(), opts.configFile)
			}
			cfg, err := opts.validate(cmd.Flags())
			if err != nil {
				return daemon.UsageError{Err: err}
			}
			return serve(cmd.Context(), cfg, flags.Warnings(), stderr)
		},
	}
	cmd.SetUsageFunc(func(asked *cobra.Command) error {
		if asked != cmd {
			fmt.Fprintf(stdout, "Usage:\n  %s\n\nExamples:\n%s\n\nFlags:\n%s", asked.UseLine(), asked.Example, asked.Flags().FlagUsages())
			return nil
		}
		fmt.Fprintf(stdout, "Usage:\n  node_agent [flags]\n  node_agent status [-o table|json]\n  node_agent renew\n  node_agent redirect install|remove|show\n  node_agent probe URL\n  node_agent version\n\nExamples:\n%s\n", example)
		flags.Usage(stdout)
		fmt.Fprintln(stdout, "\nExit codes: 0 stopped by a signal, 1 failed, 2 wrong flags, variables or files that they name.")
		return nil
	})
	cmd.AddCommand(newStatus(stdout), newRenew(stdout), newRedirect(stdout, stderr), newProbe(stdout), &cobra.Command{Use: "version", Short: "Print the version", Example: "  node_agent version", Args: noArguments, Run: func(*cobra.Command, []string) {
		fmt.Fprintln(stdout, daemon.BuildVersion())
	}})
	flags.Complete(cmd, args, stdout, stderr)
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if slices.ContainsFunc(args, isSecret) {
		return daemon.UsageError{Err: fmt.Errorf("%s takes no arguments: %s", cmd.CommandPath(), tokenInSight)}
	}
	return daemon.UsageError{Err: fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args)}
}
