package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"citadel/cmd/internal/daemon"
)

const example = `  # in a cluster, as deploy/ runs it
  citadel

  # outside a cluster, with an operator's own CA, 1h certificates in two namespaces
  citadel --kube-config ~/.kube/config --listened-namespaces default,web \
    --signing-cert ca-cert.pem --signing-key ca-key.pem --cert-chain cert-chain.pem --root-cert root-cert.pem \
    --workload-cert-ttl 1h

  # without Kubernetes: root, join tokens and bans in a directory
  citadel --state-dir /var/lib/citadel --grpc-host-identities ca.example.org

  # the same flag from the environment
  CITADEL_WORKLOAD_CERT_TTL=1h citadel`

// run is the whole program but for the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return daemon.Execute(ctx, newCommand(args, stdout, stderr), stderr)
}

func newCommand(args []string, stdout, stderr io.Writer) *cobra.Command {
	flags := daemon.NewFlags("CITADEL_")
	opts := newOptions(flags)
	cmd := &cobra.Command{
		Use:   "citadel",
		Short: "Certificate authority of a service mesh",
		Long: "citadel keeps one Kubernetes Secret per service account filled with a private key, a SPIFFE\n" +
			"certificate chain and the roots, and rotates it; and it signs for whoever proves who he is at\n" +
			"its CSR API. With --state-dir it does the latter alone, without Kubernetes. Each flag can also\n" +
			"be set by the environment: CITADEL_ and its name in capitals, with _ for -. Flags of Istio's\n" +
			"Citadel that do nothing here are accepted with a warning, and not listed.",
		Example: example,
		RunE: func(cmd *cobra.Command, rest []string) error {
			flags.ReportUnknown(cmd.Flags(), args)
			if err := noArguments(cmd, rest); err != nil {
				flags.Report(err)
			}
			flags.ReadEnvironment(cmd.Flags())
			cfg, err := opts.validate(cmd.Flags())
			if err != nil {
				return daemon.UsageError{Err: err}
			}
			return serve(cmd.Context(), cfg, flags.Warnings(), stdout, stderr)
		},
	}
	cmd.SetUsageFunc(func(*cobra.Command) error {
		fmt.Fprintf(stdout, "Usage:\n  citadel [flags]\n  citadel probe --probe-path file --interval duration\n  citadel version\n\nExamples:\n%s\n", example)
		flags.Usage(stdout)
		fmt.Fprintln(stdout, "\nExit codes: 0 stopped by a signal, 1 failed, 2 wrong flags, variables or files that they name.")
		return nil
	})
	cmd.AddCommand(newProbe(stdout), &cobra.Command{Use: "version", Short: "Print the version", Args: noArguments, Run: func(*cobra.Command, []string) {
		fmt.Fprintln(stdout, daemon.BuildVersion())
	}})
	flags.Complete(cmd, args, stdout, stderr)
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return daemon.UsageError{Err: fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args)}
	}
	return nil
}
