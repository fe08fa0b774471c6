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

// bareType keeps the floor's Secrets from citadel's eyes.
const bareType corev1.SecretType = "bench/bare"

// secrets measures the controller: filling, restarting, resting, rewriting.
func (b *bench) secrets(ctx context.Context) error {
	if err := b.prepare(ctx); err != nil {
		return err
	}
	created, err := b.floor(ctx, "create", b.createBare)
	if err != nil {
		return err
	}
	updated, err := b.floor(ctx, "update", b.updateBare)
	if err != nil {
		return err
	}
	if err := b.fill(ctx, created); err != nil {
		return err
	}
	if err := b.restart(ctx); err != nil {
		return err
	}
	return b.changeRoot(ctx, updated)
}

func namespace(kind string, i int) string { return fmt.Sprintf("%s-%d", kind, i/perNamespace) }
func name(i int) string                   { return "account-" + strconv.Itoa(i) }

// prepare makes the namespaces and the service accounts.
func (b *bench) prepare(ctx context.Context) error {
	progress("making %d service accounts", b.n)
	core := b.plane.Client.CoreV1()
	for i := 0; i < b.n; i += perNamespace {
		for _, kind := range []string{"work", "bare"} {
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace(kind, i)}}
			if kind == "bare" {
				ns.Labels = map[string]string{secretcontroller.OverrideLabel: "false"}
			}
			if _, err := core.Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
				return err
			}
		}
		owner, err := core.ServiceAccounts(namespace("bare", i)).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		b.owners = append(b.owners, owner.UID)
	}
	_, err := b.each(func(i int) error {
		_, err := core.ServiceAccounts(namespace("work", i)).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name(i)}}, metav1.CreateOptions{})
		return err
	})
	return err
}

// each runs f for every service account with the writers' concurrency, and
// tells how long that took.
func (b *bench) each(f func(i int) error) (time.Duration, error) {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	start := time.Now()
	for range b.writers {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < b.n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
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

// floor measures bare writes of objects of the same size.
func (b *bench) floor(ctx context.Context, verb string, write func(context.Context, int) error) (float64, error) {
	progress("floor: %d bare Secret %ss, %d at once", b.n, verb, b.writers)
	took, err := b.each(func(i int) error { return write(ctx, i) })
	return float64(b.n) / took.Seconds(), err
}

// The size of what citadel writes: P-256 key, leaf and root.
func bareData(fill byte) map[string][]byte {
	return map[string][]byte{
		"key.pem": []byte(strings.Repeat(string(fill), 241)), "cert-chain.pem": []byte(strings.Repeat(string(fill), 720)),
		"root-cert.pem": []byte(strings.Repeat(string(fill), 700)),
	}
}

// bareSecret is a Secret as citadel writes it, but for its content.
func (b *bench) bareSecret(i int, fill byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name(i),
			Labels:      map[string]string{secretcontroller.ManagedByLabel: "bench"},
			Annotations: map[string]string{secretcontroller.AccountAnnotation: name(i)},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ServiceAccount", Name: "owner",
				UID: b.owners[i/perNamespace]}},
		},
		Type: bareType, Data: bareData(fill),
	}
}

func (b *bench) createBare(ctx context.Context, i int) error {
	_, err := b.plane.Client.CoreV1().Secrets(namespace("bare", i)).Create(ctx, b.bareSecret(i, 'a'), metav1.CreateOptions{})
	return err
}

func (b *bench) updateBare(ctx context.Context, i int) error {
	_, err := b.plane.Client.CoreV1().Secrets(namespace("bare", i)).Update(ctx, b.bareSecret(i, 'b'), metav1.UpdateOptions{})
	return err
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

// settled waits until citadel has found or made every Secret right.
func (b *bench) settled(ctx context.Context, c *cluster.Citadel) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	all, err := b.plane.Client.CoreV1().ServiceAccounts(metav1.NamespaceAll).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	accounts := 0
	for _, sa := range all.Items {
		if !strings.HasPrefix(sa.Namespace, "bare-") {
			accounts++
		}
	}
	return c.Poll(ctx, "done with every Secret", func() (bool, error) {
		have, err := c.Metric(ctx, managed)
		return err == nil && have >= float64(accounts), nil
	})
}

// fill: service accounts that exist at the start.
func (b *bench) fill(ctx context.Context, floor float64) error {
	progress("citadel fills %d Secrets", b.n)
	begin := time.Now()
	c, err := b.start()
	if err != nil {
		return err
	}
	if err := b.settled(ctx, c); err != nil {
		return errors.Join(err, c.Stop())
	}
	took := time.Since(begin)
	rate := float64(b.n) / took.Seconds()
	b.add(fmt.Sprintf("first fill of %d Secrets", b.n), fmt.Sprintf("%.1f s, %.0f/s", took.Seconds(), rate),
		fmt.Sprintf("%.0f/s bare creates", floor), fmt.Sprintf("%.2f", rate/floor), "at least 0.8")
	b.memory("peak memory after the first fill", c)
	if err := b.effort("CPU of citadel per Secret filled", c); err != nil {
		return errors.Join(err, c.Stop())
	}
	return c.Stop()
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
	if err := b.settled(ctx, c); err != nil {
		return err
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
func (b *bench) changeRoot(ctx context.Context, floor float64) error {
	progress("the root changes: citadel rewrites %d Secrets", b.n)
	err := b.plane.Client.CoreV1().Secrets(cluster.StorageNamespace).Delete(ctx, kube.CASecret, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	begin := time.Now()
	c, err := b.start("--root-change-window", "0")
	if err != nil {
		return err
	}
	defer func() { _ = c.Stop() }() // measured all there is
	if err := b.settled(ctx, c); err != nil {
		return err
	}
	took := time.Since(begin)
	rate := float64(b.n) / took.Seconds()
	b.add(fmt.Sprintf("root change, %d rewrites", b.n), fmt.Sprintf("%.1f s, %.0f/s", took.Seconds(), rate),
		fmt.Sprintf("%.0f/s bare updates", floor), fmt.Sprintf("%.2f", rate/floor), "at least 0.8")
	b.memory("peak memory after the root change", c)
	return nil
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
	peak, err := peakMemory(c.PID())
	if err != nil {
		b.add(what, err.Error(), "-", "-", "below 150 MiB")
		return
	}
	b.add(what, fmt.Sprintf("%.0f MiB", float64(peak)/(1<<20)), "-", "-", "below 150 MiB")
}
