package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"citadel/cmd/internal/daemon"
)

const probeExample = `  # as the exec liveness probe beside citadel --liveness-probe-path=/tmp/ca.liveness --liveness-probe-interval=60s
  citadel probe --probe-path=/tmp/ca.liveness --interval=125s`

// newProbe is the command of the ancestor's exec liveness probe.
func newProbe(stdout io.Writer) *cobra.Command {
	var path string
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Tell whether citadel is alive, by the file of --liveness-probe-path",
		Long: "probe looks when the file was touched: exit code 0 if that is less than the interval ago, else 1.\n" +
			"A probe by HTTP of /healthz on the monitoring port needs neither the file nor this command.",
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			var problems []error
			if path == "" {
				problems = append(problems, errors.New("--probe-path: is not given: name the file of citadel's --liveness-probe-path"))
			}
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				problems = append(problems, fmt.Errorf("--probe-path: %s is a folder: name the file of citadel's --liveness-probe-path", path))
			}
			if interval <= 0 {
				problems = append(problems, fmt.Errorf("--interval: %s must be above zero, and above citadel's --liveness-probe-interval", interval))
			}
			if len(problems) > 0 {
				return daemon.UsageError{Err: errors.Join(problems...)}
			}
			if err := daemon.CheckLiveness(path, interval, time.Now()); err != nil {
				return err
			}
			fmt.Fprintln(stdout, "ok")
			return nil
		},
	}
	cmd.Flags().StringVar(&path, "probe-path", "", "`file` that citadel touches")
	cmd.Flags().DurationVar(&interval, "interval", 0, "how long ago it must have been touched at most")
	cmd.SetUsageFunc(func(cmd *cobra.Command) error {
		fmt.Fprintf(stdout, "Usage:\n  citadel probe --probe-path file --interval duration\n\nExamples:\n%s\n\nFlags:\n%s\n"+
			"Exit codes: 0 alive, 1 not, 2 wrong flags.\n", probeExample, cmd.LocalFlags().FlagUsages())
		return nil
	})
	return cmd
}
