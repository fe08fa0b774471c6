package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"citadel/ca/kube"
	"citadel/ca/trust"
	"citadel/cmd/internal/daemon"
)

// checkCluster makes the client of the API server: it reads the files that a
// kubeconfig names, and asks nothing yet.
func (c *config) checkCluster() {
	rest, err := kube.Config(c.kubeConfig, "citadel/"+daemon.BuildVersion().Version)
	if err == nil {
		c.client, err = kube.Client(rest)
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
		c.flags.Report(err) // it names the pieces, and so the flags
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
	text, err := kube.ReadFile(path)
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
