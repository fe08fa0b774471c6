package trust

import (
	"crypto/x509"
	"slices"
)

// ServesBothSides tells whether the extended key usages of a workload's
// certificate let its holder be client and server alike: it has none at all, or
// both of TLS's among them.
func ServesBothSides(leaf *x509.Certificate) bool {
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
}
