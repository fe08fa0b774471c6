package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/kube"
	"citadel/integration/cluster"
	"citadel/secretcontroller"
)

// perNamespace is how many service accounts share a namespace.
const perNamespace = 500

// secrets measures the controller: filling, restarting, resting, rewriting.
func (b *bench) secrets(ctx context.Context) error {
	if err := b.prepare(ctx); err != nil {
		return err
	}
	bare, err := b.newFloor(ctx)
	if err != nil {
		return err
	}
	if err := b.fill(ctx, bare); err != nil {
		return err
	}
	if err := b.restart(ctx); err != nil {
		return err
	}
	return b.changeRoot(ctx, bare)
}

func namespace(kind string, i int) string { return fmt.Sprintf("%s-%d", kind, i/perNamespace) }
func name(i int) string                   { return "account-" + strconv.Itoa(i) }

// prepare makes the namespaces and the service accounts.
func (b *bench) prepare(ctx context.Context) error {
	progress("making %d service accounts", b.n)
	core := b.plane.Client.CoreV1()
	for i := 0; i < b.n; i += perNamespace {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace("work", i)}}
		if _, err := core.Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	_, err := b.each(b.n, func(i int) error {
		_, err := core.ServiceAccounts(namespace("work", i)).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name(i)}}, metav1.CreateOptions{})
		return err
	})
	return err
}

// each runs f n times with the writers' concurrency, and tells how long that
// took.
func (b *bench) each(n int, f func(i int) error) (time.Duration, error) {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	start := time.Now()
	for range b.writers {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	running.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return time.Since(start), nil
}

func (b *bench) start(flags ...string) (*cluster.Citadel, error) {
	log, err := os.OpenFile(filepath.Join(b.dir, "citadel.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own copy
	return cluster.StartCitadel(cluster.Run{Binary: filepath.Join(b.bin, "citadel"), Kubeconfig: b.kubeconfig, Stderr: log,
		Flags: append([]string{"--max-concurrent-writes", strconv.Itoa(b.writers), "--audit-log", filepath.Join(b.dir, "audit.log")}, flags...)})
}

const managed = "citadel_secret_controller_secrets"

// settled waits until citadel has found or made every Secret right, and tells
// whether it has when patience ends.
func (b *bench) settled(ctx context.Context, c *cluster.Citadel, patience time.Duration) (settled bool, err error) {
	deadline := time.Now().Add(patience)
	err = c.Poll(ctx, 50*time.Millisecond, "done with every Secret", func() (bool, error) {
		have, err := c.Metric(ctx, managed)
		settled = err == nil && have >= float64(b.accounts)
		return settled || time.Now().After(deadline), nil
	})
	return settled, err
}

// count takes the number of service accounts that citadel has to care for.
func (b *bench) count(ctx context.Context) error {
	all, err := b.plane.Client.CoreV1().ServiceAccounts(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	b.accounts = 0
	for _, sa := range all.Items {
		if !strings.HasPrefix(sa.Namespace, bareNamespace) {
			b.accounts++
		}
	}
	return nil
}

// fill: service accounts that exist at the start.
func (b *bench) fill(ctx context.Context, bare *floor) (err error) {
	progress("citadel fills %d Secrets, in turns with bare creates", b.n)
	if err := b.count(ctx); err != nil {
		return err
	}
	c, err := b.start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := b.against(ctx, fmt.Sprintf("first fill of %d Secrets", b.n), c, "creates", bare.create); err != nil {
		return err
	}
	b.memory("peak memory after the first fill", c)
	return b.effort("CPU of citadel per Secret filled", c)
}

// restart: everything is right already; then rest.
func (b *bench) restart(ctx context.Context) error {
	progress("citadel restarts with %d valid Secrets", b.n)
	begin := time.Now()
	c, err := b.start()
	if err != nil {
		return err
	}
	defer func() { _ = c.Stop() }() // measured all there is
	if err := c.Ready(ctx); err != nil {
		return err
	}
	ready := time.Since(begin)
	if settled, err := b.settled(ctx, c, time.Minute); err != nil || !settled {
		return errors.Join(err, errors.New("not every Secret was judged in a minute"))
	}
	judged := time.Since(begin)
	writes, err := written(ctx, c)
	if err != nil {
		return err
	}
	b.add("restart: ready", fmt.Sprintf("%.2f s", ready.Seconds()), "-", "-", "at most 5 s")
	b.add("restart: every Secret judged", fmt.Sprintf("%.2f s", judged.Seconds()), "-", "-", "-")
	b.add("restart: writes", strconv.Itoa(writes), "-", "-", "0")
	b.memory("peak memory after the restart", c)
	return b.rest(ctx, c)
}

// rest is the cost of having nothing to do.
func (b *bench) rest(ctx context.Context, c *cluster.Citadel) error {
	const span = 60 * time.Second
	progress("citadel rests for %s", span)
	before, err := cpuTime(c.PID())
	if err != nil {
		return err
	}
	begin := time.Now()
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	after, err := cpuTime(c.PID())
	if err != nil {
		return err
	}
	b.add("CPU at rest", fmt.Sprintf("%.2f %% of a core", 100*(after-before).Seconds()/time.Since(begin).Seconds()), "-", "-", "below 1 %")
	return nil
}

// changeRoot gives the cluster a new root, window zero.
func (b *bench) changeRoot(ctx context.Context, bare *floor) (err error) {
	progress("the root changes: citadel rewrites %d Secrets, in turns with bare updates", b.n)
	err = b.plane.Client.CoreV1().Secrets(cluster.StorageNamespace).Delete(ctx, kube.CASecret, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	// Else the new root would wait for the old one to be restored.
	err = b.plane.Client.CoreV1().ConfigMaps(cluster.StorageNamespace).Delete(ctx, secretcontroller.LegacyConfigMap, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	c, err := b.start("--root-change-window", "0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := b.against(ctx, fmt.Sprintf("root change, %d rewrites", b.n), c, "updates", bare.update); err != nil {
		return err
	}
	b.memory("peak memory after the root change", c)
	return b.effort("CPU of citadel per Secret rewritten", c)
}

// effort is the processor time of the process so far, per service account.
func (b *bench) effort(what string, c *cluster.Citadel) error {
	used, err := cpuTime(c.PID())
	if err != nil {
		return err
	}
	b.add(what, (used / time.Duration(b.n)).Round(time.Microsecond).String(), "-", "-", "-")
	return nil
}

// written counts the writes of this process.
func written(ctx context.Context, c *cluster.Citadel) (int, error) {
	_, page, err := c.Get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	total := 0.0
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "citadel_secret_controller_refreshes_total{") {
			value, err := strconv.ParseFloat(strings.Fields(line)[1], 64)
			if err != nil {
				return 0, err
			}
			total += value
		}
	}
	return int(total), nil
}

func (b *bench) memory(what string, c *cluster.Citadel) {
	peak, err := residentMemory(c.PID(), residentMost)
	if err != nil {
		b.add(what, err.Error(), "-", "-", "below 150 MiB")
		return
	}
	b.add(what, fmt.Sprintf("%.0f MiB", float64(peak)/(1<<20)), "-", "-", "below 150 MiB")
}
