package policy

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// naiveRule is a rule as it is after merging: a new object, not a view.
type naiveRule struct {
	host     string
	selector map[string]string
	exportTo []string
	policy   *TrafficPolicy
	owner    string
	subsets  []naiveSubset
}

type naiveSubset struct {
	Subset
	owner string
}

func fullHost(r *DestinationRule) string {
	if strings.Contains(r.Spec.Host, ".") || r.Spec.Host[0] == '*' {
		return r.Spec.Host
	}
	return r.Spec.Host + "." + r.Namespace + ".svc.cluster.local"
}

func (n *naive) exportsOf(r *DestinationRule) (set []string) {
	for _, e := range r.Spec.ExportTo {
		if e == "." {
			e = r.Namespace
		}
		set = append(set, e)
	}
	sort.Strings(set)
	return set
}

// collect merges the rules of a namespace that a step sees.
func (n *naive) collect(namespace string, sees func(*DestinationRule) bool) (out []*naiveRule) {
	rules := slices.Clone(n.rules)
	sort.SliceStable(rules, func(i, j int) bool {
		return n.generation == V1 && labelsOf(rules[i]) != nil && labelsOf(rules[j]) == nil
	})
	for _, r := range rules {
		if r.Namespace != namespace || !sees(r) {
			continue
		}
		fresh := &naiveRule{host: fullHost(r), selector: labelsOf(r), exportTo: n.exportsOf(r), owner: "DestinationRule/" + r.Namespace + "/" + r.Name, policy: r.Spec.TrafficPolicy}
		for _, s := range r.Spec.Subsets {
			fresh.subsets = append(fresh.subsets, naiveSubset{s, fresh.owner})
		}
		part := false
		for _, old := range out {
			same := fmt.Sprint(old.selector) == fmt.Sprint(fresh.selector)
			fits := n.generation == V1Alpha1 || slices.Equal(old.exportTo, fresh.exportTo) || len(old.exportTo) > 0 && containsAll(fresh.exportTo, old.exportTo)
			if old.host != fresh.host || !fits || n.generation == V1 && !same && (old.selector == nil || fresh.selector != nil) {
				continue
			}
			if old.policy == nil && fresh.policy != nil {
				old.policy, old.owner = fresh.policy, fresh.owner
			}
			old.subsets = append(old.subsets, fresh.subsets...)
			part = part || same || n.generation == V1Alpha1
		}
		if !part {
			out = append(out, fresh)
		}
	}
	return out
}

func labelsOf(r *DestinationRule) map[string]string {
	if r.Spec.WorkloadSelector == nil || len(r.Spec.WorkloadSelector.MatchLabels) == 0 {
		return nil
	}
	return r.Spec.WorkloadSelector.MatchLabels
}

func containsAll(set, part []string) bool {
	for _, p := range part {
		if !slices.Contains(set, p) {
			return false
		}
	}
	return true
}

// mostSpecific keeps the rules of the host that fits best.
func mostSpecific(rules []*naiveRule, host string) (out []*naiveRule) {
	best := ""
	for _, r := range rules {
		if r.host == host {
			best = host
			break
		}
		if strings.HasPrefix(r.host, "*") && strings.HasSuffix(host, r.host[1:]) && len(r.host) > len(best) {
			best = r.host
		}
	}
	for _, r := range rules {
		if r.host == best {
			out = append(out, r)
		}
	}
	return out
}

func (n *naive) ruleOf(q Query, svc *Service) *naiveRule {
	private := n.generation == V1 && slices.Contains(n.config.RuleExportTo, ".") || len(n.config.RuleExportTo) > 0 && n.config.RuleExportTo[0] == "."
	isPrivate := func(r *DestinationRule) bool {
		e := n.exportsOf(r)
		if len(e) == 0 {
			return private || n.generation == V1 && r.Spec.WorkloadSelector != nil
		}
		if n.generation == V1Alpha1 {
			return r.Spec.ExportTo[0] == "."
		}
		return r.Spec.WorkloadSelector != nil || len(e) == 1 && e[0] == r.Namespace
	}
	local := func(r *DestinationRule) bool {
		e := n.exportsOf(r)
		return n.generation == V1Alpha1 || len(e) == 0 || slices.Contains(e, "*") || slices.Contains(e, r.Namespace)
	}
	public := func(r *DestinationRule) bool { return !isPrivate(r) }
	client := q.Client.Namespace
	switch {
	case client != n.root():
		if rules := mostSpecific(n.collect(client, local), q.Server.Host); len(rules) > 0 {
			return n.choose(q, rules)
		}
	case n.generation == V1:
		if rules := mostSpecific(n.collect(client, isPrivate), q.Server.Host); len(rules) > 0 {
			return n.choose(q, rules)
		}
	}
	for _, at := range []string{svc.Namespace, n.root()} {
		rules := mostSpecific(n.collect(at, public), q.Server.Host)
		if n.generation == V1 {
			rules = slices.DeleteFunc(rules, func(r *naiveRule) bool {
				return len(r.exportTo) > 0 && !slices.Contains(r.exportTo, "*") && !slices.Contains(r.exportTo, client)
			})
		}
		if len(rules) > 0 {
			return n.choose(q, rules)
		}
	}
	return nil
}

func (n *naive) choose(q Query, rules []*naiveRule) *naiveRule {
	if n.generation == V1Alpha1 {
		return rules[0]
	}
	for _, r := range rules {
		if r.selector != nil && chosen(r.selector, q.Client.Labels) {
			return r
		}
	}
	for _, r := range slices.Backward(rules) {
		if r.selector == nil {
			return r
		}
	}
	return nil
}

func entryFor(t *TrafficPolicy, port int32) *PortPolicy {
	if t != nil {
		for i := range t.PortLevel {
			if t.PortLevel[i].Port.Number == port {
				return &t.PortLevel[i]
			}
		}
	}
	return nil
}

func passes(p *PortPolicy, before bool) bool {
	if p == nil || p.LoadBalancer == nil {
		return before
	}
	return p.LoadBalancer.Simple == 3
}

// ruleTLS is the tls of the rule, who says so, and whether it passes through.
func (n *naive) ruleTLS(q Query, svc *Service) (TLS, string, bool) {
	r := n.ruleOf(q, svc)
	if r == nil {
		return TLSUnset, "default", false
	}
	at := fmt.Sprintf("#portLevelSettings/%d", q.Server.Port)
	name, silent := r.owner, false
	var base *PortPolicy
	if r.policy != nil {
		base = &r.policy.PortPolicy
	}
	if e := entryFor(r.policy, q.Server.Port); e != nil {
		base, name, silent = e, name+at, e.TLS == nil
	}
	var tls *ClientTLS
	if base != nil {
		tls = base.TLS
	}
	passthrough := passes(base, false)
	for _, s := range r.subsets {
		if q.Server.Subset == "" || s.Name != q.Server.Subset || s.TrafficPolicy == nil {
			if s.Name == q.Server.Subset {
				break
			}
			continue
		}
		own, ownName := &s.TrafficPolicy.PortPolicy, s.owner+"#subset/"+s.Name
		e := entryFor(s.TrafficPolicy, q.Server.Port)
		if e != nil {
			own, ownName = e, ownName+at
		}
		passthrough = passes(own, passthrough)
		if own.TLS != nil || e != nil && n.generation == V1 {
			tls, name, silent = own.TLS, ownName, own.TLS == nil
		}
		break
	}
	if silent && n.generation == V1 && n.auto() && r.policy != nil && r.policy.TLS != nil {
		if r.policy.TLS.Mode == TLSIstioMutual {
			return TLSIstioMutual, r.owner, passthrough
		}
		return TLSDisable, r.owner, passthrough
	}
	switch {
	case tls == nil:
		return TLSUnset, name, passthrough
	case tls.Mode == TLSUnset:
		return TLSDisable, name, passthrough
	}
	return tls.Mode, name, passthrough
}
