package supervisor_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCluster looks at what a cluster offers, in a directory whose path is too
// long for a socket.
func TestCluster(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dir := filepath.Join(parent, strings.Repeat("long", 30), "cluster")
	kubeconfig := filepath.Join(parent, "admin.conf")
	r := up(t, dir, "--kubeconfig", kubeconfig, "--audit")
	r.kubeconfig = kubeconfig

	t.Run("kubeconfig", func(t *testing.T) { checkKubeconfig(t, kubeconfig) })
	t.Run("pod security", func(t *testing.T) { checkPodSecurity(t, r) })
	t.Run("critical pods", func(t *testing.T) { checkCriticalPods(t, r) })
	t.Run("tokens and RBAC", func(t *testing.T) { checkTokens(t, r) })
	t.Run("trust bundles", func(t *testing.T) { checkTrustBundles(t, r) })
	t.Run("audit", func(t *testing.T) { checkAudit(t, r) })
	t.Run("second up", func(t *testing.T) {
		fail(t, 1, "is in use", "up", "--dir", dir)
	})
	succeed(t, "down", "--dir", dir)
	if code := r.wait(); code != 0 {
		t.Errorf("exit code %d of up after down, want 0", code)
	}
	fail(t, 1, "no control plane runs", "down", "--dir", dir)
}

func checkKubeconfig(t *testing.T, path string) {
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v of the kubeconfig, want 0600", info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("insecure")) {
		t.Error("the kubeconfig is insecure")
	}
}

func checkPodSecurity(t *testing.T, r *running) {
	r.kubectl("create", "namespace", "strict")
	r.kubectl("label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
	r.awaitServiceAccount("strict")
	fail(t, 1, "violates PodSecurity", "kubectl", "--kubeconfig", r.kubeconfig, "-n", "strict", "run", "pod", "--image=none")
	r.kubectl("delete", "namespace", "strict") // waits, so the controllers work
}

// checkCriticalPods finds that a namespace gets none without a quota of them.
func checkCriticalPods(t *testing.T, r *running) {
	r.kubectl("create", "namespace", "critical")
	r.awaitServiceAccount("critical")
	pod := []string{"kubectl", "--kubeconfig", r.kubeconfig, "-n", "critical", "run", "pod", "--image=none",
		"--overrides", `{"spec": {"priorityClassName": "system-cluster-critical"}}`}
	fail(t, 1, "insufficient quota", pod...)
	r.kubectl("-n", "critical", "create", "quota", "some", "--hard=pods=1", "--scopes=PriorityClass")
	r.eventually("the quota lets one in", func() error {
		if got := controlplane(t, append(pod, "--dry-run=server")...); got.code != 0 {
			return fmt.Errorf("exit code %d: %s", got.code, got.stderr)
		}
		return nil
	})
	r.kubectl("delete", "namespace", "critical")
}

// checkTokens gets a token and finds that it says who its holder is, and that
// the holder may not read secrets.
func checkTokens(t *testing.T, r *running) {
	token := strings.TrimSpace(r.kubectl("create", "token", "default"))
	ca := filepath.Join(r.dir, "pki", "ca.crt")
	asHolder := []string{"kubectl", "--kubeconfig", os.DevNull, "--server", server(t, r.kubeconfig), "--certificate-authority", ca, "--token", token}
	who := succeed(t, append(asHolder, "auth", "whoami")...)
	if want := "system:serviceaccount:default:default"; !strings.Contains(who, want) {
		t.Errorf("the holder of the token is %s, want %s", who, want)
	}
	fail(t, 1, "secrets is forbidden", append(asHolder, "get", "secrets")...)
}

func checkTrustBundles(t *testing.T, r *running) {
	served := r.kubectl("get", "--raw", "/apis/certificates.k8s.io/v1beta1")
	if !strings.Contains(served, `"clustertrustbundles"`) {
		t.Errorf("certificates.k8s.io/v1beta1 has no trust bundles: %s", served)
	}
}

// checkAudit writes, and finds each write in the log at once.
func checkAudit(t *testing.T, r *running) {
	const writes = 5
	for i := range writes {
		r.kubectl("create", "configmap", fmt.Sprintf("audited-%d", i))
	}
	log, err := os.ReadFile(filepath.Join(r.dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	var found int
	for line := range bytes.Lines(log) {
		var event struct {
			Verb      string
			User      struct{ Username string }
			ObjectRef struct{ Resource, Name string }
		}
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatalf("the audit log has a line that is no event: %v: %s", err, line)
		}
		if event.Verb == "create" && event.ObjectRef.Resource == "configmaps" && event.User.Username == "kubernetes-admin" {
			found++
		}
		if strings.HasPrefix(event.User.Username, "controlplane:") {
			t.Errorf("the audit log has a request of up itself: %s", line)
		}
	}
	if found != writes {
		t.Errorf("%d events of %d writes", found, writes)
	}
}

// TestSameClusterAgain ends a control plane and starts it again.
func TestSameClusterAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := up(t, dir)
	first.kubectl("create", "namespace", "kept")
	before := access(t, first)
	first.signal(syscall.SIGTERM)
	if code := first.wait(); code != 0 {
		t.Errorf("exit code %d of up after SIGTERM, want 0", code)
	}

	second := up(t, dir)
	second.kubectl("get", "namespace", "kept")
	if after := access(t, second); after != before {
		t.Errorf("the kubeconfig has changed from\n%s to\n%s", before, after)
	}
	if _, err := os.Stat(filepath.Join(dir, "audit.log")); err == nil {
		t.Error("an audit log that nobody asked for")
	}
	second.signal(syscall.SIGINT)
	if code := second.wait(); code != 0 {
		t.Errorf("exit code %d of up after SIGINT, want 0", code)
	}
	checkTakenPort(t, second)
}

// checkTakenPort finds that up does not start on a port that is not its own.
func checkTakenPort(t *testing.T, r *running) {
	address, err := url.Parse(server(t, r.kubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", address.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	fail(t, 1, "port "+address.Port()+" of kube-apiserver is taken", "up", "--dir", r.dir)
}

// TestKilledUp kills up, and expects its components to end with it, also one
// that cannot notice; and the cluster to come back.
func TestKilledUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := up(t, dir)
	first.kubectl("create", "namespace", "kept")
	if err := syscall.Kill(first.process("etcd"), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	first.signal(syscall.SIGKILL)
	first.wait()

	fail(t, 1, "no control plane runs", "stop", "--dir", dir, "etcd")
	up(t, dir).kubectl("get", "namespace", "kept")
}

// TestFailingStart spoils the state of etcd, and expects to be told.
func TestFailingStart(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "etcd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := launch(t, dir)
	if code := r.wait(); code != 1 {
		t.Errorf("exit code %d of up, want 1", code)
	}
	for _, want := range []string{"etcd ended before it was ready", "not a directory"} {
		if !strings.Contains(r.messages.String(), want) {
			t.Errorf("no %q in\n%s", want, r.messages)
		}
	}
}

// TestEndWhileStarting tells up to end before it is ready.
func TestEndWhileStarting(t *testing.T) {
	r := launch(t, t.TempDir())
	r.eventually("kube-apiserver starts", func() error {
		if !strings.Contains(r.messages.String(), "starting kube-apiserver") {
			return fmt.Errorf("up says %q", r.messages)
		}
		return nil
	})
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit code %d of up, want 0:\n%s", code, r.messages)
	}
}

// server is the address of the API server.
func server(t *testing.T, kubeconfig string) string {
	t.Helper()
	return succeed(t, "kubectl", "--kubeconfig", kubeconfig, "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
}

// access is the text of the kubeconfig.
func access(t *testing.T, r *running) string {
	t.Helper()
	text, err := os.ReadFile(r.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
