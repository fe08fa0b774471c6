package mesh

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"citadel/ca/policy"
)

// TestCompare: what a change does to each workload that is there before and
// after, worked out one by one, is what is told.
func TestCompare(t *testing.T) {
	told := map[ChangeKind]int{}
	for seed := range uint64(200) {
		before, after := random(t, seed), random(t, seed+1000)
		d := Compare(before, after)
		want := map[string]ChangeKind{}
		had, has := before.chosenLabels(), after.chosenLabels()
		for _, one := range after.workloads("") {
			for _, server := range servers(before, after, "") {
				old, was := asWorkload(before.objects[one.ref])
				var a policy.Decision
				if was {
					a = before.Resolve(policy.Query{Client: had.caller(old).Client, Server: server})
				}
				b := after.Resolve(policy.Query{Client: has.caller(one).Client, Server: server})
				if kind := naiveKind(before, after, a, b, was); kind != "" {
					want[fmt.Sprintf("%s to %s:%d %+v %+v", has.caller(one).Name(), server.Host, server.Port, newCell(a), newCell(b))] = kind
				}
			}
		}
		got, counted := map[string]ChangeKind{}, 0
		for _, n := range d.Counts {
			counted += n
		}
		for _, c := range d.Changes {
			told[c.Kind] += len(c.Clients) * len(c.Servers)
			for _, server := range c.Servers {
				for _, client := range c.Clients {
					got[fmt.Sprintf("%s to %s %+v %+v", client, server, c.Before, c.After)] = c.Kind
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || counted < len(want) {
			t.Fatalf("seed %d:\ngot  %v\nwant %v", seed, got, want)
		}
		if !slices.IsSortedFunc(d.Changes, func(a, b PairChange) int {
			return slices.Index(ChangeKinds, a.Kind) - slices.Index(ChangeKinds, b.Kind)
		}) {
			t.Errorf("seed %d: not the worst first", seed)
		}
	}
	for _, kind := range ChangeKinds {
		if told[kind] == 0 && kind != MendsAtSome { // which TestCompareEndpoints has
			t.Errorf("no change was of kind %s", kind)
		}
	}
}

// naiveState is what becomes of a connection.
type naiveState int

const (
	none, conflict, plain, encrypted naiveState = 0, 1, 2, 3
)

func naiveStateOf(d policy.Decision, there bool) naiveState {
	switch {
	case !there || d.Symptom == policy.UnknownServer:
		return none
	case d.Symptom == policy.DependsOnServer:
		return encrypted
	case d.Verdict != policy.OK:
		return conflict
	case d.Client == policy.TLSIstioMutual:
		return encrypted
	}
	return plain
}

var naiveKinds = map[[2]naiveState]ChangeKind{
	{none, conflict}: NewConflict, {none, plain}: New, {none, encrypted}: New,
	{conflict, plain}: Mends, {conflict, encrypted}: Mends,
	{plain, none}: Breaks, {encrypted, none}: Breaks, {plain, conflict}: Breaks, {encrypted, conflict}: Breaks,
	{plain, encrypted}: GainsEncryption, {encrypted, plain}: LosesEncryption,
}

// naiveKind is the table of what a change is called, asked for each endpoint.
func naiveKind(before, after *World, a, b policy.Decision, was bool) ChangeKind {
	old := naiveStateOf(a, was)
	whole := naiveKinds[[2]naiveState{old, naiveStateOf(b, true)}]
	kinds, endpoints := map[ChangeKind]int{}, b.Endpoints()
	for _, e := range endpoints {
		one := func(w *World, q policy.Query) policy.Decision {
			q.Server.Endpoint = e.Name
			return w.Resolve(q)
		}
		at := old
		if slices.ContainsFunc(a.Endpoints(), func(had policy.Endpoint) bool { return had.Name == e.Name }) {
			at = naiveStateOf(one(before, a.Query()), was)
		}
		kinds[naiveKinds[[2]naiveState{at, naiveStateOf(one(after, b.Query()), true)}]]++
	}
	switch n := len(endpoints); {
	case n == 0 || whole == NewConflict:
		return whole
	case old == none && kinds[NewConflict] > 0:
		return NewConflict
	case old == none:
		return whole
	case kinds[Breaks] == n:
		return Breaks
	case kinds[Breaks] > 0:
		return BreaksAtSome
	case kinds[LosesEncryption] > 0:
		return LosesEncryption
	case kinds[Mends] == n:
		return Mends
	case kinds[Mends] > 0:
		return MendsAtSome
	case kinds[GainsEncryption] > 0:
		return GainsEncryption
	}
	return ""
}

// TestCompareExternal: TLS that a sidecar opens to a server outside of the mesh
// is encryption, which a change takes away or brings.
func TestCompareExternal(t *testing.T) {
	with := world(t, policy.V1, `
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: out, namespace: n}, spec: {hosts: [api.example.com], location: MESH_EXTERNAL, ports: [{number: 80, name: http}], resolution: DNS}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: n, labels: {security.istio.io/tlsMode: istio}}, spec: {containers: [{name: istio-proxy}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: tls, namespace: n}, spec: {host: api.example.com, trafficPolicy: {tls: {mode: SIMPLE}}}}
`)
	without := with.Without(policy.Ref{Kind: policy.KindDestinationRule, Namespace: "n", Name: "tls"})
	for _, c := range []struct {
		before, after *World
		want          ChangeKind
	}{{with, without, LosesEncryption}, {without, with, GainsEncryption}} {
		if d := Compare(c.before, c.after); len(d.Changes) != 1 || d.Changes[0].Kind != c.want {
			t.Errorf("want %s: %+v", c.want, d.Changes)
		}
	}
}

// halfInjected is a service with a Pod that has a sidecar and one that has none.
const halfInjected = `
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: n}, spec: {selector: {app: s}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: s-0, namespace: n, labels: {app: s, security.istio.io/tlsMode: istio}}, spec: {containers: [{name: istio-proxy}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: s-1, namespace: n, labels: {app: s}}, spec: {containers: [{name: app}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: old, namespace: legacy}, spec: {containers: [{name: app}]}}
---
`

// TestCompareEndpoints: a change that breaks single endpoints is told, though
// the service as a whole is judged as before.
func TestCompareEndpoints(t *testing.T) {
	before := world(t, policy.V1, halfInjected)
	strict, err := policy.Decode("", []byte(`{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict, namespace: n}, spec: {mtls: {mode: STRICT}}}`))
	if err != nil {
		t.Fatal(err)
	}
	after := before.With(now, strict...)
	d := Compare(before, after)
	if d.Counts[BreaksAtSome] != 2 || len(d.Changes) != 1 || fmt.Sprint(d.Changes[0].At) != "[s-0]" || d.Changes[0].Of != 2 || d.Changes[0].After.Failing != 1 {
		t.Errorf("%+v", d)
	}
	if d := Compare(after, before); d.Counts[MendsAtSome] != 2 {
		t.Errorf("%+v", d)
	}
	m := after.Matrix(Selection{Conflicts: true})
	if n := m.Counts(); n[Some] != 2 || len(m.Servers) != 1 {
		t.Errorf("matrix: %v, rows %v", n, m.Servers)
	}
}

// TestAge: what replaces an object is as old as that, and what is new is the
// youngest, for the older of two objects counts.
func TestAge(t *testing.T) {
	const base = `
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: n}, spec: {selector: {app: s}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: n, labels: {app: s, security.istio.io/tlsMode: istio}}, spec: {containers: [{name: istio-proxy}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: m, namespace: n, creationTimestamp: '2020-01-01T00:00:00Z'}, spec: {mtls: {mode: PERMISSIVE}}}
`
	peer := func(name, mode string) policy.Object {
		all, err := policy.Decode("", fmt.Appendf(nil, `{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: %s, namespace: n}, spec: {mtls: {mode: %s}}}`, name, mode))
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	w := world(t, policy.V1, base)
	q := policy.Query{Client: policy.Client{Namespace: "n"}, Server: policy.Server{Host: "s.n.svc.cluster.local", Port: 80}}
	if d := w.With(now, peer("a", "STRICT")).Resolve(q); d.Server != policy.Permissive {
		t.Errorf("a new policy is taken for the oldest: %s by %s", d.Server, d.ServerBy)
	}
	if d := w.With(now, peer("m", "STRICT"), peer("a", "DISABLE")).Resolve(q); d.Server != policy.Strict {
		t.Errorf("a policy that replaces the oldest is not the oldest: %s by %s", d.Server, d.ServerBy)
	}
	late := peer("m", "STRICT").(*policy.PeerAuthentication) // as another cluster shows it
	late.Created = now
	if d := w.With(now, late, peer("a", "DISABLE")).Resolve(q); d.Server != policy.Strict {
		t.Errorf("a policy that replaces the oldest has an age of its own: %s by %s", d.Server, d.ServerBy)
	}
	if d := w.Without(policy.Ref{Kind: policy.KindPeerAuthentication, Namespace: "n", Name: "m"}).With(now.Add(time.Hour), peer("a", "DISABLE")).Resolve(q); d.Server != policy.Disable {
		t.Errorf("%s by %s", d.Server, d.ServerBy)
	}
	if d := w.Resolve(q); d.Server != policy.Permissive {
		t.Errorf("the World itself has changed: %s", d.Server)
	}
}
