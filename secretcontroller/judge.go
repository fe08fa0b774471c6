package secretcontroller

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/trust"
)

// Reason says why a Secret is not right as it stands. The empty Reason means
// that it is.
type Reason string

// The reasons, as metrics and messages show them.
const (
	Right        Reason = ""
	Missing      Reason = "missing"       // there is no Secret
	Vanished     Reason = "deleted"       // there was one, and somebody deleted it
	Foreign      Reason = "foreign"       // somebody else's bears its name
	WrongType    Reason = "type"          // its type is not SecretType
	WrongAccount Reason = "annotation"    // its annotation does not name the service account
	WrongOwner   Reason = "owner"         // it belongs to an earlier service account of the name, or lost its labels
	BadKey       Reason = "key"           // its key is absent, damaged, or not the certificate's
	BadChain     Reason = "chain"         // its chain is absent, damaged, or does not verify
	WrongName    Reason = "identity"      // its certificate bears other names than it must
	BadRoots     Reason = "roots"         // its roots are absent or damaged
	OldRoots     Reason = "root changed"  // it was right by other roots than today's
	Expired      Reason = "expired"       // its certificate, or an issuer's, has ended
	NotYetValid  Reason = "not yet valid" // its certificate begins in the future
	Due          Reason = "rotation"      // it is in its grace period
	TurnedBack   Reason = "turned back"   // it was right, and somebody put one in its place that is due or expired
	Held         Reason = "held"          // it is being deleted, and finalizers hold it
)

// maxChain bounds what is verified of a chain that anybody may have written; no
// PKI in use comes near it.
const maxChain = 16

// Roots is what peers trust today, in the forms that judging needs.
type Roots struct {
	certs []*x509.Certificate
	pem   []byte
	pool  *x509.CertPool
	since time.Time
}

// NewRoots takes the roots in force and since when they have been.
func NewRoots(certs []*x509.Certificate, since time.Time) Roots {
	return Roots{certs: certs, pem: trust.MarshalCertificates(certs), pool: trust.Pool(certs), since: since}
}

// Want is what the Secret of one service account must be.
type Want struct {
	Account  Account
	ID       spiffeid.ID
	DNSNames []string
	Roots    Roots
	Rotation Rotation
}

// Verdict is what a Secret was found to be. The zero Verdict calls for
// nothing and promises nothing: RenewAt is long past.
type Verdict struct {
	// Reason is why the Secret must be made anew, at RenewAt.
	Reason Reason
	// Detail says it in words.
	Detail string
	// RenewAt is when the Secret must be made anew; for one that is Right, when
	// it will be due.
	RenewAt time.Time
	// NotAfter is the end of its certificate or of the first of its issuers to
	// end. Zero when the Secret was found wrong before its chain was verified.
	NotAfter time.Time
}

// Keep tells whether the Secret may stay as it is at now.
func (v Verdict) Keep(now time.Time) bool { return now.Before(v.RenewAt) }

// after reads a verdict in the light of the one on the version before: what
// this process found right and is gone was deleted, and what was right by
// today's roots does not go back to others by itself.
func (v Verdict) after(last Verdict, now time.Time) Verdict {
	switch {
	case v.Reason == Missing:
		v.Reason = Vanished
	case v.Reason == OldRoots && last.Reason == Right:
		v.Reason, v.Detail, v.RenewAt = BadRoots, RootsKey+" was changed: "+v.Detail, now
	case (v.Reason == Due || v.Reason == Expired) && last.Reason == Right && last.Keep(now):
		v.Reason = TurnedBack
	}
	return v
}

// Judge looks at the whole content of a Secret. It is pure: the same Secret,
// wants and time give the same verdict on every replica.
func Judge(now time.Time, secret *corev1.Secret, want Want) Verdict {
	wrong := func(reason Reason, format string, args ...any) Verdict {
		return Verdict{Reason: reason, Detail: fmt.Sprintf(format, args...), RenewAt: now}
	}
	if secret == nil {
		return wrong(Missing, "there is no Secret %s", SecretName(want.Account.Name))
	}
	if reason, detail := judgeMeta(secret, want.Account); reason != Right {
		return wrong(reason, "%s", detail)
	}
	chain, err := trust.ParseCertificates(secret.Data[ChainKey])
	if err != nil {
		return wrong(BadChain, "%s %v", ChainKey, err)
	}
	if len(chain) > maxChain {
		return wrong(BadChain, "%s has %d certificates, more than %d", ChainKey, len(chain), maxChain)
	}
	leaf := chain[0]
	if err := judgeNames(leaf, want); err != nil {
		return wrong(WrongName, "%v", err)
	}
	if v, come := turnOfRoots(now, secret.Data[RootsKey], chain, want); come {
		return v
	}
	if err := judgeKey(secret.Data[KeyKey], leaf); err != nil {
		return wrong(BadKey, "%s %v", KeyKey, err)
	}
	if now.Before(leaf.NotBefore) {
		return wrong(NotYetValid, "certificate is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return judgeTrust(now, secret.Data[RootsKey], chain, want)
}

// judgeMeta looks at what kubectl shows. Secrets of the ancestor's making bear
// neither owner nor label and stay so until they are due; ours bear both.
func judgeMeta(secret *corev1.Secret, account Account) (Reason, string) {
	if secret.Type != SecretType {
		return WrongType, fmt.Sprintf("type is %q", secret.Type)
	}
	if got := secret.Annotations[AccountAnnotation]; got != account.Name {
		return WrongAccount, fmt.Sprintf("annotation %s is %q", AccountAnnotation, got)
	}
	if !bearsOurMark(secret) {
		return Right, ""
	}
	if secret.Labels[ManagedByLabel] != ManagedBy {
		return WrongOwner, fmt.Sprintf("label %s is %q", ManagedByLabel, secret.Labels[ManagedByLabel])
	}
	if !slices.ContainsFunc(secret.OwnerReferences, func(ref metav1.OwnerReference) bool { return ref.UID == account.UID }) {
		return WrongOwner, "it is not owned by the service account of today"
	}
	return Right, ""
}

// bearsOurMark tells a Secret of our making from one of the ancestor's or of
// somebody else's.
func bearsOurMark(secret *corev1.Secret) bool {
	_, owned := accountReference(secret)
	return owned || secret.Labels[ManagedByLabel] == ManagedBy
}

func accountReference(secret *corev1.Secret) (metav1.OwnerReference, bool) {
	for _, ref := range secret.OwnerReferences {
		if isAccount(ref) {
			return ref, true
		}
	}
	return metav1.OwnerReference{}, false
}

func isAccount(ref metav1.OwnerReference) bool {
	return ref.Kind == "ServiceAccount" && ref.APIVersion == "v1"
}

func judgeKey(text []byte, leaf *x509.Certificate) error {
	key, err := trust.ParseKey(text)
	if err != nil {
		return err
	}
	if !trust.SamePublicKey(leaf.PublicKey, key.Public()) {
		return fmt.Errorf("is not the key of the certificate")
	}
	return nil
}

// judgeNames insists on exactly the names that we would give.
func judgeNames(leaf *x509.Certificate, want Want) error {
	id, err := x509svid.IDFromCert(leaf)
	if err != nil {
		return fmt.Errorf("certificate is no SPIFFE certificate: %w", err)
	}
	switch {
	case id != want.ID:
		return fmt.Errorf("certificate is %s's, not %s's", id, want.ID)
	case leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return fmt.Errorf("certificate is a CA's")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 || !trust.ServesBothSides(leaf):
		return fmt.Errorf("certificate may not be used by clients and servers alike")
	case len(leaf.IPAddresses) > 0 || len(leaf.EmailAddresses) > 0:
		return fmt.Errorf("certificate bears addresses")
	case !slices.Equal(slices.Sorted(slices.Values(leaf.DNSNames)), slices.Sorted(slices.Values(want.DNSNames))):
		return fmt.Errorf("certificate has DNS names %q, policy says %q", leaf.DNSNames, want.DNSNames)
	}
	return nil
}

// turnOfRoots tells whether the Secret is from before a change of roots and its
// turn to be made anew has come: then its key does not matter, and who issued it
// is looked at, not verified.
func turnOfRoots(now time.Time, rootsPEM []byte, chain []*x509.Certificate, want Want) (Verdict, bool) {
	v := Verdict{Reason: OldRoots, Detail: oldRoots(chain), RenewAt: now, NotAfter: pathEnd(chain)}
	if bytes.Equal(rootsPEM, want.Roots.pem) || now.Before(want.Rotation.rootsDue(chain[0], want.Roots.since)) || now.After(v.NotAfter) {
		return Verdict{}, false
	}
	roots, err := trust.ParseCertificates(rootsPEM)
	return v, err == nil && !trust.SameRoots(roots, want.Roots.certs) && namesIssuer(chain, roots)
}

// oldRoots says whose roots a Secret has in place of today's.
func oldRoots(chain []*x509.Certificate) string {
	return fmt.Sprintf("roots are not today's (it was issued by %s)", clip(chain[len(chain)-1].Issuer.String(), 80))
}

// judgeTrust verifies the chain, first by today's roots. A Secret that fails
// there and is sound by the roots it holds itself is from before a change of
// roots, and waits for its turn; any other failure is damage.
func judgeTrust(now time.Time, rootsPEM []byte, chain []*x509.Certificate, want Want) Verdict {
	leaf := chain[0]
	current, pool := true, want.Roots.pool
	if !bytes.Equal(rootsPEM, want.Roots.pem) {
		roots, err := trust.ParseCertificates(rootsPEM)
		if err != nil {
			return Verdict{Reason: BadRoots, Detail: fmt.Sprintf("%s %v", RootsKey, err), RenewAt: now, NotAfter: leaf.NotAfter}
		}
		if current = trust.SameRoots(roots, want.Roots.certs); !current {
			pool = trust.Pool(roots)
		}
	}
	end, err := verify(now, chain, pool)
	v := Verdict{RenewAt: now, NotAfter: end}
	switch {
	case err != nil && now.After(end):
		v.Reason, v.Detail = Expired, "certificate or an issuer of it expired at "+end.UTC().Format(time.RFC3339)
	case err != nil:
		v.Reason, v.Detail = BadChain, fmt.Sprintf("chain does not verify to the roots beside it: %v", err)
	case !current:
		v.Reason, v.Detail, v.NotAfter = OldRoots, oldRoots(chain), pathEnd(chain)
		v.RenewAt = earliest(want.Rotation.rootsDue(leaf, want.Roots.since), want.Rotation.renewAt(leaf, end))
	default:
		v.RenewAt = want.Rotation.renewAt(leaf, end)
		if !v.Keep(now) {
			v.Reason, v.Detail = Due, "certificate is in its grace period and ends at "+end.UTC().Format(time.RFC3339)
		}
	}
	return v
}

// namesIssuer tells whether the chain names one of the roots as its end.
func namesIssuer(chain, roots []*x509.Certificate) bool {
	last := chain[len(chain)-1]
	return slices.ContainsFunc(roots, func(root *x509.Certificate) bool {
		return bytes.Equal(root.RawSubject, last.RawIssuer) && (len(last.AuthorityKeyId) == 0 || len(root.SubjectKeyId) == 0 ||
			bytes.Equal(root.SubjectKeyId, last.AuthorityKeyId))
	})
}

// verify returns the end of the longest-lived path to a root; on failure, the
// end of the chain as it stands. The chain must be in order, each certificate
// signed by the next: not every peer sorts.
func verify(now time.Time, chain []*x509.Certificate, roots *x509.CertPool) (time.Time, error) {
	for i, issuer := range chain[1:] {
		if err := chain[i].CheckSignatureFrom(issuer); err != nil {
			return pathEnd(chain), fmt.Errorf("certificate %d did not sign certificate %d: %w", i+2, i+1, err)
		}
	}
	paths, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: trust.Pool(chain[1:]), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return pathEnd(chain), err
	}
	var end time.Time
	for _, path := range paths {
		if e := pathEnd(path); e.After(end) {
			end = e
		}
	}
	return end, nil
}

func pathEnd(path []*x509.Certificate) time.Time {
	end := path[0].NotAfter
	for _, cert := range path[1:] {
		end = earliest(end, cert.NotAfter)
	}
	return end
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
