package policy

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// world makes random meshes of few names, so that much collides.
type world struct{ *rand.Rand }

func (w world) pick(words ...string) string { return words[w.IntN(len(words))] }

func (w world) namespace() string {
	return w.pick("a", "a", "b", "c", "istio-system", "istio-system", "root")
}

func (w world) meta(names ...string) Meta {
	m := Meta{Name: w.pick(names...), Namespace: w.namespace()}
	if w.IntN(2) == 0 {
		m.Created = time.Unix(int64(w.IntN(3)), 0).UTC()
	}
	return m
}

func (w world) labels() map[string]string {
	all := map[string]string{}
	for _, k := range []string{"app", "tier"} {
		if w.IntN(3) > 0 {
			all[k] = w.pick("x", "y")
		}
	}
	if w.IntN(4) > 0 {
		all["security.istio.io/tlsMode"] = w.pick("istio", "istio", "istio", "disabled")
	}
	return all
}

func (w world) selector() map[string]string {
	if w.IntN(3) == 0 {
		return map[string]string{"app": w.pick("x", "y"), "tier": w.pick("x", "y")}
	}
	return map[string]string{w.pick("app", "tier"): w.pick("x", "y")}
}

func (w world) object() Object {
	switch w.IntN(14) {
	case 0, 1:
		return w.service()
	case 2, 3, 4:
		p := &Pod{Meta: w.meta("p1", "p2", "p3"), Status: PodStatus{Phase: PodPhase(w.pick("", "Running", "Running", "Failed", "Succeeded"))}}
		p.Labels = w.labels()
		p.Spec.Containers = []Container{{Name: "app", Ports: []ContainerPort{{Name: "web", Number: 8080}, {Name: "adm", Number: 81}}}}
		if w.IntN(5) > 0 {
			p.Spec.Containers = append(p.Spec.Containers, Container{Name: "istio-proxy"})
		}
		return p
	case 5:
		return &MeshPolicy{Meta: Meta{Name: w.pick("default", "default", "other")}, Spec: w.policy(false)}
	case 6, 7:
		return &Policy{Meta: w.meta("default", "p1", "p2", "p"), Spec: w.policy(w.IntN(3) > 0)}
	case 8, 9:
		return w.peer()
	case 10:
		return w.mesh()
	}
	return w.rule()
}

func (w world) mesh() *MeshConfig {
	m := &MeshConfig{AuthPolicy: AuthPolicy(w.IntN(3))}
	if w.IntN(2) == 0 {
		auto := w.IntN(2) == 0
		m.EnableAutoMTLS = &auto
	}
	if w.IntN(3) == 0 {
		m.RootNamespace = "root"
	}
	if w.IntN(4) == 0 {
		m.RuleExportTo = []string{"."}
	}
	if w.IntN(3) == 0 {
		m.ExcludedServices = []string{"s1.a" + serviceSuffix, "*.b" + serviceSuffix}
	}
	return m
}

func (w world) service() *Service {
	s := &Service{Meta: w.meta("s1", "s1", "s2")}
	s.Spec.Selector = w.selector()
	if w.IntN(6) == 0 {
		s.Spec.ClusterIP = "None"
	}
	s.Spec.Ports = []ServicePort{{Name: w.pick("http", "tcp-a", ""), Port: 80, TargetPort: []TargetPort{{}, {Number: 8080}, {Name: "web"}, {Name: "no"}}[w.IntN(4)]}, {Name: "grpc-x", Port: 81}}
	if w.IntN(2) == 0 {
		s.Annotations = map[string]string{"auth.istio.io/" + w.pick("80", "81", "8080"): w.pick("NONE", "MUTUAL_TLS", "INHERIT", "none")}
	}
	return s
}

func (w world) policy(targets bool) (s PolicySpec) {
	for range w.IntN(3) {
		s.Peers = append(s.Peers, []Peer{{MTLS: &PolicyMTLS{}}, {MTLS: &PolicyMTLS{Mode: Permissive}}, {MTLS: &PolicyMTLS{Mode: Strict}}, {JWT: &JWT{Issuer: w.pick("i", "j")}}}[w.IntN(4)])
	}
	if targets {
		for range 1 + w.IntN(2) {
			t := Target{Name: w.pick("s1", "s2")}
			number := int32(80 + w.IntN(2))
			for range w.IntN(2) {
				t.Ports = append(t.Ports, []PolicyPort{{Number: &number}, {Name: w.pick("http", "grpc-x", "no")}}[w.IntN(2)])
			}
			s.Targets = append(s.Targets, t)
		}
	}
	return s
}

func (w world) peer() *PeerAuthentication {
	p := &PeerAuthentication{Meta: w.meta("p1", "p2", "p3")}
	if w.IntN(4) > 0 {
		p.Spec.MTLS = &PeerMTLS{Mode: Mode(w.IntN(4))}
	}
	if w.IntN(2) == 0 {
		p.Spec.Selector = &Selector{MatchLabels: w.selector()}
	}
	if w.IntN(6) > 0 && p.Spec.Selector != nil || w.IntN(9) == 0 {
		p.Spec.PortLevelMTLS = map[uint32]PeerMTLS{[]uint32{80, 81, 8080}[w.IntN(3)]: {Mode: Mode(w.IntN(4))}}
	}
	return p
}

func (w world) rule() *DestinationRule {
	r := &DestinationRule{Meta: w.meta("r1", "r2", "r3")}
	r.Spec.Host = w.pick("s1", "s1", "s1.a"+serviceSuffix, "s1.a"+serviceSuffix, "s1.istio-system"+serviceSuffix, "*.a"+serviceSuffix, "*.local", "*", "*.cluster.local", "s1.a")
	r.Spec.ExportTo = [][]string{nil, nil, nil, {"."}, {"*"}, {"a"}, {"a", "b"}, {".", "c"}, {"*", "a"}}[w.IntN(9)]
	r.Spec.TrafficPolicy = w.traffic(true)
	for _, name := range []string{"v1", "v2"} {
		if w.IntN(3) == 0 {
			r.Spec.Subsets = append(r.Spec.Subsets, Subset{Name: name, TrafficPolicy: w.traffic(true)})
		}
	}
	if w.IntN(5) == 0 {
		r.Spec.WorkloadSelector = &Selector{MatchLabels: map[string]string{"app": w.pick("x", "y")}}
	}
	return r
}

func (w world) traffic(ports bool) *TrafficPolicy {
	if w.IntN(4) == 0 {
		return nil
	}
	t := &TrafficPolicy{}
	if w.IntN(2) == 0 {
		t.TLS = &ClientTLS{Mode: []TLS{TLSUnset, TLSDisable, TLSSimple, TLSIstioMutual}[w.IntN(4)]}
	}
	if w.IntN(3) == 0 {
		t.LoadBalancer = &LoadBalancer{Simple: []Balancer{2, Passthrough}[w.IntN(2)]}
	}
	for range w.IntN(3) {
		if inner := w.traffic(false); ports && inner != nil {
			inner.Port = &RulePort{Number: int32(80 + w.IntN(2))}
			t.PortLevel = append(t.PortLevel, inner.PortPolicy)
		}
	}
	return t
}

func (w world) query() Query {
	q := Query{Client{Namespace: w.namespace(), Sidecar: w.IntN(4) > 0}, Server{Host: w.pick("s1", "s1", "s1", "s2") + "." + w.namespace() + serviceSuffix, Port: int32(80 + w.IntN(3))}}
	q.Client.Labels = map[string]string{"app": w.pick("x", "y", "z")}
	if w.IntN(3) == 0 {
		q.Server.Subset = w.pick("v1", "v2", "v3")
	}
	if w.IntN(3) == 0 {
		q.Server.Endpoint = w.pick("p1", "p2", "p3", "p9")
	}
	return q
}

// latest keeps the last object of each name.
func latest(objects []Object) (out []Object) {
	last := map[Ref]int{}
	for i, o := range objects {
		last[o.Ref()] = i
	}
	for i, o := range objects {
		if last[o.Ref()] == i {
			out = append(out, o)
		}
	}
	return out
}

func show(objects []Object) (text string) {
	for _, o := range objects {
		text += fmt.Sprintf("  %s %+v\n", o.Ref(), o)
	}
	return text
}
