package policyfeed

import (
	"fmt"
	"math/rand/v2"
	"time"

	"citadel/ca/policy"
)

// world makes random meshes of few names, so that much collides.
type world struct{ *rand.Rand }

func (w world) pick(words ...string) string { return words[w.IntN(len(words))] }

func (w world) meta(names ...string) policy.Meta {
	return policy.Meta{Name: w.pick(names...), Namespace: w.pick("a", "a", "b", "c", "istio-system"), Created: time.Unix(int64(w.IntN(3)), 0).UTC()}
}

func (w world) labels() map[string]string {
	all := map[string]string{"app": w.pick("x", "y"), "tier": w.pick("x", "y")}
	if w.IntN(4) > 0 {
		all["security.istio.io/tlsMode"] = "istio"
	}
	return all
}

func (w world) exportTo() []string {
	return [][]string{nil, nil, nil, {"."}, {"*"}, {"a"}, {"b", "c"}, {"a", "."}}[w.IntN(8)]
}

func (w world) object() policy.Object {
	switch w.IntN(12) {
	case 0, 1, 2:
		s := &policy.Service{Meta: w.meta("s1", "s2", "s3"), Spec: policy.ServiceSpec{Selector: map[string]string{w.pick("app", "tier"): w.pick("x", "y")},
			Ports: []policy.ServicePort{{Name: "http", Port: 80, TargetPort: policy.TargetPort{Number: 8080}}, {Name: "tcp", Port: 90}}}}
		if w.IntN(2) == 0 {
			s.Annotations = map[string]string{exportAnnotation: w.pick(".", "*", "a", "b, c", "~")}
		}
		if w.IntN(3) == 0 {
			s.Annotations = map[string]string{"auth.istio.io/80": w.pick("NONE", "MUTUAL_TLS", "INHERIT")}
		}
		return s
	case 3, 4, 5:
		p := &policy.Pod{Meta: w.meta("p1", "p2", "p3"), Spec: policy.PodSpec{ServiceAccountName: w.pick("u", "v")}}
		p.Labels = w.labels()
		if w.IntN(5) > 0 {
			p.Spec.Containers = []policy.Container{{Name: "istio-proxy"}}
		}
		return p
	case 6:
		return w.entry()
	case 7:
		return w.policy()
	case 8, 9:
		return w.peer()
	}
	return w.rule()
}

func (w world) entry() policy.Object {
	if w.IntN(2) == 0 {
		e := &policy.WorkloadEntry{Meta: w.meta("w1", "w2"), Spec: policy.WorkloadEntrySpec{Address: "192.0.2.1", Labels: map[string]string{"app": w.pick("x", "y")}}}
		e.Labels = w.labels()
		return e
	}
	// Hosts differ by namespace: which of two entries answers is not the view's
	// business.
	m := w.meta("e1")
	return &policy.ServiceEntry{Meta: m, Spec: policy.ServiceEntrySpec{Hosts: []string{w.pick("*.", "") + m.Namespace + ".example"}, Location: policy.MeshInternal,
		Ports: []policy.EntryPort{{Number: 80, Name: "http"}}, WorkloadSelector: &policy.EntrySelector{Labels: map[string]string{"app": w.pick("x", "y")}}}}
}

func (w world) mode() policy.Mode { return policy.Mode(w.IntN(4)) }

func (w world) policy() policy.Object {
	spec := policy.PolicySpec{}
	if w.IntN(3) > 0 {
		spec.Peers = []policy.Peer{{MTLS: &policy.PolicyMTLS{Mode: []policy.Mode{policy.Permissive, policy.Strict}[w.IntN(2)]}}}
	}
	if w.IntN(4) == 0 {
		return &policy.MeshPolicy{Meta: policy.Meta{Name: w.pick("default", "default", "other")}, Spec: spec}
	}
	p := &policy.Policy{Meta: w.meta("default", "p1", "p2"), Spec: spec}
	for range w.IntN(3) {
		t := policy.Target{Name: w.pick("s1", "s2", "s3")}
		if w.IntN(3) == 0 {
			t.Ports = []policy.PolicyPort{{Name: "http"}}
		}
		p.Spec.Targets = append(p.Spec.Targets, t)
	}
	return p
}

func (w world) peer() policy.Object {
	p := &policy.PeerAuthentication{Meta: w.meta("q1", "q2", "q3"), Spec: policy.PeerAuthenticationSpec{MTLS: &policy.PeerMTLS{Mode: w.mode()}}}
	if w.IntN(2) == 0 {
		p.Spec.Selector = &policy.Selector{MatchLabels: map[string]string{w.pick("app", "tier"): w.pick("x", "y")}}
		if w.IntN(2) == 0 {
			p.Spec.PortLevelMTLS = map[uint32]policy.PeerMTLS{8080: {Mode: w.mode()}}
		}
	}
	return p
}

func (w world) rule() policy.Object {
	r := &policy.DestinationRule{Meta: w.meta("r1", "r2", "r3", "r4"), Spec: policy.DestinationRuleSpec{
		Host: w.pick("s1", "s1.a.svc.cluster.local", "s2.b.svc.cluster.local", "*.b.svc.cluster.local", "*.local", "*", "a.example", "*.example"), ExportTo: w.exportTo()}}
	if w.IntN(5) > 0 {
		r.Spec.TrafficPolicy = &policy.TrafficPolicy{}
		r.Spec.TrafficPolicy.TLS = &policy.ClientTLS{Mode: []policy.TLS{policy.TLSDisable, policy.TLSSimple, policy.TLSIstioMutual}[w.IntN(3)]}
	}
	if w.IntN(6) == 0 {
		r.Spec.ExportTo, r.Spec.WorkloadSelector = nil, &policy.Selector{MatchLabels: map[string]string{"app": "x"}}
	}
	return r
}

func (w world) config() *policy.MeshConfig {
	c := &policy.MeshConfig{AuthPolicy: policy.AuthPolicy(w.IntN(3))}
	if w.IntN(2) == 0 {
		c.EnableAutoMTLS = new(w.IntN(2) == 0)
	}
	if w.IntN(3) == 0 {
		c.RootNamespace = "c"
	}
	if w.IntN(4) == 0 {
		c.RuleExportTo = []string{"."}
	}
	if w.IntN(4) == 0 {
		c.ServiceExportTo = []string{w.pick(".", "a")}
	}
	return c
}

func (w world) mesh() (objects []policy.Object) {
	if w.IntN(3) > 0 {
		objects = append(objects, w.config())
	}
	for range 5 + w.IntN(30) {
		objects = append(objects, w.object())
	}
	return objects
}

func names(objects []policy.Object) string {
	text := ""
	for _, o := range objects {
		encoded, err := policy.Encode(o)
		text += fmt.Sprintf("%s %v\n", encoded, err)
	}
	return text
}
