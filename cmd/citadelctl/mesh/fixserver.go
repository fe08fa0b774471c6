package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"citadel/ca/policy"
)

// permissive has the server take plain text and mutual TLS.
func (t *target) permissive() []candidate {
	text := fmt.Sprintf("have %s take plain text as well as mutual TLS", t.name())
	weakens := t.d.Server == policy.Strict
	switch {
	case !weakens:
		text = fmt.Sprintf("have %s take mutual TLS as well as plain text", t.name())
	case !t.d.Query().Client.Sidecar:
		text += "; better is a sidecar for the client"
	}
	edits := t.permissivePolicies()
	if t.w.Generation() == policy.V1 {
		edits = t.permissivePeers()
	}
	var all []candidate
	for i := range edits {
		all = append(all, candidate{text: text, weakens: weakens, edits: edits[i].edits, narrow: edits[i].narrow})
	}
	return all
}

// option is edits that belong together.
type option struct {
	edits  []edit
	narrow bool
}

// permissivePeers are ways to do it by PeerAuthentications: the port of those
// that choose the workloads, the port of a new one, or whatever decides.
func (t *target) permissivePeers() (all []option) {
	mode := map[string]any{"mode": policy.Permissive.String()}
	ports := t.workloadPorts()
	if len(ports) > 0 {
		var together []edit
		for _, p := range t.choosingPeers() {
			e := edit{ref: p.Ref()}
			for i, port := range ports {
				if len(p.Spec.PortLevelMTLS) == 0 && i == 0 {
					e.ops = append(e.ops, op{[]string{"spec", "portLevelMtls"}, map[string]any{port: mode}})
				} else {
					e.ops = append(e.ops, op{[]string{"spec", "portLevelMtls", port}, mode})
				}
			}
			all, together = append(all, option{[]edit{e}, true}), append(together, e)
		}
		if len(together) > 1 {
			all = append(all, option{together, true})
		}
		if selector := t.selector(); len(selector) > 0 {
			levels := map[string]any{}
			for _, port := range ports {
				levels[port] = mode
			}
			ref := t.unused(policy.KindPeerAuthentication, t.ref.Namespace, t.short()+"-permissive")
			all = append(all, option{[]edit{newObject("security.istio.io/v1", ref,
				map[string]any{"selector": map[string]any{"matchLabels": selector}, "portLevelMtls": levels})}, true})
		}
	}
	if p, is := t.w.objects[t.d.ServerBy.Ref].(*policy.PeerAuthentication); is && t.d.ServerBy.Port == 0 {
		all = append(all, option{[]edit{{ref: p.Ref(), ops: []op{{[]string{"spec", "mtls"}, mode}}}}, p.Namespace != t.w.RootNamespace()})
	}
	return all
}

// workloadPorts are the ports of the containers behind the service port.
func (t *target) workloadPorts() (ports []string) {
	for _, e := range t.whole.Endpoints() {
		if text := fmt.Sprint(e.Port); e.Sidecar && e.Port > 0 && !slices.Contains(ports, text) {
			ports = append(ports, text)
		}
	}
	return ports
}

// choosingPeers are the PeerAuthentications that choose a workload behind the
// server, by name.
func (t *target) choosingPeers() (all []*policy.PeerAuthentication) {
	endpoints := t.whole.Endpoints()
	for _, o := range t.w.objects {
		p, is := o.(*policy.PeerAuthentication)
		if !is || p.Namespace != t.ref.Namespace || p.Spec.Selector == nil {
			continue
		}
		if slices.ContainsFunc(endpoints, func(e policy.Endpoint) bool { return matches(p.Spec.Selector.MatchLabels, e.Labels) }) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *policy.PeerAuthentication) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// selector chooses the workloads behind the server: as its Service does, else by
// the labels that they have in common.
func (t *target) selector() map[string]any {
	selector := map[string]string{}
	if s := t.service(); s != nil && len(s.Spec.Selector) > 0 {
		selector = s.Spec.Selector
	} else if endpoints := t.whole.Endpoints(); len(endpoints) > 0 {
		selector = maps.Clone(endpoints[0].Labels)
		for _, e := range endpoints {
			maps.DeleteFunc(selector, func(k, v string) bool { return e.Labels[k] != v })
		}
	}
	values := map[string]any{}
	for k, v := range selector {
		values[k] = v
	}
	return values
}

// permissivePolicies are ways to do it by Policies: the one for the service that
// decides, a new one for it, or whatever decides.
func (t *target) permissivePolicies() (all []option) {
	peers := []any{map[string]any{"mtls": map[string]any{"mode": policy.Permissive.String()}}}
	decides := t.w.objects[t.d.ServerBy.Ref]
	target := map[string]any{"name": t.ref.Name}
	if t.several() {
		target["ports"] = []any{map[string]any{"number": t.port()}}
	}
	p, isPolicy := decides.(*policy.Policy)
	targeted := isPolicy && len(p.Spec.Targets) > 0
	if targeted {
		all = append(all, option{[]edit{editPeers(p.Ref(), p.Spec.Peers)}, true})
	}
	if t.service() != nil {
		ref := t.unused(policy.KindPolicy, t.ref.Namespace, t.ref.Name+"-permissive")
		all = append(all, option{[]edit{newObject("authentication.istio.io/v1alpha1", ref, map[string]any{"targets": []any{target}, "peers": peers})}, true})
	}
	if isPolicy && !targeted {
		all = append(all, option{[]edit{editPeers(p.Ref(), p.Spec.Peers)}, true})
	}
	if whole := (policy.Ref{Kind: policy.KindPolicy, Namespace: t.ref.Namespace, Name: "default"}); t.w.objects[whole] == nil {
		all = append(all, option{[]edit{newObject("authentication.istio.io/v1alpha1", whole, map[string]any{"peers": peers})}, true})
	}
	if m, is := decides.(*policy.MeshPolicy); is {
		all = append(all, option{[]edit{editPeers(m.Ref(), m.Spec.Peers)}, false})
	}
	return all
}

// editPeers makes the first mtls entry of peers permissive, or adds one.
func editPeers(ref policy.Ref, peers []policy.Peer) edit {
	mode := map[string]any{"mode": policy.Permissive.String()}
	if i := slices.IndexFunc(peers, func(p policy.Peer) bool { return p.MTLS != nil }); i >= 0 {
		return edit{ref: ref, ops: []op{{[]string{"spec", "peers", fmt.Sprint(i), "mtls"}, mode}}}
	}
	if len(peers) == 0 {
		return edit{ref: ref, ops: []op{{[]string{"spec", "peers"}, []any{map[string]any{"mtls": mode}}}}}
	}
	return edit{ref: ref, ops: []op{{[]string{"spec", "peers", "-"}, map[string]any{"mtls": mode}}}}
}
