package survey

import (
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
	"citadel/cmd/citadelctl/inspect"
	"citadel/secretcontroller"
)

var (
	now      = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	rotation = secretcontroller.Rotation{GraceRatio: 0.5, MinGrace: 10 * time.Minute}
)

// mesh makes Secrets as citadel does, below one root.
type mesh struct {
	root   *trust.Signer
	issuer *catest.Issuer
}

func newMesh(t *testing.T, td spiffeid.TrustDomain) mesh {
	root := catest.SelfSigned(t, now.Add(-100*time.Hour), td)
	return mesh{root: root, issuer: &catest.Issuer{Cert: root.Cert(), Key: root.Key()}}
}

func (m mesh) bundle() Bundles { return One(NewBundle("root.pem", m.root.Roots())) }

// secret is that of service account default/name, valid for an hour from now.
func (m mesh) secret(t *testing.T, name string, edits ...func(*x509.Certificate)) *corev1.Secret {
	t.Helper()
	id, err := ca.ServiceAccountID(catest.TrustDomain, "default", name)
	if err != nil {
		t.Fatal(err)
	}
	leaf := m.issuer.Leaf(t, now, id, edits...)
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: secretcontroller.SecretName(name),
			Labels:          map[string]string{secretcontroller.ManagedByLabel: secretcontroller.ManagedBy},
			Annotations:     map[string]string{secretcontroller.AccountAnnotation: name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ServiceAccount", Name: name, UID: "1"}}},
		Type: secretcontroller.SecretType,
		Data: map[string][]byte{
			secretcontroller.ChainKey: leaf.PEM(),
			secretcontroller.KeyKey:   catest.KeyPEM(t, leaf.Key),
			secretcontroller.RootsKey: m.root.RootsPEM(),
		},
	}
}

func account(name string) corev1.ServiceAccount {
	return corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "1"}}
}

func reasons(item Item) string {
	var out []string
	for _, p := range item.Problems {
		out = append(out, p.Reason)
	}
	return strings.Join(out, ", ")
}

func TestSurvey(t *testing.T) {
	m := newMesh(t, catest.TrustDomain)
	other := newMesh(t, catest.TrustDomain)
	for name, c := range map[string]struct {
		change func(*corev1.Secret)
		edit   func(*x509.Certificate)
		want   string
		fate   Fate
	}{
		"right":        {fate: Rotated},
		"DNS names":    {edit: func(c *x509.Certificate) { c.DNSNames = []string{"a.example", "b.example"} }, fate: Rotated},
		"due":          {edit: func(c *x509.Certificate) { c.NotBefore = now.Add(-2 * time.Hour) }, want: "rotation", fate: Rotated},
		"expired":      {edit: func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, want: "expired", fate: Replaced},
		"not yet":      {edit: func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }, want: "not yet valid", fate: Replaced},
		"no SPIFFE ID": {edit: func(c *x509.Certificate) { c.URIs = nil }, want: "identity", fate: Replaced},
		"CA":           {edit: func(c *x509.Certificate) { c.IsCA = true }, want: "identity", fate: Replaced},
		"another's annotation": {
			change: func(s *corev1.Secret) { s.Annotations[secretcontroller.AccountAnnotation] = "other" }, want: "annotation", fate: Replaced},
		"another's certificate": {
			change: func(s *corev1.Secret) { maps.Copy(s.Data, m.secret(t, "other").Data) }, want: "identity", fate: Replaced},
		"another's key": {
			change: func(s *corev1.Secret) {
				s.Data[secretcontroller.KeyKey] = m.secret(t, "other").Data[secretcontroller.KeyKey]
			}, want: "key", fate: Replaced},
		"no chain":          {change: func(s *corev1.Secret) { delete(s.Data, secretcontroller.ChainKey) }, want: "chain", fate: Replaced},
		"no roots":          {change: func(s *corev1.Secret) { delete(s.Data, secretcontroller.RootsKey) }, want: "roots", fate: Replaced},
		"roots of before":   {change: func(s *corev1.Secret) { s.Data = other.secret(t, "sleep").Data }, want: "root changed", fate: Replaced},
		"roots not its own": {change: func(s *corev1.Secret) { s.Data[secretcontroller.RootsKey] = other.root.RootsPEM() }, want: "chain", fate: Replaced},
		"earlier account":   {change: func(s *corev1.Secret) { s.OwnerReferences[0].UID = "0" }, want: "owner", fate: Replaced},
		"account gone":      {change: func(s *corev1.Secret) { rename(s, "gone"); s.Data = m.secret(t, "gone").Data }, want: "service account", fate: Ignored},
		"account gone and another's certificate": {
			change: func(s *corev1.Secret) { rename(s, "gone") }, want: "service account, identity", fate: Ignored},
		"odd name":        {change: func(s *corev1.Secret) { s.Name = "sleep" }, want: "name", fate: Ignored},
		"nobody's":        {change: func(s *corev1.Secret) { s.Name, s.Annotations = "x", nil }, want: "name, service account", fate: Ignored},
		"somebody else's": {change: func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }, want: "type", fate: Ignored},
	} {
		t.Run(name, func(t *testing.T) {
			edit := c.edit
			if edit == nil {
				edit = func(*x509.Certificate) {}
			}
			secret := m.secret(t, "sleep", edit)
			if c.change != nil {
				c.change(secret)
			}
			r, err := Survey(now, World{Secrets: []corev1.Secret{*secret}, Accounts: []corev1.ServiceAccount{account("sleep")}, Bundles: m.bundle(), Rotation: rotation})
			if err != nil {
				t.Fatal(err)
			}
			item := r.Items[0]
			if got := reasons(item); got != c.want || item.Right != (c.want == "") || r.Summary.Right+r.Summary.Wrong != 1 || (r.Summary.Right == 1) != item.Right {
				t.Errorf("reasons are %q, want %q: %+v", got, c.want, r)
			}
			if got := item.Fate(); got != c.fate {
				t.Errorf("fate is %d, want %d; next rotation %s", got, c.fate, item.NextRotation)
			}
			if len(r.Only().Items) != r.Summary.Wrong || r.Only().Summary != r.Summary {
				t.Errorf("the wrong ones are %+v", r.Only())
			}
		})
	}
}

func rename(s *corev1.Secret, account string) {
	s.Name, s.Annotations[secretcontroller.AccountAnnotation] = secretcontroller.SecretName(account), account
}

// TestTimes: what is shown is what Judge says, and without a verdict on it what
// the certificate says.
func TestTimes(t *testing.T) {
	m := newMesh(t, catest.TrustDomain)
	survey := func(secret *corev1.Secret) Item {
		r, err := Survey(now, World{Secrets: []corev1.Secret{*secret}, Accounts: []corev1.ServiceAccount{account("sleep")}, Bundles: m.bundle(), Rotation: rotation})
		if err != nil {
			t.Fatal(err)
		}
		return r.Items[0]
	}
	secret := m.secret(t, "sleep")
	item := survey(secret)
	if want := now.Add(30 * time.Minute); !item.NextRotation.Equal(want) || !item.ExpiresAt.Equal(now.Add(time.Hour)) {
		t.Errorf("next rotation is %s, want %s; expires at %s", item.NextRotation, want, item.ExpiresAt)
	}
	if c := item.Certificate; c.SPIFFEID != "spiffe://cluster.local/ns/default/sa/sleep" || c.DNSNames == nil || !c.NotAfter.Equal(item.ExpiresAt) {
		t.Errorf("certificate is %+v", c)
	}
	if item.ServiceAccount != "sleep" || item.TrustDomain != "cluster.local" || item.Roots != "root.pem" || item.Problems == nil {
		t.Errorf("item is %+v", item)
	}
	delete(secret.Data, secretcontroller.KeyKey)
	if item := survey(secret); !item.ExpiresAt.Equal(now.Add(time.Hour)) || !item.NextRotation.IsZero() {
		t.Errorf("of a Secret without a key, next rotation is %s, and it expires at %s", item.NextRotation, item.ExpiresAt)
	}
}

func TestTrustDomain(t *testing.T) {
	named := newMesh(t, catest.TrustDomain)
	nameless := mesh{issuer: catest.Root(t, now, catest.Spec{Name: "operator's root"})}
	nameless.root = nameless.issuer.Signer(t, now)
	foreign := newMesh(t, spiffeid.RequireTrustDomainFromString("other.example"))
	both := One(NewBundle("both.pem", slices.Concat(named.root.Roots(), foreign.root.Roots())))
	for name, c := range map[string]struct {
		mesh    mesh
		bundles Bundles
		flag    string
		td      string
		want    string
		remark  bool
	}{
		"the roots'":           {named, named.bundle(), "", "cluster.local", "", false},
		"the flag's":           {named, named.bundle(), "td.example", "td.example", "identity", false},
		"its own":              {nameless, nameless.bundle(), "", "cluster.local", "", true},
		"flag, nameless roots": {nameless, nameless.bundle(), "cluster.local", "cluster.local", "", false},
		"roots of another":     {foreign, foreign.bundle(), "", "other.example", "identity", false},
		"roots of several":     {named, both, "", "cluster.local", "root changed", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := World{Secrets: []corev1.Secret{*c.mesh.secret(t, "sleep")}, Accounts: []corev1.ServiceAccount{account("sleep")}, Bundles: c.bundles, Rotation: rotation}
			if c.flag != "" {
				w.TrustDomain = spiffeid.RequireTrustDomainFromString(c.flag)
			}
			r, err := Survey(now, w)
			if err != nil {
				t.Fatal(err)
			}
			item := r.Items[0]
			if item.TrustDomain != c.td || reasons(item) != c.want || (len(item.Remarks) == 1) != c.remark {
				t.Errorf("trust domain is %q, problems %q, remarks %q", item.TrustDomain, reasons(item), item.Remarks)
			}
		})
	}
}

func TestOrder(t *testing.T) {
	m := newMesh(t, catest.TrustDomain)
	b, a := m.secret(t, "b"), m.secret(t, "a")
	a.Namespace, b.Namespace = "z", "default"
	c := m.secret(t, "a")
	r, err := Survey(now, World{Secrets: []corev1.Secret{*a, *b, *c}, Bundles: m.bundle()})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, item := range r.Items {
		got = append(got, item.Namespace+"/"+item.Name)
	}
	if want := "default/istio.a default/istio.b z/istio.a"; strings.Join(got, " ") != want {
		t.Errorf("order is %q, want %q", got, want)
	}
}

func configMap(namespace, text string) corev1.ConfigMap {
	return corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: secretcontroller.RootsConfigMap},
		Data: map[string]string{secretcontroller.RootsKey: text}}
}

func TestBundles(t *testing.T) {
	m, other := newMesh(t, catest.TrustDomain), newMesh(t, catest.TrustDomain)
	good, odd := string(m.root.RootsPEM()), string(other.root.RootsPEM())
	for name, c := range map[string]struct {
		configMaps []corev1.ConfigMap
		from       map[string]string // by namespace
		warnings   []string          // beginnings
	}{
		"own":             {[]corev1.ConfigMap{configMap("a", good), configMap("b", good)}, map[string]string{"a": "ConfigMap a/istio-ca-root-cert", "b": "ConfigMap b/istio-ca-root-cert"}, nil},
		"first":           {[]corev1.ConfigMap{configMap("b", good), configMap("a", good)}, map[string]string{"c": "ConfigMap a/istio-ca-root-cert"}, nil},
		"storage's":       {[]corev1.ConfigMap{configMap("a", good), configMap("home", good)}, map[string]string{"c": "ConfigMap home/istio-ca-root-cert"}, nil},
		"damaged":         {[]corev1.ConfigMap{configMap("a", "x"), configMap("b", good)}, map[string]string{"a": "ConfigMap b/istio-ca-root-cert"}, []string{"ConfigMap a/istio-ca-root-cert: root-cert.pem holds no PEM certificate"}},
		"not of one mind": {[]corev1.ConfigMap{configMap("a", odd), configMap("home", good)}, map[string]string{"a": "ConfigMap a/istio-ca-root-cert"}, []string{"ConfigMap istio-ca-root-cert is not the same everywhere: namespaces a have other roots than ConfigMap home/"}},
		"none":            {nil, map[string]string{"a": ""}, nil},
		"none good":       {[]corev1.ConfigMap{configMap("a", "")}, map[string]string{"a": ""}, []string{"ConfigMap a/istio-ca-root-cert: "}},
	} {
		t.Run(name, func(t *testing.T) {
			bundles, warnings := ReadBundles(c.configMaps, "home")
			for namespace, want := range c.from {
				if b, ok := bundles.For(namespace); b.From != want || ok != (want != "") {
					t.Errorf("namespace %s is judged by %q, want %q", namespace, b.From, want)
				}
			}
			if !slices.EqualFunc(warnings, c.warnings, strings.HasPrefix) {
				t.Errorf("warnings are %q, want %q", warnings, c.warnings)
			}
		})
	}
}

func TestNoRoots(t *testing.T) {
	m := newMesh(t, catest.TrustDomain)
	if _, err := Survey(now, World{Secrets: []corev1.Secret{*m.secret(t, "sleep")}}); !errors.Is(err, ErrNoRoots) {
		t.Errorf("error is %v", err)
	}
	if r, err := Survey(now, World{}); err != nil || r.Items == nil {
		t.Errorf("of nothing, the report is %+v, error %v", r, err)
	}
}

// TestVerifyAndInspectAgree on what a certificate may be used for.
func TestVerifyAndInspectAgree(t *testing.T) {
	m := newMesh(t, catest.TrustDomain)
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	for name, c := range map[string]struct {
		usages []x509.ExtKeyUsage
		right  bool
	}{
		"both":            {[]x509.ExtKeyUsage{client, server}, true},
		"both and others": {[]x509.ExtKeyUsage{client, x509.ExtKeyUsageCodeSigning, server}, true},
		"none":            {nil, true},
		"server alone":    {[]x509.ExtKeyUsage{server}, false},
		"client alone":    {[]x509.ExtKeyUsage{client}, false},
		"any":             {[]x509.ExtKeyUsage{x509.ExtKeyUsageAny}, false},
	} {
		secret := m.secret(t, "sleep", func(cert *x509.Certificate) { cert.ExtKeyUsage = c.usages })
		account := corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "sleep", UID: "1"}}
		report, err := Survey(now, World{Secrets: []corev1.Secret{*secret}, Accounts: []corev1.ServiceAccount{account}, Bundles: m.bundle(), Rotation: rotation})
		if err != nil {
			t.Fatal(err)
		}
		material, err := inspect.ParseSecret(secret)
		if err != nil {
			t.Fatal(err)
		}
		if inspected := inspect.Inspect(now, material, inspect.Roots{}); report.Items[0].Right != c.right || inspected.Right != c.right {
			t.Errorf("%s: verify says %v, inspect %v, want %v: %v %v", name, report.Items[0].Right, inspected.Right, c.right, report.Items[0].Problems, inspected.Problems)
		}
	}
}
