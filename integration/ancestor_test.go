package integration

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// secret14 is a workload Secret exactly as Citadel 1.4 wrote it: an RSA 2048
// key in PKCS#1, a serial number of 128 bits, no backdating, no labels and no
// owner.
func secret14(t *testing.T, root *catest.Issuer, namespace, account string, begin time.Time, ttl time.Duration) *corev1.Secret {
	t.Helper()
	key := catest.Key(t, trust.RSA2048, "Citadel 1.4 workload "+account)
	id := must(url.Parse(fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", trustDomain, namespace, account)))(t)
	template := &x509.Certificate{
		SerialNumber:          must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128)))(t),
		URIs:                  []*url.URL{id}, // critical, for there is no subject
		NotBefore:             begin,
		NotAfter:              begin.Add(ttl),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, root.Cert, key.Public(), root.Key))(t)
	leaf := must(x509.ParseCertificate(der))(t)
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "istio." + account, Annotations: map[string]string{annotation: account}},
		Type:       secretType,
		Data: map[string][]byte{
			chainKey: trust.MarshalCertificates([]*x509.Certificate{leaf}),
			keyKey:   must(trust.MarshalLegacyKey(key))(t),
			rootKey:  root.PEM(),
		},
	}
}

// caSecret14 is the CA's as Citadel 1.4 wrote it.
func caSecret14(t *testing.T, root *catest.Issuer, namespace string) *corev1.Secret {
	t.Helper()
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "istio-ca-secret"},
		Type:       "istio.io/ca-root",
		Data:       map[string][]byte{"ca-cert.pem": root.PEM(), "ca-key.pem": must(trust.MarshalLegacyKey(root.Key))(t)},
	}
}

func TestAncestorsSecretsAreTakenOver(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	begin := time.Now()
	root := catest.Citadel14Root(t, begin.Add(-30*24*time.Hour), trustDomain)
	authority := createSecret(t, caSecret14(t, root, s.storage))
	valid, due, soon := makeAccount(t, ns, "valid"), makeAccount(t, ns, "due"), makeAccount(t, ns, "soon")
	kept := createSecret(t, secret14(t, root, ns, "valid", begin.Add(-time.Hour), 19*time.Hour))
	renewed := createSecret(t, secret14(t, root, ns, "due", begin.Add(-10*time.Hour), 19*time.Hour))
	// Due in 15s: half of its life, less the two minutes that count as backdating.
	half := createSecret(t, secret14(t, root, ns, "soon", begin.Add(-12*time.Minute+15*time.Second), 22*time.Minute))

	since := now(t)
	s.start(t, "--workload-cert-rotation-jitter", "0").stop(t)
	p := s.start(t, "--workload-cert-rotation-jitter", "0")
	roots := s.roots(t)
	for sa, old := range map[*corev1.ServiceAccount]*corev1.Secret{due: renewed, soon: half} {
		secret := right(t, sa, roots) // with label and owner, therefore made anew
		if err := different(old, secret); err != nil {
			t.Error(err)
		}
		if out, err := opensslVerify(t, secret); err != nil { // not strictly: the root has no key identifier
			t.Errorf("openssl verify: %v\n%s", err, out)
		}
		if got := verbs(writes(t, since, p.user, "secrets", ns, secret.Name)); fmt.Sprint(got) != "[update]" {
			t.Errorf("Secret %s was written by %v, want one update", secret.Name, got)
		}
	}
	issued := leafOf(t, must(getSecret(t.Context(), ns, "soon"))(t)).NotBefore.Add(trust.Backdate)
	if waited := issued.Sub(begin); waited < 13*time.Second { // certificates cut off fractions of a second
		t.Errorf("the Secret that was due in 15s was renewed after %s", waited)
	}
	for _, untouched := range []*corev1.Secret{authority, kept} {
		if got := writes(t, since, p.user, "secrets", untouched.Namespace, untouched.Name); len(got) > 0 {
			t.Errorf("citadel wrote Secret %s: %v", untouched.Name, got)
		}
		today := must(plane.Client.CoreV1().Secrets(untouched.Namespace).Get(t.Context(), untouched.Name, metav1.GetOptions{}))(t)
		if today.ResourceVersion != untouched.ResourceVersion {
			t.Errorf("Secret %s has changed", untouched.Name)
		}
	}
	if secret := must(getSecret(t.Context(), ns, valid.Name))(t); !bytes.Equal(secret.Data[rootKey], root.PEM()) {
		t.Error("its roots are others")
	}
}

func TestKeysAreEncodedAsTheAncestorDidWhereTheFlagSaysSo(t *testing.T) {
	t.Parallel()
	for flags, want := range map[string]string{"rsa-2048": "RSA PRIVATE KEY", "ecdsa-p384": "EC PRIVATE KEY"} {
		t.Run(flags, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			ns := s.namespace(t)
			s.start(t, "--pkcs8-keys=false", "--key-type", flags, "--ca-key-type", "rsa-2048")
			makeAccount(t, ns, "sleep")
			within(t, patience, func() error {
				secret, err := getSecret(t.Context(), ns, "sleep")
				if err == nil && keyBlock(secret) != want {
					t.Errorf("key is a %q, want %q", keyBlock(secret), want)
				}
				return err
			})
		})
	}
}
