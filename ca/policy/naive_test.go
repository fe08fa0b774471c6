package policy

import (
	"slices"
	"sort"
	"strings"
)

// naive answers from the text of the semantics: lists of objects, read from the
// beginning for each question. It shares the objects and their validation with
// the resolver, and nothing else.
type naive struct {
	generation Generation
	config     MeshConfig
	services   []*Service
	pods       []*Pod
	mesh       []*MeshPolicy
	policies   []*Policy
	peers      []*PeerAuthentication
	rules      []*DestinationRule
}

type naiveAnswer struct {
	server             Mode
	client             TLS
	verdict            Verdict
	serverBy, clientBy string
}

func valid(g Generation, o Object) bool {
	for _, p := range Validate(g, o) {
		if !p.Warning {
			return false
		}
	}
	return true
}

func newNaive(g Generation, objects []Object) *naive {
	n := &naive{generation: g}
	for _, o := range objects {
		switch o := o.(type) {
		case *MeshConfig:
			if valid(g, o) {
				n.config = *o
			}
		case *Service:
			n.services = append(n.services, o)
		case *Pod:
			if o.Status.Phase != "Succeeded" && o.Status.Phase != "Failed" {
				n.pods = append(n.pods, o)
			}
		case *MeshPolicy:
			n.mesh = append(n.mesh, o)
		case *Policy:
			n.policies = append(n.policies, o)
		case *PeerAuthentication:
			if valid(V1, o) {
				n.peers = append(n.peers, o)
			}
		case *DestinationRule:
			if valid(g, o) {
				n.rules = append(n.rules, o)
			}
		}
	}
	older := func(a, b *Meta) bool {
		if !a.Created.Equal(b.Created) {
			return a.Created.Before(b.Created)
		}
		return a.Name < b.Name || a.Name == b.Name && a.Namespace < b.Namespace
	}
	sort.Slice(n.pods, func(i, j int) bool { return n.pods[i].Name < n.pods[j].Name })
	sort.Slice(n.peers, func(i, j int) bool { return older(&n.peers[i].Meta, &n.peers[j].Meta) })
	sort.Slice(n.rules, func(i, j int) bool { return older(&n.rules[i].Meta, &n.rules[j].Meta) })
	sort.Slice(n.policies, func(i, j int) bool {
		a, b := n.policies[i], n.policies[j]
		if !a.Created.Equal(b.Created) {
			return a.Created.Before(b.Created)
		}
		return a.Name+"."+a.Namespace < b.Name+"."+b.Namespace
	})
	return n
}

func (n *naive) root() string {
	if n.config.RootNamespace != "" {
		return n.config.RootNamespace
	}
	return "istio-system"
}

func (n *naive) auto() bool {
	if n.config.EnableAutoMTLS != nil {
		return *n.config.EnableAutoMTLS
	}
	return n.generation == V1
}

// resolve looks at every endpoint by itself.
func (n *naive) resolve(q Query) naiveAnswer {
	unknown := naiveAnswer{serverBy: "unknown", clientBy: "unknown"}
	var svc *Service
	for _, s := range n.services {
		if s.Name+"."+s.Namespace+".svc.cluster.local" == q.Server.Host {
			svc = s
		}
	}
	if svc == nil {
		return unknown
	}
	var endpoints []*Pod
	for _, p := range n.pods {
		if p.Namespace == svc.Namespace && len(svc.Spec.Selector) > 0 && chosen(svc.Spec.Selector, p.Labels) {
			endpoints = append(endpoints, p)
		}
	}
	if q.Server.Endpoint != "" {
		for _, p := range endpoints {
			if p.Name == q.Server.Endpoint {
				return n.one(q, svc, endpoints, p)
			}
		}
		return unknown
	}
	if len(endpoints) == 0 {
		return n.one(q, svc, nil, nil)
	}
	var worst *naiveAnswer
	for _, p := range endpoints {
		a := n.one(q, svc, endpoints, p)
		if !p.Sidecar() {
			return a
		}
		if worst == nil || a.verdict < worst.verdict || a.verdict == worst.verdict && a.server > worst.server {
			worst = &a
		}
	}
	return *worst
}

func chosen(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func (n *naive) one(q Query, svc *Service, endpoints []*Pod, pod *Pod) naiveAnswer {
	a := naiveAnswer{}
	a.server, a.serverBy = n.server(q, svc, pod)
	a.client, a.clientBy = n.client(q, svc, endpoints, pod)
	okay := map[string]bool{"DISABLE DISABLE": true, "DISABLE PERMISSIVE": true, "ISTIO_MUTUAL STRICT": true, "ISTIO_MUTUAL PERMISSIVE": true}
	if okay[a.client.String()+" "+a.server.String()] {
		a.verdict = OK
	}
	return a
}

func portOf(svc *Service, number int32) *ServicePort {
	for i := range svc.Spec.Ports {
		if svc.Spec.Ports[i].Port == number {
			return &svc.Spec.Ports[i]
		}
	}
	return nil
}

func (n *naive) server(q Query, svc *Service, pod *Pod) (Mode, string) {
	if svc.Spec.Type == "ExternalName" {
		return Disable, "external"
	}
	if pod == nil || !pod.Sidecar() {
		return Disable, "no-sidecar"
	}
	switch n.generation {
	case Legacy:
		if portOf(svc, q.Server.Port) == nil {
			return Disable, "default"
		}
		mutual, by := n.consolidated(q, svc)
		return map[bool]Mode{true: Strict, false: Disable}[mutual], by
	case V1Alpha1:
		return n.policyOf(q, svc)
	}
	return n.peerOf(q, svc, pod)
}

func (n *naive) consolidated(q Query, svc *Service) (bool, string) {
	key := "auth.istio.io/" + TargetPort{Number: q.Server.Port}.String()
	if v := svc.Annotations[key]; v == "NONE" || v == "MUTUAL_TLS" {
		return v == "MUTUAL_TLS", "Service/" + svc.Namespace + "/" + svc.Name + "#" + key
	}
	if n.config.AuthPolicy == AuthUnset {
		return false, "default"
	}
	return n.config.AuthPolicy == AuthMutualTLS, "MeshConfig/authPolicy"
}

func peersMode(peers []Peer) Mode {
	for _, p := range peers {
		if p.MTLS != nil && p.MTLS.Mode == Permissive {
			return Permissive
		}
		if p.MTLS != nil {
			return Strict
		}
	}
	return Disable
}

// policyOf lists all policies that fit in their order; those with a bad name
// only count when they are stricter than what follows.
func (n *naive) policyOf(q Query, svc *Service) (Mode, string) {
	port := portOf(svc, q.Server.Port)
	if port == nil {
		return Disable, "default"
	}
	type candidate struct {
		mode Mode
		name string
		bad  bool
	}
	var all []candidate
	for _, level := range []string{"service", "namespace"} {
		for _, p := range n.policies {
			fits := level == "namespace" && len(p.Spec.Targets) == 0
			for _, t := range p.Spec.Targets {
				if level == "service" && t.Name == svc.Name {
					fits = fits || len(t.Ports) == 0
					for _, tp := range t.Ports {
						fits = fits || tp.Number != nil && *tp.Number == port.Port || tp.Number == nil && tp.Name == port.Name
					}
				}
			}
			misnamed := (p.Name == "default") == (len(p.Spec.Targets) > 0)
			renamed := *p
			if renamed.Name = "default"; len(p.Spec.Targets) > 0 {
				renamed.Name = "x"
			}
			if fits && p.Namespace == svc.Namespace && valid(V1Alpha1, &renamed) {
				all = append(all, candidate{peersMode(p.Spec.Peers), "Policy/" + p.Namespace + "/" + p.Name, misnamed})
			}
		}
	}
	for _, p := range n.mesh {
		if p.Name == "default" && valid(V1Alpha1, p) {
			all = append(all, candidate{peersMode(p.Spec.Peers), "MeshPolicy/default", false})
		}
	}
	all = append(all, candidate{ModeUnset, "default", false})
	last := slices.IndexFunc(all, func(c candidate) bool { return !c.bad })
	answer := all[last]
	for i := last - 1; i >= 0; i-- {
		if all[i].mode >= answer.mode {
			answer = all[i]
		}
	}
	return max(answer.mode, Disable), answer.name
}

func (n *naive) firstPeer(namespace string, labels map[string]string, wide bool) *PeerAuthentication {
	for _, p := range n.peers {
		hasSelector := p.Spec.Selector != nil && len(p.Spec.Selector.MatchLabels) > 0
		if p.Namespace == namespace && hasSelector != wide && (wide || chosen(p.Spec.Selector.MatchLabels, labels)) {
			return p
		}
	}
	return nil
}

func (n *naive) wideMode(namespace string) (Mode, string) {
	mode, by := Permissive, "default"
	for _, at := range []string{n.root(), namespace} {
		if p := n.firstPeer(at, nil, true); p != nil && p.Spec.MTLS != nil && p.Spec.MTLS.Mode != ModeUnset {
			mode, by = p.Spec.MTLS.Mode, "PeerAuthentication/"+p.Namespace+"/"+p.Name
		}
	}
	return mode, by
}

func (n *naive) peerOf(q Query, svc *Service, pod *Pod) (Mode, string) {
	mode, by := n.wideMode(svc.Namespace)
	p := n.firstPeer(svc.Namespace, pod.Labels, false)
	if p == nil || svc.Namespace == n.root() {
		return mode, by
	}
	name := "PeerAuthentication/" + p.Namespace + "/" + p.Name
	if p.Spec.MTLS != nil && p.Spec.MTLS.Mode != ModeUnset {
		mode, by = p.Spec.MTLS.Mode, name
	}
	number := q.Server.Port
	if port := portOf(svc, number); port != nil {
		switch {
		case port.TargetPort.Name != "":
			number = 0
			for _, c := range pod.Spec.Containers {
				for _, cp := range c.Ports {
					if cp.Name == port.TargetPort.Name && number == 0 {
						number = cp.Number
					}
				}
			}
		case port.TargetPort.Number != 0:
			number = port.TargetPort.Number
		}
	}
	if m := p.Spec.PortLevelMTLS[uint32(number)].Mode; m != ModeUnset {
		mode, by = m, name+"#portLevelMtls/"+TargetPort{Number: number}.String()
	}
	return mode, by
}

func (n *naive) client(q Query, svc *Service, endpoints []*Pod, pod *Pod) (TLS, string) {
	if !q.Client.Sidecar {
		return TLSDisable, "no-sidecar"
	}
	port := portOf(svc, q.Server.Port)
	if n.generation == Legacy {
		return n.legacyClient(q, svc, port)
	}
	if port == nil {
		return TLSDisable, "default"
	}
	tls, by, passthrough := n.ruleTLS(q, svc)
	if tls != TLSUnset {
		return tls, by
	}
	if !n.auto() {
		return TLSDisable, by
	}
	if svc.Spec.Type == "ExternalName" {
		return TLSDisable, "external"
	}
	istio := func(p *Pod) bool { return p != nil && p.Labels["security.istio.io/tlsMode"] == "istio" }
	headless := svc.Spec.ClusterIP == "None"
	mutual := istio(pod)
	if n.generation == V1Alpha1 {
		mode, _ := n.policyOf(q, svc)
		mutual = mutual && mode != Disable && !headless
	} else {
		wide, _ := n.wideMode(svc.Namespace)
		all := len(endpoints) > 0
		for _, p := range endpoints {
			all = all && istio(p)
		}
		switch {
		case (headless || passthrough) && !all, wide == Disable:
			mutual = false
		case headless || passthrough:
			mutual = true
		case mutual:
			mode, _ := n.peerOf(q, svc, pod)
			mutual = mode != Disable
		}
	}
	return map[bool]TLS{true: TLSIstioMutual, false: TLSDisable}[mutual], "auto-mtls"
}

func (n *naive) legacyClient(q Query, svc *Service, port *ServicePort) (TLS, string) {
	if port == nil {
		return TLSDisable, "default"
	}
	kind, _, _ := strings.Cut(port.Name, "-")
	http := kind == "http" || kind == "http2" || kind == "grpc"
	if svc.Spec.ClusterIP == "None" && !http {
		return TLSDisable, "headless"
	}
	mutual, by := n.consolidated(q, svc)
	if mutual && slices.Contains(n.config.ExcludedServices, q.Server.Host) {
		return TLSDisable, "MeshConfig/mtlsExcludedServices"
	}
	return map[bool]TLS{true: TLSIstioMutual, false: TLSDisable}[mutual], by
}
