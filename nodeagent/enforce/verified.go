package enforce

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// verifier finds out whom certificates are of, and remembers it for as long as
// they count: the same ones come with each connection of a peer, and to verify
// them costs a quarter of a handshake. It is of one set of roots: others come with
// a verifier of their own. It remembers nobody who was refused.
type verifier struct {
	roots *x509bundle.Bundle // which nobody changes
	mu    sync.RWMutex
	known map[[sha256.Size]byte]verified // guarded by mu
}

// verified is whom a chain of certificates is of, while all of it is valid up to
// its root.
type verified struct {
	id          spiffeid.ID
	from, until time.Time
}

// mostVerified bounds what is remembered; each takes less than 200 bytes.
const mostVerified = 10_000

// verify is who shows a chain, X509-SVID 5.
func (v *verifier) verify(chain []*x509.Certificate, now time.Time) (spiffeid.ID, error) {
	shown := fingerprint(chain)
	v.mu.RLock()
	found, has := v.known[shown]
	v.mu.RUnlock()
	if has && !now.Before(found.from) && !now.After(found.until) {
		return found.id, nil
	}
	id, chains, err := x509svid.Verify(chain, v.roots, x509svid.WithTime(now))
	if err != nil {
		return spiffeid.ID{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known == nil || len(v.known) >= mostVerified {
		v.known = map[[sha256.Size]byte]verified{}
	}
	v.known[shown] = verifiedBy(id, chains[0])
	return id, nil
}

// fingerprint is of all that was shown. DER tells its own length, so that no two
// chains are alike.
func fingerprint(chain []*x509.Certificate) (sum [sha256.Size]byte) {
	hash := sha256.New()
	for _, cert := range chain {
		hash.Write(cert.Raw)
	}
	hash.Sum(sum[:0])
	return sum
}

// verifiedBy is for the time in which each certificate of a chain is valid.
func verifiedBy(id spiffeid.ID, chain []*x509.Certificate) verified {
	v := verified{id: id, from: chain[0].NotBefore, until: chain[0].NotAfter}
	for _, cert := range chain[1:] {
		if cert.NotBefore.After(v.from) {
			v.from = cert.NotBefore
		}
		if cert.NotAfter.Before(v.until) {
			v.until = cert.NotAfter
		}
	}
	return v
}
