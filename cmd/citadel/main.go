// Command citadel is a certificate authority for the workloads of a service
// mesh: it keeps a Secret with a SPIFFE certificate beside each Kubernetes
// service account, and rotates it; and it serves the CSR API, without Kubernetes
// too.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signal.Ignore(syscall.SIGPIPE) // a reader of the audit stream that is gone is an error of the write
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
