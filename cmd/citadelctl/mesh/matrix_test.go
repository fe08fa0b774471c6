package mesh

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"citadel/ca/policy"
)

// random makes a mesh of few names, so that much collides.
func random(t *testing.T, seed uint64) *World {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	var text strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&text, "---\n"+format+"\n", args...) }
	for i := range 3 + r.IntN(4) {
		say(`{apiVersion: v1, kind: Service, metadata: {name: s%d, namespace: %s}, spec: {selector: {app: s%[1]d}, ports: [{name: http, port: 80}, {name: tcp, port: 81}]}}`, i, pick("a", "b", "c"))
	}
	for i := range 8 {
		say(`{apiVersion: v1, kind: Pod, metadata: {name: p%d, namespace: %s, labels: {app: s%d, version: %s, security.istio.io/tlsMode: %s}}, spec: {containers: [{name: %s}]}}`,
			i, pick("a", "b", "c", "istio-system"), r.IntN(4), pick("v1", "v2"), pick("istio", "istio", "disabled"), pick("istio-proxy", "istio-proxy", "app"))
	}
	for i := range r.IntN(4) {
		say(`{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p%d, namespace: %s}, spec: {selector: {matchLabels: {%s}}, mtls: {mode: %s}}}`,
			i, pick("a", "b", "istio-system"), pick("", "app: s1"), pick("STRICT", "DISABLE", "PERMISSIVE"))
	}
	for i := range r.IntN(5) {
		say(`{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r%d, namespace: %s}, spec: {host: %s, %s trafficPolicy: {tls: {mode: %s}}}}`,
			i, pick("a", "b", "c", "istio-system"), pick("s0", "'*.local'", "s1.b.svc.cluster.local"), pick("", "workloadSelector: {matchLabels: {version: v1}},"), pick("ISTIO_MUTUAL", "DISABLE", "SIMPLE"))
	}
	return world(t, policy.V1, text.String())
}

// TestMatrix: each cell is the decision, for each client of its column.
func TestMatrix(t *testing.T) {
	conflicts, shared := 0, 0
	for seed := range uint64(150) {
		w := random(t, seed)
		m := w.Matrix(Selection{})
		seen := 0
		for row, server := range m.Servers {
			for column, clients := range m.Columns {
				for _, c := range clients {
					seen++
					want := newCell(w.Resolve(policy.Query{Client: c.Client, Server: server}))
					if got := *m.At(row, column); got != want {
						t.Fatalf("seed %d: %s to %v: %+v, want %+v", seed, c.Name(), server, got, want)
					}
				}
			}
		}
		if callers := len(w.Callers()); seen != callers*len(m.Servers) || len(m.Servers) == 0 {
			t.Fatalf("seed %d: %d cells of %d clients and %d servers", seed, seen, callers, len(m.Servers))
		}
		conflicts += m.Counts()[Conflict]
		shared += len(w.Callers()) - len(m.Columns)
	}
	if conflicts == 0 || shared == 0 {
		t.Errorf("%d conflicts, %d shared columns: the meshes are too simple", conflicts, shared)
	}
}

// TestCallers: workloads that rules tell apart are apart, and each workload is
// one of those that its caller stands for.
func TestCallers(t *testing.T) {
	for seed := range uint64(100) {
		w := random(t, seed)
		m := w.Matrix(Selection{})
		for _, one := range w.workloads("") {
			client := policy.Client{Namespace: one.ref.Namespace, ServiceAccount: one.account, Sidecar: one.sidecar, Labels: one.labels}
			key := w.chosenLabels().caller(one).key()
			column := slices.IndexFunc(m.Columns, func(c Column) bool {
				return slices.ContainsFunc(c, func(c *Caller) bool { return c.key() == key })
			})
			for row, server := range m.Servers {
				if want := newCell(w.Resolve(policy.Query{Client: client, Server: server})); *m.At(row, column) != want {
					t.Fatalf("seed %d: %v to %v: %+v, want %+v", seed, one, server, *m.At(row, column), want)
				}
			}
		}
	}
}

// TestSelection: what is asked for, and no more.
func TestSelection(t *testing.T) {
	w := random(t, 3)
	m := w.Matrix(Selection{Servers: func(ns string) bool { return ns == "a" }, Clients: func(ns string) bool { return ns == "b" }})
	for _, s := range m.Servers {
		if !strings.Contains(s.Host, ".a.svc") {
			t.Errorf("server %s", s.Host)
		}
	}
	for _, c := range m.Columns {
		if c[0].Client.Namespace != "b" {
			t.Errorf("client %s", c.Name())
		}
	}
	left, kept := 0, 0
	for seed := range uint64(20) {
		w := random(t, seed)
		whole, some := w.Matrix(Selection{}), w.Matrix(Selection{Conflicts: true})
		left, kept = left+len(whole.Servers)-len(some.Servers), kept+len(some.Servers)
		if some.Counts()[Conflict] != whole.Counts()[Conflict] {
			t.Errorf("%d conflicts of %d", some.Counts()[Conflict], whole.Counts()[Conflict])
		}
	}
	if left == 0 || kept == 0 {
		t.Errorf("%d servers kept, %d left out", kept, left)
	}
	if none := w.Matrix(Selection{Clients: func(string) bool { return false }}); len(none.Columns) != 0 || none.Graph(true) == nil {
		t.Errorf("%d columns", len(none.Columns))
	}
}

// TestGraph: an edge is as bad as the worst that it stands for.
func TestGraph(t *testing.T) {
	for seed := range uint64(50) {
		m := random(t, seed).Matrix(Selection{})
		for _, byNamespace := range []bool{true, false} {
			g := m.Graph(byNamespace)
			worst := map[string]Look{}
			for row, server := range m.Servers {
				name := fmt.Sprintf("%s:%d", ShortHost(server.Host), server.Port)
				if byNamespace {
					name = strings.Split(server.Host, ".")[1]
				}
				for column := range m.Columns {
					key := m.Columns[column].Name() + " to " + name
					worst[key] = max(worst[key], m.At(row, column).Look())
				}
			}
			if len(g.Edges) != len(worst) {
				t.Errorf("seed %d: %d edges, want %d", seed, len(g.Edges), len(worst))
			}
			for _, e := range g.Edges {
				if key := g.Clients[e.Client] + " to " + g.Servers[e.Server]; e.Look != worst[key] || !strings.HasPrefix(e.Title, key+": ") {
					t.Errorf("seed %d: %+v, want %s", seed, e, worst[key])
				}
			}
		}
	}
}
