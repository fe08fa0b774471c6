package policyfeed

import (
	"slices"
	"strings"

	"citadel/ca/policy"
)

// exportAnnotation is where a Service says which namespaces it is for, with
// commas between.
const exportAnnotation = "networking.istio.io/exportTo"

// seer finds what a viewer sees of one namespace that is not its own.
type seer struct {
	*space
	viewer string
	scope  scope
	state  *State
	named  bool // the answer is for this viewer alone

	hosts     []string // of what is exported
	services  map[string]bool
	selectors map[[2]string][]map[string]string // by one of their labels
	seen      map[policy.Ref]*Item
}

// seenBy is the part of a namespace that another, or itself, sees.
func (sp *space) seenBy(viewer string, at scope, state *State) *part {
	if sp.name == viewer {
		return &part{sp, at, sp.items}
	}
	if sp.name == "" {
		return &part{sp, at, sp.global(viewer)}
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.public != nil && sp.public.scope == at {
		return sp.public
	}
	s := seer{space: sp, viewer: viewer, scope: at, state: state, services: map[string]bool{}, selectors: map[[2]string][]map[string]string{}, seen: map[policy.Ref]*Item{}}
	s.see()
	p := &part{sp, at, s.seen}
	if !s.named {
		sp.public = p
	}
	return p
}

// global is what has no namespace: the mesh's own policy and config, and the
// viewer's Namespace.
func (sp *space) global(viewer string) map[policy.Ref]*Item {
	seen := map[policy.Ref]*Item{}
	for ref, item := range sp.items {
		switch {
		case ref.Kind == policy.KindNamespace && ref.Name != viewer:
		case ref.Kind == policy.KindMeshPolicy && ref.Name != "default": // nobody heeds it
		default:
			seen[ref] = item
		}
	}
	return seen
}

// see goes from services to the workloads behind them, and to what speaks of
// either.
func (s *seer) see() {
	for ref, item := range s.items {
		s.service(ref, item)
	}
	for ref, item := range s.items {
		switch o := item.Object.(type) {
		case *policy.Pod:
			s.keep(ref, item, s.chosen(o.Labels))
		case *policy.WorkloadEntry:
			s.keep(ref, item, s.chosen(o.AllLabels()))
		case *policy.Policy:
			s.policy(ref, item, o)
		case *policy.DestinationRule:
			s.rule(ref, item, o)
		}
	}
	for ref, item := range s.items { // once the workloads are known
		if p, is := item.Object.(*policy.PeerAuthentication); is {
			s.keep(ref, item, s.speaks(p) && policy.Valid(policy.V1, p))
		}
	}
}

func (s *seer) keep(ref policy.Ref, item *Item, seen bool) {
	if seen {
		s.seen[ref] = item
	}
}

// service takes in what declares hosts, where it is exported to the viewer.
func (s *seer) service(ref policy.Ref, item *Item) {
	switch o := item.Object.(type) {
	case *policy.Service:
		var exportTo []string
		if text := strings.TrimSpace(o.Annotations[exportAnnotation]); text != "" {
			exportTo = strings.Split(text, ",")
		}
		if s.exported(exportTo, s.state.config().ServiceExportTo) {
			s.services[o.Name] = true
			s.hosts = append(s.hosts, o.Name+"."+o.Namespace+".svc."+policy.ClusterDomain)
			s.selects(o.Spec.Selector)
			s.seen[ref] = item
		}
	case *policy.ServiceEntry:
		if s.exported(o.Spec.ExportTo, s.state.config().ServiceExportTo) {
			s.hosts = append(s.hosts, o.Spec.Hosts...)
			if o.Spec.WorkloadSelector != nil {
				s.selects(o.Spec.WorkloadSelector.Labels)
			}
			s.seen[ref] = item
		}
	case *policy.EgressRule:
		s.hosts = append(s.hosts, o.Spec.Destination.Service)
		s.seen[ref] = item
	}
}

// exported tells whether the viewer is among the namespaces of a list; without
// one the default counts, and without that all are.
func (s *seer) exported(exportTo, otherwise []string) bool {
	if len(exportTo) == 0 {
		exportTo = otherwise
	}
	all := len(exportTo) == 0
	for _, e := range exportTo {
		switch e = strings.TrimSpace(e); e {
		case "*":
			return true
		case ".", "~", s.name:
		default:
			s.named = true
			all = all || e == s.viewer
		}
	}
	return all
}

// selects notes the selector of an exported service; one without labels chooses
// nothing.
func (s *seer) selects(selector map[string]string) {
	for k, v := range selector {
		s.selectors[[2]string{k, v}] = append(s.selectors[[2]string{k, v}], selector)
		return
	}
}

// chosen tells whether a workload of these labels is behind an exported service.
func (s *seer) chosen(labels map[string]string) bool {
	for k, v := range labels {
		if slices.ContainsFunc(s.selectors[[2]string{k, v}], func(selector map[string]string) bool { return in(selector, labels) }) {
			return true
		}
	}
	return false
}

func in(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, has := labels[k]; !has || got != v {
			return false
		}
	}
	return true
}

// speaks tells whether a PeerAuthentication says something of a workload that
// the viewer may call, or of the whole mesh.
func (s *seer) speaks(p *policy.PeerAuthentication) bool {
	root := s.name == s.scope.root
	if p.Spec.Selector == nil || len(p.Spec.Selector.MatchLabels) == 0 {
		return root || len(s.hosts) > 0
	}
	if root {
		return false // chooses nothing
	}
	for _, item := range s.seen {
		switch o := item.Object.(type) {
		case *policy.Pod:
			if in(p.Spec.Selector.MatchLabels, o.Labels) {
				return true
			}
		case *policy.WorkloadEntry:
			if in(p.Spec.Selector.MatchLabels, o.AllLabels()) {
				return true
			}
		case *policy.ServiceEntry: // endpoints of its own
			for _, e := range o.Spec.Endpoints {
				if in(p.Spec.Selector.MatchLabels, e.Labels) {
					return true
				}
			}
		}
	}
	return false
}

// policy keeps of a Policy the targets that the viewer may call.
func (s *seer) policy(ref policy.Ref, item *Item, p *policy.Policy) {
	if len(p.Spec.Targets) == 0 {
		s.keep(ref, item, len(s.hosts) > 0)
		return
	}
	hidden := func(t policy.Target) bool { return !s.services[t.Name] }
	if !slices.ContainsFunc(p.Spec.Targets, hidden) {
		s.seen[ref] = item
		return
	}
	less := *p
	less.Spec.Targets = slices.DeleteFunc(slices.Clone(p.Spec.Targets), hidden)
	if len(less.Spec.Targets) > 0 && policy.Valid(policy.V1Alpha1, &less) == policy.Valid(policy.V1Alpha1, p) {
		s.seen[ref] = &Item{Object: &less}
	}
}

// rule keeps rules for others, of hosts that the viewer may call. One that today
// is for a third namespace hides less specific ones all the same: its host is
// kept, and what it says is not.
func (s *seer) rule(ref policy.Ref, item *Item, r *policy.DestinationRule) {
	if s.state.Snapshot.Private(r) || !policy.Valid(s.scope.generation, r) || s.name != s.scope.root && !s.matches(r) {
		return
	}
	if s.scope.generation == policy.V1 && !s.exported(r.Spec.ExportTo, nil) {
		s.named = true
		item = &Item{Object: &policy.DestinationRule{Meta: r.Meta, Spec: policy.DestinationRuleSpec{Host: r.Spec.Host, ExportTo: r.Spec.ExportTo}}}
	}
	s.seen[ref] = item
}

// matches tells whether a rule's host is one that the viewer may call.
func (s *seer) matches(r *policy.DestinationRule) bool {
	of := r.FullHost()
	return slices.ContainsFunc(s.hosts, func(h string) bool { return policy.MatchHost(of, h) })
}
