package policy

import (
	"fmt"
	"maps"
	"slices"
)

// rulesFor returns all rules whose host matches, wherever they are; by
// namespace, the most specific host first.
func (x *explainer) rulesFor() (all []*rule) {
	for _, name := range slices.Sorted(maps.Keys(x.s.namespaces)) {
		for i := 0; ; i++ {
			group, more := x.s.namespaces[name].rules.find(x.svc.host, i)
			if !more {
				break
			}
			all = append(all, group...)
		}
	}
	return all
}

func (x *explainer) shadowedRules() (all []Shadowed) {
	for _, r := range x.rulesFor() {
		if why := x.whyNotRule(r); why != "" {
			all = append(all, Shadowed{r.Ref().String(), x.says(r), why})
		}
	}
	return all
}

// says is the TLS that a rule by itself would ask for; empty for none.
func (x *explainer) says(r *rule) string {
	alone := x.call
	alone.rule = found{head: r, group: []*rule{r}, of: x.rule.of}
	if tls := alone.selectTLS().tls; tls != TLSUnset {
		return tls.String()
	}
	return ""
}

// whyNotRule says why a rule did not decide; empty for the one that did.
func (x *explainer) whyNotRule(r *rule) string {
	if x.d.ClientBy.Ref == r.Ref() {
		return ""
	}
	if !x.q.Client.Sidecar {
		return "the client has no sidecar"
	}
	at := x.stepOf(r)
	winner := x.rule.head
	switch {
	case r.invalid[0] && x.s.generation == V1Alpha1 || r.invalid[1] && x.s.generation == V1:
		return "is not valid"
	case r == winner:
		return "says nothing of TLS for this port"
	case at == offPath:
		return fmt.Sprintf("namespace %s is neither the client's, nor the server's, nor the root", r.Namespace)
	case at == hidden:
		return fmt.Sprintf("is not exported to namespace %s", x.q.Client.Namespace)
	case len(x.rule.group) == 0:
		return "does not choose this client"
	case x.rule.group[0].Namespace != r.Namespace:
		return fmt.Sprintf("rules of namespace %s come first", x.rule.group[0].Namespace)
	case x.rule.group[0].host != r.host:
		return fmt.Sprintf("host %s is less specific than %s", r.Spec.Host, x.rule.group[0].Spec.Host)
	case r.chooses != nil && !r.chooses.in(x.q.Client.Labels):
		return "its workloadSelector does not choose the client"
	case winner != nil && x.adds(x.rule, r):
		return "is part of " + winner.Ref().String() + ", which comes first"
	case winner != nil:
		return winner.Ref().String() + " is for the same host and takes precedence"
	}
	return "does not choose this client"
}

// step is where the search meets a rule.
type step uint8

const (
	onPath  step = iota
	hidden       // its namespace is looked at, it is not
	offPath      // its namespace is not looked at
)

func (x *explainer) stepOf(r *rule) step {
	best := offPath
	for _, at := range x.scopes() {
		if at.namespace != r.Namespace {
			continue
		}
		exported := at.of != scopeExported || x.s.generation == V1Alpha1 || r.exports(x.q.Client.Namespace)
		if x.visible(r, at.of) && exported {
			return onPath
		}
		best = hidden
	}
	return best
}
