package nodeagent

import (
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"citadel/ca/caclient"
	"citadel/ca/trust"
	"citadel/nodeagent/certdir"
)

// Renewal says when a certificate is renewed.
type Renewal struct {
	// Ratio is the part of the life that is left when it is due.
	Ratio float64
	// Jitter is the part of the life by which it may be due sooner, each
	// certificate by its own share.
	Jitter float64
}

// DefaultRenewal is at half of the life, or somewhat sooner.
var DefaultRenewal = Renewal{Ratio: 0.5, Jitter: 0.1}

// dueAt is when a certificate is to be renewed: by its life, or sooner where
// the CA wants it.
func (r Renewal) dueAt(leaf *x509.Certificate, renewBy time.Time) time.Time {
	begin := leaf.NotBefore.Add(trust.Backdate)
	if begin.After(leaf.NotAfter) {
		begin = leaf.NotBefore
	}
	life := leaf.NotAfter.Sub(begin)
	due := leaf.NotAfter.Add(-time.Duration(float64(life) * (r.Ratio + r.Jitter*share(leaf))))
	if !renewBy.IsZero() && renewBy.Before(due) {
		due = renewBy
	}
	return due
}

// share spreads certificates over [0,1) by their serial numbers, the same way
// after each restart.
func share(leaf *x509.Certificate) float64 {
	h := fnv.New64a()
	h.Write(leaf.SerialNumber.Bytes())
	var sum [8]byte
	binary.BigEndian.PutUint64(sum[:], h.Sum64())
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}

const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// retryIn is the wait after so many failures in a row: doubled each time to a
// ceiling, of which a random half or more, and never less than the CA asks for.
func retryIn(failures int, asked time.Duration) time.Duration {
	wait := lastRetry
	if failures < 10 {
		wait = min(lastRetry, firstRetry<<max(failures-1, 0))
	}
	wait = wait/2 + rand.N(wait/2+1)
	return max(wait, min(asked, lastRetry))
}

// notUsed is the next step where a CA that is ours is out of order.
const notUsed = ": it is not used; look into the CA's log, and compare --ca-address"

// check judges the CA's whole answer before anything is touched: our key, our
// identity, a chain that verifies to the roots that came with it from the
// server that was verified, and times that make sense here and now.
func check(now time.Time, issued caclient.Issued, key crypto.Signer, want spiffeid.ID) (certdir.Set, error) {
	if len(issued.Chain) == 0 || len(issued.Roots) == 0 {
		return certdir.Set{}, errors.New("the CA's answer has no certificate or no roots" + notUsed)
	}
	leaf := issued.Chain[0]
	if !trust.SamePublicKey(leaf.PublicKey, key.Public()) {
		return certdir.Set{}, errors.New("the CA answered with a certificate for another key" + notUsed)
	}
	id, err := x509svid.IDFromCert(leaf)
	switch {
	case err != nil:
		return certdir.Set{}, fmt.Errorf("the CA answered with a certificate that names no workload: %w%s", err, notUsed)
	case !want.IsZero() && id != want:
		return certdir.Set{}, fmt.Errorf("the CA answered with the certificate of %s, and this host is %s: compare --spiffe-id; to change who it is, move its old files away first", id, want)
	case now.Before(leaf.NotBefore):
		return certdir.Set{}, fmt.Errorf("the CA's certificate is not valid before %s, and %s %s: compare it",
			leaf.NotBefore.UTC().Format(time.RFC3339), caclient.CompareClock, now.UTC().Format(time.RFC3339))
	case now.After(leaf.NotAfter): // the last second is part of the life
		return certdir.Set{}, fmt.Errorf("the CA's certificate expired at %s, and %s %s: compare it",
			leaf.NotAfter.UTC().Format(time.RFC3339), caclient.CompareClock, now.UTC().Format(time.RFC3339))
	case !trust.ServesBothSides(leaf):
		return certdir.Set{}, errors.New("the CA answered with a certificate that is not for servers and clients alike" + notUsed)
	}
	set := certdir.Set{SVID: &x509svid.SVID{ID: id, Certificates: issued.Chain, PrivateKey: key},
		Roots: x509bundle.FromX509Authorities(id.TrustDomain(), issued.Roots)}
	if err := verifies(now, set.SVID, set.Roots); err != nil {
		return certdir.Set{}, fmt.Errorf("the CA's certificate does not verify to the roots that came with it: %w%s", err, notUsed)
	}
	return set, nil
}

func verifies(now time.Time, svid *x509svid.SVID, roots *x509bundle.Bundle) error {
	_, _, err := x509svid.Verify(svid.Certificates, roots, x509svid.WithTime(now))
	return err
}

// expired tells whether a certificate has ended.
func expired(now time.Time, svid *x509svid.SVID) bool {
	return now.After(svid.Certificates[0].NotAfter)
}
