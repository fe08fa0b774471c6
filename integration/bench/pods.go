package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/integration/cluster"
)

// The load of the latency: so many service accounts a second, for so long.
const (
	perSecond = 100
	newcomers = 1000
)

// pods measures the Deployment of deploy/ in real pods. It needs root.
func (b *bench) pods(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		progress("not root: nothing is measured in pods, which need a node")
		return nil
	}
	progress("starting a control plane with a node")
	b.plane, err = cluster.Start(ctx, cluster.Options{Binary: filepath.Join(b.bin, "controlplane"),
		Dir: filepath.Join(b.dir, "pods"), Flags: []string{"--node"}, Log: io.Discard})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.plane.Stop()) }()
	if err := b.plane.LoadImage(ctx, filepath.Join(b.bin, "citadel.tar")); err != nil {
		return err
	}
	for _, args := range [][]string{{"apply", "-k", b.deploy},
		{"-n", cluster.StorageNamespace, "rollout", "status", "deployment/istio-citadel", "--timeout=3m"}} {
		if _, err := b.plane.Kubectl(ctx, args...); err != nil {
			return err
		}
	}
	if err := b.latency(ctx); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	return b.podMemory(ctx)
}

// latency is the time from the request for a service account to the news of its
// Secret.
func (b *bench) latency(ctx context.Context) error {
	progress("%d new service accounts, %d a second", newcomers, perSecond)
	const ns = "newcomers"
	core := b.plane.Client.CoreV1()
	if _, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	news, err := core.Secrets(ns).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer news.Stop()
	asked := make([]time.Time, newcomers)
	var failures sync.Map
	var asking sync.WaitGroup
	asking.Go(func() {
		ticker := time.NewTicker(time.Second / perSecond)
		defer ticker.Stop()
		for i := range newcomers {
			<-ticker.C
			asked[i] = time.Now()
			asking.Go(func() {
				if _, err := core.ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name(i)}}, metav1.CreateOptions{}); err != nil {
					failures.Store(i, err)
				}
			})
		}
	})
	told := map[string]time.Time{}
	for len(told) < newcomers+1 { // and the namespace's own
		event, ok := <-news.ResultChan()
		if !ok {
			return fmt.Errorf("the watch ended after %d Secrets", len(told))
		}
		if s, ok := event.Object.(*corev1.Secret); ok {
			if _, known := told[s.Name]; !known {
				told[s.Name] = time.Now()
			}
		}
	}
	asking.Wait()
	failures.Range(func(_, e any) bool { err = errors.Join(err, e.(error)); return true })
	if err != nil {
		return err
	}
	took := make([]time.Duration, newcomers)
	for i := range took {
		took[i] = told["istio."+name(i)].Sub(asked[i])
	}
	slices.Sort(took)
	part := func(p float64) string { return took[int(p*(newcomers-1))].Round(100 * time.Microsecond).String() }
	b.add("service account to Secret, in pods: p50", part(0.5), "-", "-", "below 50ms")
	b.add("service account to Secret, in pods: p99", part(0.99), "-", "-", "below 250ms")
	return nil
}

// podMemory is the most that the kernel has charged to a pod of citadel's once
// every Secret is made.
func (b *bench) podMemory(ctx context.Context) error {
	progress("citadel fills %d Secrets in its pods", b.n)
	if err := b.count(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for done := false; !done; {
		pods, err := b.plane.Client.CoreV1().Pods(cluster.StorageNamespace).List(ctx, metav1.ListOptions{LabelSelector: "istio=citadel"})
		if err != nil {
			return err
		}
		var most int64
		for _, pod := range pods.Items {
			made, err := b.podMetric(ctx, pod.Name)
			if err != nil {
				return err
			}
			done = done || made >= float64(b.accounts)
			used, err := charged(string(pod.UID))
			if err != nil {
				return err
			}
			most = max(most, used)
		}
		if done {
			b.add(fmt.Sprintf("peak memory of a pod, %d Secrets", b.n), fmt.Sprintf("%.0f MiB", float64(most)/(1<<20)), "-", "-", "below 150 MiB")
			return nil
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for every Secret: %w", context.Cause(ctx))
		}
	}
	return nil
}

// podMetric is how many Secrets a pod says it keeps; a follower says none.
func (b *bench) podMetric(ctx context.Context, pod string) (float64, error) {
	page, err := b.plane.Client.CoreV1().RESTClient().Get().Namespace(cluster.StorageNamespace).Resource("pods").
		Name(pod + ":15014").SubResource("proxy").Suffix("metrics").DoRaw(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the metrics of %s: %w", pod, err)
	}
	for line := range strings.Lines(string(page)) {
		if value, ok := strings.CutPrefix(line, managed+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, nil
}

// charged is the peak of a pod's control group, page cache included.
func charged(uid string) (int64, error) {
	for _, pattern := range []string{"/sys/fs/cgroup/memory/controlplane-*/kubepods/*/pod%s/memory.max_usage_in_bytes",
		"/sys/fs/cgroup/controlplane-*/kubepods/*/pod%s/memory.peak"} {
		files, err := filepath.Glob(fmt.Sprintf(pattern, uid))
		if err != nil || len(files) == 0 {
			continue
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			return 0, err
		}
		return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	}
	return 0, fmt.Errorf("no control group of pod %s", uid)
}
