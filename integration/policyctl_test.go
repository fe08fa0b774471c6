package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/trust"
)

// policyMesh is a mesh of its own in the shared cluster: its mesh config makes
// one of its namespaces the root.
type policyMesh struct {
	root, server, client string
	kubeconfig           string
}

// applied has kubectl apply a text.
func applied(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	must(plane.Kubectl(t.Context(), "apply", "-f", file))(t)
}

// newPolicyMesh makes one; root is the namespace of its mesh config, empty for a
// new one.
func newPolicyMesh(t *testing.T, root string) *policyMesh {
	t.Helper()
	within(t, patience, func() error { // other tests apply them too, and may be first
		_, err := plane.Kubectl(t.Context(), "apply", "-k", "../deploy/crds")
		return err
	})
	must(plane.Kubectl(t.Context(), "wait", "--for=condition=Established", "crd/destinationrules.networking.istio.io", "crd/peerauthentications.security.istio.io"))(t)
	if root == "" {
		root = makeNamespace(t, nil)
	}
	m := &policyMesh{root, makeNamespace(t, nil), makeNamespace(t, nil), plane.Kubeconfig}
	for _, namespace := range []string{m.server, m.client} {
		makeAccount(t, namespace, "app")
	}
	const pod = `
---
{apiVersion: v1, kind: Pod, metadata: {name: %[1]s-0, namespace: %[2]s, labels: {app: %[1]s, security.istio.io/tlsMode: istio}},
  spec: {serviceAccountName: app, automountServiceAccountToken: false, containers: [{name: app, image: app, ports: [{name: web, containerPort: 8080}]}%[3]s]}}`
	const sidecar = ", {name: istio-proxy, image: proxy}"
	applied(t, fmt.Sprintf(`
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: %[1]s}, data: {mesh: "rootNamespace: %[1]s\ntrustDomain: mesh.example\n"}}
---
{apiVersion: v1, kind: Service, metadata: {name: httpbin, namespace: %[2]s}, spec: {selector: {app: httpbin}, ports: [{name: http, port: 8000, targetPort: web}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: %[1]s}, spec: {mtls: {mode: STRICT}}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: httpbin, namespace: %[3]s}, spec: {host: httpbin.%[2]s.svc.cluster.local,
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}, tls: {mode: DISABLE}}}}`, m.root, m.server, m.client)+
		fmt.Sprintf(pod, "httpbin", m.server, sidecar)+fmt.Sprintf(pod, "sleep", m.client, sidecar)+fmt.Sprintf(pod, "bare", m.client, ""))
	return m
}

// inCluster and inFiles are flags that name the mesh.
func (m *policyMesh) inCluster() []string {
	return []string{"--kubeconfig", m.kubeconfig, "--citadel-storage-namespace", m.root, "--generation", "v1"}
}

// inFiles writes down what kubectl shows of the mesh.
func (m *policyMesh) inFiles(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	for _, namespace := range []string{m.root, m.server, m.client} {
		text := must(plane.Kubectl(t.Context(), "get", "services,pods,destinationrules,peerauthentications", "-n", namespace, "-o", "yaml"))(t)
		if err := os.WriteFile(filepath.Join(dir, namespace+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := must(plane.Kubectl(t.Context(), "get", "configmap", "istio", "-n", m.root, "-o", "json"))(t)
	if err := os.WriteFile(filepath.Join(dir, "istio.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--objects", dir, "--citadel-storage-namespace", m.root, "--generation", "v1"}
}

// ask runs a command of citadelctl policy.
func (m *policyMesh) ask(t *testing.T, from []string, args ...string) said {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), citadelctl, append(append([]string{"policy"}, args...), from...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit, failed := errors.AsType[*exec.ExitError](err); err != nil && (!failed || exit.ExitCode() < 0) {
		t.Fatalf("citadelctl %v: %v", args, err)
	}
	return said{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// document reads an answer in JSON, without the time.
func (a said) document(t *testing.T) map[string]any {
	t.Helper()
	var d map[string]any
	if err := json.Unmarshal([]byte(a.stdout), &d); err != nil {
		t.Fatalf("%v: %s%s", err, a.stdout, a.stderr)
	}
	delete(d, "time")
	return d
}

// TestPolicyFromClusterAndFiles: the answers about a cluster, and about what
// kubectl has written down of it, are the same; a fix that is pasted into a
// shell mends the cluster; and the files of before tell so in advance.
func TestPolicyFromClusterAndFiles(t *testing.T) {
	t.Parallel()
	m := newPolicyMesh(t, "")
	change := filepath.Join(t.TempDir(), "change.yaml")
	if err := os.WriteFile(change, fmt.Appendf(nil, "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: %s}, spec: {mtls: {mode: DISABLE}}}", m.root), 0o600); err != nil {
		t.Fatal(err)
	}
	server := "httpbin." + m.server
	files := m.inFiles(t)
	for _, c := range []struct {
		code int
		args []string
	}{
		{1, []string{"explain", "sleep." + m.client, server + ":8000", "-o", "json"}},
		{1, []string{"explain", "bare." + m.client, server, "-o", "json"}},
		{0, []string{"explain", m.server + "/app", server + ":http", "-o", "json"}},
		{0, []string{"matrix", "-n", m.server, "--from", m.client, "--from", m.server, "-o", "json"}},
	} {
		fromCluster, fromFiles := m.ask(t, m.inCluster(), c.args...), m.ask(t, files, c.args...)
		if fromCluster.code != c.code || fromFiles.code != c.code {
			t.Fatalf("%v: exit codes %d and %d, want %d\n%s%s", c.args, fromCluster.code, fromFiles.code, c.code, fromCluster.stderr, fromFiles.stderr)
		}
		if a, b := fmt.Sprint(fromCluster.document(t)), fmt.Sprint(fromFiles.document(t)); a != b {
			t.Errorf("%v:\nthe cluster %s\nthe files   %s", c.args, a, b)
		}
	}
	for name, from := range map[string][]string{"cluster": m.inCluster(), "files": files} {
		got := m.ask(t, from, "diff", "-f", change, "-o", "json") // what it says of others in the shared cluster is no matter
		var diff struct {
			Changes []struct {
				Kind             string
				Clients, Servers []string
			}
		}
		if err := json.Unmarshal([]byte(got.stdout), &diff); err != nil {
			t.Fatalf("diff of the %s: %v: %s%s", name, err, got.stdout, got.stderr)
		}
		for kind, client := range map[string]string{"mends": m.client, "loses-encryption": m.server} {
			has := func(names []string, begin string) bool {
				return slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, begin) })
			}
			found := false
			for _, c := range diff.Changes {
				found = found || c.Kind == kind && has(c.Clients, client) && has(c.Servers, server)
			}
			if !found {
				t.Errorf("diff of the %s does not say %s of %s to %s: %s%s", name, kind, client, server, got.stdout, got.stderr)
			}
		}
	}
	for _, client := range []string{"sleep", "bare"} {
		m.mend(t, client+"."+m.client, server)
	}
	rule := must(plane.Kubectl(t.Context(), "get", "destinationrule", "httpbin", "-n", m.client, "-o", "jsonpath={.spec.trafficPolicy}"))(t)
	if !strings.Contains(rule, `"maxConnections":7`) || !strings.Contains(rule, "ISTIO_MUTUAL") {
		t.Errorf("the fix made of the rule: %s", rule)
	}
}

// policyRights are those of deploy/components/policy.
var policyRights = []rbacv1.PolicyRule{
	{APIGroups: []string{""}, Resources: []string{"pods", "services", "configmaps"}, Verbs: []string{"list", "watch"}},
	{APIGroups: []string{"authentication.istio.io", "security.istio.io", "networking.istio.io"}, Resources: []string{"*"}, Verbs: []string{"list", "watch"}},
	{APIGroups: []string{"apiextensions.k8s.io"}, Resources: []string{"customresourcedefinitions"}, Verbs: []string{"list", "watch"}},
}

// TestPolicyFromCitadel: a running citadel, asked with a token by one whom it
// lets read, gives the answers of its cluster; and one whom it does not is told
// so.
func TestPolicyFromCitadel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	m := newPolicyMesh(t, s.storage)
	role := metav1.ObjectMeta{Name: m.root + "-policy"}
	must(plane.Client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: role, Rules: policyRights}, metav1.CreateOptions{}))(t)
	must(plane.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: role, Subjects: s.subjects("citadel"), RoleRef: clusterRole(role.Name)}, metav1.CreateOptions{}))(t)
	within(t, patience, func() error { return s.account.may("watch", "security.istio.io", "peerauthentications", "") })
	p := s.start(t, "--policy", "--policy-generation", "v1", "--policy-readers", m.client+"/app")
	p.serves(t)
	dir := t.TempDir()
	from := func(namespace string) []string {
		token, roots := filepath.Join(dir, namespace), filepath.Join(dir, "roots.pem")
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
		made := must(plane.Client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "app", request, metav1.CreateOptions{}))(t)
		if err := errors.Join(os.WriteFile(token, []byte(made.Status.Token+"\n"), 0o600), os.WriteFile(roots, trust.MarshalCertificates(s.roots(t)), 0o600)); err != nil {
			t.Fatal(err)
		}
		return []string{"--citadel", p.api(nil).Address, "--citadel-root-cert", roots, "--citadel-token", token}
	}
	server := "httpbin." + m.server
	for _, args := range [][]string{
		{"explain", "sleep." + m.client, server + ":8000", "-o", "json"},
		{"explain", "bare." + m.client, server, "-o", "json"},
		{"explain", m.server + "/app", server + ":http", "-o", "json"},
		{"matrix", "-n", m.server, "--from", m.client, "--from", m.server, "-o", "json"},
	} {
		within(t, patience, func() error { // until citadel has read all
			fromCluster, fromCitadel := m.ask(t, m.inCluster(), args...), m.ask(t, from(m.client), args...)
			if fromCitadel.stderr != "" {
				return fmt.Errorf("%v: %s", args, fromCitadel.stderr)
			}
			if a, b := fmt.Sprint(fromCluster.document(t)), fmt.Sprint(fromCitadel.document(t)); a != b || fromCluster.code != fromCitadel.code {
				return fmt.Errorf("%v:\nthe cluster %d %s\ncitadel     %d %s", args, fromCluster.code, a, fromCitadel.code, b)
			}
			return nil
		})
	}
	if got := m.ask(t, from(m.server), "matrix"); got.code != 4 || !strings.Contains(got.stderr, "--policy-readers") || got.stdout != "" {
		t.Errorf("who is no reader: %d %s%s", got.code, got.stdout, got.stderr)
	}
}

// mend does what explain proposes, as a person would.
func (m *policyMesh) mend(t *testing.T, client, server string) {
	t.Helper()
	var answer struct {
		Fix struct{ Changes []struct{ Command string } }
	}
	said := m.ask(t, m.inCluster(), "explain", client, server, "-o", "json")
	if err := json.Unmarshal([]byte(said.stdout), &answer); err != nil || len(answer.Fix.Changes) != 1 {
		t.Fatalf("%s: %v: %s%s", client, err, said.stdout, said.stderr)
	}
	shell := exec.CommandContext(t.Context(), "sh", "-ec", `kubectl() { ../bin/controlplane kubectl --kubeconfig "$KUBECONFIG" "$@"; }`+"\n"+answer.Fix.Changes[0].Command)
	shell.Env = append(os.Environ(), "KUBECONFIG="+plane.Kubeconfig)
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", answer.Fix.Changes[0].Command, err, out)
	}
	if got := m.ask(t, m.inCluster(), "explain", client, server); got.code != 0 {
		t.Errorf("after %s: %s%s", answer.Fix.Changes[0].Command, got.stdout, got.stderr)
	}
}

// TestPolicyWithoutRights: who may not read PeerAuthentications is not told that
// all is well.
func TestPolicyWithoutRights(t *testing.T) {
	t.Parallel()
	m := newPolicyMesh(t, "")
	role := m.root + "-reads-some"
	must(plane.Client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: role}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"namespaces", "services", "pods", "configmaps"}, Verbs: []string{"get", "list"}},
		{APIGroups: []string{"networking.istio.io", "authentication.istio.io"}, Resources: []string{"*"}, Verbs: []string{"list"}},
	}}, metav1.CreateOptions{}))(t)
	must(plane.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: role},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: m.client, Name: "app"}}, RoleRef: clusterRole(role)}, metav1.CreateOptions{}))(t)
	m.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := plane.ServiceAccount(t.Context(), m.client, "app", m.kubeconfig); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error { // until the API server has taken in the rights
		got := m.ask(t, m.inCluster(), "explain", "bare."+m.client, "httpbin."+m.server)
		if got.code != 4 || !strings.Contains(got.stderr, "PeerAuthentication could not be read") || strings.Contains(got.stderr, "Pod") || !strings.Contains(got.stderr, "may be another one in truth") {
			return fmt.Errorf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
		}
		return nil
	})
	if d := m.ask(t, m.inCluster(), "explain", "bare."+m.client, "httpbin."+m.server, "-o", "json").document(t); d["unread"] == nil {
		t.Errorf("the document does not say what could not be read: %v", d)
	}
}
