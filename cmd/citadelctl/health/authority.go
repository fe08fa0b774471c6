package health

import (
	"cmp"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"citadel/ca/kube"
	"citadel/ca/trust"
	"citadel/cmd/citadelctl/inspect"
)

// Authority is what citadel signs with, as far as it can be seen from outside.
type Authority struct {
	Unknown string `json:"unknown,omitempty"`
	// Source is the Secret that holds it.
	Source  string `json:"source,omitempty"`
	Subject string `json:"subject,omitempty"`
	KeyType string `json:"keyType,omitempty"`
	// SelfSigned tells a root of citadel's own from a certificate below an
	// operator's.
	SelfSigned bool `json:"selfSigned"`
	// NotAfter is the end of the signing certificate or of the first of its
	// issuers to end.
	NotAfter time.Time `json:"notAfter,omitzero"`
	DaysLeft int       `json:"daysLeft"`
}

// signer is what a restart of citadel would sign with; zero where there is
// none or it is not known.
type signer struct {
	cert  *x509.Certificate
	roots []*x509.Certificate
	end   time.Time
}

func (x *examination) authority() {
	x.section = "authority"
	const name = "ca-secret"
	a := &x.report.Authority
	if x.FromFiles {
		a.Unknown = "in files that citadel's flags name"
		x.warn(name, "watch its life by citadel_server_cert_chain_expiry_timestamp", "citadel signs with files that its flags name: they cannot be seen from here")
		return
	}
	secret, why := x.caSecret()
	if why != "" {
		a.Unknown = why
		x.unknown(name, why)
		return
	}
	if secret == nil {
		x.fail(name, "do not stop the replica that leads: when none is left, the next makes another root; restore Secret "+x.storage(kube.CASecret)+
			" from a backup; where citadel was never installed: kubectl apply -k deploy/", "there is no CA: neither Secret %s nor %s", x.storage(kube.CASecret), kube.PluggedSecret)
		return
	}
	a.Source = "secret/" + secret.Namespace + "/" + secret.Name
	made, err := load(x.Now, secret)
	if err != nil {
		x.fail(name, "restore the Secret from a backup before citadel is restarted; see all with: citadelctl cert inspect "+a.Source, "citadel cannot sign with %s: %v", a.Source, err)
		return
	}
	x.signer = made
	a.Subject, a.KeyType = trust.Name(made.cert), inspect.KeyType(made.cert.PublicKey)
	a.SelfSigned = slices.ContainsFunc(made.roots, made.cert.Equal)
	a.NotAfter, a.DaysLeft = made.end.UTC(), days(x.Now, made.end)
	x.ok(name, "%s holds a CA that can sign: %s", a.Source, a.Subject)
	x.caLife(made.end)
}

// caSecret is the Secret that counts: an operator's before citadel's own.
func (x *examination) caSecret() (*corev1.Secret, string) {
	switch {
	case x.Plugged.Unknown != "":
		return nil, x.Plugged.Unknown
	case x.Plugged.Value != nil:
		return x.Plugged.Value, ""
	}
	return x.CASecret.Value, x.CASecret.Unknown
}

// load makes the signer as citadel does at its start.
func load(now time.Time, secret *corev1.Secret) (signer, error) {
	m, err := inspect.ParseSecret(secret)
	if err != nil {
		return signer{}, err
	}
	if m.Signer == nil {
		return signer{}, errors.New("it is laid out as a workload's, and not as a CA's")
	}
	s, err := trust.NewSigner(now, *m.Signer)
	if err != nil {
		return signer{}, err
	}
	return signer{cert: s.Cert(), roots: s.Roots(), end: s.NotAfter()}, nil
}

func (x *examination) caLife(end time.Time) {
	const name = "ca-life"
	left := end.Sub(x.Now)
	if left < Soon {
		x.fail(name, "replace the CA in good time, with the old root and the new one in the roots until all workloads have certificates of the new one",
			"the CA, or an issuer of it, ends in %s, at %s", inspect.Span(left), stamp(end))
		return
	}
	x.ok(name, "the CA is good for %s", inspect.Span(left))
}

func days(now, t time.Time) int { return int(t.Sub(now) / (24 * time.Hour)) }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// byEnd sorts certificates, the first to end first.
func byEnd(certs []*x509.Certificate) []*x509.Certificate {
	return slices.SortedStableFunc(slices.Values(certs), func(a, b *x509.Certificate) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(trust.Name(a), trust.Name(b)))
	})
}
