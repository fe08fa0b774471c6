package policy

import (
	"fmt"
	"slices"
	"testing"
)

func TestZeroDecisionDenies(t *testing.T) {
	var d Decision
	if d.Verdict == OK || d.Server.AcceptsPlainText() || d.Client != TLSUnset {
		t.Errorf("%+v", d)
	}
	if e := d.Explain(); e.Verdict != Conflict || e.Server.By != "unknown" {
		t.Errorf("%+v", e)
	}
	if d := new(Snapshot).Resolve(Query{Server: Server{Host: "a.b" + serviceSuffix}}); d.Verdict == OK || d.Symptom != UnknownServer {
		t.Errorf("the zero Snapshot: %+v", d)
	}
}

// TestShadowed: each object that lost says why.
func TestShadowed(t *testing.T) {
	cases := readCases(t, "testdata/own.yaml")
	find := func(name string) Explanation {
		i := slices.IndexFunc(cases.Resolve, func(c Case) bool { return c.Name == name })
		if i < 0 {
			t.Fatalf("no case %s", name)
		}
		c := &cases.Resolve[i]
		return c.Snapshot().Resolve(c.Query).Explain()
	}
	for name, want := range map[string]string{
		"own-rule-without-tls-shadows-istio-mutual":   "[] [{DestinationRule/istio-system/default ISTIO_MUTUAL rules of namespace foo come first}]",
		"own-rule-off-path":                           "[] [{DestinationRule/zed/lost ISTIO_MUTUAL namespace zed is neither the client's, nor the server's, nor the root}]",
		"own-rule-not-exported":                       "[] [{DestinationRule/foo/lost SIMPLE is not exported to namespace bar}]",
		"own-older-policy-hides-the-port":             "[{Policy/foo/a STRICT Policy/foo/z is older}] []",
		"own-two-policies-choose-one-workload":        "[{PeerAuthentication/foo/b STRICT PeerAuthentication/foo/a is older, and one workload has one policy}] []",
		"own-namespace-disable-hides-strict-workload": "[{PeerAuthentication/foo/off DISABLE PeerAuthentication/foo/hard is more specific}] []",
		"own-root-selector-chooses-nothing":           "[{PeerAuthentication/istio-system/all STRICT a selector in the root namespace chooses nothing}] []",
		"own-auto-policy-is-v1alpha1":                 "[{MeshConfig/authPolicy MUTUAL_TLS is of generation legacy, and auto has picked v1alpha1}] []",
	} {
		e := find(name)
		if got := fmt.Sprint(e.Server.Shadowed, " ", e.Client.Shadowed); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
		}
	}
	if e := find("own-auto-policy-is-v1alpha1"); e.Picked == "" || e.Generation != V1Alpha1 {
		t.Errorf("auto does not say what it picked: %+v", e)
	}
	if e := find("own-mixed-endpoints-worst-answer"); len(e.Failing) != 1 || e.Failing[0].Endpoint != "httpbin-1" {
		t.Errorf("failing: %+v", e.Failing)
	}
}

// TestIdentities: what the client expects and offers.
func TestIdentities(t *testing.T) {
	service := &Service{Meta: Meta{Name: "s", Namespace: "n", Annotations: map[string]string{
		"alpha.istio.io/kubernetes-serviceaccounts": "other", "alpha.istio.io/canonical-serviceaccounts": "spiffe://x/y"}},
		Spec: ServiceSpec{Selector: map[string]string{"app": "s"}, Ports: []ServicePort{{Name: "http", Port: 80}, {Name: "grpc", Port: 81}, {Name: "tcp", Port: 82}}}}
	pod := func(name, account string) *Pod {
		return &Pod{Meta: Meta{Name: name, Namespace: "n", Labels: map[string]string{"app": "s", "security.istio.io/tlsMode": "istio"}},
			Spec: PodSpec{ServiceAccountName: account, Containers: []Container{{Name: "istio-proxy"}}}}
	}
	rule := &DestinationRule{Meta: Meta{Name: "r", Namespace: "n"}, Spec: DestinationRuleSpec{Host: "s", TrafficPolicy: &TrafficPolicy{PortPolicy: PortPolicy{TLS: &ClientTLS{Mode: TLSIstioMutual, SNI: "x", SubjectAltNames: []string{"y"}}}}}}
	objects := []Object{service, pod("p1", "a"), pod("p2", ""), pod("p3", "a"), &MeshConfig{TrustDomain: "td", AuthPolicy: AuthMutualTLS}}
	for _, c := range []struct {
		g      Generation
		server Server
		more   []Object
		want   string
	}{
		{V1, Server{Port: 80}, nil, "[spiffe://td/ns/n/sa/a spiffe://td/ns/n/sa/default] outbound_.80_._.s.n.svc.cluster.local [istio-http/1.1 istio http/1.1]"},
		{V1, Server{Port: 81, Subset: "v1"}, nil, "[spiffe://td/ns/n/sa/a spiffe://td/ns/n/sa/default] outbound_.81_.v1_.s.n.svc.cluster.local [istio-h2 istio h2]"},
		{V1, Server{Port: 82, Endpoint: "p2"}, nil, "[spiffe://td/ns/n/sa/default] outbound_.82_._.s.n.svc.cluster.local [istio-peer-exchange istio]"},
		{V1, Server{Port: 80}, []Object{rule}, "[y] x [istio-http/1.1 istio http/1.1]"},
		{Legacy, Server{Port: 80}, []Object{rule}, "[spiffe://td/ns/n/sa/a spiffe://td/ns/n/sa/default spiffe://td/ns/n/sa/other spiffe://x/y] outbound_.80_._.s.n.svc.cluster.local []"},
	} {
		c.server.Host = "s.n" + serviceSuffix
		e := New(c.g, append(c.more, objects...)...).Resolve(Query{Client{Namespace: "m", Sidecar: true}, c.server}).Explain()
		if got := fmt.Sprint(e.Identities, " ", e.SNI, " ", e.ALPN); got != c.want {
			t.Errorf("%s %v:\ngot  %s\nwant %s", c.g, c.server, got, c.want)
		}
	}
}

// TestEndpoints: what stands behind a server, and at which port.
func TestEndpoints(t *testing.T) {
	objects, err := Decode("f", []byte(`
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: n}, spec: {selector: {app: s}, ports: [{port: 80, targetPort: web}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: n, labels: {app: s}}, spec: {containers: [{name: istio-proxy, ports: [{name: web, containerPort: 8080}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n, labels: {app: s}}, spec: {containers: [{name: x}]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	s := New(V1, objects...)
	for _, c := range []struct {
		server Server
		want   string
		ref    Ref
		port   bool
	}{
		{Server{Host: "s.n" + serviceSuffix, Port: 80}, "[{Pod/n/a a map[app:s] false  0} {Pod/n/b b map[app:s] true  8080}]", objects[0].Ref(), true},
		{Server{Host: "s.n" + serviceSuffix, Port: 81, Endpoint: "b"}, "[{Pod/n/b b map[app:s] true  81}]", objects[0].Ref(), false},
		{Server{Host: "nobody", Port: 80}, "[]", Ref{}, false},
	} {
		d := s.Resolve(Query{Server: c.server})
		if got := fmt.Sprint(d.Endpoints()); got != c.want {
			t.Errorf("%v: got %s, want %s", c.server, got, c.want)
		}
		if ref, port := d.Declares(); ref != c.ref || port != c.port || d.Query().Server != c.server {
			t.Errorf("%v: %v %v", c.server, ref, port)
		}
	}
	if d := (Decision{}); d.Endpoints() != nil {
		t.Error("the zero Decision has endpoints")
	}
}
