package policy

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// big is the mesh that the goals speak of: 10,000 services, 30,000 pods, 2,000
// policies and rules, 100 namespaces.
func big(g Generation) []Object {
	var all []Object
	for n := range 100 {
		ns := fmt.Sprintf("ns-%d", n)
		for i := range 100 {
			name := fmt.Sprintf("svc-%d", i)
			all = append(all, &Service{Meta: Meta{Name: name, Namespace: ns},
				Spec: ServiceSpec{Selector: map[string]string{"app": name}, Ports: []ServicePort{{Name: "http", Port: 80, TargetPort: TargetPort{Number: 8080}}, {Name: "grpc", Port: 81}}}})
			for p := range 3 {
				all = append(all, &Pod{Meta: Meta{Name: fmt.Sprintf("%s-%d", name, p), Namespace: ns,
					Labels: map[string]string{"app": name, "version": fmt.Sprint("v", p), "security.istio.io/tlsMode": "istio"}},
					Spec: PodSpec{ServiceAccountName: name, Containers: []Container{{Name: "app", Ports: []ContainerPort{{Name: "http", Number: 8080}}}, {Name: "istio-proxy"}}}})
			}
		}
		for i := range 10 {
			meta := Meta{Name: fmt.Sprintf("p-%d", i), Namespace: ns, Created: time.Unix(int64(i), 0)}
			target := fmt.Sprintf("svc-%d", i)
			if g == V1Alpha1 {
				all = append(all, &Policy{Meta: meta, Spec: PolicySpec{Targets: []Target{{Name: target}}, Peers: []Peer{{MTLS: &PolicyMTLS{}}}}})
			} else {
				all = append(all, &PeerAuthentication{Meta: meta, Spec: PeerAuthenticationSpec{MTLS: &PeerMTLS{Strict}, Selector: &Selector{map[string]string{"app": target}}}})
			}
			all = append(all, &DestinationRule{Meta: meta, Spec: DestinationRuleSpec{Host: target, TrafficPolicy: &TrafficPolicy{PortPolicy: PortPolicy{TLS: &ClientTLS{Mode: TLSIstioMutual}}}}})
		}
	}
	return append(all,
		&DestinationRule{Meta: Meta{Name: "default", Namespace: "istio-system"}, Spec: DestinationRuleSpec{Host: "*.local", TrafficPolicy: &TrafficPolicy{PortPolicy: PortPolicy{TLS: &ClientTLS{Mode: TLSIstioMutual}}}}},
		&MeshPolicy{Meta: Meta{Name: "default"}, Spec: PolicySpec{Peers: []Peer{{MTLS: &PolicyMTLS{}}}}})
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkBuild makes the snapshot of the big mesh; it also reports what both
// hold in memory, in MiB: the objects, and all that the snapshot adds.
func BenchmarkBuild(b *testing.B) {
	for _, g := range []Generation{V1Alpha1, V1} {
		b.Run(g.String(), func(b *testing.B) {
			before := heap()
			objects := big(g)
			holding := heap()
			var s *Snapshot
			for b.Loop() {
				s = New(g, objects...)
			}
			b.ReportMetric(float64(holding-before)/(1<<20), "MiB-objects")
			b.ReportMetric(float64(heap()-holding)/(1<<20), "MiB-snapshot")
			runtime.KeepAlive(objects)
			runtime.KeepAlive(s)
		})
	}
}

// BenchmarkChange replaces one object of each kind.
func BenchmarkChange(b *testing.B) {
	for _, g := range []Generation{V1Alpha1, V1} {
		s := New(g, big(g)...)
		yes := true
		for _, o := range []Object{
			&Pod{Meta: Meta{Name: "svc-7-0", Namespace: "ns-50", Labels: map[string]string{"app": "svc-7"}}},
			&Service{Meta: Meta{Name: "svc-7", Namespace: "ns-50", Annotations: map[string]string{"auth.istio.io/80": "NONE"}}, Spec: ServiceSpec{Selector: map[string]string{"app": "svc-7"}, Ports: []ServicePort{{Port: 80}}}},
			&Policy{Meta: Meta{Name: "p-7", Namespace: "ns-50"}, Spec: PolicySpec{Targets: []Target{{Name: "svc-7"}}}},
			&PeerAuthentication{Meta: Meta{Name: "p-7", Namespace: "ns-50"}, Spec: PeerAuthenticationSpec{Selector: &Selector{map[string]string{"security.istio.io/tlsMode": "istio"}}}},
			&DestinationRule{Meta: Meta{Name: "p-7", Namespace: "ns-50"}, Spec: DestinationRuleSpec{Host: "*"}},
			&ServiceEntry{Meta: Meta{Name: "ext", Namespace: "ns-50"}, Spec: ServiceEntrySpec{Hosts: []string{"a.example.com"}}},
			&MeshPolicy{Meta: Meta{Name: "default"}},
			&MeshConfig{EnableAutoMTLS: &yes},
		} {
			b.Run(g.String()+"/"+o.Ref().Kind.String(), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					s.With(o)
				}
			})
		}
	}
}

// BenchmarkResolve asks for one verdict.
func BenchmarkResolve(b *testing.B) {
	for _, g := range []Generation{Legacy, V1Alpha1, V1} {
		b.Run(g.String(), func(b *testing.B) {
			s := New(g, big(g)...)
			q := Query{Client{Namespace: "ns-3", Sidecar: true}, Server{Host: "svc-5.ns-50" + serviceSuffix, Port: 80}}
			b.ReportAllocs()
			for b.Loop() {
				if s.Resolve(q).Verdict != OK {
					b.Fatal("a conflict")
				}
			}
		})
	}
}

// BenchmarkExplain asks for all reasons.
func BenchmarkExplain(b *testing.B) {
	s := New(V1, big(V1)...)
	q := Query{Client{Namespace: "ns-3", Sidecar: true}, Server{Host: "svc-5.ns-50" + serviceSuffix, Port: 80}}
	b.ReportAllocs()
	for b.Loop() {
		s.Resolve(q).Explain()
	}
}

// BenchmarkMatrix asks for a port of each service, for a client of each
// namespace: 1,000,000 verdicts.
func BenchmarkMatrix(b *testing.B) {
	for _, g := range []Generation{V1Alpha1, V1} {
		b.Run(g.String(), func(b *testing.B) {
			s := New(g, big(g)...)
			names := s.Namespaces()
			for b.Loop() {
				good := 0
				for server := range s.Servers() {
					if server.Port != 80 {
						continue
					}
					for _, ns := range names[:100] {
						if s.Resolve(Query{Client{Namespace: ns, Sidecar: true}, server}).Verdict == OK {
							good++
						}
					}
				}
				if good != 1_000_000 {
					b.Fatal(good)
				}
			}
		})
	}
}

// TestResolveAllocatesNothing, however the question is put.
func TestResolveAllocatesNothing(t *testing.T) {
	for _, g := range []Generation{Legacy, V1Alpha1, V1} {
		s := New(g, big(g)...)
		for _, server := range []Server{{Host: "svc-5.ns-50" + serviceSuffix, Port: 80}, {Host: "svc-50.ns-50" + serviceSuffix, Port: 81, Subset: "v1"}, {Host: "svc-5.ns-50" + serviceSuffix, Port: 80, Endpoint: "svc-5-1"}, {Host: "nobody", Port: 80}} {
			q := Query{Client{Namespace: "ns-3", Sidecar: true}, server}
			if n := testing.AllocsPerRun(100, func() { s.Resolve(q) }); n != 0 {
				t.Errorf("%s: %v: %v allocations", g, server, n)
			}
		}
	}
}
