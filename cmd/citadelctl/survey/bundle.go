package survey

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"

	"citadel/ca/trust"
	"citadel/cmd/citadelctl/inspect"
	"citadel/secretcontroller"
)

// Bundle is a set of roots to judge by.
type Bundle struct {
	// From says where it came from.
	From  string
	roots secretcontroller.Roots
	certs []*x509.Certificate
	// domain is zero where the roots name no trust domain, or several.
	domain spiffeid.TrustDomain
}

// NewBundle takes the roots. Since when they are in force is not known, so that
// a Secret with other roots counts as behind at once.
func NewBundle(from string, certs []*x509.Certificate) Bundle {
	b := Bundle{From: from, certs: certs, roots: secretcontroller.NewRoots(certs, time.Time{})}
	for _, cert := range certs {
		td, ok := inspect.TrustDomain(cert)
		if !ok {
			continue
		}
		if !b.domain.IsZero() && b.domain != td {
			b.domain = spiffeid.TrustDomain{}
			break
		}
		b.domain = td
	}
	return b
}

// TrustDomain is the one that the roots name; zero where they name none, or
// several.
func (b Bundle) TrustDomain() spiffeid.TrustDomain { return b.domain }

// Bundles are the roots of namespaces.
type Bundles struct {
	own   map[string]Bundle
	other *Bundle // for namespaces without their own
}

// One is the same roots for all namespaces.
func One(b Bundle) Bundles { return Bundles{other: &b} }

// ReadBundles reads secretcontroller.RootsConfigMap of namespaces, and warns of
// damaged ones and of such as differ. A namespace without a good one is judged
// by that of the storage namespace, or else by the first of all.
func ReadBundles(configMaps []corev1.ConfigMap, storageNamespace string) (Bundles, []string) {
	bundles := Bundles{own: map[string]Bundle{}}
	var warnings []string
	sorted := slices.Clone(configMaps)
	slices.SortFunc(sorted, func(a, b corev1.ConfigMap) int { return cmp.Compare(a.Namespace, b.Namespace) })
	for _, cm := range sorted {
		from := fmt.Sprintf("ConfigMap %s/%s", cm.Namespace, cm.Name)
		certs, err := trust.ParseCertificates([]byte(cm.Data[secretcontroller.RootsKey]))
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("%s: %s %v", from, secretcontroller.RootsKey, err))
			continue
		}
		b := NewBundle(from, certs)
		bundles.own[cm.Namespace] = b
		if bundles.other == nil || cm.Namespace == storageNamespace {
			bundles.other = &b
		}
	}
	return bundles, append(warnings, bundles.differing()...)
}

// differing tells of namespaces whose roots are not those of the namespaces
// without their own.
func (b Bundles) differing() []string {
	var odd []string
	for namespace, bundle := range b.own {
		if !trust.SameRoots(bundle.certs, b.other.certs) {
			odd = append(odd, namespace)
		}
	}
	if len(odd) == 0 {
		return nil
	}
	slices.Sort(odd)
	return []string{fmt.Sprintf("ConfigMap %s is not the same everywhere: namespaces %s have other roots than %s; each Secret is judged by its own namespace's",
		secretcontroller.RootsConfigMap, strings.Join(odd, ", "), b.other.From)}
}

// For returns the roots of a namespace.
func (b Bundles) For(namespace string) (Bundle, bool) {
	if own, ok := b.own[namespace]; ok {
		return own, true
	}
	if b.other == nil {
		return Bundle{}, false
	}
	return *b.other, true
}
