package policy

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// editor makes a new Snapshot of an old one. It touches copies only: a map or
// namespace is cloned before the first change to it.
type editor struct {
	old, next *Snapshot
	changes   map[string]*change // by namespace
	order     []Ref
	objects   map[Ref]Object // nil: to be removed
}

// change is what is new in one namespace.
type change struct {
	services, foreign, pods, peers, policies, rules []diff
}

// diff is one object that comes, goes, or is replaced.
type diff struct {
	ref    Ref
	object Object // nil: goes
}

func edit(s *Snapshot) *editor {
	next := *s
	return &editor{old: s, next: &next, changes: map[string]*change{}, objects: map[Ref]Object{}}
}

// put notes a change; the last one of a Ref counts.
func (e *editor) put(ref Ref, o Object) {
	if _, twice := e.objects[ref]; !twice {
		e.order = append(e.order, ref)
	}
	e.objects[ref] = o
}

func (e *editor) done() *Snapshot {
	e.cluster()
	for _, ref := range e.order {
		if ref.Namespace != "" {
			e.sort(ref, e.objects[ref])
		}
	}
	s := e.next
	s.namespaces = clone(s.namespaces)
	for name, c := range e.changes {
		before := s.namespaces[name]
		if before == nil {
			before = &namespace{name: name}
		}
		after := before.with(c)
		e.foreign(c, before, after)
		if after.empty() {
			delete(s.namespaces, name)
		} else {
			s.namespaces[name] = after
		}
	}
	s.configure()
	e.judge()
	return s
}

// clone copies a map that may be nil.
func clone[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

// cluster takes in what has no namespace.
func (e *editor) cluster() {
	s := e.next
	for _, ref := range e.order {
		switch o := e.objects[ref]; ref.Kind {
		case KindMeshConfig:
			if s.config, _ = o.(*MeshConfig); o != nil && !sound(broken(o)) {
				s.config = nil
			}
		case KindNamespace:
			s.names = replaced[*Namespace](s.names, ref.Name, o)
		case KindMeshPolicy:
			s.meshPolicy = replaced[*MeshPolicy](s.meshPolicy, ref.Name, o)
		}
	}
}

func replaced[T Object](m map[string]T, name string, o Object) map[string]T {
	m = clone(m)
	if typed, ok := o.(T); ok {
		m[name] = typed
	} else {
		delete(m, name)
	}
	return m
}

// sort puts a change where it belongs. An object that no generation can use is
// as good as absent, and so is a Pod that has ended.
func (e *editor) sort(ref Ref, o Object) {
	if p, is := o.(*Pod); o != nil && !sound(broken(o)) || is && p.Status.Phase.Ended() {
		o = nil
	}
	c := e.changes[ref.Namespace]
	if c == nil {
		c = &change{}
		e.changes[ref.Namespace] = c
	}
	d := diff{ref, o}
	switch ref.Kind {
	case KindService:
		c.services = append(c.services, d)
	case KindServiceEntry, KindEgressRule:
		c.foreign = append(c.foreign, d)
	case KindPod, KindWorkloadEntry:
		c.pods = append(c.pods, d)
	case KindPeerAuthentication:
		c.peers = append(c.peers, d)
	case KindPolicy:
		c.policies = append(c.policies, d)
	case KindDestinationRule:
		c.rules = append(c.rules, d)
	}
}

// foreign keeps the index of hosts that are not Kubernetes' own.
func (e *editor) foreign(c *change, before, after *namespace) {
	if len(c.foreign)+len(c.pods)+len(c.peers) == 0 {
		return
	}
	had, has := setOf(before.foreign), setOf(after.foreign)
	gone := slices.DeleteFunc(slices.Clone(before.foreign), func(svc *service) bool { return has[svc] })
	come := slices.DeleteFunc(slices.Clone(after.foreign), func(svc *service) bool { return had[svc] })
	if len(gone)+len(come) > 0 {
		e.next.foreign = e.next.foreign.with(gone, come, compareServices)
	}
}

func setOf[T comparable](list []T) map[T]bool {
	set := make(map[T]bool, len(list))
	for _, v := range list {
		set[v] = true
	}
	return set
}

func compareServices(a, b *service) int {
	return cmp.Or(strings.Compare(a.namespace, b.namespace), strings.Compare(a.ref.Name, b.ref.Name), cmp.Compare(a.ref.Kind, b.ref.Kind))
}

// judge validates what is new, or all of it when the generation has changed.
func (e *editor) judge() {
	s := e.next
	again := e.old.generation != s.generation
	s.problems = clone(s.problems)
	if again {
		for ref, o := range s.judged() {
			s.note(ref, o)
		}
	}
	for _, ref := range e.order {
		if o := e.objects[ref]; o == nil {
			delete(s.problems, ref)
		} else if !again || !sound(broken(o)) {
			s.note(ref, o)
		}
	}
}

// note keeps what is wrong with an object.
func (s *Snapshot) note(ref Ref, o Object) {
	if problems := Validate(s.generation, o); len(problems) > 0 {
		s.problems[ref] = problems
	} else {
		delete(s.problems, ref)
	}
}

// judged is every object whose validity depends on the generation, or is asked
// for by Problems.
func (s *Snapshot) judged() map[Ref]Object {
	all := map[Ref]Object{}
	if s.config != nil {
		all[s.config.Ref()] = s.config
	}
	for _, p := range s.meshPolicy {
		all[p.Ref()] = p
	}
	for _, ns := range s.namespaces {
		for _, p := range ns.peers {
			all[p.Ref()] = p.PeerAuthentication
		}
		for _, p := range ns.policies {
			all[p.Ref()] = p.Policy
		}
		for _, r := range ns.ruleList {
			all[r.Ref()] = r.DestinationRule
		}
	}
	return all
}
