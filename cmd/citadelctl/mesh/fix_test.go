package mesh

import (
	"os"
	"strings"
	"testing"
	"time"

	"citadel/ca/policy"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// conflicts calls f for each case of the data files that is a conflict.
func conflicts(t *testing.T, f func(c *policy.Case, w *World, d policy.Decision)) {
	t.Helper()
	for _, file := range []string{"cases.yaml", "own.yaml"} {
		text, err := os.ReadFile("../../../ca/policy/testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := policy.DecodeCases(file, text)
		if err != nil {
			t.Fatal(err)
		}
		for i := range cases.Resolve {
			c := &cases.Resolve[i]
			objects := c.Objects
			if c.Mesh != nil {
				objects = append(objects, c.Mesh)
			}
			w := NewWorld(c.Generation, objects)
			if d := w.Resolve(c.Query); d.Verdict == policy.Conflict {
				f(c, w, d)
			}
		}
	}
}

// TestFixMends: of each conflict that policy can mend, what is proposed does,
// once it is applied as it was written.
func TestFixMends(t *testing.T) {
	tried, without := 0, 0
	conflicts(t, func(c *policy.Case, w *World, d policy.Decision) {
		fix := w.Fix(now, d)
		if d.Symptom == policy.UnknownServer || d.Symptom == policy.DependsOnServer {
			if without++; fix != nil {
				t.Errorf("%s: a fix of what cannot be known: %+v", c.Name, fix)
			}
			return
		}
		tried++
		if fix == nil {
			t.Errorf("%s: no fix; server %s by %s, client %s by %s", c.Name, d.Server, d.ServerBy, d.Client, d.ClientBy)
			return
		}
		if len(fix.Breaks) > 0 {
			t.Errorf("%s: %s breaks %v", c.Name, fix.Text, fix.Breaks)
		}
		after := applied(t, w, fix)
		if got := after.Resolve(c.Query); got.Verdict != policy.OK {
			t.Errorf("%s: %s: still %s %s", c.Name, fix.Text, got.Server, got.Client)
		}
		if t.Logf("%s: %s by %s, %s by %s: %s", c.Name, d.Server, d.ServerBy, d.Client, d.ClientBy, fix.Text); testing.Verbose() {
			for _, change := range fix.Changes {
				t.Logf("    %s", change.Command)
			}
		}
	})
	if tried < 80 || without < 3 {
		t.Errorf("%d conflicts have a fix, %d none: the files hold more", tried, without)
	}
}

// applied goes by the texts of a fix alone.
func applied(t *testing.T, w *World, fix *Fix) *World {
	t.Helper()
	for _, c := range fix.Changes {
		var o policy.Object
		if c.Action == "create" {
			all, err := policy.Decode("fix", []byte(c.YAML))
			if err != nil || len(all) != 1 || strings.Contains(c.YAML, "\n") {
				t.Fatalf("%s: %v", c.YAML, err)
			}
			o = all[0]
		} else {
			o = patched(t, w, c)
		}
		if o.Ref().String() != c.Object {
			t.Errorf("%s is said to change %s", o.Ref(), c.Object)
		}
		w = w.With(now, o)
	}
	return w
}

// fixed explains a conflict of n/c with s.n:80, and returns its fix.
func fixed(t *testing.T, g policy.Generation, text string, sidecar bool) (*World, *Fix) {
	t.Helper()
	w := world(t, g, `
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: n}, spec: {selector: {app: s}, ports: [{name: http, port: 80}, {name: tcp, port: 81}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: other, namespace: n}, spec: {selector: {app: other}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: s-0, namespace: n, labels: {app: s, tier: back, security.istio.io/tlsMode: istio}}, spec: {containers: [{name: istio-proxy}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: other-0, namespace: n, labels: {app: other, tier: back, security.istio.io/tlsMode: istio}}, spec: {containers: [{name: istio-proxy}]}}
---
`+text)
	return w, w.Fix(now, w.Resolve(policy.Query{Client: policy.Client{Namespace: "n", Sidecar: sidecar}, Server: policy.Server{Host: "s.n.svc.cluster.local", Port: 80}}))
}

// TestFixSaysWhatElse: one that touches other servers names them, and one that
// need not does not.
func TestFixSaysWhatElse(t *testing.T) {
	_, fix := fixed(t, policy.V1, `{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: n}, spec: {selector: {matchLabels: {tier: back}}, mtls: {mode: STRICT}}}`, false)
	if fix == nil || len(fix.Also) != 1 || fix.Also[0] != "other.n.svc.cluster.local:80" || !fix.Weakens {
		t.Errorf("a policy of two services: %+v", fix)
	}
	_, fix = fixed(t, policy.V1, `{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: n}, spec: {mtls: {mode: STRICT}}}`, false)
	if fix == nil || len(fix.Also) != 0 || fix.Changes[0].Action != "create" {
		t.Errorf("a policy of the namespace: %+v", fix)
	}
}

// TestFixKeepsEncryption: a client with a sidecar is made to encrypt before a
// server is made to take plain text.
func TestFixKeepsEncryption(t *testing.T) {
	for name, text := range map[string]string{
		"a rule that disables": `{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: n}, spec: {host: s, trafficPolicy: {tls: {mode: DISABLE}}}}`,
		"a rule for all":       `{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: n}, spec: {host: '*.local', trafficPolicy: {tls: {mode: SIMPLE}}}}`,
	} {
		w, fix := fixed(t, policy.V1, text+"\n---\n"+`{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: n}, spec: {mtls: {mode: STRICT}}}`, true)
		if fix == nil || fix.Weakens || len(fix.Breaks) > 0 || strings.Join(fix.Also, " ") != "s.n.svc.cluster.local:81" {
			t.Errorf("%s: %+v", name, fix)
			continue
		}
		q := policy.Query{Client: policy.Client{Namespace: "n", Sidecar: true}, Server: policy.Server{Host: "s.n.svc.cluster.local", Port: 80}}
		if d := applied(t, w, fix).Resolve(q); d.Client != policy.TLSIstioMutual || d.Server != policy.Strict {
			t.Errorf("%s: %s by %s, %s by %s", name, d.Server, d.ServerBy, d.Client, d.ClientBy)
		}
	}
}

// TestFixOfTwoChanges: where one does not do without giving up encryption, two
// do.
func TestFixOfTwoChanges(t *testing.T) {
	_, fix := fixed(t, policy.V1, `{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: n}, spec: {host: s, trafficPolicy: {tls: {mode: SIMPLE}}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: n}, spec: {mtls: {mode: DISABLE}}}`, true)
	if fix == nil || len(fix.Changes) != 2 || fix.Weakens {
		t.Errorf("%+v", fix)
	}
}

// TestFixIsValid: an object that admission would refuse is no fix.
func TestFixIsValid(t *testing.T) {
	w := world(t, policy.V1, `{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: n}, spec: {host: s, trafficPolicy: {tls: {mode: SIMPLE}}}}`)
	f := finder{base: w, now: now}
	ref := policy.Ref{Kind: policy.KindDestinationRule, Namespace: "n", Name: "r"}
	try := func(mode string) error {
		_, err := f.applied(w, candidate{edits: []edit{{ref: ref, ops: []op{{[]string{"spec", "trafficPolicy", "tls"}, map[string]any{"mode": mode}}}}}})
		return err
	}
	if err := try("MUTUAL"); err == nil || !strings.Contains(err.Error(), "client certificate required") {
		t.Errorf("MUTUAL without a certificate: %v", err)
	}
	if err := try("DISABLE"); err != nil {
		t.Error(err)
	}
}

// TestFixNothing: what works needs none, and what nobody declares has none.
func TestFixNothing(t *testing.T) {
	w, fix := fixed(t, policy.V1, "", true)
	if fix != nil {
		t.Errorf("%+v", fix)
	}
	if fix := w.Fix(now, policy.Decision{Symptom: policy.UnknownServer}); fix != nil {
		t.Errorf("%+v", fix)
	}
}
