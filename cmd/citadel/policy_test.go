package main

import (
	"strings"
	"testing"
	"time"

	"citadel/ca/authn"
)

// TestPolicyIsForWorkloads: what proves a claim to a certificate proves none to
// policy.
func TestPolicyIsForWorkloads(t *testing.T) {
	token := &authn.KubernetesToken{}
	all := proofs{chain: authn.Chain{authn.ClientCertificate{RenewExpiredFor: time.Hour}, authn.Join{}, token}}
	got := all.ofWorkloads()
	if len(got) != 2 || got[0] != authn.Authenticator(authn.ClientCertificate{}) || got[1] != authn.Authenticator(token) {
		t.Errorf("%+v", got)
	}
}

// TestPolicyFlags: mistakes in them are told at the start.
func TestPolicyFlags(t *testing.T) {
	for _, c := range []struct{ flag, says string }{
		{"--policy-generation=v2", "--policy-generation"},
		{"--policy-readers=ops", "not of the form NAMESPACE/SERVICE_ACCOUNT"},
		{"--policy-readers=ops/a/b", "not of the form NAMESPACE/SERVICE_ACCOUNT"},
	} {
		code, _, stderr := runCitadel(t, "--policy", c.flag)
		if code != 2 || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: %d\n%s", c.flag, code, stderr)
		}
	}
	if code, _, stderr := runCitadel(t, "--policy", "--listened-namespaces=web"); code != 2 || !strings.Contains(stderr, "needs to see every namespace") {
		t.Errorf("%d\n%s", code, stderr)
	}
	if code, _, stderr := runCitadel(t, "--policy", "--policy-readers=ops/reader,ops/other", "--policy-generation=v1"); code != 0 {
		t.Errorf("%d\n%s", code, stderr)
	}
}
