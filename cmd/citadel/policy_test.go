package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"citadel/ca/authn"
	"citadel/ca/policy"
	"citadel/ca/policyfeed"
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

// TestObjectsThatDoNotCount are logged once each, when they are new.
func TestObjectsThatDoNotCount(t *testing.T) {
	feed := policyfeed.New(policy.Auto)
	broken := func(names ...string) policyfeed.Change {
		c := policyfeed.Change{Known: true, Broken: map[policy.Ref]error{}}
		for _, name := range names {
			c.Broken[policy.Ref{Kind: policy.KindDestinationRule, Namespace: "web", Name: name}] = errors.New("mode MUTUAL wants clientCertificate")
		}
		return c
	}
	var log bytes.Buffer
	p := &process{log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, names := range []string{"a", "a b"} {
		before := feed.State()
		feed.Apply(broken(strings.Fields(names)...))
		log.Reset()
		p.tellNew(before, feed.State())
		p.tellNew(feed.State(), feed.State())
		if text := log.String(); strings.Count(text, "an object does not count") != 1 || !strings.Contains(text, "DestinationRule/web/"+names[len(names)-1:]) {
			t.Errorf("%s: %s", names, text)
		}
	}
	before := feed.State()
	feed.Apply(policyfeed.Change{Unread: []policyfeed.Unread{{What: "folder policy", Old: true, Why: "b.yaml is no YAML"}}})
	log.Reset()
	if p.tellNew(before, feed.State()); log.Len() > 0 {
		t.Errorf("what is known still counts: %s", &log)
	}
}
