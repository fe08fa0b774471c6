package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"citadel/integration/cluster"
)

// admits applies the policy of deploy/components/admission for a site's account.
func (s *site) admits(t *testing.T) {
	t.Helper()
	var docs []string
	for doc := range strings.SplitSeq(render(t, "web", "admission"), "\n---\n") {
		if strings.Contains(doc, "kind: ValidatingAdmissionPolicy") {
			docs = append(docs, doc)
		}
	}
	if len(docs) != 2 {
		t.Fatalf("%d objects in the component", len(docs))
	}
	text := strings.NewReplacer(
		cluster.StorageNamespace+":"+cluster.CitadelAccount, strings.TrimPrefix(s.user, "system:serviceaccount:"),
		"'"+cluster.StorageNamespace+"'", "'"+s.storage+"'",
		"name: istio-citadel\n", "name: "+s.storage+"\n", "policyName: istio-citadel\n", "policyName: "+s.storage+"\n",
	).Replace(strings.Join(docs, "\n---\n"))
	file := writeFile(t, "policy.yaml", []byte(text))
	must(plane.Kubectl(t.Context(), "apply", "--validate=strict", "-f", file))(t)
	t.Cleanup(func() {
		policies := plane.Client.AdmissionregistrationV1()
		ctx := context.Background()
		_ = policies.ValidatingAdmissionPolicyBindings().Delete(ctx, s.storage, metav1.DeleteOptions{})
		_ = policies.ValidatingAdmissionPolicies().Delete(ctx, s.storage, metav1.DeleteOptions{})
	})
}

// thief has the token of a citadel's account.
func (a account) thief(t *testing.T) kubernetes.Interface {
	t.Helper()
	return must(kubernetes.NewForConfig(must(clientcmd.BuildConfigFromFlags("", a.kubeconfig))(t)))(t)
}

// TestStolenTokenMakesNoOtherSecrets: with the policy of components/admission the
// right to create Secrets is one to create citadel's.
func TestStolenTokenMakesNoOtherSecrets(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := makeNamespace(t, nil)
	victim := makeAccount(t, ns, "admin")
	secret := func(namespace, name string, kind corev1.SecretType) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: kind}
	}
	token := secret(ns, "istio.stolen", corev1.SecretTypeServiceAccountToken)
	token.Annotations = map[string]string{corev1.ServiceAccountNameKey: victim.Name}
	thief := s.thief(t).CoreV1()
	if _, err := thief.Secrets(ns).Create(t.Context(), token, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Fatalf("without the policy nothing is shown: %v", err)
	}
	theirs := createSecret(t, secret(ns, "theirs", corev1.SecretTypeOpaque))
	taken := createSecret(t, secret(ns, "istio.taken", corev1.SecretTypeOpaque))
	const refused = "citadel's service account may write no"
	s.admits(t)
	within(t, patience, func() error {
		_, err := thief.Secrets(ns).Create(t.Context(), token, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil || !strings.Contains(err.Error(), refused) {
			return fmt.Errorf("a token of %s: %v", victim.Name, err)
		}
		return nil
	})
	for name, made := range map[string]*corev1.Secret{
		"Opaque": secret(ns, "istio.x", corev1.SecretTypeOpaque), "no type": secret(ns, "istio.x", ""), "bootstrap token": secret("kube-system", "bootstrap-token-abcdef", "bootstrap.kubernetes.io/token"),
		"another name": secret(ns, "x", "istio.io/key-and-cert"),
		"CA elsewhere": secret(ns, "istio-ca-secret", "istio.io/ca-root"), "CA of another name": secret(s.storage, "cacerts", "istio.io/ca-root"),
		"join token elsewhere": secret(ns, "istio-citadel-join-1", "citadel.io/join-token"),
	} {
		if _, err := thief.Secrets(made.Namespace).Create(t.Context(), made, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, other := range []*corev1.Secret{theirs, taken} {
		other.Data = map[string][]byte{"a": []byte("b")}
		if _, err := thief.Secrets(ns).Update(t.Context(), other, metav1.UpdateOptions{}); err == nil || !strings.Contains(err.Error(), refused) {
			t.Errorf("%s was updated: %v", other.Name, err)
		}
		if err := thief.Secrets(ns).Delete(t.Context(), other.Name, metav1.DeleteOptions{}); err == nil || !strings.Contains(err.Error(), refused) {
			t.Errorf("%s was deleted: %v", other.Name, err)
		}
	}
	retyped := secret(ns, "istio.retyped", corev1.SecretTypeOpaque) // what citadel makes anew
	retyped.Labels = map[string]string{marker: "istio-citadel"}
	createSecret(t, retyped)
	if err := thief.Secrets(ns).Delete(t.Context(), retyped.Name, metav1.DeleteOptions{}); err != nil {
		t.Errorf("what bears citadel's label stays: %v", err)
	}
	mine := must(thief.Secrets(ns).Create(t.Context(), secret(ns, "istio.mine", "istio.io/key-and-cert"), metav1.CreateOptions{}))(t)
	mine.Type = corev1.SecretTypeServiceAccountToken
	if _, err := thief.Secrets(ns).Update(t.Context(), mine, metav1.UpdateOptions{}); err == nil {
		t.Error("a Secret's type was changed")
	}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "coredns"}}
	if _, err := thief.ConfigMaps(ns).Create(t.Context(), cm, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), refused) {
		t.Errorf("another ConfigMap: %v", err)
	}
	makeAccount(t, ns, "bystander") // others are not concerned
	createSecret(t, secret(ns, "bystander", corev1.SecretTypeOpaque))
}

// TestCitadelIsHeldToItsOwn: with the policy of components/admission it makes its
// root, fills, renews, repairs, makes anew and removes as without.
func TestCitadelIsHeldToItsOwn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.admits(t)
	ns := s.namespace(t)
	within(t, patience, func() error {
		_, err := s.thief(t).CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			return fmt.Errorf("the policy does not hold yet")
		}
		return nil
	})
	sa := makeAccount(t, ns, "web")
	p := s.start(t, "--workload-cert-ttl=30s", "--workload-cert-min-grace-period=0s")
	roots := s.roots(t)
	first := right(t, sa, roots)
	within(t, patience, func() error { // renewed
		later, err := getSecret(t.Context(), ns, sa.Name)
		if err == nil && string(later.Data[keyKey]) == string(first.Data[keyKey]) {
			err = fmt.Errorf("not renewed")
		}
		return err
	})
	for _, d := range damages(t) {
		if !slices.Contains([]string{"emptied", "annotation removed", "emptied and made immutable"}, d.rule) {
			continue
		}
		at := now(t)
		d.inflict(t, right(t, sa, roots), first)
		repaired := right(t, sa, roots)
		if len(writes(t, at, p.user, "secrets", ns, repaired.Name)) == 0 {
			t.Errorf("%s: not repaired", d.rule)
		}
	}
	if err := plane.Client.CoreV1().Secrets(ns).Delete(t.Context(), right(t, sa, roots).Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	right(t, sa, roots)
	for _, r := range writes(t, p.since, p.user, "", "", "") {
		if !r.done() && r.ResponseStatus.Code/100 == 4 && r.ResponseStatus.Code != 409 && r.ResponseStatus.Code != 404 {
			t.Errorf("refused: %v", r)
		}
	}
	if text := p.read(t, "log"); strings.Contains(text, "may write no") {
		t.Errorf("the policy refuses citadel: %s", tail(text, 5))
	}
	within(t, 10*time.Second, func() error {
		if n := p.metric(t, "citadel_secret_controller_secrets_in_error"); n != 0 {
			return fmt.Errorf("%.0f Secrets in error", n)
		}
		return nil
	})
}
