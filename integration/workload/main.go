// Command workload is a pod of the tests: it serves and calls others over mutual
// TLS, both sides proven by SPIFFE IDs of one trust domain, with the key, chain
// and roots of a mounted Secret, which it reads again when kubelet puts others in
// their place. It counts what succeeds and what fails.
//
// It refuses to retry, and to keep connections: each count is a handshake.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("workload", flag.ContinueOnError)
	listen := flags.String("listen", ":8443", "`address` to serve mutual TLS on")
	status := flags.String("status", ":8080", "`address` to tell the counts on, in plain HTTP")
	dir := flags.String("certs", "/etc/certs", "`directory` of key.pem, cert-chain.pem and root-cert.pem")
	peers := flags.String("peers", "", "comma-separated `addresses` to call")
	every := flags.Duration("every", 100*time.Millisecond, "time between two calls of a peer")
	domain := flags.String("trust-domain", "cluster.local", "trust `domain` of all peers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	td, err := spiffeid.TrustDomainFromString(*domain)
	if err != nil {
		return fmt.Errorf("-trust-domain: %w", err)
	}
	id := &identity{dir: *dir, domain: td}
	tally := &tally{identity: id}
	server := &http.Server{Addr: *listen, TLSConfig: tlsconfig.MTLSServerConfig(id, id, tlsconfig.AuthorizeMemberOf(td)),
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: timeout}
	teller := &http.Server{Addr: *status, Handler: tally, ReadHeaderTimeout: timeout}
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work.Go(func() { cancel(serve(ctx, server, func() error { return server.ListenAndServeTLS("", "") })) })
	work.Go(func() { cancel(serve(ctx, teller, teller.ListenAndServe)) })
	for _, peer := range strings.FieldsFunc(*peers, func(r rune) bool { return r == ',' }) {
		work.Go(func() { tally.callAgain(ctx, peer, *every) })
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// serve runs a server until the context ends.
func serve(ctx context.Context, server *http.Server, listen func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := listen(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
