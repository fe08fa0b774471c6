package secretcontroller

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca"
	"citadel/ca/trust"
)

// material is the content of a fresh Secret.
type material struct {
	key, chain, roots []byte
	leaf              *x509.Certificate
}

// in tells whether a Secret holds exactly this.
func (m material) in(secret *corev1.Secret) bool {
	return bytes.Equal(secret.Data[KeyKey], m.key) && bytes.Equal(secret.Data[ChainKey], m.chain) && bytes.Equal(secret.Data[RootsKey], m.roots)
}

// verdict is what Judge would say of it: the authority never lets a leaf
// outlive its issuers.
func (m material) verdict(want Want) Verdict {
	return Verdict{RenewAt: want.Rotation.renewAt(m.leaf, m.leaf.NotAfter), NotAfter: m.leaf.NotAfter}
}

// issue makes a key and has it certified for the service account.
func (c *Controller) issue(now time.Time, want Want) (material, error) {
	key, err := c.set.KeyType.Generate()
	if err != nil {
		return material{}, fmt.Errorf("generate a key for %s: %w", want.ID, err)
	}
	caller := ca.NewCaller(want.ID, "secret controller", "service account UID "+string(want.Account.UID))
	chain, err := c.set.Authority.Issue(now, caller, ca.Request{Key: key, TTL: c.set.TTL})
	if err != nil {
		return material{}, fmt.Errorf("certify %s: %w", want.ID, err)
	}
	encode := trust.MarshalKey
	if c.set.LegacyKeys {
		encode = trust.MarshalLegacyKey
	}
	text, err := encode(key)
	if err != nil {
		return material{}, fmt.Errorf("encode the key of %s: %w", want.ID, err)
	}
	return material{key: text, chain: trust.MarshalCertificates(chain), roots: want.Roots.pem, leaf: chain[0]}, nil
}

// compose puts material into a Secret. What others added to the old one,
// labels, annotations and further keys, stays; the old one is not changed.
func compose(old *corev1.Secret, account Account, m material) *corev1.Secret {
	secret := &corev1.Secret{}
	if old != nil {
		secret = old.DeepCopy()
	}
	secret.Namespace, secret.Name, secret.Type = account.Namespace, SecretName(account.Name), SecretType
	secret.Labels = with(secret.Labels, ManagedByLabel, ManagedBy)
	secret.Annotations = with(secret.Annotations, AccountAnnotation, account.Name)
	secret.OwnerReferences = append(
		slices.DeleteFunc(secret.OwnerReferences, func(r metav1.OwnerReference) bool { return isAccount(r) }),
		metav1.OwnerReference{APIVersion: "v1", Kind: "ServiceAccount", Name: account.Name, UID: account.UID})
	secret.Data = with(with(with(secret.Data, KeyKey, m.key), ChainKey, m.chain), RootsKey, m.roots)
	return secret
}

func with[V any](m map[string]V, key string, value V) map[string]V {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]V{}
	}
	out[key] = value
	return out
}
