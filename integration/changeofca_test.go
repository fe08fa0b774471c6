package integration

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// TestHostFollowsAChangeOfTheCA, in the three steps that people are told, long
// before its certificate is due, and without a new token.
func TestHostFollowsAChangeOfTheCA(t *testing.T) {
	t.Parallel()
	old, next := catest.Root(t, time.Now(), catest.Spec{Name: "old root"}), catest.Root(t, time.Now(), catest.Spec{Name: "next root"})
	dir := filepath.Join(t.TempDir(), "state")
	by := func(signs *catest.Issuer, roots ...*catest.Issuer) []string {
		var all []*x509.Certificate
		for _, root := range roots {
			all = append(all, root.Cert)
		}
		flags := files(t, signs)
		return append(flags, "--root-cert", writeFile(t, "roots.pem", trust.MarshalCertificates(all)))
	}
	c := startAlone(t, dir, by(old, old)...)
	port := c.APIPort
	h := newHost(t)
	token := h.path("token")
	join := tool(t, "token", "create", "-n", "vm", "--service-account", "web", "--state-dir", dir,
		"--root-cert", writeFile(t, "root.pem", old.PEM()), "--address", fmt.Sprintf("127.0.0.1:%d", port))
	if err := os.WriteFile(token, []byte(join), 0o600); err != nil {
		t.Fatal(err)
	}
	a := h.start(t, "--join-token-file", token)
	a.supplied(t, "")
	for step, c2 := range []struct {
		signs *catest.Issuer
		roots []*catest.Issuer
	}{{old, []*catest.Issuer{old, next}}, {next, []*catest.Issuer{old, next}}, {next, []*catest.Issuer{next}}} {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		c = startAlone(t, dir, append(by(c2.signs, c2.roots...), "--grpc-port", strconv.Itoa(port))...)
		within(t, patience, func() error {
			set, err := h.certs().Load()
			if err != nil {
				return err
			}
			if err := set.SVID.Certificates[0].CheckSignatureFrom(c2.signs.Cert); err != nil {
				return fmt.Errorf("step %d: %w", step+1, err)
			}
			if n := len(set.Roots.X509Authorities()); n != len(c2.roots) || !set.Roots.HasX509Authority(c2.roots[n-1].Cert) {
				return fmt.Errorf("step %d: the host has %d roots", step+1, n)
			}
			return nil
		})
	}
	if s := must(a.status(t))(t); s.RenewedBy != "certificate" || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
}
