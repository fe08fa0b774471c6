package mesh

import (
	"hash/maphash"
	"runtime"
	"slices"
	"strings"
	"sync"

	"citadel/ca/policy"
)

// Matrix says who can talk to whom: what holds for each client and each port of
// each server. Clients for which the same holds everywhere, for the same reasons,
// share a column.
type Matrix struct {
	Columns []Column
	Servers []policy.Server // by host and port: the rows
	Cells   []Cell          // each that there is, once

	callers int      // of which there are so many
	at      []uint32 // into Cells: by row, then by column
}

// Column is clients that are alike in a Matrix.
type Column []*Caller

// Name is the first client's, with how many others there are.
func (c Column) Name() string { return c[0].Name() + more(len(c)-1) }

// Names are all of them, in a line.
func (c Column) Names() string {
	all := make([]string, len(c))
	for i := range c {
		all[i] = c[i].Name()
	}
	return strings.Join(all, ", ")
}

// Selection says which part of a mesh a Matrix shows; the zero value is all.
type Selection struct {
	Servers   func(namespace string) bool // nil: all
	Clients   func(namespace string) bool
	Conflicts bool // rows that have one alone
}

// Matrix answers for all clients and servers of a selection. It holds four bytes
// for each pair while it works.
func (w *World) Matrix(s Selection) *Matrix {
	callers := slices.DeleteFunc(w.Callers(), func(c *Caller) bool { return s.Clients != nil && !s.Clients(c.Client.Namespace) })
	servers := slices.Collect(w.Servers())
	slices.SortFunc(servers, compareServers)
	servers = slices.Compact(servers)
	if s.Servers != nil {
		servers = slices.DeleteFunc(servers, func(server policy.Server) bool {
			return !s.Servers(namespaceOf(w, policy.Query{Server: server}))
		})
	}
	m := &Matrix{Servers: servers, callers: len(callers)}
	m.fill(w, callers)
	if s.Conflicts {
		m.keep(func(row []uint32) bool {
			return slices.ContainsFunc(row, func(at uint32) bool {
				return m.Cells[at].Verdict == policy.Conflict.String() || m.Cells[at].Failing > 0
			})
		})
	}
	m.group(callers)
	return m
}

// At is what holds for a server and the clients of a column.
func (m *Matrix) At(row, column int) *Cell { return &m.Cells[m.at[row*len(m.Columns)+column]] }

// Counts are how many pairs of clients and servers there are of each Look.
func (m *Matrix) Counts() (n [looks]int) {
	for row := range m.Servers {
		for column, clients := range m.Columns {
			n[m.At(row, column).Look()] += len(clients)
		}
	}
	return n
}

// reason is a Cell before it is text.
type reason struct {
	verdict            policy.Verdict
	server             policy.Mode
	client             policy.TLS
	symptom            policy.Symptom
	serverBy, clientBy policy.Origin
	failing, all       int // of endpoints, when some fail
}

func reasonOf(d *policy.Decision) reason {
	r := reason{verdict: d.Verdict, server: d.Server, client: d.Client, symptom: d.Symptom, serverBy: d.ServerBy, clientBy: d.ClientBy}
	if d.Even() {
		return r
	}
	if failing, all := d.Reach(); failing > 0 && failing < all {
		r.failing, r.all = failing, all
	}
	return r
}

// part is the rows that one processor fills.
type part struct {
	rows  []policy.Server
	at    []uint32 // into own
	own   []reason
	known map[reason]uint32
}

// fill answers all questions, with all processors.
func (m *Matrix) fill(w *World, callers []*Caller) {
	size := max((len(m.Servers)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0), 1)
	var parts []*part
	var all sync.WaitGroup
	for rows := range slices.Chunk(m.Servers, size) {
		p := &part{rows: rows, at: make([]uint32, 0, len(rows)*len(callers)), known: map[reason]uint32{}}
		parts = append(parts, p)
		all.Go(func() { p.fill(w, callers) })
	}
	all.Wait()
	m.at = make([]uint32, 0, len(m.Servers)*len(callers))
	known := map[reason]uint32{}
	for _, p := range parts {
		moved := make([]uint32, len(p.own))
		for i, r := range p.own {
			at, is := known[r]
			if !is {
				at = uint32(len(m.Cells))
				known[r] = at
				m.Cells = append(m.Cells, r.cell())
			}
			moved[i] = at
		}
		for _, at := range p.at {
			m.at = append(m.at, moved[at])
		}
	}
}

func (p *part) fill(w *World, callers []*Caller) {
	var last reason
	var at uint32
	for _, server := range p.rows {
		for i, c := range callers {
			d := w.Resolve(policy.Query{Client: c.Client, Server: server})
			if r := reasonOf(&d); i == 0 || r != last { // neighbours are mostly alike
				last, at = r, p.index(r)
			}
			p.at = append(p.at, at)
		}
	}
}

func (p *part) index(r reason) uint32 {
	at, is := p.known[r]
	if !is {
		at = uint32(len(p.own))
		p.known[r] = at
		p.own = append(p.own, r)
	}
	return at
}

func (r *reason) cell() Cell {
	return Cell{r.verdict.String(), r.server.String(), r.client.String(), r.serverBy.String(), r.clientBy.String(), string(r.symptom), r.failing, r.all}
}

// keep leaves out rows.
func (m *Matrix) keep(row func([]uint32) bool) {
	var servers []policy.Server
	var at []uint32
	for i, server := range m.Servers {
		if cells := m.at[i*m.callers : (i+1)*m.callers]; row(cells) {
			servers, at = append(servers, server), append(at, cells...)
		}
	}
	m.Servers, m.at = servers, at
}

// group makes one column of clients that are alike.
func (m *Matrix) group(callers []*Caller) {
	var first []int // the client that stands for each column
	seed, columns := maphash.MakeSeed(), map[uint64][]int{}
	for i, c := range callers {
		var h maphash.Hash
		h.SetSeed(seed)
		for row := range m.Servers {
			maphash.WriteComparable(&h, m.at[row*m.callers+i])
		}
		sum := h.Sum64()
		at := slices.IndexFunc(columns[sum], func(column int) bool { return m.alike(first[column], i) })
		if at >= 0 {
			column := columns[sum][at]
			m.Columns[column] = append(m.Columns[column], c)
			continue
		}
		columns[sum] = append(columns[sum], len(m.Columns))
		m.Columns, first = append(m.Columns, Column{c}), append(first, i)
	}
	narrow := make([]uint32, 0, len(m.Servers)*len(first))
	for row := range m.Servers {
		for _, i := range first {
			narrow = append(narrow, m.at[row*m.callers+i])
		}
	}
	m.at = narrow
}

func (m *Matrix) alike(a, b int) bool {
	for row := range m.Servers {
		if m.at[row*m.callers+a] != m.at[row*m.callers+b] {
			return false
		}
	}
	return true
}
