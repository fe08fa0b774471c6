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
				if kind := naiveKind(a, b, was); kind != "" {
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
		if told[kind] == 0 {
			t.Errorf("no change was of kind %s", kind)
		}
	}
}

// naiveKind is the table of what a change is called.
func naiveKind(a, b policy.Decision, was bool) ChangeKind {
	type state int
	const (
		none, conflict, plain, mtls state = 0, 1, 2, 3
	)
	of := func(d policy.Decision, there bool) state {
		switch {
		case !there || d.Symptom == policy.UnknownServer:
			return none
		case d.Verdict != policy.OK:
			return conflict
		case d.Client == policy.TLSIstioMutual:
			return mtls
		}
		return plain
	}
	return map[[2]state]ChangeKind{
		{none, conflict}: NewConflict, {none, plain}: New, {none, mtls}: New,
		{conflict, plain}: Mends, {conflict, mtls}: Mends,
		{plain, none}: Breaks, {mtls, none}: Breaks, {plain, conflict}: Breaks, {mtls, conflict}: Breaks,
		{plain, mtls}: GainsEncryption, {mtls, plain}: LosesEncryption,
	}[[2]state{of(a, was), of(b, true)}]
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
