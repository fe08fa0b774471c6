package policy

import (
	"fmt"
	"slices"
)

// Fix says in one line what would let client and server talk: the change of
// policy that touches the least, by the words of the generation. It is empty
// where they can talk already, or where the server alone knows whether they can.
// It was not tried out, and does not say whom else the change concerns.
func (d Decision) Fix() string {
	if d.Verdict == OK || d.snapshot == nil || d.Symptom == DependsOnServer {
		return ""
	}
	f := fixer{Decision: d, call: call{s: d.snapshot, q: d.query, svc: d.snapshot.find(d.query.Server.Host, d.query.Client.Namespace)}}
	if f.svc == nil {
		return fmt.Sprintf("declare %s by a Service or a ServiceEntry", d.query.Server.Host)
	}
	if d.Symptom == UnknownServer {
		return fmt.Sprintf("%s has no endpoint %s (any more): ask for one that it has", f.svc.ref, d.query.Server.Endpoint)
	}
	f.port = f.svc.port(d.query.Server.Port)
	if d.snapshot.generation == Legacy {
		return f.legacy()
	}
	f.rule = f.search()
	bare := d.ServerBy.Reason == NoSidecar || d.ServerBy.Reason == External
	switch {
	case bare:
		return f.ruleSaying(TLSDisable) + ": the server has no proxy"
	case !d.query.Client.Sidecar:
		return "give the client a proxy of the mesh; or " + f.permissive()
	case d.Server == Disable && d.Client == TLSIstioMutual:
		return f.permissive() + "; or " + f.ruleSaying(TLSDisable)
	case d.Server == Disable:
		return f.ruleSaying(TLSDisable) + ", unless the application itself speaks the TLS that the client opens"
	}
	return f.ruleSaying(TLSIstioMutual)
}

// fixer finds the words for one decision.
type fixer struct {
	Decision
	call
}

// legacy names the annotation, which drives both sides, or the list of hosts that
// clients call in plain text.
func (f *fixer) legacy() string {
	host := f.svc.host
	annotate := fmt.Sprintf("annotate %s with %s%d: NONE", f.svc.ref, annotation, f.q.Server.Port)
	bare := f.ServerBy.Reason == NoSidecar || f.ServerBy.Reason == External
	switch {
	case bare && f.svc.ref.Kind != KindService:
		return fmt.Sprintf("add %s to mtlsExcludedServices of the mesh config: the server has no proxy", host)
	case bare:
		return fmt.Sprintf("add %s to mtlsExcludedServices of the mesh config, or %s: the server has no proxy", host, annotate)
	case !f.q.Client.Sidecar:
		return "give the client a proxy of the mesh; or " + annotate
	case f.ClientBy.Reason == ExcludedByMesh:
		return fmt.Sprintf("take %s off mtlsExcludedServices of the mesh config: the server has a proxy", host)
	}
	return annotate
}

// ruleSaying names the DestinationRule by which clients would do something else:
// the one for this very host, or a new one, where it comes before what holds now.
func (f *fixer) ruleSaying(tls TLS) string {
	head := f.rule.head
	switch {
	case head != nil && head.host == f.svc.host && f.ClientBy.Ref.Kind == KindDestinationRule: // or one that adds to it
		return fmt.Sprintf("set tls mode %s in %s", tls, f.ClientBy)
	case head != nil && head.host == f.svc.host:
		return fmt.Sprintf("set tls mode %s in %s", tls, head.Ref())
	}
	namespace := f.svc.namespace
	if head != nil && head.Namespace == f.q.Client.Namespace {
		namespace = head.Namespace // whose rules are looked at first
	}
	port := ""
	if len(f.svc.ports) > 1 {
		port = fmt.Sprintf(" for port %d", f.q.Server.Port)
	}
	return fmt.Sprintf("add a DestinationRule to namespace %s for host %s, with tls mode %s%s", namespace, f.svc.host, tls, port)
}

// permissive names the object by which the server would take plain text and
// mutual TLS.
func (f *fixer) permissive() string {
	if f.s.generation == V1Alpha1 {
		return f.permissivePolicy()
	}
	port := f.workloadPort()
	for i := range f.svc.classes {
		if peer := f.svc.classes[i].peer; peer != nil { // one workload has one policy
			return fmt.Sprintf("set portLevelMtls %s: {mode: PERMISSIVE} in %s", port, peer.Ref())
		}
	}
	return fmt.Sprintf("add a PeerAuthentication to namespace %s that selects the workloads of %s, with portLevelMtls %s: {mode: PERMISSIVE}", f.svc.namespace, f.svc.ref, port)
}

func (f *fixer) permissivePolicy() string {
	ns := f.s.namespaces[f.svc.namespace]
	targeted := ns != nil && slices.ContainsFunc(ns.targeted[f.svc.name], func(p *authPolicy) bool { return p.Ref() == f.ServerBy.Ref })
	switch {
	case targeted || f.svc.ref.Kind != KindService && f.ServerBy.Reason == ByObject:
		return fmt.Sprintf("set mtls mode PERMISSIVE in %s", f.ServerBy)
	case len(f.svc.ports) > 1:
		return fmt.Sprintf("add a Policy to namespace %s with target %s, port %d, and mtls mode PERMISSIVE", f.svc.namespace, f.svc.name, f.q.Server.Port)
	}
	return fmt.Sprintf("add a Policy to namespace %s with target %s, and mtls mode PERMISSIVE", f.svc.namespace, f.svc.name)
}

// workloadPort is the one behind the service port: PeerAuthentications go by it.
func (f *fixer) workloadPort() string {
	for _, e := range f.Endpoints() {
		if e.Port != 0 {
			return fmt.Sprint(e.Port)
		}
	}
	return "PORT"
}
