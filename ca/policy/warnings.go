package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// warnings looks for what people trip over; sorted by code.
func (x *explainer) warnings() {
	x.warnPort()
	x.warnEndpoints()
	x.warnVerdict()
	switch x.s.generation {
	case Legacy:
		x.warnLegacy()
	case V1Alpha1:
		x.warnPolicies()
	default:
		x.warnPeers()
	}
	if x.s.generation != Legacy {
		x.warnRules()
	}
	x.warnInvalid()
	slices.SortFunc(x.e.Warnings, func(a, b Warning) int {
		return cmp.Or(strings.Compare(a.Code, b.Code), strings.Compare(a.Message, b.Message))
	})
	x.e.Warnings = slices.Compact(x.e.Warnings)
}

func (x *explainer) warnPort() {
	if x.port < 0 {
		x.warn("undeclared-port", "%s declares no port %d: rules do not apply to it, and before V1 nothing is enforced there", x.svc.ref, x.q.Server.Port)
		return
	}
	if x.class == nil {
		return
	}
	target := x.class.ports[x.port]
	if target == 0 {
		x.warn("unresolved-target-port", "no container of %s declares port %s", x.class.example.name, x.svc.ports[x.port].target)
	}
	for text := range strings.SplitSeq(x.class.example.bypassing, ",") {
		if text = strings.TrimSpace(text); text == "*" || target != 0 && text == strconv.Itoa(int(target)) {
			x.warn("bypassed-port", "%s excludes port %d from its sidecar: nothing is enforced there", x.class.example.name, target)
		}
	}
}

func (x *explainer) warnEndpoints() {
	if x.d.Verdict == OK && len(x.e.Failing) > 0 {
		names := make([]string, len(x.e.Failing))
		for i, f := range x.e.Failing {
			names[i] = f.Endpoint
		}
		x.warn("mixed-endpoints", "endpoints differ, and these fail: %s", strings.Join(names, ", "))
	}
	if x.d.ClientBy.Reason == AutoMTLS && x.class != nil && x.class.sidecar && !x.class.labelled {
		x.warn("no-tls-mode-label", "%s has a sidecar and no label security.istio.io/tlsMode: istio: clients send it plain text", x.class.example.name)
	}
}

func (x *explainer) warnVerdict() {
	switch {
	case x.d.Client == TLSSimple || x.d.Client == TLSMutual:
		x.warn("foreign-tls", "%s works only if the application itself speaks TLS", x.d.Client)
	case x.d.Client == TLSIstioMutual && x.d.ServerBy.Reason == NoSidecar:
		x.warn("mtls-without-sidecar", "%s has the client open mTLS to a server without a sidecar (IST0115)", x.e.Client.By)
	case x.d.Client == TLSIstioMutual && x.svc.external:
		x.warn("mtls-to-external", "%s has the client open mesh mTLS to a host outside of the mesh", x.e.Client.By)
	}
	if x.d.ClientBy.Reason == ByObject && x.d.ServerBy.Reason == ByObject && x.d.Verdict == Conflict && x.s.generation != Legacy {
		x.warn("policy-conflict", "%s and %s collide (IST0113)", x.e.Server.By, x.e.Client.By)
	}
}

func (x *explainer) warnLegacy() {
	if x.d.ClientBy.Reason == ExcludedByMesh && x.d.Server == Strict {
		x.warn("excluded-with-sidecar", "mtlsExcludedServices lists %s, whose server wants mTLS", x.svc.host)
	}
	if x.svc.externalName && x.d.Client == TLSIstioMutual {
		x.warn("external-name-mtls", "clients of this generation open mTLS to ExternalName services")
	}
	for key, value := range x.svc.object.meta().Annotations {
		text, is := strings.CutPrefix(key, annotation)
		number, err := strconv.Atoi(text)
		var auth AuthPolicy
		switch {
		case !is:
		case err != nil || x.svc.port(int32(number)) < 0:
			x.warn("annotation-ignored", "%s: the Service has no such port; the key is the service port's number", key)
		case !auth.parse(value) && value != "INHERIT":
			x.warn("annotation-ignored", "%s: %q is none of NONE, MUTUAL_TLS, INHERIT", key, value)
		}
	}
}

func (x *explainer) warnPolicies() {
	for name := range x.s.meshPolicy {
		if name != "default" {
			x.warn("mesh-policy-name", "MeshPolicy/%s is not called default, and nobody heeds it", name)
		}
	}
	ns := x.s.namespaces[x.svc.namespace]
	if ns == nil {
		return
	}
	for _, p := range ns.policies {
		if p.misnamed {
			x.warn("misnamed-policy", "%s breaks the rule of names; it counts only where it makes the server stricter", p.Ref())
		}
	}
	for _, p := range ns.targeted[x.svc.name] {
		for _, t := range p.Spec.Targets {
			for _, port := range t.Ports {
				if t.Name == x.svc.name && port.Name != "" && !slices.ContainsFunc(x.svc.ports, hasName(port.Name)) {
					x.warn("policy-port-name", "%s names port %q, which the Service does not have (IST0114)", p.Ref(), port.Name)
				}
			}
		}
		if p.Ref() != x.d.ServerBy.Ref && x.port >= 0 && x.targets(p) {
			x.warn("several-policies", "%s is for the same service and port as %s, which is older", p.Ref(), x.e.Server.By)
		}
	}
}

func hasName(name string) func(port) bool { return func(p port) bool { return p.name == name } }

func (x *explainer) warnPeers() {
	if root := x.s.namespaces[x.s.mesh.root]; root != nil {
		for _, p := range root.selecting {
			x.warn("root-selector", "%s has a selector, and is in the root namespace: it chooses nothing", p.Ref())
		}
	}
	if x.class == nil || x.class.peer == nil {
		return
	}
	peer := x.class.peer
	for _, p := range x.s.namespaces[x.svc.namespace].selecting {
		if p != peer && p.chooses.in(x.class.example.labels) {
			x.warn("several-workload-policies", "%s also chooses %s, and is not merged with %s, which is older", p.Ref(), x.class.example.name, peer.Ref())
		}
	}
	_, listed := peer.Spec.PortLevelMTLS[uint32(x.q.Server.Port)]
	if listed && x.port >= 0 && !slices.Contains(x.class.ports, x.q.Server.Port) {
		x.warn("port-not-workload-port", "%s lists port %d, which is the Service's: portLevelMtls goes by the workload's, %d",
			peer.Ref(), x.q.Server.Port, x.class.ports[x.port])
	}
	wide, by := x.s.wide(x.svc.namespace)
	if x.d.ClientBy.Reason == AutoMTLS && x.d.Verdict == Conflict && wide == Disable {
		x.warn("namespace-hides-workload", "%s disables mTLS, and clients do not see that %s wants it", by, x.e.Server.By)
	}
}

func (x *explainer) warnInvalid() {
	about := map[Ref]bool{x.svc.ref: true}
	for _, r := range x.rulesFor() {
		about[r.Ref()] = true
	}
	for _, p := range x.s.Problems() {
		ref := slices.IndexFunc(p.refs(x.s), func(r Ref) bool {
			policy := r.Kind == KindPolicy || r.Kind == KindPeerAuthentication
			here := r.Namespace == x.svc.namespace || r.Namespace == x.s.mesh.root
			return about[r] || policy && here || r.Kind == KindMeshConfig || r.Kind == KindMeshPolicy
		})
		if ref >= 0 && !p.Warning {
			x.warn("invalid-object", "%s", p.Error())
		}
	}
}

// refs is the object that a problem of a Snapshot is about.
func (p Problem) refs(s *Snapshot) []Ref {
	for ref := range s.problems {
		if ref.String() == p.Object {
			return []Ref{ref}
		}
	}
	return nil
}

// describe is a rule for messages.
func describe(r *rule) string { return fmt.Sprintf("%s (host %s)", r.Ref(), r.Spec.Host) }
