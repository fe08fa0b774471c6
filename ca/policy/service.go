package policy

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// annotation is what the legacy generation puts before a port's number.
const annotation = "auth.istio.io/"

// service is a host and what stands behind it. It does not change.
type service struct {
	ref       Ref
	object    Object
	namespace string
	name      string // what a Policy targets
	host      string // may begin with an asterisk

	external, headless, externalName bool

	ports     []port
	selector  pairs
	inline    []*workload // endpoints that the object itself lists
	endpoints []*workload // by name
	classes   []class
	classAt   []int32 // the class of each endpoint
	labelled  bool    // there are endpoints, and all say that they speak mTLS
}

// port is one port of a service.
type port struct {
	number   int32
	name     string
	protocol string // in lower case: http, http2, grpc, https, tcp, …; empty when nothing says
	target   TargetPort
	auth     AuthPolicy // the annotation
	over     Transport
}

// class stands for all endpoints of a service that policy cannot tell apart.
type class struct {
	sidecar  bool
	labelled bool        // security.istio.io/tlsMode: istio
	peer     *peerPolicy // the workload's own
	ports    []int32     // the workload port of each service port; 0 when a name is not there
	example  *workload
}

// workload is a Pod, a WorkloadEntry, or an endpoint of a ServiceEntry.
type workload struct {
	ref       Ref
	name      string
	labels    map[string]string
	sidecar   bool
	labelled  bool
	account   string
	addresses []string // IP addresses; of a WorkloadEntry maybe a name
	ports     []ContainerPort
	bypassing string // the ports that its sidecar is told to leave alone
}

// Ref names the object that declares the service.
func (s *service) Ref() Ref { return s.ref }

func (s *service) pattern() string { return s.host }

// Ref names the workload.
func (w *workload) Ref() Ref { return w.ref }

// port returns the index of a declared port, or -1.
func (s *service) port(number int32) int {
	for i := range s.ports {
		if s.ports[i].number == number {
			return i
		}
	}
	return -1
}

func newService(o Object) *service {
	k := o.(*Service)
	s := &service{ref: k.Ref(), object: o, namespace: k.Namespace, name: k.Name, host: k.Name + "." + k.Namespace + serviceSuffix,
		headless: k.Spec.ClusterIP == "None", externalName: k.Spec.Type == "ExternalName", selector: newPairs(k.Spec.Selector)}
	s.external = s.externalName
	for _, p := range k.Spec.Ports {
		var auth AuthPolicy
		if text, annotated := k.Annotations[annotation+strconv.Itoa(int(p.Port))]; annotated {
			_ = auth.parse(text) // what is no word inherits
		}
		s.ports = append(s.ports, port{p.Port, p.Name, protocolOf(p.Name, p.AppProtocol), targetOf(p.TargetPort, p.Port), auth, p.Protocol})
	}
	return s
}

// protocolOf goes by appProtocol, else by the port's name up to the first dash.
func protocolOf(name, app string) string {
	if app != "" {
		return strings.ToLower(strings.TrimPrefix(app, "kubernetes.io/"))
	}
	prefix, _, _ := strings.Cut(strings.ToLower(name), "-")
	return prefix
}

func targetOf(t TargetPort, number int32) TargetPort {
	if t == (TargetPort{}) {
		t.Number = number
	}
	return t
}

// annotated tells whether a service has an annotation of the legacy generation.
func (s *service) annotated() bool {
	for key := range s.object.meta().Annotations {
		if strings.HasPrefix(key, annotation) {
			return true
		}
	}
	return false
}

// foreignServices makes a service of each host of a ServiceEntry or EgressRule.
func foreignServices(o Object) (all []*service) {
	switch o := o.(type) {
	case *EgressRule:
		s := &service{ref: o.Ref(), object: o, namespace: o.Namespace, name: o.Spec.Destination.Service, host: o.Spec.Destination.Service, external: true}
		for _, p := range o.Spec.Ports {
			s.ports = append(s.ports, port{number: p.Port, protocol: strings.ToLower(p.Protocol), target: TargetPort{Number: p.Port}})
		}
		all = append(all, s)
	case *ServiceEntry:
		for _, host := range slices.Compact(slices.Sorted(slices.Values(o.Spec.Hosts))) {
			all = append(all, entryService(o, host))
		}
	}
	return all
}

func entryService(e *ServiceEntry, host string) *service {
	s := &service{ref: e.Ref(), object: e, namespace: e.Namespace, name: host, host: host, external: e.Spec.Location == MeshExternal}
	for _, p := range e.Spec.Ports {
		s.ports = append(s.ports, port{number: p.Number, name: p.Name, protocol: strings.ToLower(p.Protocol), target: targetOf(TargetPort{Number: p.TargetPort}, p.Number)})
	}
	if e.Spec.WorkloadSelector != nil {
		s.selector = newPairs(e.Spec.WorkloadSelector.Labels)
	}
	for i := range e.Spec.Endpoints {
		s.inline = append(s.inline, entryWorkload(Ref{}, &e.Spec.Endpoints[i], e.Spec.Endpoints[i].Labels))
	}
	return s
}

func newWorkload(o Object) *workload {
	if e, is := o.(*WorkloadEntry); is {
		return entryWorkload(e.Ref(), &e.Spec, e.AllLabels())
	}
	p := o.(*Pod)
	w := &workload{ref: p.Ref(), name: p.Name, labels: p.Labels, sidecar: p.Sidecar(), labelled: speaksMTLS(p.Labels),
		account: cmp.Or(p.Spec.ServiceAccountName, "default"), addresses: p.addresses(), bypassing: p.Annotations["traffic.sidecar.istio.io/excludeInboundPorts"]}
	for i := range p.Spec.Containers {
		w.ports = append(w.ports, p.Spec.Containers[i].Ports...)
	}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; c.RestartPolicy == "Always" {
			w.ports = append(w.ports, c.Ports...)
		}
	}
	return w
}

// entryWorkload is a workload outside of Kubernetes: that it has a sidecar is
// known from its label alone.
func entryWorkload(ref Ref, e *WorkloadEntrySpec, labels map[string]string) *workload {
	w := &workload{ref: ref, name: cmp.Or(ref.Name, e.Address), labels: labels, sidecar: speaksMTLS(labels), labelled: speaksMTLS(labels),
		account: cmp.Or(e.ServiceAccount, "default"), addresses: []string{e.Address}}
	for _, name := range slices.Sorted(maps.Keys(e.Ports)) {
		w.ports = append(w.ports, ContainerPort{Name: name, Number: int32(e.Ports[name])})
	}
	return w
}

func speaksMTLS(labels map[string]string) bool { return labels["security.istio.io/tlsMode"] == "istio" }

// portOf is the workload's port behind a service port, 0 when its name is not
// declared.
func (w *workload) portOf(p *port) int32 {
	if w.ref.Kind != KindPod { // a WorkloadEntry maps names of service ports
		for _, own := range w.ports {
			if own.Name == p.name {
				return own.Number
			}
		}
	}
	if p.target.Name == "" {
		return p.target.Number
	}
	for _, own := range w.ports {
		if own.Name == p.target.Name && own.Protocol.is(p.over) {
			return own.Number
		}
	}
	return 0
}
