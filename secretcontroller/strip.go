package secretcontroller

import (
	"bytes"
	"maps"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// What the cache holds of one Secret beyond what Citadel puts there, and of one
// of its values. Tenants write Secrets: a megabyte in each would be ours to
// hold.
const (
	maxForeignBytes = 2 << 10
	maxValueBytes   = 64 << 10
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
		lighten(secret)
		own, last := secret.Data[RootsKey], other.Load()
		switch {
		case len(own) == 0:
		case bytes.Equal(own, rootsPEM):
			secret.Data[RootsKey] = rootsPEM
		case last != nil && bytes.Equal(own, *last):
			secret.Data[RootsKey] = *last
		default:
			other.Store(&own)
		}
		return secret, nil
	}
}

// lighten takes from a Secret what others put into it, where that is much, and
// values of ours that are too long to be any.
func lighten(secret *corev1.Secret) {
	foreign := len(secret.OwnerReferences) * foreignReference
	for name, value := range secret.Data {
		switch {
		case !isOurs(name):
			foreign += len(name) + len(value)
		case len(value) > maxValueBytes:
			secret.Data[name] = nil
			secret.StringData = clipped
		}
	}
	for _, texts := range []map[string]string{secret.Labels, secret.Annotations} {
		for name, value := range texts {
			foreign += len(name) + len(value)
		}
	}
	if foreign <= maxForeignBytes {
		return
	}
	secret.StringData = clipped
	maps.DeleteFunc(secret.Data, func(name string, _ []byte) bool { return !isOurs(name) })
	secret.Labels = only(secret.Labels, ManagedByLabel)
	secret.Annotations = only(secret.Annotations, AccountAnnotation)
	reference, owned := accountReference(secret)
	secret.OwnerReferences = nil
	if owned {
		secret.OwnerReferences = []metav1.OwnerReference{reference}
	}
}

// foreignReference is what an owner reference counts for: about its size.
const foreignReference = 128

func isOurs(name string) bool { return name == KeyKey || name == ChainKey || name == RootsKey }

func only(texts map[string]string, name string) map[string]string {
	if value, ok := texts[name]; ok && len(value) <= maxForeignBytes {
		return map[string]string{name: value}
	}
	return nil
}
