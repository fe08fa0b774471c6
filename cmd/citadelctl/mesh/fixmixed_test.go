package mesh

import (
	"strings"
	"testing"

	"citadel/ca/policy"
)

// TestFixOfMixedEndpoints: what mends one endpoint and breaks another is not
// told as a fix without saying so, and nothing is said that is false of one.
func TestFixOfMixedEndpoints(t *testing.T) {
	for name, extra := range map[string]string{
		"a rule that opens mutual TLS": `{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: n}, spec: {host: s.n.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}}`,
		"a rule that opens none":       `{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: n}, spec: {host: s.n.svc.cluster.local, trafficPolicy: {tls: {mode: DISABLE}}}}`,
	} {
		w := world(t, policy.V1, halfInjected+extra+`
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict, namespace: n}, spec: {mtls: {mode: STRICT}}}
`)
		q := policy.Query{Client: policy.Client{Namespace: "n", Sidecar: true}, Server: policy.Server{Host: "s.n.svc.cluster.local", Port: 80}}
		d := w.Resolve(q)
		if failing, all := d.Reach(); failing != 1 || all != 2 {
			t.Fatalf("%s: fails at %d of %d", name, failing, all)
		}
		fix := w.Fix(now, d)
		if fix == nil {
			t.Errorf("%s: no fix", name)
			continue
		}
		failing, _ := applied(t, w, fix).Resolve(q).Reach()
		if failing > 0 && len(fix.Breaks) == 0 || strings.Contains(fix.Text, "which has no sidecar") || !fix.Weakens {
			t.Errorf("%s: %+v, then fails at %d", name, fix, failing)
		}
		t.Logf("%s: %+v", name, fix)
	}
}
