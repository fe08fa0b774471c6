package integration

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/trust"
)

// The names are written out here, and not taken from the product: manifests
// and workloads rely on them.
const (
	secretType = "istio.io/key-and-cert"
	chainKey   = "cert-chain.pem"
	keyKey     = "key.pem"
	rootKey    = "root-cert.pem"
	annotation = "istio.io/service-account.name"
	marker     = "app.kubernetes.io/managed-by"
	markedBy   = "istio-citadel"
)

var (
	trustDomain = spiffeid.RequireTrustDomainFromString("cluster.local")
	oidSAN      = "2.5.29.17"
)

// wanted is what the Secret of a service account must be like.
type wanted struct {
	account *corev1.ServiceAccount
	roots   []*x509.Certificate
	dns     []string
	at      time.Time // now if zero
}

func getSecret(ctx context.Context, namespace, account string) (*corev1.Secret, error) {
	return plane.Client.CoreV1().Secrets(namespace).Get(ctx, "istio."+account, metav1.GetOptions{})
}

// right waits until the Secret of the service account is right, and returns it.
func right(t *testing.T, sa *corev1.ServiceAccount, roots []*x509.Certificate, dns ...string) *corev1.Secret {
	t.Helper()
	var secret *corev1.Secret
	within(t, patience, func() (err error) {
		if secret, err = getSecret(t.Context(), sa.Namespace, sa.Name); err != nil {
			return err
		}
		return wanted{account: sa, roots: roots, dns: dns}.flaw(secret)
	})
	return secret
}

// allRight waits until the Secrets of all service accounts are right.
func allRight(t *testing.T, accounts []*corev1.ServiceAccount, roots []*x509.Certificate) map[string]*corev1.Secret {
	t.Helper()
	found := map[string]*corev1.Secret{}
	within(t, 2*patience, func() error {
		list, err := plane.Client.CoreV1().Secrets(accounts[0].Namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, secret := range list.Items {
			found[secret.Name] = &secret
		}
		var wrong int
		var first error
		for _, sa := range accounts {
			if err := (wanted{account: sa, roots: roots}).flaw(found["istio."+sa.Name]); err != nil {
				wrong++
				first = errors.Join(first, err)
				if wrong > 3 {
					break
				}
			}
		}
		return first
	})
	return found
}

// flaw is what is wrong with a Secret, as a workload and its peers would find
// it; nil when nothing is.
func (w wanted) flaw(secret *corev1.Secret) error {
	if secret == nil {
		return fmt.Errorf("service account %s has no Secret", w.account.Name)
	}
	wrap := func(err error) error { return fmt.Errorf("Secret %s: %w", secret.Name, err) }
	if err := w.metaFlaw(secret); err != nil {
		return wrap(err)
	}
	svid, err := x509svid.Parse(secret.Data[chainKey], secret.Data[keyKey]) // the key matches, too
	if err != nil {
		return wrap(err)
	}
	if want := fmt.Sprintf("spiffe://cluster.local/ns/%s/sa/%s", w.account.Namespace, w.account.Name); svid.ID.String() != want {
		return wrap(fmt.Errorf("identity is %s, want %s", svid.ID, want))
	}
	if w.at.IsZero() {
		w.at = time.Now()
	}
	if _, _, err := x509svid.Verify(svid.Certificates, x509bundle.FromX509Authorities(trustDomain, w.roots), x509svid.WithTime(w.at)); err != nil {
		return wrap(err)
	}
	if err := w.leafFlaw(svid.Certificates[0]); err != nil {
		return wrap(err)
	}
	if !bytes.Equal(secret.Data[rootKey], trust.MarshalCertificates(w.roots)) {
		return wrap(errors.New("roots are not the CA's"))
	}
	return nil
}

func (w wanted) metaFlaw(secret *corev1.Secret) error {
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "ServiceAccount", Name: w.account.Name, UID: w.account.UID}
	switch {
	case secret.Type != secretType:
		return fmt.Errorf("type is %q", secret.Type)
	case secret.Annotations[annotation] != w.account.Name:
		return fmt.Errorf("annotation is %q", secret.Annotations[annotation])
	case secret.Labels[marker] != markedBy:
		return fmt.Errorf("label is %q", secret.Labels[marker])
	case len(secret.OwnerReferences) != 1 || secret.OwnerReferences[0] != owner:
		return fmt.Errorf("owners are %v, want %v", secret.OwnerReferences, owner)
	}
	return nil
}

func (w wanted) leafFlaw(leaf *x509.Certificate) error {
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	switch {
	case len(leaf.URIs) != 1 || !slices.Equal(leaf.DNSNames, w.dns) || len(leaf.IPAddresses)+len(leaf.EmailAddresses) > 0:
		return fmt.Errorf("names are %v %q %v %q, want one URI and %q", leaf.URIs, leaf.DNSNames, leaf.IPAddresses, leaf.EmailAddresses, w.dns)
	case leaf.IsCA || !leaf.BasicConstraintsValid:
		return errors.New("it is a CA, or does not say")
	case !slices.Equal(leaf.ExtKeyUsage, usages) || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fmt.Errorf("key usages are %v %v", leaf.KeyUsage, leaf.ExtKeyUsage)
	case w.at.Sub(leaf.NotBefore) < 2*time.Minute:
		return fmt.Errorf("not before %s: it is not backdated", leaf.NotBefore)
	}
	for _, e := range leaf.Extensions {
		if e.Id.String() == oidSAN && !e.Critical {
			return errors.New("names are not critical")
		}
	}
	return nil
}

// leafOf is the first certificate of a Secret's chain.
func leafOf(t testing.TB, secret *corev1.Secret) *x509.Certificate {
	t.Helper()
	return must(trust.ParseCertificates(secret.Data[chainKey]))(t)[0]
}

// different tells whether a Secret was made anew between two looks at it.
func different(before, after *corev1.Secret) error {
	for _, key := range []string{keyKey, chainKey} {
		if bytes.Equal(before.Data[key], after.Data[key]) {
			return fmt.Errorf("Secret %s has its old %s", after.Name, key)
		}
	}
	return nil
}

func keyBlock(secret *corev1.Secret) string {
	block, _ := pem.Decode(secret.Data[keyKey])
	if block == nil {
		return ""
	}
	return block.Type
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
