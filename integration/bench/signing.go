package main

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/trust"
)

// rounds and perRound: floor and subject take turns, so that a machine that
// changes its speed changes both.
const (
	rounds   = 15
	perRound = 400
)

// signing compares the authority with crypto/x509 alone: parse, check, sign.
func (b *bench) signing() error {
	progress("signing, %d times each", rounds*perRound)
	now := time.Now()
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	root, err := trust.NewSelfSigned(now, trust.SelfSigned{TrustDomain: td, KeyType: trust.ECDSAP256, Lifetime: time.Hour})
	if err != nil {
		return err
	}
	authority, err := ca.New(now, ca.Config{TrustDomain: td, Signer: root, DefaultTTL: time.Minute, MaxTTL: time.Hour,
		Audit: func(ca.AuditRecord) error { return nil }})
	if err != nil {
		return err
	}
	key, err := trust.ECDSAP256.Generate()
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	id := spiffeid.RequireFromString("spiffe://cluster.local/ns/default/sa/sleep")
	caller := ca.NewCaller(id, "benchmark", "")
	var subject, floor []time.Duration
	for range rounds {
		f, err := timed(func() error { return bare(root, id, csr) })
		if err != nil {
			return err
		}
		s, err := timed(func() error { _, err := authority.Issue(now, caller, ca.Request{CSR: csr}); return err })
		if err != nil {
			return err
		}
		subject, floor = append(subject, s), append(floor, f)
	}
	s, f := median(subject), median(floor)
	b.add("signature, P-256", s.Round(time.Microsecond).String(), f.Round(time.Microsecond).String()+" bare crypto/x509",
		fmt.Sprintf("%.2f", float64(s)/float64(f)), "at most 1.3")
	return nil
}

func timed(f func() error) (time.Duration, error) {
	start := time.Now()
	for range perRound {
		if err := f(); err != nil {
			return 0, err
		}
	}
	return time.Since(start) / perRound, nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func bare(root *trust.Signer, id spiffeid.ID, der []byte) error {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: now, NotAfter: now.Add(time.Minute), URIs: append(csr.URIs, id.URL()),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	_, err = x509.CreateCertificate(rand.Reader, template, root.Cert(), csr.PublicKey, root.Key())
	return err
}
