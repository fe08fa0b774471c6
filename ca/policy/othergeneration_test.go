package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestOlderGenerationsAreTold: one object of a newer generation switches off the
// older ones, and the answer says which.
func TestOlderGenerationsAreTold(t *testing.T) {
	objects, err := Decode("f", []byte(`
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: n, annotations: {auth.istio.io/80: MUTUAL_TLS}}, spec: {ports: [{name: http, port: 80}, {name: other, port: 81}]}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: 'authPolicy: MUTUAL_TLS'}}
---
{apiVersion: authentication.istio.io/v1alpha1, kind: Policy, metadata: {name: target, namespace: n}, spec: {targets: [{name: s, ports: [{number: 80}]}], peers: [{mtls: {}}]}}
---
{apiVersion: authentication.istio.io/v1alpha1, kind: Policy, metadata: {name: default, namespace: n}, spec: {peers: [{mtls: {}}]}}
---
{apiVersion: authentication.istio.io/v1alpha1, kind: Policy, metadata: {name: default, namespace: elsewhere}, spec: {peers: [{mtls: {}}]}}
---
{apiVersion: authentication.istio.io/v1alpha1, kind: MeshPolicy, metadata: {name: default}, spec: {peers: [{mtls: {}}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: one, namespace: elsewhere}, spec: {mtls: {mode: PERMISSIVE}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	const alpha, legacy = "is of generation v1alpha1, and auto has picked ", "is of generation legacy, and auto has picked "
	for _, c := range []struct {
		g       Generation
		objects []Object
		port    int32
		want    string
	}{
		{Auto, objects, 80, fmt.Sprint([]Shadowed{{"Policy/n/target", "STRICT", alpha + "v1"}, {"Policy/n/default", "STRICT", alpha + "v1"}, {"MeshPolicy/default", "STRICT", alpha + "v1"},
			{"Service/n/s#auth.istio.io/80", "MUTUAL_TLS", legacy + "v1"}, {"MeshConfig/authPolicy", "MUTUAL_TLS", legacy + "v1"}})},
		{Auto, objects, 81, fmt.Sprint([]Shadowed{{"Policy/n/default", "STRICT", alpha + "v1"}, {"MeshPolicy/default", "STRICT", alpha + "v1"}, {"MeshConfig/authPolicy", "MUTUAL_TLS", legacy + "v1"}})},
		{Auto, objects[:3], 80, fmt.Sprint([]Shadowed{{"Service/n/s#auth.istio.io/80", "MUTUAL_TLS", legacy + "v1alpha1"}, {"MeshConfig/authPolicy", "MUTUAL_TLS", legacy + "v1alpha1"}})},
		{Auto, objects[:2], 81, "[]"},
		{V1, objects, 80, "[]"},
	} {
		e := New(c.g, c.objects...).Resolve(Query{Client{Namespace: "m", Sidecar: true}, Server{Host: "s.n" + serviceSuffix, Port: c.port}}).Explain()
		older := slices.DeleteFunc(e.Server.Shadowed, func(s Shadowed) bool { return !strings.Contains(s.Why, "is of generation") })
		if got := fmt.Sprint(older); got != c.want {
			t.Errorf("%s, port %d:\ngot  %s\nwant %s", c.g, c.port, got, c.want)
		}
		if warned := slices.ContainsFunc(e.Warnings, func(w Warning) bool { return w.Code == "other-generation-ignored" }); warned != (c.want != "[]") {
			t.Errorf("%s, port %d: %v", c.g, c.port, e.Warnings)
		}
	}
}
