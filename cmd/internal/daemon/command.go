package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The exit codes of a daemon.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
)

// UsageError is a mistake on the command line, in the environment, or in a file
// that these name.
type UsageError struct{ Err error }

// Error returns the mistake.
func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the mistake.
func (e UsageError) Unwrap() error { return e.Err }

// Execute runs a command, says on stderr why it failed, and returns its exit
// code.
func Execute(ctx context.Context, cmd *cobra.Command, stderr io.Writer) int {
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	fmt.Fprintf(stderr, "%s: %v\n", cmd.Name(), err)
	if _, ok := errors.AsType[UsageError](err); ok {
		fmt.Fprintf(stderr, "See '%s --help'.\n", cmd.Name())
		return ExitUsage
	}
	return ExitFailure
}

// Complete gives a daemon's command its flags, a version and help, and the
// arguments. What is wrong with flags is for the command's RunE to tell, all at
// once: it calls ReportUnknown with the same arguments.
func (f *Flags) Complete(cmd *cobra.Command, args []string, stdout, stderr io.Writer) {
	cmd.Version = BuildVersion().String()
	cmd.Args = cobra.ArbitraryArgs // checked with the flags
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.FParseErrWhitelist = cobra.FParseErrWhitelist{UnknownFlags: true}
	cmd.Flags().Bool("version", false, "print the version") // without cobra's -v, which was the ancestors' verbosity
	f.AddTo(cmd.Flags())
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if _, ok := errors.AsType[*pflag.ValueRequiredError](err); ok && !cmd.HasParent() { // the last argument: all others are read
			f.Report(err)
			err = cmd.RunE(cmd, nil)
		}
		return UsageError{err}
	})
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.InitDefaultHelpCmd()
	cmd.SetArgs(args)
	if found, _, err := cmd.Find(args); err == nil && found == cmd {
		cmd.SetArgs(WellFormed(cmd.Flags(), args))
	}
}
