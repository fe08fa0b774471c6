package nodeagent

import (
	"crypto/rand"
	"crypto/x509"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/trust"
)

// leafFor is a certificate of the rig's root for a key of somebody's.
func leafFor(r *rig, id spiffeid.ID, key any, edits ...func(*x509.Certificate)) *x509.Certificate {
	r.t.Helper()
	serial, err := trust.NewSerial()
	if err != nil {
		r.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if !id.IsZero() {
		template.URIs = []*url.URL{id.URL()}
	}
	for _, edit := range edits {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, r.root.Cert, key, r.root.Key)
	if err != nil {
		r.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		r.t.Fatal(err)
	}
	return leaf
}

// lasts moves a life by d.
func lasts(d time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = c.NotBefore.Add(d), c.NotAfter.Add(d) }
}

func serverOnly(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
