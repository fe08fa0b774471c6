package integration

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	corev1 "k8s.io/api/core/v1"

	"citadel/ca/trust"
)

// TestTwoTrustDomainsInOneCluster: two Citadels share a cluster by the labels of
// namespaces. Each keeps its own, and a namespace that changes hands gets
// certificates of its new trust domain once.
func TestTwoTrustDomainsInOneCluster(t *testing.T) {
	t.Parallel()
	type side struct {
		site   *site
		domain string
		proc   *process
	}
	var sides []side
	for _, domain := range []string{"east.example", "west.example"} {
		s := newSite(t)
		sides = append(sides, side{s, domain, s.start(t, "--trust-domain", domain)})
	}
	east, west := sides[0], sides[1]
	ns := east.site.namespace(t)
	accounts := makeAccounts(t, ns, "sa", 20)
	staying := makeAccount(t, west.site.namespace(t), "staying")
	all := func(s side) {
		t.Helper()
		roots := s.site.roots(t)
		within(t, patience, func() error {
			for _, sa := range accounts {
				if err := isOf(t, sa, s.domain, roots); err != nil {
					return err
				}
			}
			return nil
		})
	}
	all(east)
	within(t, patience, func() error { return isOf(t, staying, west.domain, west.site.roots(t)) })
	since := now(t)
	setLabels(t, ns, west.site.label())
	all(west)
	stays(t, 3*time.Second, func() error {
		if quarrel := writes(t, since, east.proc.user, "secrets", ns, ""); len(quarrel) > 0 {
			return fmt.Errorf("the Citadel of before wrote %v", quarrel)
		}
		return nil
	})
	if got := verbs(writes(t, since, west.proc.user, "secrets", ns, "")); len(got) != len(accounts)+1 { // and the namespace's own
		t.Errorf("%d writes for %d service accounts: %v", len(got), len(accounts)+1, got)
	}
}

// isOf is nil when the Secret of a service account is of a trust domain and has
// exactly its roots.
func isOf(t *testing.T, sa *corev1.ServiceAccount, domain string, roots []*x509.Certificate) error {
	t.Helper()
	s, err := getSecret(t.Context(), sa.Namespace, sa.Name)
	if err != nil {
		return err
	}
	svid, err := x509svid.Parse(s.Data["cert-chain.pem"], s.Data["key.pem"])
	if err != nil {
		return err
	}
	want := spiffeid.RequireFromString(fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", domain, sa.Namespace, sa.Name))
	if svid.ID != want {
		return fmt.Errorf("Secret of %s is for %s, not %s", sa.Name, svid.ID, want)
	}
	if got := string(s.Data["root-cert.pem"]); got != string(trust.MarshalCertificates(roots)) {
		return fmt.Errorf("Secret of %s has other roots:\n%s", sa.Name, got)
	}
	return nil
}
