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
	"slices"
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
	agents      int // that watch
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
	flag.IntVar(&b.agents, "agents", 10000, "agents that are connected and idle")
	flag.BoolVar(&b.keep, "keep", false, "leave state and logs behind")
	only := flag.String("only", "", "one `part` alone: policy, enforce, secrets, api, agents, hosts or pods")
	dir := flag.String(serveBarestFlag, "", "be the barest server, with the CA of a `folder`; for this program's own use")
	proxy := flag.String(serveProxyFlag, "", "be a proxy as a `file` says; for this program's own use")
	flag.Parse()
	var err error
	if *proxy != "" {
		err = serveProxy(ctx, *proxy)
	} else {
		err = b.chosen(ctx, *only, *dir)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// chosen does what the flags ask for.
func (b *bench) chosen(ctx context.Context, only, barestDir string) error {
	if barestDir != "" {
		return serveBarest(barestDir, os.Stdin, os.Stdout)
	}
	parts := []part{{"policy", b.policies}, {"enforce", b.enforcement}, {"secrets", b.alone}, {"api", b.api}, {"agents", b.idleAgents}, {"hosts", b.hosts}, {"pods", b.pods}}
	if only != "" {
		parts = slices.DeleteFunc(parts, func(p part) bool { return p.name != only })
	}
	if len(parts) == 0 {
		return fmt.Errorf("-only: there is no part %q", only)
	}
	defer b.print(os.Stdout)
	return b.run(ctx, parts)
}

// part is what can be measured alone.
type part struct {
	name string
	run  func(context.Context) error
}

// run does parts in a directory of their own.
func (b *bench) run(ctx context.Context, parts []part) (err error) {
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
		if err := part.run(ctx); err != nil {
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
	if err := b.controlPlane(ctx, "cluster"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.plane.Stop()) }()
	return b.secrets(ctx)
}

// controlPlane starts one without a node, for citadel as a process beside it.
func (b *bench) controlPlane(ctx context.Context, dir string) (err error) {
	progress("starting the control plane")
	b.plane, err = cluster.Start(ctx, cluster.Options{Binary: filepath.Join(b.bin, "controlplane"), Dir: filepath.Join(b.dir, dir), Log: io.Discard})
	if err != nil {
		return err
	}
	b.kubeconfig = filepath.Join(b.dir, dir, "citadel.kubeconfig")
	_, err = b.plane.Kubectl(ctx, "apply", "-k", b.deploy)
	if err == nil {
		err = b.plane.ServiceAccount(ctx, cluster.StorageNamespace, cluster.CitadelAccount, b.kubeconfig)
	}
	if err != nil {
		return errors.Join(err, b.plane.Stop())
	}
	return nil
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
