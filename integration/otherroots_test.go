package integration

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// nothingSigned is what a citadel says that has a signer which the mesh does not
// trust, or could make one.
const nothingSigned = "nothing is signed"

// published waits until old agents are told these roots.
func (s *site) published(t *testing.T, roots []*x509.Certificate) {
	t.Helper()
	want := base64.StdEncoding.EncodeToString(trust.MarshalCertificates(roots))
	within(t, patience, func() error {
		cm, err := plane.Client.CoreV1().ConfigMaps(s.storage).Get(t.Context(), "istio-security", metav1.GetOptions{})
		if err == nil && cm.Data["caTLSRootCert"] != want {
			err = fmt.Errorf("ConfigMap istio-security has other roots")
		}
		return err
	})
}

// waits insists that this start signs nothing, and makes nothing.
func (p *process) waits(t *testing.T) {
	t.Helper()
	p.says(t, nothingSigned)
	p.answers(t, "/readyz", http.StatusServiceUnavailable)
	p.answers(t, "/healthz", http.StatusOK)
	if got := writes(t, p.since, p.user, "", "", ""); len(got) > 0 {
		t.Errorf("it wrote %v", got)
	}
}

// TestLostRootIsNotReplaced, not even when nobody holds it any more.
func TestLostRootIsNotReplaced(t *testing.T) { // compatibility 9, complaint 8
	t.Parallel()
	s := newSite(t)
	p := s.start(t)
	roots, secrets := s.roots(t), plane.Client.CoreV1().Secrets(s.storage)
	s.published(t, roots)
	p.stop(t)
	kept := must(secrets.Get(t.Context(), "istio-ca-secret", metav1.GetOptions{}))(t)
	if err := secrets.Delete(t.Context(), kept.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{nil, {"--self-signed-ca"}} {
		p = s.launch(t, launch{}, flags...)
		p.waits(t)
		p.stop(t)
	}
	p = s.launch(t, launch{})
	p.waits(t)
	kept.ResourceVersion, kept.UID = "", ""
	createSecret(t, kept)
	p.ready(t)
	right(t, makeAccount(t, s.namespace(t), "sleep"), roots)
	p.stop(t)

	s.forget(t)
	p = s.start(t)
	p.says(t, "a new root was made")
	if s.roots(t)[0].Equal(roots[0]) {
		t.Error("that is the old root")
	}
}

// TestNoFallBackFromALostCA on the root of before it, which the Secret of
// Citadel's own still holds.
func TestNoFallBackFromALostCA(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(t).stop(t)
	own := s.roots(t)
	ca := plugged(t, s.storage, operatorsRoot(t).Intermediate(t, time.Now(), catest.Spec{Name: "fall issuer"}))
	createSecret(t, ca)
	theirs := must(trust.ParseCertificates(ca.Data["root-cert.pem"]))(t)
	p := s.start(t)
	sa := makeAccount(t, s.namespace(t), "sleep")
	right(t, sa, theirs)
	s.published(t, append(must(trust.ParseCertificates(ca.Data["ca-cert.pem"]))(t), theirs...))

	if err := plane.Client.CoreV1().Secrets(s.storage).Delete(t.Context(), ca.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.says(t, s.storage+"/cacerts is gone")
	if p.metric(t, "citadel_ca_secret_in_sync") != 0 {
		t.Error("the metric does not say so")
	}
	p.stop(t)
	p = s.launch(t, launch{})
	p.waits(t)
	createSecret(t, plugged(t, s.storage, operatorsRoot(t))) // another: the operator's word counts
	p.ready(t)
	p.stop(t)

	err := plane.Client.CoreV1().Secrets(s.storage).Delete(t.Context(), ca.Name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	s.start(t, "--self-signed-ca", "--root-change-window=0")
	within(t, patience, func() error { return rootsIn(t, sa.Namespace, own) })
}
