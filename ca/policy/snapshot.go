package policy

import (
	"cmp"
	"iter"
	"maps"
	"slices"
)

// ClusterDomain is the domain of Kubernetes services.
const ClusterDomain = "cluster.local"

const serviceSuffix = ".svc." + ClusterDomain

// Snapshot is all that decides about mTLS at one moment, indexed. It never
// changes, and any number of goroutines may ask it; With and Without make new
// ones that share what did not change. The zero Snapshot is empty, and Auto.
type Snapshot struct {
	asked      Generation // as the caller said
	generation Generation // never Auto, but in the zero Snapshot
	config     *MeshConfig
	mesh       mesh

	namespaces map[string]*namespace
	names      map[string]*Namespace // objects of kind Namespace
	meshPolicy map[string]*MeshPolicy
	foreign    hostIndex[*service] // hosts of ServiceEntries and EgressRules
	problems   map[Ref][]Problem
}

// mesh is the mesh config with its defaults filled in.
type mesh struct {
	auth        AuthPolicy
	excluded    map[string]bool
	auto        bool
	root        string
	trustDomain string
	private     bool // rules without exportTo are for their own namespace
}

// New makes a Snapshot of objects. Of two with one Ref the later counts. Objects
// that are not valid are set aside, see Problems.
func New(g Generation, objects ...Object) *Snapshot {
	return (&Snapshot{asked: g}).With(objects...)
}

// With returns a Snapshot in which objects are added, or replace those of the
// same Ref.
func (s *Snapshot) With(objects ...Object) *Snapshot {
	e := edit(s)
	for _, o := range objects {
		e.put(o.Ref(), o)
	}
	return e.done()
}

// Without returns a Snapshot in which objects are missing. Those that are not
// there do not matter.
func (s *Snapshot) Without(refs ...Ref) *Snapshot {
	e := edit(s)
	for _, r := range refs {
		e.put(r, nil)
	}
	return e.done()
}

// Generation is whose rules answer: the one that New was given, or what Auto has
// picked.
func (s *Snapshot) Generation() Generation { return s.generation }

// TrustDomain is the mesh's.
func (s *Snapshot) TrustDomain() string { return s.mesh.trustDomain }

// Problems lists what is wrong with objects of the Snapshot by the rules of its
// generation, in the order of their names.
func (s *Snapshot) Problems() (all []Problem) {
	for _, ref := range slices.SortedFunc(maps.Keys(s.problems), compareRefs) {
		all = append(all, s.problems[ref]...)
	}
	return all
}

// Servers lists each port of each service with a name, the order is that of
// their hosts. Wildcard hosts are among them.
func (s *Snapshot) Servers() iter.Seq[Server] {
	return func(yield func(Server) bool) {
		for _, name := range slices.Sorted(maps.Keys(s.namespaces)) {
			for _, services := range [][]*service{s.namespaces[name].services, s.namespaces[name].foreign} {
				for _, svc := range services {
					for i := range svc.ports {
						if !yield(Server{Host: svc.host, Port: svc.ports[i].number}) {
							return
						}
					}
				}
			}
		}
	}
}

// Namespaces lists the names of all namespaces that exist or hold something.
func (s *Snapshot) Namespaces() []string {
	all := maps.Clone(s.names)
	if all == nil {
		all = map[string]*Namespace{}
	}
	for name := range s.namespaces {
		all[name] = nil
	}
	return slices.Sorted(maps.Keys(all))
}

func compareRefs(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// configure fills in the defaults, which differ by generation.
func (s *Snapshot) configure() {
	c := s.config
	if c == nil {
		c = &MeshConfig{}
	}
	s.generation = s.asked
	if s.asked == Auto {
		s.generation = s.pick(c)
	}
	s.mesh = mesh{
		auth:        c.AuthPolicy,
		auto:        s.generation == V1,
		root:        cmp.Or(c.RootNamespace, "istio-system"),
		trustDomain: cmp.Or(c.TrustDomain, "cluster.local"),
		private:     s.generation == V1 && slices.Contains(c.RuleExportTo, ".") || len(c.RuleExportTo) > 0 && c.RuleExportTo[0] == ".",
	}
	if c.EnableAutoMTLS != nil {
		s.mesh.auto = *c.EnableAutoMTLS && s.generation != Legacy
	}
	if len(c.ExcludedServices) > 0 {
		s.mesh.excluded = map[string]bool{}
		for _, host := range c.ExcludedServices {
			s.mesh.excluded[host] = true
		}
	}
}

// pick is what Auto means: the newest generation of which there is a trace. What
// is not valid is none: a mistake would change the rules of the whole mesh.
func (s *Snapshot) pick(c *MeshConfig) Generation {
	var has struct{ peer, policy, annotation bool }
	for _, ns := range s.namespaces {
		has.peer = has.peer || ns.wide != nil || len(ns.selecting) > 0
		has.policy = has.policy || slices.ContainsFunc(ns.policies, func(p *authPolicy) bool { return !p.invalid && !p.misnamed })
		has.annotation = has.annotation || ns.annotated > 0
	}
	for _, p := range s.meshPolicy {
		has.policy = has.policy || sound(Validate(V1Alpha1, p))
	}
	switch {
	case has.peer || c.EnableAutoMTLS != nil && *c.EnableAutoMTLS:
		return V1
	case has.policy:
		return V1Alpha1
	case has.annotation || c.AuthPolicy != AuthUnset:
		return Legacy
	}
	return V1
}
