package policy

import (
	"fmt"
	"maps"
	"slices"
)

// Explanation is a Decision with all that people and enforcement want to know
// beyond it.
type Explanation struct {
	Generation Generation
	Picked     string // why Auto picked the generation; empty when it was given
	Server     Side
	Client     Side
	Verdict    Verdict
	Symptom    Symptom
	Warnings   []Warning

	Identities []string // SPIFFE IDs, or names of a rule, one of which the server must prove; for ISTIO_MUTUAL
	SNI        string   // what the client asks for; empty without TLS
	ALPN       []string // what the client offers, best first; for ISTIO_MUTUAL

	Failing []Failing // endpoints for which the answer is Conflict, when the query names none
}

// Side is one side of an Explanation.
type Side struct {
	Says     string // the Mode or TLS
	By       string // what decided, as Origin has it
	Shadowed []Shadowed
}

// Shadowed is an object that speaks about the connection and did not decide.
type Shadowed struct {
	Object string // as Origin has it
	Says   string // the mode it asks for; empty when it says nothing of TLS
	Why    string // why it lost
}

// Failing is an endpoint that the client cannot talk to.
type Failing struct {
	Endpoint string
	Server   Mode
	ServerBy string
	Client   TLS
}

// Warning is something that people should know about the objects behind an
// answer.
type Warning struct {
	Code    string // one of the words in warnings.go: stable, for machines
	Message string
}

// Explain tells how the decision came about. That of the zero Decision says
// that nothing is known.
func (d Decision) Explain() Explanation {
	e := Explanation{Verdict: d.Verdict, Symptom: d.Symptom,
		Server: Side{Says: d.Server.String(), By: d.ServerBy.String()},
		Client: Side{Says: d.Client.String(), By: d.ClientBy.String()}}
	if d.snapshot == nil {
		return e
	}
	s := d.snapshot
	e.Generation = s.generation
	if s.asked == Auto {
		e.Picked = s.whyPicked()
	}
	x := explainer{call: call{s: s, q: d.query, svc: s.find(d.query.Server.Host, d.query.Client.Namespace)}, d: &d, e: &e}
	if x.svc == nil {
		x.warn("unknown-host", "no Service, ServiceEntry or EgressRule declares %s: nothing is let through", d.query.Server.Host)
		return e
	}
	x.port = x.svc.port(d.query.Server.Port)
	x.rule = x.search()
	x.tls = x.selectTLS()
	x.examples()
	older := x.ignoredOlder()
	e.Server.Shadowed = append(x.shadowedServer(), older...)
	x.warnOlder(older)
	if s.generation != Legacy {
		e.Client.Shadowed = x.shadowedRules()
	}
	x.warnings()
	offer := d.Offer()
	e.Identities, e.SNI, e.ALPN = offer.Identities, offer.SNI, offer.ALPN
	return e
}

func (s *Snapshot) whyPicked() string {
	return map[Generation]string{
		V1:       "valid PeerAuthentication objects or enableAutoMtls exist, or nothing at all does",
		V1Alpha1: "valid MeshPolicy or Policy objects exist, and no PeerAuthentication",
		Legacy:   "authPolicy or an annotation auth.istio.io/<port> exists, and no newer policy",
	}[s.generation]
}

// explainer is one explanation while it is made.
type explainer struct {
	call
	d     *Decision
	e     *Explanation
	class *class // what the decision is about; nil without endpoints
}

func (x *explainer) warn(code, format string, args ...any) {
	x.e.Warnings = append(x.e.Warnings, Warning{code, fmt.Sprintf(format, args...)})
}

// examples finds the class that was decided about, and the endpoints that fail.
func (x *explainer) examples() {
	if name := x.q.Server.Endpoint; name != "" {
		if x.class = x.svc.endpoint(name); x.class == nil {
			x.warn("unknown-endpoint", "%s has no endpoint %s: nothing is let through", x.svc.ref, name)
		}
		return
	}
	for i := range x.svc.classes {
		k := &x.svc.classes[i]
		one := x.answer(Decision{}, k)
		if x.class == nil && one.ServerBy == x.d.ServerBy && one.ClientBy == x.d.ClientBy && one.Verdict == x.d.Verdict {
			x.class = k
		}
		if one.Verdict != Conflict {
			continue
		}
		for at, w := range x.svc.endpoints {
			if int(x.svc.classAt[at]) == i {
				x.e.Failing = append(x.e.Failing, Failing{w.name, one.Server, one.ServerBy.String(), one.Client})
			}
		}
	}
}

// shadowedServer lists what else speaks about the server side, the most specific
// first.
func (x *explainer) shadowedServer() (all []Shadowed) {
	switch {
	case x.svc.external:
		return nil
	case x.s.generation == Legacy:
		all = x.shadowedLegacy()
	case x.s.generation == V1Alpha1:
		all = x.shadowedPolicies()
	default:
		all = x.shadowedPeers()
	}
	if x.d.ServerBy.Reason == NoSidecar {
		for i := range all {
			all[i].Why = "the server has no sidecar"
		}
	}
	return slices.DeleteFunc(all, func(s Shadowed) bool { return s.Object == x.e.Server.By })
}

func (x *explainer) shadowedLegacy() (all []Shadowed) {
	if x.port >= 0 && x.svc.ports[x.port].auth != AuthUnset {
		o := Origin{Reason: ByObject, Ref: x.svc.ref, Port: x.q.Server.Port}
		all = append(all, Shadowed{o.String(), x.svc.ports[x.port].auth.String(), ""})
	}
	if x.s.mesh.auth != AuthUnset {
		all = append(all, Shadowed{ByAuthPolicy.String(), x.s.mesh.auth.String(), "the annotation of the Service comes first"})
	}
	return all
}

func (x *explainer) shadowedPolicies() (all []Shadowed) {
	ns := x.s.namespaces[x.svc.namespace]
	if ns != nil {
		for _, p := range ns.targeted[x.svc.name] {
			why := x.e.Server.By + " is older"
			if x.port < 0 || !x.targets(p) {
				why = "names other ports"
			}
			all = append(all, Shadowed{p.Ref().String(), p.mode.String(), why})
		}
		for _, p := range ns.whole {
			all = append(all, Shadowed{p.Ref().String(), p.mode.String(), x.e.Server.By + " is more specific, or older"})
		}
		for _, p := range ns.policies {
			if p.invalid {
				all = append(all, Shadowed{p.Ref().String(), p.mode.String(), "is not valid"})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(x.s.meshPolicy)) {
		p, why := x.s.meshPolicy[name], x.e.Server.By+" is more specific"
		if p.Name != "default" {
			why = "is not called default"
		} else if !x.s.usable(p) {
			why = "is not valid"
		}
		all = append(all, Shadowed{p.Ref().String(), p.Spec.mode().String(), why})
	}
	return all
}

func (x *explainer) shadowedPeers() (all []Shadowed) {
	for _, level := range slices.Compact([]string{x.svc.namespace, x.s.mesh.root}) {
		ns := x.s.namespaces[level]
		if ns == nil {
			continue
		}
		for _, p := range ns.peers {
			if why := x.whyNot(p, ns); why != "" {
				all = append(all, Shadowed{p.Ref().String(), p.mode().String(), why})
			}
		}
	}
	return all
}

// whyNot says why a PeerAuthentication did not decide; empty when it says
// nothing about the workload.
func (x *explainer) whyNot(p *peerPolicy, ns *namespace) string {
	chooses := x.class != nil && p.chooses.in(x.class.example.labels)
	switch {
	case p.invalid:
		return "is not valid"
	case p.chooses != nil && ns.name == x.s.mesh.root:
		return map[bool]string{true: "a selector in the root namespace chooses nothing"}[chooses]
	case p.chooses != nil && !chooses:
		return ""
	case p.chooses != nil && p != x.class.peer:
		return x.class.peer.Ref().String() + " is older, and one workload has one policy"
	case p.chooses == nil && p != ns.wide:
		return ns.wide.Ref().String() + " is older"
	case p.mode() == ModeUnset:
		return "says nothing, and inherits"
	}
	return x.e.Server.By + " is more specific"
}
