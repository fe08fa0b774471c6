package main

import (
	"crypto/x509"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/kube"
	"citadel/ca/trust"
	"citadel/secretcontroller"
)

// world is a mesh as of now: pieces for files, and objects of a cluster.
type world struct {
	mu sync.Mutex // guards what follows from when it is served

	pieces     map[string][]byte
	secrets    []corev1.Secret
	accounts   []corev1.ServiceAccount
	configMaps []corev1.ConfigMap

	namespaces  []string
	terminating string // one of them
	deployments []appsv1.Deployment
	pods        []corev1.Pod
	fleeting    string // one of them, gone once it is asked
	leases      []coordinationv1.Lease
	services    []corev1.Service
	pages       map[string]string // by pod:port and page
	withheld    []string          // rights that service accounts do not have
	minor       string            // of the API server's version

	root *trust.Signer
}

func newWorld(t *testing.T) *world {
	now := time.Now()
	w := &world{minor: "36", namespaces: []string{"istio-system", "default", "web", "bare", "empty"}, root: catest.SelfSigned(t, now.Add(-24*time.Hour), catest.TrustDomain)}
	w.makePieces(t, now)
	w.makeCluster(t, now)
	return w
}

func (w *world) makePieces(t *testing.T, now time.Time) {
	root := &catest.Issuer{Cert: w.root.Cert(), Key: w.root.Key()}
	issuer := root.Intermediate(t, now, catest.Spec{Name: "issuer", Edit: func(c *x509.Certificate) { c.NotAfter = root.Cert.NotAfter }})
	id := spiffeid.RequireFromString("spiffe://cluster.local/ns/default/sa/sleep")
	leaf := issuer.Leaf(t, now, id, func(c *x509.Certificate) { c.DNSNames = []string{"sleep.default.svc"} })
	expired := issuer.Leaf(t, now, id, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter, c.KeyUsage = now.Add(-50*time.Hour), now.Add(-49*time.Hour), 0
	})
	hostile := issuer.Leaf(t, now, id, func(c *x509.Certificate) {
		c.Subject.CommonName = "x\x1b[2J\nRight: nothing is wrong"
	})
	w.pieces = map[string][]byte{
		"root":       root.PEM(),
		"other-root": catest.Root(t, now, catest.Spec{Name: "other root"}).PEM(),
		"issuer":     issuer.PEM(),
		"leaf":       leaf.PEM(),
		"leaf-der":   leaf.Cert.Raw,
		"expired":    expired.PEM(),
		"hostile":    hostile.PEM(),
		"key":        catest.KeyPEM(t, leaf.Key),
		"other-key":  catest.KeyPEM(t, catest.Key(t, trust.ECDSAP256, "other")),
		"issuer-key": catest.KeyPEM(t, issuer.Key),
	}
}

// makeCluster: in namespace default all is right; in web, frontend has the key
// of another, and gone has no service account. Namespace empty has nothing.
func (w *world) makeCluster(t *testing.T, now time.Time) {
	for _, namespace := range []string{"istio-system", "default", "web"} {
		w.configMaps = append(w.configMaps, corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: secretcontroller.RootsConfigMap},
			Data:       map[string]string{secretcontroller.RootsKey: string(w.root.RootsPEM())},
		}, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "kube-root-ca.crt"}})
	}
	for _, name := range []types.NamespacedName{
		{Namespace: "default", Name: "sleep"}, {Namespace: "default", Name: "httpbin"}, {Namespace: "bare", Name: "lonely"},
		{Namespace: "web", Name: "default"}, {Namespace: "web", Name: "frontend"}, {Namespace: "web", Name: "gone"},
	} {
		secret := w.secret(t, now, name)
		if name.Name == "frontend" {
			secret.Data[secretcontroller.KeyKey] = w.pieces["other-key"]
		}
		w.secrets = append(w.secrets, secret)
		if name.Name != "gone" {
			w.accounts = append(w.accounts, corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name, UID: "1"}})
		}
	}
	rootKey := catest.KeyPEM(t, w.root.Key())
	w.secrets = append(w.secrets,
		corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: kube.CASecret}, Type: kube.CASecretType,
			Data: map[string][]byte{kube.CACertKey: w.root.RootsPEM(), kube.CAKeyKey: rootKey}},
		corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: kube.PluggedSecret}, Type: corev1.SecretTypeOpaque,
			Data: map[string][]byte{kube.CACertKey: w.pieces["issuer"], kube.CAKeyKey: w.pieces["issuer-key"],
				kube.PluggedChainKey: w.pieces["issuer"], kube.PluggedRootKey: w.root.RootsPEM()}},
		corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "site"}, Type: corev1.SecretTypeTLS,
			Data: map[string][]byte{"tls.crt": slices.Concat(w.pieces["leaf"], w.pieces["issuer"]), "tls.key": w.pieces["key"], "ca.crt": w.root.RootsPEM()}},
		corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "password"}, Type: corev1.SecretTypeOpaque,
			Data: map[string][]byte{"word": []byte("hunter2")}})
}

// secret is one of citadel's, made by a real authority.
func (w *world) secret(t *testing.T, now time.Time, name types.NamespacedName) corev1.Secret {
	t.Helper()
	authority := catest.Authority(t, now, ca.Config{Signer: w.root})
	id, err := ca.ServiceAccountID(catest.TrustDomain, name.Namespace, name.Name)
	if err != nil {
		t.Fatal(err)
	}
	key := catest.Key(t, trust.ECDSAP256, name.String())
	chain, err := authority.Issue(now, ca.NewCaller(id, "test", ""), ca.Request{CSR: catest.CSR(t, key)})
	if err != nil {
		t.Fatal(err)
	}
	return corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: secretcontroller.SecretName(name.Name),
			Labels:          map[string]string{secretcontroller.ManagedByLabel: secretcontroller.ManagedBy},
			Annotations:     map[string]string{secretcontroller.AccountAnnotation: name.Name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ServiceAccount", Name: name.Name, UID: "1"}}},
		Type: secretcontroller.SecretType,
		Data: map[string][]byte{
			secretcontroller.ChainKey: trust.MarshalCertificates(chain),
			secretcontroller.KeyKey:   catest.KeyPEM(t, key),
			secretcontroller.RootsKey: w.root.RootsPEM(),
		},
	}
}
