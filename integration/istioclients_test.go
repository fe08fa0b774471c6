package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/trust"
)

// istioClient is Istio's own code as a client of the CSR API of a process.
type istioClient struct{ program, address, roots string }

// newIstioClient builds it.
func newIstioClient(t *testing.T, p *process, roots []*x509.Certificate) istioClient {
	t.Helper()
	c := istioClient{program: filepath.Join(t.TempDir(), "istioclients"), address: fmt.Sprintf("127.0.0.1:%d", p.APIPort), roots: p.path("roots.pem")}
	// As make build does, which has left most of what it needs in the cache.
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", c.program, ".")
	build.Dir = "istioclients"
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(c.roots, trust.MarshalCertificates(roots), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// fetch has a certificate left in a folder.
func (c istioClient) fetch(t *testing.T, out string, flags ...string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.program, append([]string{"-address", c.address, "-roots", c.roots, "-out", out}, flags...)...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}

// fetched insists on what Istio's proxies need in a folder: a key that belongs to
// the leaf, an identity, a life, and a chain that verifies to the roots.
func fetched(t *testing.T, dir, id string, life time.Duration, roots []*x509.Certificate) {
	t.Helper()
	pair := must(tls.LoadX509KeyPair(filepath.Join(dir, "cert-chain.pem"), filepath.Join(dir, "key.pem")))(t)
	told := must(trust.ParseCertificates(must(os.ReadFile(filepath.Join(dir, "root-cert.pem")))(t)))(t)
	if !trust.SameRoots(told, roots) {
		t.Errorf("the last element is not the roots: %v", told)
	}
	if len(pair.Leaf.URIs) != 1 || pair.Leaf.URIs[0].String() != id || pair.Leaf.NotAfter.Sub(pair.Leaf.NotBefore)-trust.Backdate != life {
		t.Errorf("%v from %s to %s, want %s", pair.Leaf.URIs, pair.Leaf.NotBefore, pair.Leaf.NotAfter, id)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: trust.Pool(roots), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
}

// TestIstiosOwnCode: the client that Istio publishes gets what it needs by the
// token of a pod, renews by what it got, and a ztunnel's gets what runs on its
// node (compatibility 4.2, 4.5, 6.3).
func TestIstiosOwnCode(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	s.mayListPods(t)
	p := s.start(t, "--grpc-host-identities", "istio-citadel,127.0.0.1", "--trusted-node-accounts", ns+"/ztunnel")
	roots := s.roots(t)
	p.serves(t)
	client := newIstioClient(t, p, roots)
	node := ns + "-node"
	must(plane.Client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{}))(t)
	t.Cleanup(func() {
		_ = plane.Client.CoreV1().Nodes().Delete(context.Background(), node, metav1.DeleteOptions{})
	})
	tokens := t.TempDir()
	for _, account := range []string{"sleep", "ztunnel"} {
		makeAccount(t, ns, account)
		token := tokenOf(t, ns, account, makePod(t, ns, account, account, node), "istio-ca")
		if err := os.WriteFile(filepath.Join(tokens, account), []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	id := fmt.Sprintf("spiffe://%s/ns/%s/sa/sleep", trustDomain, ns)
	byToken := []string{"-token", filepath.Join(tokens, "sleep")}

	first := t.TempDir()
	within(t, patience, func() error { return client.fetch(t, first, append(byToken, "-id", id, "-rsa")...) }) // the API server's keys are on their way
	fetched(t, first, id, 24*time.Hour, roots)

	renewed := t.TempDir()
	if err := client.fetch(t, renewed, "-prov-cert", first, "-id", id, "-ttl", "1h"); err != nil {
		t.Errorf("by the certificate that it got, roots and all: %v", err)
	} else {
		fetched(t, renewed, id, time.Hour, roots)
	}
	impersonated := t.TempDir()
	within(t, patience, func() error { // the pods are on their way
		return client.fetch(t, impersonated, "-token", filepath.Join(tokens, "ztunnel"), "-impersonate", id)
	})
	fetched(t, impersonated, id, 24*time.Hour, roots)

	for want, flags := range map[string][]string{
		"after 1 tries: rpc error: code = Unauthenticated desc = ":                   nil,
		"request impersonation authentication failure: ":                             append(byToken, "-impersonate", id),
		"code = InvalidArgument desc = CSR_ERROR: certificate request asks for URI ": append(byToken, "-id", "spiffe://"+trustDomain.Name()+"/ns/kube-system/sa/default"),
		"requested TTL 169h0m0s is greater than the max allowed TTL 168h0m0s":        append(byToken, "-ttl", "169h"),
	} {
		if err := client.fetch(t, t.TempDir(), flags...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// mayListPods gives citadel what deploy/components/node-proxies does.
func (s *site) mayListPods(t *testing.T) {
	t.Helper()
	name := metav1.ObjectMeta{Name: s.storage + "-pods"}
	must(plane.Client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: name,
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list", "watch"}}}}, metav1.CreateOptions{}))(t)
	must(plane.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: name, Subjects: s.subjects("citadel"), RoleRef: clusterRole(name.Name)}, metav1.CreateOptions{}))(t)
}
