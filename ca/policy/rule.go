package policy

import (
	"slices"
	"strings"
)

// rule is a DestinationRule, prepared for look-ups.
type rule struct {
	*DestinationRule
	host     string   // in full
	exportTo []string // sorted, "." written out; empty for none
	chooses  pairs    // its clients; nil for all
	invalid  [2]bool  // in V1Alpha1, in V1
}

func newRule(o Object) *rule {
	r := &rule{DestinationRule: o.(*DestinationRule)}
	r.host = r.FullHost()
	for _, e := range r.Spec.ExportTo {
		if e == "." {
			e = r.Namespace
		}
		r.exportTo = append(r.exportTo, e)
	}
	slices.Sort(r.exportTo)
	if r.Spec.WorkloadSelector != nil {
		r.chooses = newPairs(r.Spec.WorkloadSelector.MatchLabels)
	}
	r.invalid = [2]bool{!sound(Validate(V1Alpha1, r.DestinationRule)), !sound(Validate(V1, r.DestinationRule))}
	return r
}

// expand makes an FQDN of a short name.
func expand(host, namespace string) string {
	if strings.HasPrefix(host, "*") || strings.Contains(host, ".") {
		return host
	}
	return host + "." + namespace + serviceSuffix
}

func (r *rule) pattern() string { return r.host }

func (r *rule) exports(namespace string) bool {
	return len(r.exportTo) == 0 || slices.Contains(r.exportTo, "*") || slices.Contains(r.exportTo, namespace)
}

// FullHost is the rule's host, a short name in full.
func (r *DestinationRule) FullHost() string { return expand(r.Spec.Host, r.Namespace) }

// MatchHost tells whether a host is that of a rule, or below its wildcard.
func MatchHost(pattern, host string) bool {
	suffix, wildcard := strings.CutPrefix(pattern, "*")
	return pattern == host || wildcard && strings.HasSuffix(host, suffix)
}

// Private tells whether a rule is for its own namespace alone, by generation and
// mesh config of the Snapshot.
func (s *Snapshot) Private(r *DestinationRule) bool {
	exportTo := r.Spec.ExportTo
	switch {
	case len(exportTo) == 0 && s.mesh.private:
		return true
	case s.generation == V1Alpha1: // reads the first entry alone
		return len(exportTo) > 0 && exportTo[0] == "."
	}
	return r.Spec.WorkloadSelector != nil || len(exportTo) == 1 && (exportTo[0] == "." || exportTo[0] == r.Namespace)
}

// scope is one step of the search for a rule.
type scope struct {
	namespace string
	of        scopeKind
}

type scopeKind uint8

const (
	scopeNone     scopeKind = iota
	scopeLocal              // the client's namespace, its private rules included
	scopeExported           // rules for others
	scopePrivate            // private rules alone
)

// scopes are the steps, in order: client, server, root. A client in the root
// namespace sees none of its own first, but for the private ones as of today.
func (c *call) scopes() [3]scope {
	root, client := c.s.mesh.root, scope{c.q.Client.Namespace, scopeLocal}
	if client.namespace == root {
		client.of = scopeNone
		if c.s.generation == V1 {
			client.of = scopePrivate
		}
	}
	return [3]scope{client, {c.svc.namespace, scopeExported}, {root, scopeExported}}
}

// visible tells whether a step looks at a rule at all.
func (c *call) visible(r *rule, of scopeKind) bool {
	if c.s.generation == V1Alpha1 {
		return !r.invalid[0] && (of == scopeLocal || of == scopeExported && !c.s.Private(r.DestinationRule))
	}
	switch of {
	case scopeLocal:
		return !r.invalid[1] && r.exports(r.Namespace)
	case scopeExported:
		return !r.invalid[1] && !c.s.Private(r.DestinationRule)
	case scopePrivate:
		return !r.invalid[1] && c.s.Private(r.DestinationRule)
	}
	return false
}

// found is the rule that holds for a call, with those that add to it. The zero
// value is none.
type found struct {
	head  *rule
	group []*rule // of one host and namespace, by age
	of    scopeKind
}

// search finds the rule for a call. The steps end at the first that has one,
// except that none of a namespace's rules may be for this client.
func (c *call) search() found {
	for _, at := range c.scopes() {
		ns := c.s.namespaces[at.namespace]
		if ns == nil || at.of == scopeNone {
			continue
		}
		group := c.group(ns, at.of)
		if group == nil {
			continue
		}
		f := found{group: group, of: at.of}
		f.head = c.head(f)
		if f.head != nil || at.of != scopeExported {
			return f
		}
	}
	return found{}
}

// group returns the rules of the most specific host that has a visible one.
func (c *call) group(ns *namespace, of scopeKind) []*rule {
	for i := 0; ; i++ {
		group, more := ns.rules.find(c.svc.host, i)
		if !more {
			return nil
		}
		for _, r := range group {
			if c.visible(r, of) {
				return group
			}
		}
	}
}

// head is the rule of a group that holds for the client. In V1Alpha1 it is the
// oldest. In V1, the oldest with a selector that chooses the client, else the
// last without one that is not part of an older one.
func (c *call) head(f found) *rule {
	if c.s.generation == V1Alpha1 {
		for _, r := range f.group {
			if c.visible(r, f.of) {
				return r
			}
		}
		return nil
	}
	var last *rule
	for i, r := range f.group {
		switch {
		case !c.visible(r, f.of) || c.merged(f, i):
		case r.chooses != nil:
			if r.chooses.in(c.q.Client.Labels) {
				return r
			}
		case f.of != scopeExported || r.exports(c.q.Client.Namespace):
			last = r
		}
	}
	return last
}

// merged tells whether the i-th rule of a group is part of an older one. That
// one is no part itself: what it would be part of is older still, and fits too.
func (c *call) merged(f found, i int) bool {
	for _, older := range f.group[:i] {
		if c.visible(older, f.of) && sameClients(older, f.group[i]) && mergeable(older, f.group[i]) {
			return true
		}
	}
	return false
}

func sameClients(a, b *rule) bool { return slices.Equal(a.chooses, b.chooses) }

// mergeable tells whether today's releases add a rule to an older one: when both
// are exported alike, or the newer one to more.
func mergeable(older, newer *rule) bool {
	if slices.Equal(older.exportTo, newer.exportTo) {
		return true
	}
	if len(older.exportTo) == 0 {
		return false
	}
	for _, e := range older.exportTo {
		if !slices.Contains(newer.exportTo, e) {
			return false
		}
	}
	return true
}

// adds tells whether a rule of the group adds to its head: what it says counts
// where the head says nothing.
func (c *call) adds(f found, r *rule) bool {
	if r == f.head {
		return true
	}
	if !c.visible(r, f.of) {
		return false
	}
	if c.s.generation == V1Alpha1 {
		return true
	}
	after := r.chooses == nil && f.head.chooses != nil || sameClients(f.head, r) && compareAge(&f.head.Meta, &r.Meta) < 0
	return after && mergeable(f.head, r)
}

// policy is the traffic policy that holds, and whose it is: the first, whole.
func (c *call) policy(f found) (*TrafficPolicy, *rule) {
	if f.head.Spec.TrafficPolicy != nil {
		return f.head.Spec.TrafficPolicy, f.head
	}
	for _, r := range f.group {
		if r.Spec.TrafficPolicy != nil && c.adds(f, r) {
			return r.Spec.TrafficPolicy, r
		}
	}
	return nil, f.head
}

// subset finds a subset by name, and whose it is: the first.
func (c *call) subset(f found, name string) (*Subset, *rule) {
	for pass := range 2 { // the head first: it may not be the oldest
		for _, r := range f.group {
			if (r == f.head) != (pass == 0) || !c.adds(f, r) {
				continue
			}
			for i := range r.Spec.Subsets {
				if r.Spec.Subsets[i].Name == name {
					return &r.Spec.Subsets[i], r
				}
			}
		}
	}
	return nil, nil
}
