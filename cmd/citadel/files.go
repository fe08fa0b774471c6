package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"citadel/ca"
	"citadel/ca/kube"
	"citadel/ca/regular"
	"citadel/ca/trust"
	"citadel/cmd/internal/daemon"
)

// checkCluster makes the client of the API server: it reads the files that a
// kubeconfig names, and asks nothing yet.
func (c *config) checkCluster() {
	rest, err := kube.Config(c.kubeConfig, "citadel/"+daemon.BuildVersion().Version)
	if err == nil {
		rest.Wrap(c.clock.Wrap)
		c.client, err = kube.Client(rest)
	}
	if err == nil && c.policy {
		c.custom, err = kube.CustomClient(rest)
	}
	if err != nil {
		c.flags.Problem("kube-config", "%v", err)
	}
}

// readSigner reads the operator's own CA. Each file is judged alone first, so
// that all that are wrong are told at once.
func (c *config) readSigner() {
	before := len(c.flags.Problems())
	c.requireFile("signing-cert", c.signingCert)
	c.requireFile("signing-key", c.signingKey)
	c.requireFile("root-cert", c.rootCert)
	pieces := trust.Pieces{
		Cert:  c.readPiece("signing-cert", c.signingCert, checkCertificates),
		Key:   c.readPiece("signing-key", c.signingKey, checkKey),
		Chain: c.readPiece("cert-chain", c.certChain, checkCertificates),
		Roots: c.readPiece("root-cert", c.rootCert, checkCertificates),
	}
	if len(c.flags.Problems()) > before {
		return
	}
	var err error
	if c.signer, err = trust.NewSigner(time.Now(), pieces); err != nil {
		c.flags.Report(withMissingChain(err, pieces)) // it names the pieces, and so the flags
	}
}

// withMissingChain adds to an error that there may have to be a --cert-chain:
// none is given, and no root signed the signing certificate.
func withMissingChain(err error, p trust.Pieces) error {
	certs, wrong := trust.ParseCertificates(p.Cert.PEM)
	roots, wrongToo := trust.ParseCertificates(p.Roots.PEM)
	if wrong != nil || wrongToo != nil || len(p.Chain.PEM) > 0 {
		return err
	}
	last := certs[len(certs)-1]
	signed := func(issuer *x509.Certificate) bool { return last.CheckSignatureFrom(issuer) == nil }
	if signed(last) || slices.ContainsFunc(roots, signed) {
		return err
	}
	return fmt.Errorf("%w; --cert-chain is not given: unless a root signed %s itself, give its issuer %s there, and each one's issuer up to the root",
		err, trust.Name(last), last.Issuer)
}

// checkSigner has a CA that was given by files sign once, under the trust domain
// and for the DNS names of the flags.
func (c *config) checkSigner() {
	if c.signer == nil || c.td.IsZero() || c.workloadTTL <= 0 || c.workloadTTL > c.maxWorkloadTTL {
		return // told already
	}
	if _, err := c.authority(c.signer, func(ca.AuditRecord) error { return nil }); err != nil {
		c.flags.Problem("signing-cert", "%s cannot be used: %v", c.signingCert, err)
	}
}

// readExtraRoots reads what --root-cert adds to a CA that is in a Secret.
func (c *config) readExtraRoots() {
	before := len(c.flags.Problems())
	c.extraRoots = c.readPiece("root-cert", c.rootCert, checkCertificates)
	if c.rootCert == "" || len(c.flags.Problems()) > before {
		return
	}
	if _, err := new(trust.Signer).WithRoots(c.extraRoots); err != nil {
		c.flags.Report(err)
	}
}

// readPiece reads the file that a flag names, if it does. The piece is called
// by both.
func (c *config) readPiece(flag, path string, check func([]byte) error) trust.Piece {
	if path == "" {
		return trust.Piece{}
	}
	text, err := regular.Read(path)
	if err != nil {
		c.flags.Problem(flag, "cannot read %s: %v", path, reason(err))
	} else if err := check(text); err != nil {
		c.flags.Problem(flag, "%s %v", path, err)
	}
	return trust.Piece{Name: c.flags.Name(flag) + " " + path, PEM: text}
}

func checkCertificates(text []byte) error {
	_, err := trust.ParseCertificates(text)
	return err
}

func checkKey(text []byte) error {
	_, err := trust.ParseKey(text)
	return err
}

// checkFolder insists that a file can be made: its folder is there, and no
// folder is in its place.
func (c *config) checkFolder(flag, path string) {
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		c.flags.Problem(flag, "folder %s of %s is not there", filepath.Dir(path), path)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		c.flags.Problem(flag, "%s is a folder: name a file", path)
	}
}

// reason is a file's error without the file's name.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
