package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"citadel/cmd/internal/daemon"
)

// run is the whole program but for the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := newCommand(stdout, stderr)
	cmd.SetArgs(args)
	return exitCode(cmd.ExecuteContext(ctx), stderr)
}

func newCommand(stdout, stderr io.Writer) *cobra.Command {
	root := newGroup("citadelctl", "See what certificates there are and whether they are right, and say who may have one",
		newStatusCommand(), newCheckCommand(), newSecretCommand(), newCertCommand(), newTokenCommand(), newIdentityCommand(), newPolicyCommand(), newVersionCommand())
	root.Long = "citadelctl shows an operator which certificates there are, and whether they are right; by token\n" +
		"and identity it says who may have one, and nothing else of it changes anything.\n" +
		"Data goes to standard output, messages to standard error."
	root.Example = `  citadelctl status
  citadelctl secret list -A
  citadelctl secret verify -n web
  citadelctl cert inspect cert-chain.pem --root-cert root-cert.pem
  citadelctl token create --namespace vm --service-account web
  citadelctl identity ban vm/web --reason "host web-3 was stolen"`
	root.Version = daemon.BuildVersion().String()
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetUsageFunc(usage)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError(cmd, err) })
	root.SilenceErrors, root.SilenceUsage = true, true
	return root
}

// newGroup is a command that only holds others.
func newGroup(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, SuggestionsMinimumDistance: 2}
	cmd.AddCommand(commands...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError(cmd, errors.New("give a command"))
		}
		err := fmt.Errorf("there is no command '%s %s'", cmd.CommandPath(), args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(near, " or "))
		}
		return usageError(cmd, err)
	}
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(cmd, fmt.Errorf("'%s' takes no arguments, got %q", cmd.CommandPath(), args))
	}
	return nil
}

// usage is the latter part of every --help.
func usage(cmd *cobra.Command) error {
	out := cmd.OutOrStdout()
	fmt.Fprintln(out, "Usage:")
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(out, "  %s COMMAND\n\nCommands:\n", cmd.CommandPath())
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(out, "  %-*s  %s\n", cmd.NamePadding(), sub.Name(), sub.Short)
			}
		}
	} else {
		fmt.Fprintf(out, "  %s\n", cmd.UseLine())
	}
	if cmd.HasExample() {
		fmt.Fprintf(out, "\nExamples:\n%s\n", cmd.Example)
	}
	fmt.Fprintf(out, "\nFlags:\n%s", cmd.LocalFlags().FlagUsagesWrapped(100))
	_, err := fmt.Fprintf(out, "\nExit codes:\n%s", exitCodeHelp)
	return err
}

// plainFlags keeps flags in the order of their making in --help.
func plainFlags(cmd *cobra.Command) *pflag.FlagSet {
	flags := cmd.Flags()
	flags.SortFlags = false
	return flags
}
