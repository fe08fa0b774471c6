package policy

import (
	"slices"
	"strings"
)

// warnRules is about DestinationRules: those that hide others, and those that
// nobody sees.
func (x *explainer) warnRules() {
	if x.q.Client.Sidecar {
		x.warnSearch()
		x.warnOthers()
	}
	short := strings.TrimSuffix(x.svc.host, serviceSuffix)
	for _, ns := range x.s.namespaces {
		if group, _ := ns.rules.find(short, 0); short != x.svc.host && len(group) > 0 {
			x.warn("host-not-expanded", "%s matches nothing: %s is not taken for %s", describe(group[0]), short, x.svc.host)
		}
	}
}

// warnSearch is about the rule that was found.
func (x *explainer) warnSearch() {
	f := x.rule
	switch {
	case f.group != nil && f.head == nil:
		x.warn("selector-hides-rules", "rules of namespace %s for this host are for other clients, and still hide those of other namespaces", f.group[0].Namespace)
		return
	case f.head == nil:
		return
	}
	if x.q.Server.Subset != "" {
		if subset, _ := x.subset(f, x.q.Server.Subset); subset == nil {
			x.warn("unknown-subset", "%s has no subset %s", describe(f.head), x.q.Server.Subset)
		} else if x.s.generation == V1Alpha1 && x.s.mesh.auto && x.tls.by.Subset == "" && x.tls.settings != nil {
			x.warn("subset-without-tls", "subset %s of %s says nothing of TLS: with automatic mTLS this release may open it in place of what the rule says", subset.Name, f.head.Ref())
		}
	}
	if policy, _ := x.policy(f); policy != nil && policy.TLS != nil && x.portEntryWithoutTLS(f, policy) {
		x.warn("port-entry-without-tls", "an entry for port %d of %s says nothing of TLS, and replaces what stands above it: releases read this in two ways", x.q.Server.Port, f.head.Ref())
	}
	others := 0
	for _, r := range f.group {
		if r != f.head && x.visible(r, f.of) && r.Spec.TrafficPolicy != nil && r.chooses.in(x.q.Client.Labels) {
			others++
		}
	}
	if others > 0 {
		x.warn("ambiguous-rules", "%d more rules of namespace %s are for host %s: make them one", others, f.head.Namespace, f.head.Spec.Host)
	}
}

func (x *explainer) portEntryWithoutTLS(f found, policy *TrafficPolicy) bool {
	if entry := policy.port(x.q.Server.Port); entry != nil && entry.TLS == nil {
		return true
	}
	subset, _ := x.subset(f, x.q.Server.Subset)
	if subset == nil || subset.TrafficPolicy == nil {
		return false
	}
	entry := subset.TrafficPolicy.port(x.q.Server.Port)
	return entry != nil && entry.TLS == nil
}

// warnOthers is about the rules that were not found.
func (x *explainer) warnOthers() {
	silent := x.rule.head != nil && x.tls.tls == TLSUnset && !x.s.mesh.auto
	for _, r := range x.rulesFor() {
		says := x.says(r)
		if r == x.rule.head || slices.Contains(x.rule.group, r) || says == "" {
			continue
		}
		switch at := x.stepOf(r); {
		case at == onPath && silent && says == TLSIstioMutual.String():
			x.warn("rule-without-tls", "%s has no tls and shadows %s, which has ISTIO_MUTUAL", describe(x.rule.head), describe(r))
		case at != onPath && says != x.e.Client.Says:
			x.warn("rule-off-path", "%s asks for %s and is not on the path of look-ups for clients in namespace %s", describe(r), says, x.q.Client.Namespace)
		}
	}
}
