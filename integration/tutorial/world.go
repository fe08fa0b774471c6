// Package tutorial is the tutorial of mutual TLS policy, played in real pods of a
// real node, and on a host outside of it: what it edits, what it calls, and what
// is to come of each call. The test and the demonstration (make demo) share the
// steps.
//
// It needs root, for the node. It refuses to look inside the programs: curl's exit
// code, what it prints, and what somebody sees on the wire are all that counts.
package tutorial

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"citadel/integration/cluster"
	"citadel/integration/tutorial/wire"
)

// World is a cluster with citadel, the workloads of the tutorial, and a host
// outside. One goroutine uses it.
type World struct {
	checkout, dir string
	plane         *cluster.ControlPlane
	nodePID       int
	gateway       netip.Addr // of pods: their node
	wire          *wire.Tap
	host          *host
	calls         int
}

// Build makes a world from the checkout of the source, with all state in dir,
// which is to be empty. It says what it does. What Build made ends by Close, also
// where it failed.
func Build(ctx context.Context, checkout, dir string, say func(string)) (*World, error) {
	checkout, err := filepath.Abs(checkout)
	if err != nil {
		return nil, err
	}
	w := &World{checkout: checkout, dir: dir}
	say("a cluster of one node: etcd, API server, scheduler, kubelet, containerd, kube-proxy, DNS; and images of\n" +
		"citadel, node_agent, httpbin (go-httpbin) and curl (this machine's)")
	var archives []string
	var built error
	made := make(chan struct{})
	go func() {
		defer close(made)
		archives, built = images(ctx, checkout, w.programs())
	}()
	err = w.start(ctx)
	<-made
	if err := errors.Join(err, built); err != nil {
		return w, err
	}
	if err := w.load(ctx, archives); err != nil {
		return w, err
	}
	say("citadel, and httpbin and sleep in five namespaces")
	return w, w.install(ctx)
}

// start starts the cluster, by the calling thread, and listens on its network.
func (w *World) start(ctx context.Context) (err error) {
	if w.plane, err = cluster.StartIn(ctx, w.checkout, w.dir, "--node"); err != nil {
		return err
	}
	if w.nodePID, err = w.findNode(); err != nil {
		return err
	}
	w.wire, err = wire.Open(w.nodePID, workloads, citadelPort)
	return err
}

// workloads have their addresses here: pods, and the host.
var workloads = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), hostLink}

// citadelPort is where sidecars have certificates and policy from, by TLS that is
// none of a call.
const citadelPort = 8060

// findNode is the first process of the node.
func (w *World) findNode() (int, error) {
	text, err := os.ReadFile(filepath.Join(w.plane.Dir, "node", "pid"))
	if err != nil {
		return 0, fmt.Errorf("find the node: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func (w *World) load(ctx context.Context, archives []string) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, archive := range archives {
		group.Go(func() error { return w.plane.LoadImage(ctx, archive) })
	}
	return group.Wait()
}

// Of the workloads: their namespaces, and the folders of manifests.
var (
	namespaces = []string{"legacy", "test2", "bookinfo", "ngtest"}
	folders    = []string{"legacy", "default", "test2/httpbin", "test2/sleep", "bookinfo", "ngtest"}
)

// patience bounds what a cluster may take to follow an edit of workloads.
const patience = 4 * time.Minute

// install puts citadel and the workloads into the cluster.
func (w *World) install(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := w.kubectl(ctx, "apply", "-k", w.manifests("mesh")); err != nil {
		return err
	}
	for _, name := range namespaces {
		if _, err := w.kubectl(ctx, "create", "namespace", name); err != nil {
			return err
		}
	}
	if err := w.ownTLS(ctx, "legacy", "ngtest"); err != nil {
		return err
	}
	for _, name := range folders {
		if _, err := w.kubectl(ctx, "apply", "-k", w.manifests(name)); err != nil {
			return err
		}
	}
	if err := w.settled(ctx); err != nil {
		return err
	}
	return w.findGateway(ctx)
}

// findGateway takes the first address of the pods' network.
func (w *World) findGateway(ctx context.Context) error {
	text, err := w.kubectl(ctx, "get", "pods", "-n", "legacy", "-o", "jsonpath={.items[0].status.podIP}")
	if err != nil {
		return err
	}
	pod, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("the address of a pod: %w", err)
	}
	const pods = 24
	w.gateway = netip.PrefixFrom(pod, pods).Masked().Addr().Next()
	return nil
}

func (w *World) manifests(name string) string {
	return filepath.Join(w.checkout, "integration/tutorial/manifests", name)
}

// settled waits until all Deployments are as they should be.
func (w *World) settled(ctx context.Context) error {
	_, err := w.kubectl(ctx, "wait", "deployment", "--all", "--all-namespaces", "--for=condition=Available", "--timeout="+patience.String())
	return err
}

// kubectl runs it as the administrator.
func (w *World) kubectl(ctx context.Context, args ...string) (string, error) {
	return w.plane.Kubectl(ctx, args...)
}

// Close ends everything that Build and the steps made, but for the folder.
func (w *World) Close() error {
	if w.host != nil {
		w.host.Remove()
	}
	var failures []error
	if w.wire != nil {
		failures = append(failures, w.wire.Close())
	}
	if w.plane != nil {
		failures = append(failures, w.plane.Stop())
	}
	return errors.Join(failures...)
}
