package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

const addressMesh = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, "fd00::7"], selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 81, targetPort: named}]}
---
apiVersion: v1
kind: Service
metadata: {name: old, namespace: a}
spec: {clusterIP: 10.96.0.8, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: a, labels: {app: web, security.istio.io/tlsMode: istio}}
spec: {containers: [{name: istio-proxy}, {name: c, ports: [{name: named, containerPort: 9000}]}]}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: alone, namespace: a}
spec: {containers: [{name: c}]}
status: {podIP: 10.0.0.2}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: vms, namespace: b}
spec:
  hosts: [vm.example]
  addresses: [240.0.0.5, 240.1.0.0/16]
  ports: [{number: 443, name: https, protocol: HTTPS, targetPort: 8443}]
  workloadSelector: {labels: {app: vm}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-1, namespace: b}
spec: {address: 192.168.1.5, labels: {app: vm}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: static, namespace: b}
spec:
  hosts: [db.example]
  ports: [{number: 5432, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 192.168.1.5}, {address: db.internal}]
`

func TestPlaces(t *testing.T) {
	objects, err := Decode("", []byte(addressMesh))
	if err != nil {
		t.Fatal(err)
	}
	s := New(V1, objects...)
	for at, want := range map[string][]string{
		"10.96.0.7:80":          {"a web.a.svc.cluster.local 80 "},
		"[fd00::7]:81":          {"a web.a.svc.cluster.local 81 "},
		"[::ffff:10.96.0.7]:80": {"a web.a.svc.cluster.local 80 "},
		"10.96.0.7:99":          {"a web.a.svc.cluster.local 99 "}, // not declared
		"10.0.0.1:8080":         {"a old.a.svc.cluster.local 8080 web-0", "a web.a.svc.cluster.local 80 web-0"},
		"[fd00::1]:9000":        {"a web.a.svc.cluster.local 81 web-0"},
		"10.0.0.1:80":           nil, // the service's port, and not the workload's
		"10.0.0.2:80":           nil,
		"240.0.0.5:443":         {"b vm.example 443 "},
		"240.1.7.7:443":         {"b vm.example 443 "},
		"240.2.0.1:443":         nil,
		"192.168.1.5:8443":      {"b vm.example 443 vm-1"},
		"192.168.1.5:5432":      {"b db.example 5432 192.168.1.5"},
	} {
		var got []string
		for _, p := range s.Places(netip.MustParseAddrPort(at)) {
			got = append(got, fmt.Sprintf("%s %s %d %s", p.Namespace, p.Host, p.Port, p.Endpoint))
		}
		if !slices.Equal(got, want) {
			t.Errorf("Places(%s) = %q, want %q", at, got, want)
		}
	}
	if got := s.Workloads("a", netip.MustParseAddr("fd00::1")); len(got) != 1 || got[0].Ref.String() != "Pod/a/web-0" || !got[0].Sidecar {
		t.Errorf("Workloads(fd00::1) = %v", got)
	}
	if got := s.Workloads("b", netip.MustParseAddr("10.0.0.1")); got != nil {
		t.Errorf("Workloads finds those of another namespace: %v", got)
	}
	moved := s.With(&Pod{Meta: Meta{Namespace: "a", Name: "web-0"}, Status: PodStatus{IP: "10.0.0.9"}})
	if got := moved.Workloads("a", netip.MustParseAddr("10.0.0.1")); got != nil {
		t.Errorf("a Pod that moved is still at %v", got)
	}
	if got := s.Workloads("a", netip.MustParseAddr("10.0.0.9")); got != nil {
		t.Errorf("an older snapshot changed: %v", got)
	}
}

func TestUniform(t *testing.T) {
	objects, err := Decode("", []byte(addressMesh))
	if err != nil {
		t.Fatal(err)
	}
	q := Query{Client: Client{Namespace: "a", Sidecar: true}, Server: Server{Host: "web.a.svc.cluster.local", Port: 80}}
	if d := New(V1, objects...).Resolve(q); d.Client != TLSIstioMutual || !d.Uniform() {
		t.Errorf("one endpoint: %v, uniform %v", d.Client, d.Uniform())
	}
	bare := &Pod{Meta: Meta{Namespace: "a", Name: "web-1", Labels: map[string]string{"app": "web"}}}
	if d := New(V1, append(objects, bare)...).Resolve(q); d.Uniform() {
		t.Errorf("one endpoint speaks mTLS and one does not: %v, uniform", d.Client)
	}
}
