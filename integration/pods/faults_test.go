package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/integration/cluster"
)

// fault is one that a cluster has. Failed handshakes and extra writes are never
// right.
type fault struct {
	name string
	// inject does it, mends it, and checks what is special about it. It returns how
	// long it may have kept a Secret from being renewed: that far into its grace one
	// may get, and slack, but not to its end.
	inject func(*testing.T) time.Duration
}

// leaseTime is how long a dead leader's lease holds others off.
const leaseTime = 15 * time.Second

// stops is a fault that keeps Secrets from being renewed for no longer than a time
// known beforehand.
func stops(renewing time.Duration, inject func(*testing.T)) func(*testing.T) time.Duration {
	return func(t *testing.T) time.Duration {
		inject(t)
		return renewing
	}
}

// unreached is how long a Secret may have to wait when for such a time nothing got
// through to the API server. The lease may be lost right at the end of it, and has
// to run out; waits between attempts are no longer than that by then, or forgotten
// with the lease.
func unreached(lasted time.Duration) time.Duration { return lasted + leaseTime }

// retried is when a leader tries again what has failed for such a time: it waits
// 200 ms, and each time twice as long, up to 30 s.
func retried(failing time.Duration) (at time.Duration) {
	for wait := 200 * time.Millisecond; at < failing; wait = min(2*wait, 30*time.Second) {
		at += wait
	}
	return at
}

var faults = []fault{
	{"none, for a whole life", stops(0, func(t *testing.T) { idle(t, ttl) })},
	{"rolling restart", stops(0, rollingRestart)},
	{"leader's pod deleted by force", stops(leaseTime, deleteLeader)},
	{"leader's process killed", stops(leaseTime, killLeader)},
	{"leader frozen past its lease, thawed", stops(leaseTime, freezeLeader)},
	{"node drained", stops(0, drain)},
	{"API server killed, restarted after 5 s", restartAfter(5*time.Second, "kube-apiserver")},
	{"etcd stopped for 30 s", restartAfter(30*time.Second, "etcd")},
	{"API server and etcd replaced", restartAfter(time.Second, "kube-apiserver", "etcd")},
	{"CA secret deleted", stops(0, spoilCA(func(*corev1.Secret) *corev1.Secret { return nil }))},
	{"CA secret emptied", stops(0, spoilCA(emptied))},
	{"CA secret replaced by another root", stops(0, spoilCA(anotherRoot))},
	{"CA secret deleted, and all replicas", loseCA},
	{"rights taken away for 20 s", takeRights},
	{"Secrets edited, emptied, retyped, relabelled, deleted", stops(0, spoilSecrets)},
	{"namespace deleted with everything, made again", stops(0, renewNamespace)},
	{"1,000 service accounts made, deleted at once", stops(0, flood)},
}

// TestFaults breaks the cluster in every way in turn, under traffic.
func TestFaults(t *testing.T) {
	w := watchSecrets(t)
	within(t, patience, func() error { return complete(t.Context(), accounts+len(workloads)+1) })
	within(t, patience, func() error { return available(t.Context()) })
	var table strings.Builder
	rows := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "FAULT\tHANDSHAKES\tFAILED\tEXTRA WRITES\tFURTHEST INTO GRACE\tOF AT MOST\tWELL AGAIN AFTER")
	suffer := func(faults []fault) {
		for _, f := range faults {
			t.Run(f.name, func(t *testing.T) { fmt.Fprintln(rows, f.run(t, w)) })
		}
	}
	suffer(faults)
	p, back := behindProxy(t)
	suffer(wrongAnswers(p))
	back()
	rows.Flush()
	t.Logf("\n%s", table.String())
}

// run injects the fault, waits until all is well, and judges. It returns a row
// of the table.
func (f fault) run(t *testing.T, w *watcher) string {
	before := must(traffic(t.Context()))(t)
	w.reset()
	begin := time.Now()
	atMost := min(f.inject(t)+slack, grace)
	within(t, patience, func() error {
		_, err := leader(t.Context())
		return errors.Join(err, available(t.Context()), complete(t.Context(), accounts+len(workloads)+1))
	})
	took := time.Since(begin)
	after := must(traffic(t.Context()))(t)
	late, expired := w.reset()
	extra := tooOften(t, begin)
	if failed := after.Failed - before.Failed; failed > 0 || after.OK <= before.OK {
		t.Errorf("%d handshakes failed of %d: %q", failed, failed+after.OK-before.OK, after.Errors)
	}
	if len(extra) > 0 {
		t.Errorf("written more often than they must be: %q", extra)
	}
	if late > atMost || len(expired) > 0 {
		t.Errorf("a Secret was %s into its grace, of which %s is the most here; expired: %q", late, atMost, expired)
	}
	return fmt.Sprintf("%s\t%d\t%d\t%d\t%s\t%s\t%s", f.name, after.OK-before.OK, after.Failed-before.Failed, len(extra),
		max(late, 0).Round(100*time.Millisecond), atMost.Round(100*time.Millisecond), took.Round(100*time.Millisecond))
}

// idle lets time pass, which is what the test is about.
func idle(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(context.Cause(t.Context()))
	}
}

func rollingRestart(t *testing.T) {
	kubectl(t, "-n", cluster.StorageNamespace, "rollout", "restart", "deployment/"+citadelName)
	kubectl(t, "-n", cluster.StorageNamespace, "rollout", "status", "deployment/"+citadelName, "--timeout=3m")
}

// anyLeader waits until a pod leads.
func anyLeader(t *testing.T) (pod string) {
	t.Helper()
	within(t, patience, func() (err error) {
		pod, err = leader(t.Context())
		return err
	})
	return pod
}

func deleteLeader(t *testing.T) {
	old := anyLeader(t)
	kubectl(t, "-n", cluster.StorageNamespace, "delete", "pod", old, "--force", "--grace-period=0")
	within(t, patience, func() error {
		if now, err := leader(t.Context()); err != nil || now == old {
			return fmt.Errorf("%s leads: %w", old, err)
		}
		return nil
	})
}

// killLeader kills the leading process, which gives nothing back: its container is
// started again, and the lease runs out.
func killLeader(t *testing.T) {
	lease := must(leaseVersion(t.Context()))(t)
	signal(t, processOf(t, anyLeader(t)), syscall.SIGKILL)
	begin := time.Now()
	within(t, patience, func() error {
		if now, err := leaseVersion(t.Context()); err != nil || now == lease {
			return fmt.Errorf("the lease is still the dead leader's: %w", err)
		}
		return nil
	})
	t.Logf("a new leader after %s", time.Since(begin).Round(100*time.Millisecond))
}

// leaseVersion counts how often the lease has changed hands.
func leaseVersion(ctx context.Context) (int32, error) {
	lease, err := plane.Client.CoordinationV1().Leases(cluster.StorageNamespace).Get(ctx, citadelName, metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	if lease.Spec.LeaseTransitions == nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return 0, errors.New("nobody has it")
	}
	return *lease.Spec.LeaseTransitions, nil
}

// freezeLeader stops the leading process until another leads. Thawed, it must
// not write.
func freezeLeader(t *testing.T) {
	old := anyLeader(t)
	pid := processOf(t, old)
	signal(t, pid, syscall.SIGSTOP)
	within(t, patience, func() error {
		if now, err := leader(t.Context()); err != nil || now == old {
			return fmt.Errorf("%s leads: %w", old, err)
		}
		return nil
	})
	thawed := time.Now()
	signal(t, pid, syscall.SIGCONT)
	idle(t, leaseTime)
	for _, w := range writes(t, thawed) {
		if w.pod() == old {
			t.Errorf("the thawed leader wrote %s %s", w.Verb, w.ObjectRef.Name)
		}
	}
}

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// processOf finds Citadel's process in a pod, by the pod's host name.
func processOf(t *testing.T, pod string) int {
	t.Helper()
	names := must(filepath.Glob("/proc/[0-9]*/root/etc/hostname"))(t)
	for _, name := range names {
		dir := strings.TrimSuffix(name, "/root/etc/hostname")
		host, err := os.ReadFile(name)
		if err != nil || strings.TrimSpace(string(host)) != pod {
			continue
		}
		if program, err := os.ReadFile(dir + "/comm"); err == nil && strings.TrimSpace(string(program)) == "citadel" {
			return must(strconv.Atoi(filepath.Base(dir)))(t)
		}
	}
	t.Fatalf("no process of pod %s", pod)
	return 0
}

// drain evicts Citadel from its only node, as far as its disruption budget lets
// that happen: one replica stays.
func drain(t *testing.T) {
	defer kubectl(t, "uncordon", "node-1")
	_, err := plane.Kubectl(t.Context(), "drain", "node-1", "--pod-selector="+citadelLabel, "--ignore-daemonsets", "--timeout=15s")
	if err == nil || !strings.Contains(err.Error(), "disruption budget") {
		t.Errorf("both replicas were evicted, or none could be: %v", err)
	}
}

// restartAfter kills components, and starts them again some time later, in the
// reverse order.
func restartAfter(pause time.Duration, components ...string) func(*testing.T) time.Duration {
	return func(t *testing.T) time.Duration {
		begin := time.Now()
		for _, c := range components {
			if err := plane.Component(t.Context(), "stop", c, "--kill"); err != nil {
				t.Fatal(err)
			}
		}
		idle(t, pause)
		started := make(chan error, 1)
		go func() {
			var err error
			for i := len(components) - 1; i >= 0 && err == nil; i-- {
				err = plane.Component(t.Context(), "start", components[i])
			}
			started <- err
		}()
		within(t, patience, func() error { return answers(t.Context()) })
		lasted := time.Since(begin)
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		return unreached(lasted)
	}
}

// answers is nil when the API server answers soon by what is stored.
func answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := plane.Client.CoreV1().Namespaces().Get(ctx, mesh, metav1.GetOptions{})
	return err
}

const clusterRoleBinding = "istio-citadel"

// takeRights takes Citadel's rights to Secrets away, and gives them back.
func takeRights(t *testing.T) time.Duration {
	bindings := plane.Client.RbacV1().ClusterRoleBindings()
	binding := must(bindings.Get(t.Context(), clusterRoleBinding, metav1.GetOptions{}))(t)
	if err := bindings.Delete(t.Context(), clusterRoleBinding, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	idle(t, 20*time.Second)
	if failures := logged(t, "forbidden", begin); failures == 0 {
		t.Error("nothing is logged of the rights that are missing")
	}
	binding.ResourceVersion, binding.UID = "", ""
	must(bindings.Create(t.Context(), binding, metav1.CreateOptions{}))(t)
	return retried(time.Since(begin))
}

// logged counts a word in the logs of all replicas since a time.
func logged(t *testing.T, word string, since time.Time) int {
	t.Helper()
	return strings.Count(kubectl(t, "-n", cluster.StorageNamespace, "logs", "-l", citadelLabel, "--tail=-1", "--since-time="+since.UTC().Format(time.RFC3339)), word)
}

// flood makes a thousand service accounts and deletes them as soon as the last
// is made. Nothing of them is left.
func flood(t *testing.T) {
	const many = 1000
	client := plane.Client.CoreV1().ServiceAccounts(mesh)
	name := func(i int) string { return fmt.Sprintf("flood-%04d", i) }
	all := func(do func(i int) error) {
		failed := make(chan error)
		for w := range 16 {
			go func() {
				var err error
				for i := w; i < many && err == nil; i += 16 {
					err = do(i)
				}
				failed <- err
			}()
		}
		for range 16 {
			if err := <-failed; err != nil {
				t.Error(err)
			}
		}
	}
	all(func(i int) error { return makeAccount(t.Context(), name(i)) })
	all(func(i int) error { return client.Delete(t.Context(), name(i), metav1.DeleteOptions{}) })
	within(t, patience, func() error {
		list, err := secrets(t.Context())
		if err != nil {
			return err
		}
		if extra := len(list) - accounts - len(workloads) - 1; extra != 0 {
			return fmt.Errorf("%d Secrets too many", extra)
		}
		return nil
	})
}
