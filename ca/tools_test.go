package ca_test

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// files are what a verifier of another make is given.
type files struct{ leaf, chain, both, roots string }

func writeFiles(t *testing.T, i issued) files {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, certs ...*x509.Certificate) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, trust.MarshalCertificates(certs), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return files{
		leaf: write("leaf.pem", i.chain[0]), chain: write("chain.pem", i.chain[1:]...),
		both: write("both.pem", i.chain...), roots: write("roots.pem", i.signer.Roots()...),
	}
}

// run runs a tool, and returns what it prints and whether it was content. A
// missing tool fails the test: what nobody checked is not known to work.
func run(t *testing.T, debianPackage, tool string, args ...string) (string, bool) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Fatalf("%s is missing: install the Debian package %s", tool, debianPackage)
	}
	cmd := exec.CommandContext(t.Context(), tool, args...)
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

func openssl(t *testing.T, args ...string) (string, bool) {
	t.Helper()
	return run(t, "openssl", "openssl", args...)
}

// verifyArgs leave the chain out where there is none: openssl refuses an
// empty file.
func verifyArgs(f files, i issued, options ...string) []string {
	args := append([]string{"verify", "-CAfile", f.roots}, options...)
	if len(i.chain) > 1 {
		args = append(args, "-untrusted", f.chain)
	}
	return append(args, f.leaf)
}

// TestOtherVerifiersTakeEachShape: peers of workloads are not all written in
// Go. The clock is the tools' own.
func TestOtherVerifiersTakeEachShape(t *testing.T) {
	eachShape(t, time.Now(), func(t *testing.T, i issued) {
		f := writeFiles(t, i)
		checkOpenSSL(t, i, f)
		checkGnuTLS(t, i, f)
	})
}

// unstrict are the signers that the strict reading of RFC 5280 refuses: the root
// of Citadel 1.4 has no subject key identifier, and a root that peers trust
// already cannot be given one.
var unstrict = map[string]string{citadel14: "Missing Subject Key Identifier", nameless: "Issuer name empty"}

// checkOpenSSL also checks the strict reading of RFC 5280.
func checkOpenSSL(t *testing.T, i issued, f files) {
	t.Helper()
	for _, purpose := range []string{"sslserver", "sslclient"} {
		if out, ok := openssl(t, verifyArgs(f, i, "-purpose", purpose)...); !ok {
			t.Errorf("openssl, %s: %s", purpose, out)
		}
	}
	out, ok := openssl(t, verifyArgs(f, i, "-x509_strict")...)
	if fault, found := unstrict[i.shape.signer]; ok == found || !strings.Contains(out, fault) {
		t.Errorf("openssl, strict: verifies %t: %s", ok, out)
	}
}

// checkGnuTLS: GnuTLS wants the chain in order, leaf first, and names in it.
func checkGnuTLS(t *testing.T, i issued, f files) {
	t.Helper()
	out, ok := certtool(t, f)
	if i.shape.signer == nameless {
		if ok {
			t.Errorf("certtool takes a CA without a name: %s", out)
		}
		return
	}
	if !ok || !strings.Contains(out, "Chain verification output: Verified.") {
		t.Errorf("certtool: %s", out)
	}
}

func certtool(t *testing.T, f files) (string, bool) {
	t.Helper()
	return run(t, "gnutls-bin", "certtool", "--verify", "--load-ca-certificate", f.roots, "--infile", f.both)
}

// TestVerifiersSeeFaults: a verifier that takes everything proves nothing.
func TestVerifiersSeeFaults(t *testing.T) {
	at := time.Now()
	stranger := catest.Root(t, at, catest.Spec{Name: "stranger"}).Signer(t, at)
	i := issueShape(t, at, shape{leaf: trust.ECDSAP256}, operators(trust.ECDSAP256, catest.Spec{})(t, at))
	f := writeFiles(t, issued{chain: i.chain, signer: stranger})
	if out, ok := openssl(t, verifyArgs(f, i)...); ok {
		t.Errorf("openssl takes a stranger's root: %s", out)
	}
	if out, ok := certtool(t, f); ok {
		t.Errorf("certtool takes a stranger's root: %s", out)
	}
}
