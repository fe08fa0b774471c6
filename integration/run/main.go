// Command run shows Citadel at work: it starts a control plane, or takes an
// existing cluster, runs citadel there as its own service account, and shows
// what becomes of a few service accounts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var d demo
	flag.StringVar(&d.kubeconfig, "kubeconfig", "", "use this cluster instead of a local control plane")
	flag.BoolVar(&d.once, "once", false, "stop after the table")
	flag.StringVar(&d.bin, "bin", "bin", "folder of citadel and controlplane")
	flag.StringVar(&d.deploy, "deploy", "deploy", "folder of the manifests")
	args := flag.String("args", "", "further flags for citadel, separated by spaces")
	flag.Parse()
	d.args = strings.Fields(*args)
	err := d.run(ctx)
	stop()
	if err != nil && (d.once || !errors.Is(err, context.Canceled)) { // without the table, ONCE has failed
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}
