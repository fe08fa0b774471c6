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
	"k8s.io/apimachinery/pkg/types"

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
	before, err := b.floors(ctx, "before")
	if err != nil {
		return err
	}
	filled, err := b.fill(ctx)
	if err != nil {
		return err
	}
	if err := b.restart(ctx); err != nil {
		return err
	}
	rewritten, err := b.changeRoot(ctx)
	if err != nil {
		return err
	}
	after, err := b.floors(ctx, "after")
	if err != nil {
		return err
	}
	b.compare(fmt.Sprintf("first fill of %d Secrets", b.n), filled, "creates", (before.create+after.create)/2)
	b.compare(fmt.Sprintf("root change, %d rewrites", b.n), rewritten, "updates", (before.update+after.update)/2)
	return nil
}

// floor is how long bare writes take, as many as citadel's.
type floor struct{ create, update time.Duration }

// compare puts a time beside the floor's, which was measured before and after
// it: machines change their speed, and a store grows slower.
func (b *bench) compare(what string, took time.Duration, verb string, floor time.Duration) {
	rate := func(d time.Duration) float64 { return float64(b.n) / d.Seconds() }
	b.add(what, fmt.Sprintf("%.1f s, %.0f/s", took.Seconds(), rate(took)),
		fmt.Sprintf("%.0f/s bare %s", rate(floor), verb), fmt.Sprintf("%.2f", rate(took)/rate(floor)), "at least 0.8")
}

func namespace(kind string, i int) string { return fmt.Sprintf("%s-%d", kind, i/perNamespace) }
func name(i int) string                   { return "account-" + strconv.Itoa(i) }

// prepare makes the namespaces and the service accounts.
func (b *bench) prepare(ctx context.Context) error {
	progress("making %d service accounts", b.n)
	core := b.plane.Client.CoreV1()
	for i := 0; i < b.n; i += perNamespace {
		for _, kind := range []string{"work", "before", "after"} {
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace(kind, i)}}
			if kind != "work" {
				ns.Labels = map[string]string{secretcontroller.OverrideLabel: "false"}
			}
			if _, err := core.Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
				return err
			}
		}
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

// floors measures bare writes of objects of the same size in namespaces of
// their own, with citadel's account: authorization and fairness cost the same.
func (b *bench) floors(ctx context.Context, kind string) (f floor, err error) {
	cfg, err := kube.Config(b.kubeconfig, "citadel-bench")
	if err != nil {
		return floor{}, err
	}
	client, err := kube.Client(cfg)
	if err != nil {
		return floor{}, err
	}
	secrets := client.CoreV1().Secrets
	var owners []types.UID
	for i := 0; i < b.n; i += perNamespace {
		owner, err := b.plane.Client.CoreV1().ServiceAccounts(namespace(kind, i)).Create(ctx,
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
		if err != nil {
			return floor{}, err
		}
		owners = append(owners, owner.UID)
	}
	progress("floor: %d bare Secret creates, then updates, %d at once", b.n, b.writers)
	f.create, err = b.each(func(i int) error {
		_, err := secrets(namespace(kind, i)).Create(ctx, bareSecret(i, owners[i/perNamespace], 'a'), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return floor{}, err
	}
	f.update, err = b.each(func(i int) error {
		_, err := secrets(namespace(kind, i)).Update(ctx, bareSecret(i, owners[i/perNamespace], 'b'), metav1.UpdateOptions{})
		return err
	})
	return f, err
}

// The size of what citadel writes: P-256 key, leaf and root.
func bareData(fill byte) map[string][]byte {
	return map[string][]byte{
		"key.pem": []byte(strings.Repeat(string(fill), 241)), "cert-chain.pem": []byte(strings.Repeat(string(fill), 720)),
		"root-cert.pem": []byte(strings.Repeat(string(fill), 700)),
	}
}

// bareSecret is a Secret as citadel writes it, but for its content.
func bareSecret(i int, owner types.UID, fill byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name:            name(i),
			Labels:          map[string]string{secretcontroller.ManagedByLabel: "bench"},
			Annotations:     map[string]string{secretcontroller.AccountAnnotation: name(i)},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ServiceAccount", Name: "owner", UID: owner}},
		},
		Type: bareType, Data: bareData(fill),
	}
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
		if !strings.HasPrefix(sa.Namespace, "before-") && !strings.HasPrefix(sa.Namespace, "after-") {
			accounts++
		}
	}
	return c.Poll(ctx, 100*time.Millisecond, "done with every Secret", func() (bool, error) {
		have, err := c.Metric(ctx, managed)
		return err == nil && have >= float64(accounts), nil
	})
}

// fill: service accounts that exist at the start.
func (b *bench) fill(ctx context.Context) (took time.Duration, err error) {
	progress("citadel fills %d Secrets", b.n)
	begin := time.Now()
	c, err := b.start()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := b.settled(ctx, c); err != nil {
		return 0, err
	}
	took = time.Since(begin)
	b.memory("peak memory after the first fill", c)
	return took, b.effort("CPU of citadel per Secret filled", c)
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
func (b *bench) changeRoot(ctx context.Context) (took time.Duration, err error) {
	progress("the root changes: citadel rewrites %d Secrets", b.n)
	err = b.plane.Client.CoreV1().Secrets(cluster.StorageNamespace).Delete(ctx, kube.CASecret, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	begin := time.Now()
	c, err := b.start("--root-change-window", "0")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := b.settled(ctx, c); err != nil {
		return 0, err
	}
	took = time.Since(begin)
	b.memory("peak memory after the root change", c)
	return took, b.effort("CPU of citadel per Secret rewritten", c)
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
