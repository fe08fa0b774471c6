package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	etcdversion "go.etcd.io/etcd/api/v3/version"
	kubeversion "k8s.io/component-base/version"

	"citadel/integration/controlplane/node"
	"citadel/integration/controlplane/supervisor"
)

// newRootCommand is the command line of the whole binary.
func newRootCommand(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "controlplane",
		Short: "A real Kubernetes control plane on loopback, for tests",
		Long: `controlplane runs etcd, kube-apiserver and kube-controller-manager on loopback,
for tests and for trying things out. All state, keys and logs are in one directory.
It is for throwaway clusters: etcd does not sync its files, so the state survives
killed processes, but not a crash of the machine.`,
		Example: `  controlplane up --dir /tmp/cluster &
  controlplane kubectl --kubeconfig /tmp/cluster/kubeconfig get namespaces
  controlplane down --dir /tmp/cluster`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              cobra.NoArgs,
		RunE:              func(*cobra.Command, []string) error { return errNoCommand },
	}
	_ = pflag.CommandLine.MarkHidden("version") // the components', which cobra gives to every command
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(newUpCommand(), newDownCommand(), newStopCommand(), newStartCommand(),
		newKubectlCommand(), newImageCommand(), newVersionCommand(),
		hidden(supervisor.Enter, enter), hidden("sweeper", runSweeper), hidden(insideCommand, runInside))
	for name := range components {
		root.AddCommand(hidden(string(name), func(args []string) int { return runComponent(name, args) }))
	}
	return root
}

var errNoCommand = errors.New("no command given")

func newUpCommand() *cobra.Command {
	var settings supervisor.Settings
	command := &cobra.Command{
		Use:   "up --dir DIR",
		Short: "Run a control plane until SIGTERM or SIGINT",
		Long: `up starts etcd, kube-apiserver and kube-controller-manager on free loopback ports,
writes an administrator's kubeconfig and prints the line "ready" on standard output
when the cluster can be used. Messages go to standard error, the logs of the
components to DIR/logs.

The same DIR brings the same cluster back: ports, keys and state. Only one up runs
on a DIR at a time. The components end with up, also when it is killed.

With --node, which needs root and Debian's packages
` + strings.Join(node.Packages, ", ") + `, there is
also a node, node-1, that runs pods, with kube-scheduler and kube-proxy. It lives in
namespaces of its own; nothing of it is left on the machine when up has ended. Images
come from 'controlplane image load', for there is no registry; DNS knows services, and
no world outside.

With --audit the API server writes a line of JSON to DIR/audit.log for every request
from outside the control plane, and for every write of the controller manager, before
it is answered.`,
		Example: `  controlplane up --dir /tmp/cluster
  controlplane up --dir /tmp/cluster --kubeconfig /tmp/admin.conf --audit
  controlplane up --dir /tmp/cluster --node`,
		Args: cobra.NoArgs,
	}
	dir := dirFlag(command)
	command.Flags().StringVar(&settings.Kubeconfig, "kubeconfig", "", "write the administrator's kubeconfig to this `file` (default DIR/kubeconfig)")
	command.Flags().BoolVar(&settings.Node, "node", false, "run pods: add a scheduler and a node, as root")
	command.Flags().BoolVar(&settings.Audit, "audit", false, "write an audit log to DIR/audit.log")
	command.RunE = withDir(dir, func(ctx context.Context, command *cobra.Command, _ []string) error {
		settings.Dir = *dir
		settings.Ready = command.OutOrStdout()
		settings.Messages = command.ErrOrStderr()
		return supervisor.Up(ctx, settings)
	})
	return command
}

func newDownCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "down --dir DIR",
		Short:   "Stop the running control plane, and wait until it is gone",
		Example: `  controlplane down --dir /tmp/cluster`,
		Args:    cobra.NoArgs,
	}
	dir := dirFlag(command)
	command.RunE = withDir(dir, func(ctx context.Context, _ *cobra.Command, _ []string) error {
		return supervisor.Down(ctx, *dir)
	})
	return command
}

func newStopCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "stop --dir DIR COMPONENT",
		Short: "Stop one component of a running control plane",
		Long: `stop ends etcd, kube-apiserver or kube-controller-manager, or with a node
kube-scheduler, containerd, kubelet, kube-proxy, cluster-dns or the whole node, and
returns when its process is gone. The others go on. One that has not ended after 20 seconds is killed;
etcd takes 5 while the API server is connected. With --kill nothing waits, and no
state is lost either.`,
		Example: `  controlplane stop --dir /tmp/cluster kube-apiserver
  controlplane stop --dir /tmp/cluster --kill etcd`,
		Args: oneComponent,
	}
	dir := dirFlag(command)
	kill := command.Flags().Bool("kill", false, "kill the process (SIGKILL) instead of asking it to end")
	command.RunE = withDir(dir, func(ctx context.Context, _ *cobra.Command, args []string) error {
		if *kill {
			return supervisor.Kill(ctx, *dir, supervisor.Component(args[0]))
		}
		return supervisor.Stop(ctx, *dir, supervisor.Component(args[0]))
	})
	return command
}

func newStartCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "start --dir DIR COMPONENT",
		Short: "Start a stopped component of a running control plane",
		Long: `start brings back a component after stop, or after it died, and returns when it is ready, and with it the running components that
build on it: after an outage of etcd the API server needs about as long again to
find it.`,
		Example: `  controlplane start --dir /tmp/cluster kube-apiserver`,
		Args:    oneComponent,
	}
	dir := dirFlag(command)
	command.RunE = withDir(dir, func(ctx context.Context, _ *cobra.Command, args []string) error {
		return supervisor.Start(ctx, *dir, supervisor.Component(args[0]))
	})
	return command
}

func newKubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl ...",
		Short:              "kubectl itself, without plugins",
		Example:            `  controlplane kubectl --kubeconfig /tmp/cluster/kubeconfig get pods -A`,
		DisableFlagParsing: true, // the flags are kubectl's
		RunE: func(_ *cobra.Command, args []string) error {
			return ended(runKubectl(args))
		},
	}
}

// hidden is a command for up's own use.
func hidden(name string, run program) *cobra.Command {
	return &cobra.Command{
		Use:                name + " ...",
		Short:              "As up runs it",
		Hidden:             true,
		DisableFlagParsing: true, // the flags are the program's
		RunE:               func(_ *cobra.Command, args []string) error { return ended(run(args)) },
	}
}

func newImageCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "image",
		Short: "Images for the pods of a cluster with a node",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return errNoCommand },
	}
	load := &cobra.Command{
		Use:   "load --dir DIR FILE",
		Short: "Give the node the images of an archive, in Docker's or OCI's format",
		Long: `load imports images into containerd. Pods use them by the names that the archive
gives them, with imagePullPolicy Never or IfNotPresent. FILE - is standard input.`,
		Example: `  controlplane image load --dir /tmp/cluster citadel.tar`,
		Args:    cobra.ExactArgs(1),
	}
	dir := dirFlag(load)
	load.RunE = withDir(dir, func(ctx context.Context, command *cobra.Command, args []string) error {
		archive := command.InOrStdin()
		if args[0] != "-" {
			file, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("open the images: %w", err)
			}
			defer file.Close()
			archive = file
		}
		return supervisor.LoadImage(ctx, *dir, archive)
	})
	command.AddCommand(load)
	return command
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the versions of what is linked in",
		Example: `  controlplane version`,
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(command.OutOrStdout(), "kubernetes %s\netcd v%s\n%s\n",
				kubeversion.Get().GitVersion, etcdversion.Version, kubeversion.Get().GoVersion)
			return failed(err)
		},
	}
}

// dirFlag adds the flag that every command about a cluster needs.
func dirFlag(command *cobra.Command) *string {
	return command.Flags().String("dir", "", "the `directory` of the cluster (required)")
}

// oneComponent wants the name of a component as the only argument.
func oneComponent(command *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s takes the name of one component", command.Name())
	}
	_, err := supervisor.ParseComponent(args[0])
	return err
}

// withDir makes a command that insists on --dir and ends early, but tidily, on
// SIGTERM and SIGINT.
func withDir(dir *string, action func(context.Context, *cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) error {
		if *dir == "" {
			return errors.New("--dir is required")
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		return failed(action(ctx, command, args))
	}
}

// failed marks err, if any, as no error of usage.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err}
}

// ended turns the exit code of a linked program into an error.
func ended(code int) error {
	if code == 0 {
		return nil
	}
	return exitStatus(code)
}
