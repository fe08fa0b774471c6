package mesh

import (
	"fmt"
	"slices"
	"strings"

	"citadel/ca/policy"
)

// Graph is a Matrix for the eye: clients, servers, and between them what holds.
type Graph struct {
	Clients, Servers []string
	All              []string // that each of Clients stands for, as a line
	Edges            []Edge
}

// Edge is what holds between some clients and some servers.
type Edge struct {
	Client, Server int  // into those of the Graph
	Look           Look // the worst
	Title          string
}

// Graph draws a Matrix: its servers by themselves, or those of a namespace, and
// all outside of Kubernetes, as one.
func (m *Matrix) Graph(byNamespace bool) *Graph {
	g := &Graph{}
	for _, c := range m.Columns {
		g.Clients, g.All = append(g.Clients, c.Name()), append(g.All, c.Names())
	}
	type between struct{ client, server int }
	tallies := map[between]*tally{}
	index := map[string]int{}
	for row, server := range m.Servers {
		name := fmt.Sprintf("%s:%d", ShortHost(server.Host), server.Port)
		if byNamespace {
			name = namespaceOfHost(server.Host)
		}
		at, known := index[name]
		if !known {
			at = len(g.Servers)
			index[name], g.Servers = at, append(g.Servers, name)
		}
		for column := range m.Columns {
			key := between{column, at}
			if tallies[key] == nil {
				tallies[key] = &tally{}
			}
			tallies[key].add(m.At(row, column))
		}
	}
	for key, t := range tallies {
		g.Edges = append(g.Edges, Edge{key.client, key.server, t.worst, g.Clients[key.client] + " to " + g.Servers[key.server] + ": " + t.String()})
	}
	slices.SortFunc(g.Edges, func(a, b Edge) int { return (a.Client-b.Client)*len(g.Servers) + a.Server - b.Server })
	return g
}

// namespaceOfHost is a Service's, or what all others have in common.
func namespaceOfHost(host string) string {
	name, is := strings.CutSuffix(host, ".svc."+policy.ClusterDomain)
	if _, namespace, has := strings.Cut(name, "."); is && has {
		return namespace
	}
	return "outside"
}

// tally counts cells.
type tally struct {
	n     [looks]int
	worst Look
	why   string // of the worst, the first
}

func (t *tally) add(c *Cell) {
	look := c.Look()
	if t.n[look]++; look > t.worst || t.why == "" {
		t.worst, t.why = look, c.Reason()
	}
}

func (t *tally) String() string {
	var parts []string
	total := 0
	for look, n := range t.n {
		if total += n; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, Look(look)))
		}
	}
	if total == 1 {
		return t.why
	}
	return strings.Join(parts, ", ") + "; " + t.why
}
