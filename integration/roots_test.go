package integration

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// configMapIs is nil when a ConfigMap has the value and the label.
func configMapIs(t *testing.T, namespace, name, key, value, label string) error {
	t.Helper()
	cm, err := plane.Client.CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if cm.Data[key] != value || cm.Labels["istio.io/config"] != label {
		return fmt.Errorf("ConfigMap %s/%s has %q, or labels %v", namespace, name, cm.Data[key], cm.Labels)
	}
	return nil
}

// rootsIn is nil when a namespace has the ConfigMap with exactly the roots.
func rootsIn(t *testing.T, namespace string, roots []*x509.Certificate) error {
	t.Helper()
	return configMapIs(t, namespace, "istio-ca-root-cert", "root-cert.pem", string(trust.MarshalCertificates(roots)), "true")
}

// forOldAgentsIn is nil when the storage namespace has what agents of the
// ancestor read.
func forOldAgentsIn(t *testing.T, namespace string, certs []*x509.Certificate) error {
	t.Helper()
	return configMapIs(t, namespace, "istio-security", "caTLSRootCert", base64.StdEncoding.EncodeToString(trust.MarshalCertificates(certs)), "")
}

func TestRootsAreDistributedAndKept(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns, unmanaged := s.namespace(t), makeNamespace(t, map[string]string{"ca.istio.io/env": "nobody"})
	for _, none := range []string{"kube-public", "kube-node-lease"} {
		setLabels(t, none, s.label())
		defer setLabels(t, none, map[string]string{"ca.istio.io/env": ""})
	}
	root := catest.Root(t, time.Now(), catest.Spec{Name: "roots root"})
	issuer := root.Intermediate(t, time.Now(), catest.Spec{Name: "roots policy"}).Intermediate(t, time.Now(), catest.Spec{Name: "roots issuer"})
	p := s.start(t, files(t, issuer)...)
	roots := []*x509.Certificate{root.Cert}
	workload := func() error { return rootsIn(t, ns, roots) }
	legacy := func() error { return forOldAgentsIn(t, s.storage, append(issuer.Chain(), root.Cert)) }
	within(t, patience, workload)
	within(t, patience, legacy)
	if out, err := opensslVerify(t, right(t, makeAccount(t, ns, "sleep"), roots), "-x509_strict"); err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}

	for _, cm := range []struct {
		namespace, name string
		right           func() error
	}{{ns, "istio-ca-root-cert", workload}, {s.storage, "istio-security", legacy}} {
		since := now(t)
		editConfigMap(t, cm.namespace, cm.name, func(m *corev1.ConfigMap) {
			for key := range m.Data {
				m.Data[key] = "edited"
			}
			m.Data["extra"], m.Labels = "x", map[string]string{"team": "y"}
		})
		within(t, soon, cm.right)
		kept := must(plane.Client.CoreV1().ConfigMaps(cm.namespace).Get(t.Context(), cm.name, metav1.GetOptions{}))(t)
		if kept.Data["extra"] != "x" || kept.Labels["team"] != "y" {
			t.Errorf("%s: what others added is lost: %v %v", cm.name, sortedKeys(kept.Data), kept.Labels)
		}
		editConfigMap(t, cm.namespace, cm.name, func(m *corev1.ConfigMap) { m.Data = nil })
		within(t, soon, cm.right)
		if err := plane.Client.CoreV1().ConfigMaps(cm.namespace).Delete(t.Context(), cm.name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		within(t, soon, cm.right)
		if got := verbs(writes(t, since, p.user, "configmaps", cm.namespace, cm.name)); fmt.Sprint(got) != "[update update create]" {
			t.Errorf("%s was kept by %v, want two updates and a create", cm.name, got)
		}
	}
	for _, none := range []string{unmanaged, "kube-public", "kube-node-lease"} {
		if got := writes(t, p.since, p.user, "configmaps", none, ""); len(got) > 0 {
			t.Errorf("citadel distributed roots to %s: %v", none, got)
		}
	}
}

func editConfigMap(t *testing.T, namespace, name string, edit func(*corev1.ConfigMap)) {
	t.Helper()
	within(t, patience, func() error {
		cm, err := plane.Client.CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		edit(cm)
		_, err = plane.Client.CoreV1().ConfigMaps(namespace).Update(t.Context(), cm, metav1.UpdateOptions{})
		return err
	})
}

func TestImmutableRootsAreRepairedToo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	within(t, patience, func() error { return rootsIn(t, ns, s.roots(t)) })
	since := now(t)
	editConfigMap(t, ns, "istio-ca-root-cert", func(m *corev1.ConfigMap) {
		m.Data["root-cert.pem"], m.Data["extra"], m.Immutable = "edited", "x", new(true)
	})
	within(t, soon, func() error { return rootsIn(t, ns, s.roots(t)) })
	if kept := must(plane.Client.CoreV1().ConfigMaps(ns).Get(t.Context(), "istio-ca-root-cert", metav1.GetOptions{}))(t); kept.Data["extra"] != "x" {
		t.Errorf("what others added is lost: %v", sortedKeys(kept.Data))
	}
	if got := verbs(writes(t, since, p.user, "configmaps", ns, "")); fmt.Sprint(got) != "[delete create]" {
		t.Errorf("citadel wrote %v, want a delete and a create", got)
	}
}

func TestFurtherRootsAreAppendedToOurOwn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	sa := makeAccount(t, ns, "sleep")
	other := catest.Root(t, time.Now(), catest.Spec{Name: "another cluster's root"})
	s.start(t, "--root-cert", writeFile(t, "roots.pem", other.PEM()))
	both := append(s.roots(t), other.Cert)
	right(t, sa, both)
	within(t, patience, func() error { return rootsIn(t, ns, both) })
	within(t, patience, func() error { return forOldAgentsIn(t, s.storage, both) })
}

// changeRoots fills a namespace by one operator's CA and restarts with another.
func changeRoots(t *testing.T, count int, window time.Duration) (written []version) {
	t.Helper()
	s := newSite(t)
	ns := s.namespace(t)
	old, next := catest.Root(t, time.Now(), catest.Spec{Name: "old root"}), catest.Root(t, time.Now(), catest.Spec{Name: "next root"})
	accounts := makeAccounts(t, ns, "sa", count)
	p := s.start(t, files(t, old)...)
	allRight(t, accounts, []*x509.Certificate{old.Cert})
	p.stop(t)

	seen := history(t, ns)
	begin := time.Now()
	p = s.start(t, append(files(t, next), "--root-change-window", window.String())...)
	allRight(t, accounts, []*x509.Certificate{next.Cert})
	t.Logf("%d Secrets were rewritten %s after the start", count, time.Since(begin))
	within(t, patience, func() error { return rootsIn(t, ns, []*x509.Certificate{next.Cert}) })
	for _, sa := range accounts {
		name := "istio." + sa.Name
		if got := verbs(writes(t, p.since, p.user, "secrets", ns, name)); fmt.Sprint(got) != "[update]" {
			t.Errorf("Secret %s was rewritten by %v, want one update", name, got)
		}
		within(t, patience, func() error {
			versions := seen()[name]
			if len(versions) != 1 {
				return fmt.Errorf("Secret %s has %d new versions", name, len(versions))
			}
			written = append(written, versions[0])
			return nil
		})
	}
	slices.SortFunc(written, func(a, b version) int { return a.at.Compare(b.at) })
	return written
}

func TestChangedRootRewritesAllSecretsAtOnceWithoutAWindow(t *testing.T) {
	t.Parallel()
	const count = 60
	written := changeRoots(t, count, 0)
	if took := written[count-1].at.Sub(written[0].at); took > 10*time.Second {
		t.Errorf("the rewrites took %s", took)
	}
}

func TestChangedRootRewritesSecretsOverTheWindow(t *testing.T) {
	t.Parallel()
	const count, window = 60, 12 * time.Second
	written := changeRoots(t, count, window)
	if took := written[count-1].at.Sub(written[0].at); took < window*6/10 || took > window+10*time.Second {
		t.Errorf("the rewrites took %s, want about %s", took, window)
	}
	// Evenly, 20 in each third of the window.
	third := written[0].at.Add(window / 3)
	if early := slices.IndexFunc(written, func(v version) bool { return v.at.After(third) }); early < 6 || early > 40 {
		t.Errorf("%d of %d rewrites fell into the first third of the window", early, count)
	}
}

// What stands in a Secret verifies by the roots beside it at every moment of a
// change.
func TestSecretsStayUsableWhileTheyWaitForTheirNewRoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	sa := makeAccount(t, ns, "sleep")
	old, next := catest.Root(t, time.Now(), catest.Spec{Name: "old root"}), catest.Root(t, time.Now(), catest.Spec{Name: "next root"})
	p := s.start(t, files(t, old)...)
	before := right(t, sa, []*x509.Certificate{old.Cert})
	p.stop(t)
	s.start(t, append(files(t, next), "--root-change-window", "1h")...)
	right(t, makeAccount(t, ns, "other"), []*x509.Certificate{next.Cert})
	kept := right(t, sa, []*x509.Certificate{old.Cert})
	if kept.ResourceVersion != before.ResourceVersion {
		t.Error("the Secret was rewritten before its time")
	}
	// One that is deleted, and one that is damaged, does not wait.
	deleteSecret(t, kept)
	right(t, sa, []*x509.Certificate{next.Cert})
}
