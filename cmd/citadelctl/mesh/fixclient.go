package mesh

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"citadel/ca/policy"
)

// originate has the client open connections in a way: by the rule that decides
// when it is for this very host, by a new rule, or by the one that decides after all.
func (t *target) originate(tls policy.TLS) (all []candidate) {
	text := map[policy.TLS]string{
		policy.TLSIstioMutual: "have clients open mutual TLS to " + t.name(),
		policy.TLSDisable:     "have clients send plain text to " + t.name(),
	}[tls]
	bare, among := t.bare()
	switch {
	case t.d.ServerBy.Reason != policy.NoSidecar:
	case bare < among:
		text += fmt.Sprintf(", of whose endpoints %d of %d have no sidecar", bare, among)
	default:
		text += ", which has no sidecar"
	}
	weakens := tls == policy.TLSDisable && bare < among && t.d.ServerBy.Reason != policy.External
	add := func(narrow bool, e edit) {
		all = append(all, candidate{text: text, weakens: weakens, edits: []edit{e}, narrow: narrow})
	}
	rule, _ := t.w.objects[t.d.ClientBy.Ref].(*policy.DestinationRule)
	exact := rule != nil && rule.FullHost() == t.host()
	if exact {
		for _, e := range t.editRule(rule, tls) {
			add(true, e)
		}
	}
	for _, namespace := range slices.Compact([]string{t.ref.Namespace, t.d.Query().Client.Namespace}) {
		for _, e := range t.newRule(namespace, tls) {
			add(true, e)
		}
	}
	if rule != nil && !exact {
		for _, e := range t.editRule(rule, tls) {
			add(false, e)
		}
	}
	return all
}

// bare counts the endpoints without a sidecar, and all.
func (t *target) bare() (bare, all int) {
	endpoints := t.whole.Endpoints()
	for _, e := range endpoints {
		if !e.Sidecar {
			bare++
		}
	}
	return bare, len(endpoints)
}

// newRule is a rule for the host, or for its port alone.
func (t *target) newRule(namespace string, tls policy.TLS) (all []edit) {
	settings := map[string]any{"tls": map[string]any{"mode": tls.String()}}
	forms := []map[string]any{settings}
	if t.several() {
		forms = []map[string]any{{"portLevelSettings": []any{t.portEntry(tls)}}, settings}
	}
	version := "networking.istio.io/v1"
	if t.w.Generation() == policy.V1Alpha1 {
		version = "networking.istio.io/v1alpha3"
	}
	ref := t.unused(policy.KindDestinationRule, namespace, t.short()+"-"+strings.ToLower(strings.ReplaceAll(tls.String(), "_", "-")))
	for _, form := range forms {
		all = append(all, newObject(version, ref, map[string]any{"host": t.host(), "trafficPolicy": form}))
	}
	return all
}

func (t *target) portEntry(tls policy.TLS) map[string]any {
	return map[string]any{"port": map[string]any{"number": t.port()}, "tls": map[string]any{"mode": tls.String()}}
}

// editRule changes the part of a rule that decides, else adds an entry for the
// port to it.
func (t *target) editRule(r *policy.DestinationRule, tls policy.TLS) []edit {
	by, path, traffic := t.d.ClientBy, []string{"spec", "trafficPolicy"}, r.Spec.TrafficPolicy
	if by.Subset != "" {
		i := slices.IndexFunc(r.Spec.Subsets, func(s policy.Subset) bool { return s.Name == by.Subset })
		if i < 0 {
			return nil
		}
		path, traffic = []string{"spec", "subsets", strconv.Itoa(i), "trafficPolicy"}, r.Spec.Subsets[i].TrafficPolicy
	}
	below := func(more ...string) []string { return append(slices.Clone(path), more...) }
	mode := map[string]any{"mode": tls.String()}
	one := func(path []string, value any) edit { return edit{ref: r.Ref(), ops: []op{{path, value}}} }
	if traffic == nil {
		return []edit{one(path, map[string]any{"tls": mode})}
	}
	if by.Port != 0 {
		i := slices.IndexFunc(traffic.PortLevel, func(p policy.PortPolicy) bool { return p.Port != nil && p.Port.Number == by.Port })
		if i < 0 {
			return nil
		}
		return []edit{one(below("portLevelSettings", strconv.Itoa(i), "tls"), mode)}
	}
	entry := one(below("portLevelSettings"), []any{t.portEntry(tls)})
	if traffic.PortLevel != nil {
		entry = one(below("portLevelSettings", "-"), t.portEntry(tls))
	}
	return []edit{one(below("tls"), mode), entry}
}

// legacy are the candidates of the generation in which one value drives both
// sides: to take the host off the list of those that clients send plain text to,
// to annotate its Service, or to put it on that list.
func (t *target) legacy(weaken bool) (all []candidate) {
	mesh, _ := t.w.objects[policy.Ref{Kind: policy.KindMeshConfig}].(*policy.MeshConfig)
	excluded := []string{}
	if mesh != nil {
		excluded = mesh.ExcludedServices
	}
	list := func(text string, hosts []string) candidate {
		values := make([]any, len(hosts))
		for i, host := range hosts {
			values[i] = host
		}
		return candidate{text: text, edits: []edit{{ref: policy.Ref{Kind: policy.KindMeshConfig}, ops: []op{{[]string{"mtlsExcludedServices"}, values}}}}}
	}
	bare := t.d.ServerBy.Reason == policy.NoSidecar || t.d.ServerBy.Reason == policy.External
	if t.d.ClientBy.Reason == policy.ExcludedByMesh && !bare {
		without := slices.DeleteFunc(slices.Clone(excluded), func(host string) bool { return host == t.host() })
		all = append(all, list(fmt.Sprintf("take %s off mtlsExcludedServices of the mesh config, for its server has a sidecar", t.host()), without))
	}
	if t.service() != nil && (weaken || bare || !t.d.Query().Client.Sidecar) {
		all = append(all, t.annotate(!bare))
	}
	if bare {
		all = append(all, list(fmt.Sprintf("put %s on mtlsExcludedServices of the mesh config, for its server has no sidecar", t.host()), append(slices.Clone(excluded), t.host())))
	}
	return all
}

// annotate turns mTLS off for the port, on both sides.
func (t *target) annotate(weakens bool) candidate {
	key, none := "auth.istio.io/"+t.portText(), policy.AuthNone.String()
	o := annotation(t.service(), key, none)
	merge := map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: none}}}
	text := fmt.Sprintf("annotate %s with %s: NONE, which turns mTLS off for this port, for all clients", t.ref, key)
	if !t.d.Query().Client.Sidecar {
		text += "; better is a sidecar for the client"
	}
	return candidate{text: text, weakens: weakens, edits: []edit{{ref: t.ref, ops: []op{o}, merge: merge}}, narrow: true}
}
