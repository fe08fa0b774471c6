package inspect

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"citadel/ca/kube"
	"citadel/ca/trust"
	"citadel/secretcontroller"
)

// layout is where a kind of Secret keeps its pieces; empty: nowhere.
type layout struct {
	cert, chain, key, roots string
	expect                  Role
}

// The layouts, in the order that they are looked for.
var (
	authorityLayout = layout{cert: kube.CACertKey, chain: kube.PluggedChainKey, key: kube.CAKeyKey, roots: kube.PluggedRootKey, expect: Issuer}
	workloadLayout  = layout{cert: secretcontroller.ChainKey, key: secretcontroller.KeyKey, roots: secretcontroller.RootsKey, expect: Workload}
	tlsLayout       = layout{cert: corev1.TLSCertKey, key: corev1.TLSPrivateKeyKey, roots: "ca.crt"}
)

// ParseSecret reads a Secret: a workload's, a Citadel's own (istio-ca-secret),
// an operator's CA (cacerts, in either layout), or any kubernetes.io/tls.
func ParseSecret(secret *corev1.Secret) (Material, error) {
	name := fmt.Sprintf("secret/%s/%s", secret.Namespace, secret.Name)
	l, ok := layoutOf(secret)
	if !ok {
		return Material{}, fmt.Errorf("%s holds no certificate: of %s, %s and %s it has none; its keys are: %s", name,
			workloadLayout.cert, authorityLayout.cert, tlsLayout.cert, strings.Join(slices.Sorted(maps.Keys(secret.Data)), ", "))
	}
	m := Material{Source: name, Expect: l.expect}
	certs, err := trust.ParseCertificates(secret.Data[l.cert])
	if err != nil {
		return Material{}, fmt.Errorf("%s: %s %w", name, l.cert, err)
	}
	m.Chain = append(located(certs, l.cert), m.issuers(secret, l, certs)...)
	m.takeRoots(secret, l, certs)
	m.takeKey(l.key, secret.Data[l.key])
	if len(secret.Data[l.key]) == 0 {
		m.problem("key-missing", "%s is missing or empty", l.key)
	}
	if l.expect == Issuer {
		m.Signer = signerPieces(secret, l)
	}
	return m, nil
}

func layoutOf(secret *corev1.Secret) (layout, bool) {
	for _, l := range []layout{authorityLayout, workloadLayout, tlsLayout} {
		if _, ok := secret.Data[l.cert]; !ok {
			continue
		}
		if secret.Name == kube.PluggedSecret || secret.Type == kube.CASecretType {
			l.expect = Issuer
		}
		return l, true
	}
	return layout{}, false
}

// issuers reads the separate chain of a CA. It may begin with the signing
// certificate, as Istio's does.
func (m *Material) issuers(secret *corev1.Secret, l layout, signing []*x509.Certificate) []Piece {
	text := secret.Data[l.chain]
	if l.chain == "" || len(text) == 0 {
		return nil
	}
	certs, err := trust.ParseCertificates(text)
	if err != nil {
		m.problem("chain-damaged", "%s %v", l.chain, err)
		return nil
	}
	if certs[0].Equal(signing[0]) {
		certs = certs[1:]
	}
	return located(certs, l.chain)
}

// takeRoots reads the roots. A CA without any is its own root when it signed
// itself; a Secret of type kubernetes.io/tls need not have them.
func (m *Material) takeRoots(secret *corev1.Secret, l layout, certs []*x509.Certificate) {
	text := secret.Data[l.roots]
	if len(text) == 0 {
		switch {
		case l == workloadLayout:
			m.problem("roots-missing", "%s is missing or empty", l.roots)
		case l.expect == Issuer && !selfSigned(certs[0]):
			m.problem("roots-missing", "%s is missing or empty, and the CA did not sign itself", l.roots)
		case l.expect == Issuer:
			m.Bundle = located(certs, l.cert)
		}
		return
	}
	roots, err := trust.ParseCertificates(text)
	if err != nil {
		m.problem("roots-damaged", "%s %v", l.roots, err)
		return
	}
	m.Bundle = located(roots, l.roots)
}

// signerPieces is the Secret as citadel reads it.
func signerPieces(secret *corev1.Secret, l layout) *trust.Pieces {
	piece := func(key string) trust.Piece { return trust.Piece{Name: key, PEM: secret.Data[key]} }
	p := &trust.Pieces{Cert: piece(l.cert), Key: piece(l.key), Chain: piece(l.chain), Roots: piece(l.roots)}
	if len(p.Roots.PEM) == 0 && secret.Name != kube.PluggedSecret {
		p.Roots = p.Cert
	}
	return p
}
