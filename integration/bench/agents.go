package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"citadel/ca/trust"
	"citadel/integration/cluster"
	citadelv1 "citadel/proto/citadel/v1"
)

const (
	// dialling is how many agents connect at once.
	dialling = 64
	// restFor is longer than citadel takes to give memory back, twice: what waits in
	// pools goes at the second time.
	restFor = 130 * time.Second
	// spareFiles are those of either process beside its connections.
	spareFiles = 500
)

// idle connects agents that watch the roots, and takes what citadel's memory
// has grown by once all is quiet.
func (b *bench) idle(ctx context.Context, root *trust.Signer) (err error) {
	if err := allowFiles(uint64(b.agents) + spareFiles); err != nil {
		return err
	}
	c, err := b.serve(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	ctx, cancel := context.WithCancel(ctx)
	watches, ctx := errgroup.WithContext(ctx)
	defer func() {
		cancel()
		err = errors.Join(err, watches.Wait())
	}()
	const first = 100 // so that what every agent shares is there
	if err := connect(ctx, watches, apiAddress(c), root, first); err != nil {
		return err
	}
	before, err := settledMemory(ctx, c)
	if err != nil {
		return err
	}
	progress("%d agents connect, and rest for %s", b.agents, restFor)
	if err := connect(ctx, watches, apiAddress(c), root, b.agents); err != nil {
		return err
	}
	after, err := settledMemory(ctx, c)
	if err != nil {
		return err
	}
	b.add(fmt.Sprintf("memory for each of %d idle agents", b.agents), fmt.Sprintf("%.1f KiB", float64(after-before)/float64(b.agents)/(1<<10)),
		"-", "-", "below 40 KiB")
	return nil
}

// allowFiles lets this process, and those that it starts, open so many.
func allowFiles(n uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= n {
		return nil
	}
	limit.Cur, limit.Max = n, max(n, limit.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("open %d files at once: %w; raise the limit (ulimit -Hn) or give fewer -agents", n, err)
	}
	return nil
}

// connect adds agents, each with a certificate of its own, and returns when
// each has been told the roots.
func connect(ctx context.Context, watches *errgroup.Group, address string, root *trust.Signer, agents int) error {
	key, err := trust.ECDSAP256.Generate()
	if err != nil {
		return err
	}
	var dials errgroup.Group
	dials.SetLimit(dialling)
	for i := range agents {
		dials.Go(func() error {
			cert, err := agentCertificate(root, key, i)
			if err != nil {
				return err
			}
			conn, err := dial(address, root, cert)
			if err != nil {
				return err
			}
			stream, err := citadelv1.NewAgentServiceClient(conn).WatchRoots(ctx, &citadelv1.WatchRootsRequest{}, grpc.WaitForReady(true))
			if err == nil {
				_, err = stream.Recv()
			}
			if err != nil {
				return errors.Join(err, conn.Close())
			}
			watches.Go(func() error {
				defer conn.Close()
				if _, err := stream.Recv(); ctx.Err() == nil {
					return fmt.Errorf("an agent's watch did not rest: %w", err)
				}
				return nil
			})
			return nil
		})
	}
	return dials.Wait()
}

func agentCertificate(root *trust.Signer, key crypto.Signer, i int) (*tls.Certificate, error) {
	serial, err := trust.NewSerial()
	if err != nil {
		return nil, err
	}
	id := &url.URL{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/vm/sa/" + name(i)}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: serial, URIs: []*url.URL{id},
		NotBefore: root.Cert().NotBefore, NotAfter: root.Cert().NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true}, root.Cert(), key.Public(), root.Key())
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// settledMemory is what a process has resident after a rest.
func settledMemory(ctx context.Context, c *cluster.Citadel) (int64, error) {
	select {
	case <-time.After(restFor):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	return residentMemory(c.PID(), residentNow)
}
