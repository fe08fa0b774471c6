// Command controlplane is a real Kubernetes control plane in one file: etcd,
// kube-apiserver, kube-controller-manager and kubectl, linked from their Go
// modules, and a supervisor that runs them together on loopback for tests and
// for trying things out. On request it adds a node that runs real pods:
// kube-scheduler, kubelet and kube-proxy, linked in as well, around Debian's
// containerd and runc.
//
// It refuses to be anything that lasts: one member, throwaway keys beside the
// data, no fsync, no network but loopback and a link to the node. It is no part of the product, which
// meets it only through a kubeconfig.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// The exit codes besides 0. A linked program has its own.
const (
	exitFailure = 1
	exitUsage   = 2
)

// run carries out one command line and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRootCommand(stdout, stderr)
	root.SetArgs(args)
	command, err := root.ExecuteC()

	var status exitStatus
	var failed *failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &failed):
		fmt.Fprintf(stderr, "controlplane: %v\n", failed)
		return exitFailure
	}
	fmt.Fprintf(stderr, "controlplane: %v\nSee '%s --help'.\n", err, command.CommandPath())
	return exitUsage
}

// exitStatus is how a linked program ended; it has said why itself.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// failure marks an error of a command that was understood and carried out.
// Every error without the mark is one of usage.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }
