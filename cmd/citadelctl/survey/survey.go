package survey

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"citadel/ca"
	"citadel/ca/trust"
	"citadel/secretcontroller"
)

// World is what there is to judge, and to judge by.
type World struct {
	Secrets []corev1.Secret
	// Accounts are all service accounts of the namespaces of Secrets.
	Accounts []corev1.ServiceAccount
	Bundles  Bundles
	// TrustDomain, when zero, is that of the roots, or else of each certificate.
	TrustDomain spiffeid.TrustDomain
	Rotation    secretcontroller.Rotation
}

// ErrNoRoots says that there is nothing to judge by.
var ErrNoRoots = errors.New("there are no roots to judge by")

// Survey judges all Secrets at now.
func Survey(now time.Time, w World) (Report, error) {
	accounts := map[types.NamespacedName]types.UID{}
	for _, account := range w.Accounts {
		accounts[types.NamespacedName{Namespace: account.Namespace, Name: account.Name}] = account.UID
	}
	report := Report{Items: []Item{}}
	for n := range w.Secrets {
		secret := &w.Secrets[n]
		bundle, ok := w.Bundles.For(secret.Namespace)
		if !ok {
			return Report{}, ErrNoRoots
		}
		item := w.judge(now, secret, accounts, bundle)
		report.Items = append(report.Items, item)
		if item.Right {
			report.Summary.Right++
		} else {
			report.Summary.Wrong++
		}
	}
	slices.SortFunc(report.Items, func(a, b Item) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return report, nil
}

func (w World) judge(now time.Time, secret *corev1.Secret, accounts map[types.NamespacedName]types.UID, bundle Bundle) Item {
	item := Item{Namespace: secret.Namespace, Name: secret.Name, Roots: bundle.From, Problems: []Problem{}}
	account := item.account(secret, accounts)
	leaf := item.certificate(secret)
	want := secretcontroller.Want{Account: account, Roots: bundle.roots, Rotation: w.Rotation}
	if leaf != nil {
		want.DNSNames = leaf.DNSNames // the operator's policy on them is not known here
	}
	if account.Name != "" || secret.Type != secretcontroller.SecretType {
		want.ID = item.identity(w.trustDomain(&item, bundle, leaf), account)
		item.verdict(now, secretcontroller.Judge(now, secret, want))
	}
	item.Right = len(item.Problems) == 0
	return item
}

// account finds whose Secret it is, by its name; where the name is nobody's, by
// the annotation. Of an account that is gone it goes by the owner that the
// Secret remembers, so that Judge can look at the rest.
func (i *Item) account(secret *corev1.Secret, living map[types.NamespacedName]types.UID) secretcontroller.Account {
	name, ok := secretcontroller.AccountOf(secret.Name)
	if !ok {
		name = secret.Annotations[secretcontroller.AccountAnnotation]
		i.wrong(Misnamed, "name does not begin with %s: no workload looks for it", secretcontroller.SecretPrefix)
	}
	i.ServiceAccount = name
	account := secretcontroller.Account{Namespace: secret.Namespace, Name: name}
	account.UID, ok = living[types.NamespacedName{Namespace: secret.Namespace, Name: name}]
	switch {
	case ok:
		return account
	case name == "":
		i.wrong(Orphan, "neither its name nor its annotation %s names a service account", secretcontroller.AccountAnnotation)
	default:
		i.wrong(Orphan, "service account %s does not exist", name)
	}
	for _, owner := range secret.OwnerReferences {
		if owner.Kind == "ServiceAccount" {
			account.UID = owner.UID
		}
	}
	return account
}

// certificate reads the first certificate, as far as it can be read.
func (i *Item) certificate(secret *corev1.Secret) *x509.Certificate {
	chain, err := trust.ParseCertificates(secret.Data[secretcontroller.ChainKey])
	if err != nil {
		return nil // Judge says so
	}
	leaf := chain[0]
	i.Certificate = &Certificate{
		DNSNames: append([]string{}, leaf.DNSNames...), Serial: fmt.Sprintf("%x", leaf.SerialNumber),
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(),
	}
	i.ExpiresAt = i.Certificate.NotAfter
	if len(leaf.URIs) == 1 {
		i.Certificate.SPIFFEID = leaf.URIs[0].String()
	}
	return leaf
}

// trustDomain is the one that was asked for, or the roots', or for want of
// those the certificate's own.
func (w World) trustDomain(item *Item, bundle Bundle, leaf *x509.Certificate) spiffeid.TrustDomain {
	switch {
	case !w.TrustDomain.IsZero():
		return w.TrustDomain
	case !bundle.domain.IsZero():
		return bundle.domain
	case leaf == nil || len(leaf.URIs) != 1:
		return spiffeid.TrustDomain{}
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return spiffeid.TrustDomain{} // Judge says so
	}
	item.Remarks = append(item.Remarks, "trust domain "+id.TrustDomain().Name()+" is the certificate's own word: the roots name none, or several; give --trust-domain")
	return id.TrustDomain()
}

// identity is zero where there is no trust domain: then the certificate has no
// SPIFFE ID, and Judge says that.
func (i *Item) identity(td spiffeid.TrustDomain, account secretcontroller.Account) spiffeid.ID {
	if td.IsZero() {
		return spiffeid.ID{}
	}
	i.TrustDomain = td.Name()
	id, err := ca.ServiceAccountID(td, account.Namespace, account.Name)
	if err != nil {
		return spiffeid.ID{}
	}
	return id
}

func (i *Item) verdict(now time.Time, v secretcontroller.Verdict) {
	if !v.NotAfter.IsZero() {
		i.ExpiresAt = v.NotAfter.UTC()
	}
	if !v.Keep(now) {
		i.wrong(string(v.Reason), "%s", v.Detail)
	}
	if len(i.Problems) == 0 || (len(i.Problems) == 1 && v.Reason == secretcontroller.Due) {
		i.NextRotation = v.RenewAt.UTC().Truncate(time.Second)
	}
}

func (i *Item) wrong(reason, format string, args ...any) {
	i.Problems = append(i.Problems, Problem{Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// Fate is what citadel will do about a Secret, if it runs and manages the
// namespace.
type Fate int

// The fates.
const (
	Rotated  Fate = iota // replaced at NextRotation
	Replaced             // replaced as soon as citadel gets to it
	Ignored              // left alone: there is no service account for it, or it is not citadel's
)

// Fate tells which.
func (i Item) Fate() Fate {
	left := func(p Problem) bool {
		return p.Reason == Orphan || p.Reason == Misnamed || p.Reason == string(secretcontroller.WrongType)
	}
	switch {
	case slices.ContainsFunc(i.Problems, left):
		return Ignored
	case i.NextRotation.IsZero():
		return Replaced
	}
	return Rotated
}
