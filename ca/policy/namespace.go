package policy

import (
	"cmp"
	"slices"
	"strings"
)

// namespace is one namespace's part of a Snapshot, indexed. It does not change.
type namespace struct {
	name      string
	services  []*service // Kubernetes', by name
	foreign   []*service // of ServiceEntries and EgressRules, by name, one for each host
	pods      []*workload
	annotated int // services with an annotation of the legacy generation

	peers     []*peerPolicy // by age
	wide      *peerPolicy   // the first valid one without a selector
	selecting []*peerPolicy // the valid ones with a selector, by age

	policies []*authPolicy // by age
	targeted map[string][]*authPolicy
	whole    []*authPolicy // without targets

	ruleList []*rule // by age
	rules    hostIndex[*rule]

	places *places // made when somebody asks
}

// peerPolicy is a PeerAuthentication.
type peerPolicy struct {
	*PeerAuthentication
	chooses pairs
	invalid bool
}

// authPolicy is a Policy.
type authPolicy struct {
	*Policy
	mode     Mode
	invalid  bool
	misnamed bool // refused at admission, but used by releases that met one
}

func (n *namespace) empty() bool {
	return len(n.services)+len(n.foreign)+len(n.pods)+len(n.peers)+len(n.policies)+len(n.ruleList) == 0
}

// with returns the namespace after a change.
func (n *namespace) with(c *change) *namespace {
	next := *n
	if len(c.peers) > 0 {
		next.setPeers(merge(n.peers, c.peers, newPeer, byAge))
	}
	if len(c.policies) > 0 {
		next.setPolicies(merge(n.policies, c.policies, newPolicy, byAgeThenFullName))
	}
	if len(c.rules) > 0 {
		next.ruleList = merge(n.ruleList, c.rules, newRule, byAge)
		gone, come := differ(n.ruleList, next.ruleList, c.rules)
		next.rules = n.rules.with(gone, come, byAge)
	}
	if len(c.pods) > 0 {
		next.pods = merge(n.pods, c.pods, newWorkload, func(a, b *workload) int {
			return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.ref.Kind, b.ref.Kind))
		})
	}
	if len(c.services) > 0 {
		next.services = merge(n.services, c.services, newService, compareServices)
	}
	if len(c.foreign) > 0 {
		next.setForeign(c.foreign)
	}
	next.connect(n, c)
	next.places = &places{}
	return &next
}

// ofObject is an indexed object.
type ofObject interface{ Ref() Ref }

// merge returns a sorted list in which changes are made; old is not touched.
func merge[T ofObject](old []T, changes []diff, index func(Object) T, compare func(a, b T) int) []T {
	changed := make(map[Ref]bool, len(changes))
	for _, d := range changes {
		changed[d.ref] = true
	}
	next := make([]T, 0, len(old)+len(changes))
	for _, o := range old {
		if !changed[o.Ref()] {
			next = append(next, o)
		}
	}
	for _, d := range changes {
		if d.object != nil {
			next = append(next, index(d.object))
		}
	}
	slices.SortFunc(next, compare)
	return next
}

// differ picks out of two lists those that a change named.
func differ[T ofObject](old, next []T, changes []diff) (gone, come []T) {
	changed := make(map[Ref]bool, len(changes))
	for _, d := range changes {
		changed[d.ref] = true
	}
	for _, o := range old {
		if changed[o.Ref()] {
			gone = append(gone, o)
		}
	}
	for _, o := range next {
		if changed[o.Ref()] {
			come = append(come, o)
		}
	}
	return gone, come
}

// byAge sorts the oldest first, then by name, then by namespace; without a time
// is older than all.
func byAge[T Object](a, b T) int { return compareAge(a.meta(), b.meta()) }

func compareAge(a, b *Meta) int {
	return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name), strings.Compare(a.Namespace, b.Namespace))
}

// byAgeThenFullName is the order of policies in release 1.4: name.namespace. In
// one namespace that differs from the name alone when one name begins another.
func byAgeThenFullName(a, b *authPolicy) int {
	return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name+"."+a.Namespace, b.Name+"."+b.Namespace))
}

func newPeer(o Object) *peerPolicy {
	p := o.(*PeerAuthentication)
	return &peerPolicy{p, newPairs(p.selector()), !sound(Validate(V1, p))}
}

func newPolicy(o Object) *authPolicy {
	p := o.(*Policy)
	return &authPolicy{p, p.Spec.mode(), !sound(validatePolicy(&p.Spec)), len(validateName(p)) > 0}
}

func (n *namespace) setPeers(peers []*peerPolicy) {
	n.peers, n.wide, n.selecting = peers, nil, nil
	for _, p := range peers {
		switch {
		case p.invalid:
		case p.chooses != nil:
			n.selecting = append(n.selecting, p)
		case n.wide == nil:
			n.wide = p
		}
	}
}

func (n *namespace) setPolicies(policies []*authPolicy) {
	n.policies, n.whole, n.targeted = policies, nil, map[string][]*authPolicy{}
	for _, p := range policies {
		if p.invalid {
			continue
		}
		if len(p.Spec.Targets) == 0 {
			n.whole = append(n.whole, p)
		}
		for i, t := range p.Spec.Targets {
			if !slices.ContainsFunc(p.Spec.Targets[:i], func(other Target) bool { return other.Name == t.Name }) {
				n.targeted[t.Name] = append(n.targeted[t.Name], p)
			}
		}
	}
}

func (n *namespace) setForeign(changes []diff) {
	changed := map[Ref]bool{}
	for _, d := range changes {
		changed[d.ref] = true
	}
	n.foreign = slices.DeleteFunc(slices.Clone(n.foreign), func(s *service) bool { return changed[s.ref] })
	for _, d := range changes {
		if d.object != nil {
			n.foreign = append(n.foreign, foreignServices(d.object)...)
		}
	}
	slices.SortStableFunc(n.foreign, compareServices)
}
