// Command citadelctl shows an operator what certificates are out there, and
// whether they are right: the Secrets that citadel keeps for workloads, and any
// certificate in a file. It also says who may have one: tokens by which hosts
// join, and bans.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
