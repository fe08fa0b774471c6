package policy

import (
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// isTrustDomain tells whether text names a trust domain.
func isTrustDomain(text string) bool {
	_, err := spiffeid.TrustDomainFromString(text)
	return err == nil
}
