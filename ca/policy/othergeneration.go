package policy

import (
	"fmt"
	"strings"
)

// ignoredOlder lists what speaks about the server side under the rules of an
// older generation than Auto has picked: one new object switches all of it off.
func (x *explainer) ignoredOlder() (all []Shadowed) {
	if x.s.asked != Auto || x.s.generation == Legacy || x.svc.external || x.port < 0 {
		return nil
	}
	note := func(o Origin, says string, of Generation) {
		all = append(all, Shadowed{o.String(), says, fmt.Sprintf("is of generation %s, and auto has picked %s", of, x.s.generation)})
	}
	if x.s.generation == V1 {
		if ns := x.s.namespaces[x.svc.namespace]; ns != nil {
			for _, p := range ns.targeted[x.svc.name] {
				if x.targets(p) {
					note(by(p.Ref()), p.mode.String(), V1Alpha1)
				}
			}
			for _, p := range ns.whole {
				note(by(p.Ref()), p.mode.String(), V1Alpha1)
			}
		}
		if p := x.s.meshPolicy["default"]; p != nil && x.s.usable(p) {
			note(by(p.Ref()), p.Spec.mode().String(), V1Alpha1)
		}
	}
	if auth := x.svc.ports[x.port].auth; auth != AuthUnset {
		note(Origin{Reason: ByObject, Ref: x.svc.ref, Port: x.q.Server.Port}, auth.String(), Legacy)
	}
	if x.s.mesh.auth != AuthUnset {
		note(because(ByAuthPolicy), x.s.mesh.auth.String(), Legacy)
	}
	return all
}

// warnOlder tells of what ignoredOlder has found.
func (x *explainer) warnOlder(ignored []Shadowed) {
	if len(ignored) == 0 {
		return
	}
	names := make([]string, len(ignored))
	for i, o := range ignored {
		names[i] = o.Object
	}
	x.warn("other-generation-ignored", "auto has picked %s, for %s: by it these do not count, which speak of this connection by older rules: %s; set the generation until they are replaced",
		x.s.generation, x.e.Picked, strings.Join(names, ", "))
}
