// Command bench measures Citadel beside floors that are measured in the same
// run, on the same machine, and prints a table with the ratios. Absolute
// numbers depend on the machine; the ratios are the claim.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"text/tabwriter"

	"citadel/integration/cluster"
)

// bench is the setting of all measurements.
type bench struct {
	bin, deploy string
	n           int // service accounts
	writers     int
	accounts    int // of service accounts, the cluster's own among them
	dir         string
	plane       *cluster.ControlPlane
	kubeconfig  string // citadel's
	keep        bool
	rows        []row
}

// row is one line of the table.
type row struct{ what, measured, floor, ratio, goal string }

func (b *bench) add(what, measured, floor, ratio, goal string) {
	b.rows = append(b.rows, row{what, measured, floor, ratio, goal})
	fmt.Fprintf(os.Stderr, "    %s: %s (floor %s, ratio %s, goal %s)\n", what, measured, floor, ratio, goal)
}

func main() {
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var b bench
	flag.StringVar(&b.bin, "bin", "bin", "folder of citadel and controlplane")
	flag.StringVar(&b.deploy, "deploy", "deploy", "folder of the manifests")
	flag.IntVar(&b.n, "n", 10000, "service accounts")
	flag.IntVar(&b.writers, "writers", 32, "concurrent writes, of citadel and of the floor")
	keep := flag.Bool("keep", false, "leave state and logs behind")
	flag.Parse()
	b.keep = *keep
	err := b.run(ctx, b.alone, b.pods)
	b.print(os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run does all parts in a directory of their own.
func (b *bench) run(ctx context.Context, parts ...func(context.Context) error) (err error) {
	if b.dir, err = os.MkdirTemp("", "citadel-bench-"); err != nil {
		return err
	}
	defer func() {
		if b.keep {
			progress("state and logs are in %s", b.dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(b.dir))
	}()
	for _, part := range parts {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// alone measures citadel as a process beside a control plane without a node.
func (b *bench) alone(ctx context.Context) (err error) {
	if err := b.signing(); err != nil {
		return err
	}
	progress("starting the control plane")
	b.plane, err = cluster.Start(ctx, cluster.Options{Binary: filepath.Join(b.bin, "controlplane"), Dir: filepath.Join(b.dir, "cluster"), Log: io.Discard})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.plane.Stop()) }()
	if _, err := b.plane.Kubectl(ctx, "apply", "-k", b.deploy); err != nil {
		return err
	}
	b.kubeconfig = filepath.Join(b.dir, "citadel.kubeconfig")
	if err := b.plane.ServiceAccount(ctx, cluster.StorageNamespace, cluster.CitadelAccount, b.kubeconfig); err != nil {
		return err
	}
	return b.secrets(ctx)
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "==> "+format+"\n", args...) }

func (b *bench) print(w io.Writer) {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "WHAT\tMEASURED\tFLOOR\tRATIO\tGOAL")
	for _, r := range b.rows {
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", r.what, r.measured, r.floor, r.ratio, r.goal)
	}
	_ = out.Flush() // standard output is gone: nobody to tell
}
