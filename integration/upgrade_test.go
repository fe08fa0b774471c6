package integration

import (
	"crypto/x509"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/catest"
	"citadel/integration/cluster"
)

// manual is a page of commands, which a test runs in another namespace.
type manual struct {
	text, namespace, dir string
}

// kubectl runs a command of the page, which must stand there word by word.
func (m manual) kubectl(t *testing.T, command string) {
	t.Helper()
	if !strings.Contains(m.text, "\n"+command+"\n") && !strings.Contains(m.text, "\n   "+command+"\n") {
		t.Errorf("the page does not say %q", command)
	}
	command, out, redirected := strings.Cut(strings.ReplaceAll(command, cluster.StorageNamespace, m.namespace), " > ")
	args := strings.Fields(strings.ReplaceAll(command, "'", ""))[1:]
	if i := slices.Index(args, "-f"); i >= 0 {
		args[i+1] = filepath.Join(m.dir, args[i+1])
	}
	text := must(plane.Kubectl(t.Context(), args...))(t)
	if redirected {
		if err := os.WriteFile(filepath.Join(m.dir, out), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// manifests are deploy/ for another storage namespace, which is there already.
// What belongs to the whole cluster keeps to a name of its own.
func manifests(t *testing.T, storage string) string {
	t.Helper()
	text := strings.ReplaceAll(render(t, "web", "existing-namespace"), cluster.StorageNamespace, storage)
	docs := strings.Split(text, "\n---\n")
	for i, doc := range docs {
		if strings.Contains(doc, "kind: ClusterRoleBinding\n") {
			docs[i] = strings.Replace(doc, "  name: istio-citadel\nroleRef", "  name: "+storage+"\nroleRef", 1)
		}
	}
	return writeFile(t, "deploy.yaml", []byte(strings.Join(docs, "\n---\n")))
}

// left14 is a storage namespace as Citadel 1.4 left it, and its CA.
func left14(t *testing.T) (*site, *catest.Issuer) {
	t.Helper()
	s := &site{storage: makeNamespace(t, map[string]string{"ca.istio.io/override": "false"})}
	objects := strings.ReplaceAll(string(must(os.ReadFile("testdata/citadel-1.4.yaml"))(t)), cluster.StorageNamespace, s.storage)
	must(plane.Kubectl(t.Context(), "create", "-f", writeFile(t, "old.yaml", []byte(objects))))(t)
	root := catest.Citadel14Root(t, time.Now().Add(-30*24*time.Hour), trustDomain)
	must(plane.Client.CoreV1().ConfigMaps(s.storage).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "istio-security"},
		Data: map[string]string{"caTLSRootCert": base64.StdEncoding.EncodeToString(root.PEM())}}, metav1.CreateOptions{}))(t)
	return s, root
}

// deploy/UPGRADE.md says how Citadel 1.4's place is taken, and given back.
func TestUpgradeAndTheWayBackAreAsThePageSays(t *testing.T) {
	t.Parallel()
	s, root := left14(t)
	ns := s.namespace(t)
	authority := createSecret(t, caSecret14(t, root, s.storage))
	makeAccount(t, ns, "valid")
	kept := createSecret(t, secret14(t, root, ns, "valid", time.Now().Add(-24*time.Hour), 90*24*time.Hour))
	page := manual{string(must(os.ReadFile("../deploy/UPGRADE.md"))(t)), s.storage, t.TempDir()}
	deploy := manifests(t, s.storage)

	page.kubectl(t, "kubectl -n istio-system get deployment,service,poddisruptionbudget istio-citadel --ignore-not-found -o yaml > citadel-before.yaml")
	if _, err := plane.Kubectl(t.Context(), "apply", "--dry-run=server", "-f", deploy); err == nil {
		t.Error("the old Deployment need not be deleted")
	}
	page.kubectl(t, "kubectl -n istio-system delete --ignore-not-found deployment,poddisruptionbudget istio-citadel")
	must(plane.Kubectl(t.Context(), "apply", "-f", deploy))(t)

	s.account = s.access(t, cluster.CitadelAccount)
	p := s.start(t)
	roots := []*x509.Certificate{root.Cert}
	sa := makeAccount(t, ns, "next")
	right(t, sa, roots)
	within(t, patience, func() error { return rootsIn(t, ns, roots) })
	within(t, patience, func() error { return forOldAgentsIn(t, s.storage, roots) })
	p.stop(t)
	unchanged(t, authority, kept)
	if space := must(plane.Client.CoreV1().Namespaces().Get(t.Context(), s.storage, metav1.GetOptions{}))(t); space.Labels["pod-security.kubernetes.io/enforce"] != "" {
		t.Error("the namespace of others was labelled")
	}

	page.kubectl(t, "kubectl -n istio-system delete deployment,poddisruptionbudget,networkpolicy istio-citadel")
	page.kubectl(t, "kubectl -n istio-system delete resourcequota istio-citadel-critical-pods")
	page.kubectl(t, "kubectl -n istio-system patch serviceaccount istio-citadel-service-account -p '{\"automountServiceAccountToken\":true}'")
	page.kubectl(t, "kubectl replace --force -f citadel-before.yaml")
	unchanged(t, authority, kept)
	s.isAsBefore(t)
}

// unchanged insists that nobody wrote the Secrets.
func unchanged(t *testing.T, secrets ...*corev1.Secret) {
	t.Helper()
	for _, before := range secrets {
		today := must(plane.Client.CoreV1().Secrets(before.Namespace).Get(t.Context(), before.Name, metav1.GetOptions{}))(t)
		if today.ResourceVersion != before.ResourceVersion {
			t.Errorf("Secret %s was written", before.Name)
		}
	}
}

// isAsBefore looks for what Citadel 1.4 needs to run.
func (s *site) isAsBefore(t *testing.T) {
	t.Helper()
	deployment := must(plane.Client.AppsV1().Deployments(s.storage).Get(t.Context(), deployedName, metav1.GetOptions{}))(t)
	if c := deployment.Spec.Template.Spec.Containers[0]; c.Image != "istio/citadel:1.4.10" || c.LivenessProbe.Exec == nil || c.LivenessProbe.HTTPGet != nil {
		t.Errorf("the Deployment is %+v", c)
	}
	service := must(plane.Client.CoreV1().Services(s.storage).Get(t.Context(), deployedName, metav1.GetOptions{}))(t)
	if len(service.Spec.Ports) != 2 || service.Spec.Ports[0].Port != 8060 {
		t.Errorf("the Service has ports %v", service.Spec.Ports)
	}
	if budget := must(plane.Client.PolicyV1().PodDisruptionBudgets(s.storage).Get(t.Context(), deployedName, metav1.GetOptions{}))(t); budget.Spec.MinAvailable == nil {
		t.Errorf("the budget is %+v", budget.Spec)
	}
	if _, err := plane.Client.NetworkingV1().NetworkPolicies(s.storage).Get(t.Context(), deployedName, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("NetworkPolicy: %v, want none", err)
	}
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	pod := must(plane.Client.CoreV1().Pods(s.storage).Create(t.Context(), podOf(deployment), dryRun))(t)
	if len(pod.Spec.Volumes) != 1 {
		t.Error("the old pod gets no token")
	}
}

// What the page says of selectors: a Deployment with another one must go.
func TestSelectorsAreImmutable(t *testing.T) {
	t.Parallel()
	s, _ := left14(t)
	old := must(plane.Client.AppsV1().Deployments(s.storage).Get(t.Context(), deployedName, metav1.GetOptions{}))(t)
	old.ResourceVersion = "" // whatever the controllers have written meanwhile
	old.Spec.Selector = only[*appsv1.Deployment](t, render(t, "web")).Spec.Selector
	if _, err := plane.Client.AppsV1().Deployments(s.storage).Update(t.Context(), old, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "immutable") {
		t.Errorf("another selector: %v", err)
	}
}
