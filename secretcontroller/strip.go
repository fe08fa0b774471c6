package secretcontroller

import (
	"bytes"
	"maps"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// What the cache holds of one Secret: of what others put there, metadata
// included, and of each value that is Citadel's. Tenants write Secrets: a
// megabyte in each would be ours to hold.
const (
	maxForeignBytes = 4 << 10
	maxKeyBytes     = 8 << 10
	maxChainBytes   = 32 << 10
	maxRootsBytes   = 32 << 10 // but for today's, and those before, which all share
)

// clipped marks a cached Secret that is not all that the API server holds, by
// a field that the API server never returns: it is read again before it is
// written.
var clipped = map[string]string{"clipped": ""}

// stripSecret keeps no more than the identity of a Secret that can be nobody's,
// no more than it must of one that somebody stuffed, and lets all others share
// one copy of the roots.
func stripSecret(rootsPEM []byte) cache.TransformFunc {
	var other atomic.Pointer[[]byte] // the last roots that were not today's: those of before a change
	return func(obj any) (any, error) {
		secret, ok := obj.(*corev1.Secret)
		if !ok {
			return obj, nil
		}
		if _, ours := AccountOf(secret.Name); !ours {
			return &corev1.Secret{ObjectMeta: identityOf(secret)}, nil
		}
		secret.ManagedFields = nil
		own, last := secret.Data[RootsKey], other.Load()
		switch {
		case len(own) == 0:
		case bytes.Equal(own, rootsPEM):
			secret.Data[RootsKey] = rootsPEM
		case last != nil && bytes.Equal(own, *last):
			secret.Data[RootsKey] = *last
		case len(own) > maxRootsBytes:
			drop(secret, RootsKey)
		default:
			other.Store(&own)
		}
		lighten(secret)
		return secret, nil
	}
}

// lighten takes from a Secret what others put into it, where that is much, and
// values of ours that are too long to be any.
func lighten(secret *corev1.Secret) {
	if len(secret.Data[KeyKey]) > maxKeyBytes {
		drop(secret, KeyKey)
	}
	if len(secret.Data[ChainKey]) > maxChainBytes {
		drop(secret, ChainKey)
	}
	foreign := secret.ObjectMeta.Size()
	for name, value := range secret.Data {
		if !isOurs(name) {
			foreign += len(name) + len(value)
		}
	}
	if foreign <= maxForeignBytes {
		return
	}
	secret.StringData = clipped
	maps.DeleteFunc(secret.Data, func(name string, _ []byte) bool { return !isOurs(name) })
	meta := identityOf(secret)
	meta.Labels = only(secret.Labels, ManagedByLabel)
	meta.Annotations = only(secret.Annotations, AccountAnnotation)
	if ref, owned := accountReference(secret); owned && ref.Size() <= maxForeignBytes {
		meta.OwnerReferences = []metav1.OwnerReference{ref}
	}
	secret.ObjectMeta = meta
}

func drop(secret *corev1.Secret, name string) {
	secret.Data[name] = nil
	secret.StringData = clipped
}

func isOurs(name string) bool { return name == KeyKey || name == ChainKey || name == RootsKey }

func only(texts map[string]string, name string) map[string]string {
	if value, ok := texts[name]; ok && len(value) <= 253 { // as long as a name can be
		return map[string]string{name: value}
	}
	return nil
}

// stripConfigMap keeps what tells whether RootsConfigMap is right: what others
// put there is read again before it is written.
func stripConfigMap(roots string) cache.TransformFunc {
	return func(obj any) (any, error) {
		have, ok := obj.(*corev1.ConfigMap)
		if !ok {
			return obj, nil
		}
		kept := &corev1.ConfigMap{ObjectMeta: identityOf(have)}
		kept.Labels = only(have.Labels, RootsConfigMapLabel)
		if have.Data[RootsKey] == roots {
			kept.Data = map[string]string{RootsKey: roots}
		}
		return kept, nil
	}
}
