package integration

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

func TestServiceAccountGetsItsSecret(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	roots := s.roots(t)
	for _, name := range []string{"sleep", "a.b-c.d", "0", strings.Repeat("x", 247)} {
		sa := makeAccount(t, ns, name)
		secret := right(t, sa, roots)
		checkExactMeta(t, secret, sa)
		within(t, patience, func() error { // the object may be seen before its request is answered and in the log
			if got := verbs(writes(t, p.since, p.user, "secrets", ns, secret.Name)); fmt.Sprint(got) != "[create]" {
				return fmt.Errorf("Secret %s was written by %v, want one create", secret.Name, got)
			}
			return nil
		})
		if block := keyBlock(secret); block != "PRIVATE KEY" {
			t.Errorf("key is a %q, want PKCS#8", block)
		}
	}
	secret := must(getSecret(t.Context(), ns, "sleep"))(t)
	if out, err := opensslVerify(t, secret, "-x509_strict"); err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
	other := must(getSecret(t.Context(), ns, "0"))(t)
	if err := different(secret, other); err != nil {
		t.Error(err)
	}
}

// checkExactMeta insists on what manifests select by, and on nothing more.
func checkExactMeta(t *testing.T, secret *corev1.Secret, sa *corev1.ServiceAccount) {
	t.Helper()
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "ServiceAccount", Name: sa.Name, UID: sa.UID}
	got := fmt.Sprintf("%s %s %v %v %v %v %v", secret.Name, secret.Type, sortedKeys(secret.Data), secret.Annotations, secret.Labels, secret.OwnerReferences, secret.Immutable)
	want := fmt.Sprintf("istio.%s istio.io/key-and-cert [cert-chain.pem key.pem root-cert.pem] map[istio.io/service-account.name:%s] map[app.kubernetes.io/managed-by:istio-citadel] %v <nil>",
		sa.Name, sa.Name, []metav1.OwnerReference{owner})
	if got != want {
		t.Errorf("Secret is\n%s\nwant\n%s", got, want)
	}
}

// opensslVerify judges the chain as OpenSSL does, as a server's and as a
// client's.
func opensslVerify(t *testing.T, secret *corev1.Secret, flags ...string) (out string, err error) {
	t.Helper()
	chain := must(trust.ParseCertificates(secret.Data[chainKey]))(t)
	leaf, roots := writeFile(t, "leaf.pem", trust.MarshalCertificates(chain[:1])), writeFile(t, "roots.pem", secret.Data[rootKey])
	args := append([]string{"verify", "-CAfile", roots}, flags...)
	if len(chain) > 1 {
		args = append(args, "-untrusted", writeFile(t, "chain.pem", trust.MarshalCertificates(chain[1:])))
	}
	for _, purpose := range []string{"sslserver", "sslclient"} {
		text, err := exec.Command("openssl", append(args, "-purpose", purpose, leaf)...).CombinedOutput()
		if err != nil {
			return string(text), err
		}
	}
	return "", nil
}

func TestServiceAccountOfAnImpossibleNameIsTold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	s.start(t)
	sa := makeAccount(t, ns, strings.Repeat("x", 248)) // with the prefix, too long for a Secret
	within(t, patience, func() error { return eventOn(t, sa, "SecretFailed", "name") })
}

// eventOn is nil when a service account bears a warning of Citadel's.
func eventOn(t *testing.T, sa *corev1.ServiceAccount, reason, text string) error {
	t.Helper()
	list, err := plane.Client.EventsV1().Events(sa.Namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, e := range list.Items {
		if e.Regarding.Kind == "ServiceAccount" && e.Regarding.UID == sa.UID && e.Type == corev1.EventTypeWarning &&
			e.Reason == reason && e.ReportingController == "citadel" && strings.Contains(e.Note, text) {
			return nil
		}
	}
	return fmt.Errorf("service account %s has no Event %s that says %q", sa.Name, reason, text)
}

func TestSecretGoesWithItsServiceAccount(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	first, second := makeAccount(t, ns, "first"), makeAccount(t, ns, "second")
	right(t, first, s.roots(t))
	right(t, second, s.roots(t))

	deleteAccount(t, first)
	within(t, patience, func() error { return noSecret(t, first) })
	p.stop(t)
	deleteAccount(t, second)
	within(t, patience, func() error { return noSecret(t, second) }) // by garbage collection alone

	s.start(t)
	right(t, makeAccount(t, ns, "third"), s.roots(t))
	for _, sa := range []*corev1.ServiceAccount{first, second} {
		if err := noSecret(t, sa); err != nil {
			t.Errorf("after a restart: %v", err)
		}
	}
}

func deleteAccount(t *testing.T, sa *corev1.ServiceAccount) {
	t.Helper()
	if err := plane.Client.CoreV1().ServiceAccounts(sa.Namespace).Delete(t.Context(), sa.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// noSecret is nil when the service account has no Secret.
func noSecret(t *testing.T, sa *corev1.ServiceAccount) error {
	t.Helper()
	_, err := getSecret(t.Context(), sa.Namespace, sa.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("Secret istio.%s is there", sa.Name)
	}
	return err
}

// Leftovers have no owner: they are the ancestor's, of when Citadel was down.
func TestLeftoverSecretIsRemovedOnStart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	managed, unmanaged := s.namespace(t), makeNamespace(t, nil)
	root := catest.Citadel14Root(t, time.Now().Add(-time.Hour), trustDomain)
	for _, ns := range []string{managed, unmanaged} {
		createSecret(t, secret14(t, root, ns, "gone", time.Now(), 19*time.Hour))
		createSecret(t, secret14(t, root, ns, "living", time.Now(), 19*time.Hour))
		makeAccount(t, ns, "living")
	}
	p := s.start(t)
	within(t, patience, func() error {
		return noSecret(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: managed, Name: "gone"}})
	})
	for _, key := range [][2]string{{managed, "living"}, {unmanaged, "gone"}, {unmanaged, "living"}} {
		must(getSecret(t.Context(), key[0], key[1]))(t)
	}
	if got := verbs(writes(t, p.since, p.user, "secrets", unmanaged, "")); len(got) > 0 {
		t.Errorf("citadel made %v in a namespace that is not managed", got)
	}
}

func createSecret(t *testing.T, secret *corev1.Secret) *corev1.Secret {
	t.Helper()
	return must(plane.Client.CoreV1().Secrets(secret.Namespace).Create(t.Context(), secret, metav1.CreateOptions{}))(t)
}

func TestServiceAccountMadeAgainGetsANewKey(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	old := makeAccount(t, ns, "sleep")
	before := right(t, old, s.roots(t))
	deleteAccount(t, old)
	after := right(t, makeAccount(t, ns, "sleep"), s.roots(t)) // whose owner has the new UID
	if err := different(before, after); err != nil {
		t.Errorf("citadel up: %v", err)
	}
	p.stop(t)
	deleteAccount(t, must(plane.Client.CoreV1().ServiceAccounts(ns).Get(t.Context(), "sleep", metav1.GetOptions{}))(t))
	again := makeAccount(t, ns, "sleep")
	s.start(t)
	secret := right(t, again, s.roots(t))
	if err := different(after, secret); err != nil {
		t.Errorf("citadel down: %v", err)
	}
	stays(t, 3*time.Second, func() error { // garbage collection has no claim on it
		secret, err := getSecret(t.Context(), ns, "sleep")
		if err != nil {
			return err
		}
		return wanted{account: again, roots: s.roots(t)}.flaw(secret)
	})
}

func TestNamespaceMadeAgainGetsItsSecrets(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	// The API server's own cache may hold the namespace of before for a moment.
	account := func() (sa *corev1.ServiceAccount) {
		within(t, patience, func() (err error) {
			sa, err = plane.Client.CoreV1().ServiceAccounts(ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "sleep"}}, metav1.CreateOptions{})
			return err
		})
		return sa
	}
	for range 2 {
		sa := account()
		right(t, sa, s.roots(t))
		within(t, patience, func() error { return rootsIn(t, ns, s.roots(t)) })
		if err := plane.Client.CoreV1().Namespaces().Delete(t.Context(), ns, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		within(t, patience, func() error { // as soon as the name is free
			_, err := plane.Client.CoreV1().Namespaces().Create(t.Context(),
				&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: s.label()}}, metav1.CreateOptions{})
			return err
		})
	}
	right(t, account(), s.roots(t))
	if log := p.read(t, "log"); strings.Contains(log, "level=ERROR") {
		t.Errorf("citadel complains of a namespace that goes away:\n%s", tail(log, 20))
	}
}
