package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"citadel/cmd/internal/daemon"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// usageError is a mistake on the command line, in the environment, or in a file
// that these name.
type usageError struct{ error }

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
	cmd := newCommand(args, stdout, stderr)
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
		Example:       example,
		Version:       daemon.BuildVersion().String(),
		Args:          cobra.ArbitraryArgs, // checked with the flags
		SilenceErrors: true, SilenceUsage: true,
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true}, // ReportUnknown tells
		RunE: func(cmd *cobra.Command, rest []string) error {
			flags.ReportUnknown(cmd.Flags(), args)
			if err := noArguments(cmd, rest); err != nil {
				flags.Report(err)
			}
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
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if _, ok := errors.AsType[*pflag.ValueRequiredError](err); ok && !cmd.HasParent() { // the last argument: all others are read
			flags.Report(err)
			err = cmd.RunE(cmd, nil)
		}
		return usageError{err}
	})
	cmd.SetUsageFunc(func(*cobra.Command) error {
		fmt.Fprintf(stdout, "Usage:\n  citadel [flags]\n  citadel probe --probe-path file --interval duration\n  citadel version\n\nExamples:\n%s\n", example)
		flags.Usage(stdout)
		fmt.Fprintln(stdout, "\nExit codes: 0 stopped by a signal, 1 failed, 2 wrong flags, variables or files that they name.")
		return nil
	})
	cmd.AddCommand(newProbe(stdout), &cobra.Command{Use: "version", Short: "Print the version", Args: noArguments, Run: func(*cobra.Command, []string) {
		fmt.Fprintln(stdout, daemon.BuildVersion())
	}})
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.InitDefaultHelpCmd()
	cmd.SetArgs(args)
	if found, _, err := cmd.Find(args); err == nil && found == cmd {
		cmd.SetArgs(daemon.WellFormed(cmd.Flags(), args))
	}
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args)}
	}
	return nil
}
