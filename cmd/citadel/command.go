package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"citadel/cmd/internal/daemon"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// usageError is a mistake on the command line or in the environment.
type usageError struct{ error }

const example = `  # in a cluster, as deploy/ runs it
  citadel

  # outside a cluster, with an operator's own CA, 1h certificates in two namespaces
  citadel --kube-config ~/.kube/config --listened-namespaces default,web \
    --signing-cert ca-cert.pem --signing-key ca-key.pem --cert-chain cert-chain.pem --root-cert root-cert.pem \
    --workload-cert-ttl 1h

  # the same flag from the environment
  CITADEL_WORKLOAD_CERT_TTL=1h citadel`

// run is the whole program but for the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := newCommand(stdout, stderr)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "citadel: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintln(stderr, "See 'citadel --help'.")
		return exitUsage
	}
	return exitFailure
}

func newCommand(stdout, stderr io.Writer) *cobra.Command {
	flags := daemon.NewFlags("CITADEL_")
	opts := newOptions(flags)
	cmd := &cobra.Command{
		Use:   "citadel",
		Short: "Certificate authority of a service mesh",
		Long: "citadel keeps one Kubernetes Secret per service account filled with a private key, a SPIFFE\n" +
			"certificate chain and the roots, and rotates it. Each flag can also be set by the environment:\n" +
			"CITADEL_ and its name in capitals, with _ for -.",
		Example:       example,
		Version:       daemon.BuildVersion().String(),
		Args:          noArguments,
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags.ReadEnvironment(cmd.Flags())
			cfg, err := opts.validate(cmd.Flags())
			if err != nil {
				return usageError{err}
			}
			return serve(cmd.Context(), cfg, flags.Warnings(), stdout, stderr)
		},
	}
	cmd.Flags().Bool("version", false, "print the version") // without cobra's -v, which was the ancestor's verbosity
	flags.AddTo(cmd.Flags())
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.SetUsageFunc(func(*cobra.Command) error {
		fmt.Fprintf(stdout, "Usage:\n  citadel [flags]\n  citadel version\n\nExamples:\n%s\n", example)
		flags.Usage(stdout)
		fmt.Fprintln(stdout, "\nExit codes: 0 stopped by a signal, 1 failed, 2 wrong flags.")
		return nil
	})
	cmd.AddCommand(&cobra.Command{Use: "version", Short: "Print the version", Args: noArguments, Run: func(*cobra.Command, []string) {
		fmt.Fprintln(stdout, daemon.BuildVersion())
	}})
	cmd.CompletionOptions.DisableDefaultCmd = true
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args)}
	}
	return nil
}
