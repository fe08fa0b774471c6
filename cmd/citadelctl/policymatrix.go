package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"citadel/cmd/citadelctl/mesh"
	"citadel/cmd/citadelctl/picture"
)

// matrixDocument is the form for programs.
type matrixDocument struct {
	meta
	partial
	Generation string         `json:"generation"`
	Clients    []matrixClient `json:"clients"`
	Items      []matrixServer `json:"items"`
}

// matrixClient is clients that policy cannot tell apart.
type matrixClient struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Sidecar   bool   `json:"sidecar"`
	Workloads int    `json:"workloads"`
}

// matrixServer is what holds for one port of a server.
type matrixServer struct {
	Host    string         `json:"host"`
	Port    int32          `json:"port"`
	Answers []matrixAnswer `json:"answers"`
}

// matrixAnswer is what holds for some clients.
type matrixAnswer struct {
	Clients []string `json:"clients"`
	mesh.Cell
}

// matrixFlags are what policy matrix is told.
type matrixFlags struct {
	output
	meshFlags
	namespaces, from []string
	conflicts        bool
}

var matrixFormats = []string{"table", "json", "yaml", "html", "svg", "dot"}

func newMatrixCommand() *cobra.Command {
	f := &matrixFlags{}
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Show who can talk to whom: encrypted, in plain text, or not at all",
		Long: `matrix shows a row for each port of each server and a column for each kind of client: the workloads
of a namespace with a sidecar, and those without. Clients for which the same holds everywhere share
a column.

-o html is a page of its own, with a filter, and the reason of each cell where the mouse rests; svg
and dot are a graph of namespaces, or with -n of servers.`,
		Example: `  citadelctl policy matrix
  citadelctl policy matrix -n default --from legacy --conflicts
  citadelctl policy matrix -o html > mesh.html
  citadelctl policy matrix -n default -o svg > default.svg
  citadelctl policy matrix -o dot -f objects.yaml | dot -Tpdf > mesh.pdf`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := plainFlags(cmd)
	flags.StringArrayVarP(&f.namespaces, "namespace", "n", nil, "servers of this `namespace` alone; may be given again")
	flags.StringArrayVar(&f.from, "from", nil, "clients of this `namespace` alone; may be given again")
	flags.BoolVar(&f.conflicts, "conflicts", false, "servers alone that a client shown cannot talk to, or not at all of their endpoints")
	flags.StringVarP(&f.format, "output", "o", "table", "`form` of the data: "+strings.Join(matrixFormats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(matrixFormats, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	f.meshFlags.addTo(flags, true)
	return cmd
}

func (f *matrixFlags) run(cmd *cobra.Command) error {
	var err error
	if !slices.Contains(matrixFormats, f.format) {
		err = fmt.Errorf("--output %q: use %s", f.format, strings.Join(matrixFormats, ", "))
	}
	world, err := f.meshFlags.read(cmd, err)
	if err != nil {
		return err
	}
	if err := f.known(world); err != nil {
		return world.finish(cmd, err)
	}
	chosen := mesh.Selection{Servers: oneOf(f.namespaces), Clients: oneOf(f.from), Conflicts: f.conflicts}
	return world.finish(cmd, f.show(cmd.OutOrStdout(), world, world.Matrix(chosen)))
}

// known tells of namespaces that do not exist.
func (f *matrixFlags) known(world *meshWorld) error {
	there := world.Namespaces()
	for _, name := range append(slices.Clone(f.namespaces), f.from...) {
		if !slices.Contains(there, name) {
			return codedError{exitNotFound, fmt.Errorf("namespace %s does not exist, or holds nothing", name)}
		}
	}
	return nil
}

// oneOf is nil for no names: all.
func oneOf(names []string) func(string) bool {
	if len(names) == 0 {
		return nil
	}
	return func(name string) bool { return slices.Contains(names, name) }
}

func (f *matrixFlags) show(w io.Writer, world *meshWorld, m *mesh.Matrix) error {
	switch f.format {
	case "html":
		if n := len(m.Servers) * len(m.Columns); n > picture.MaxCells {
			return codedError{exitUsage, fmt.Errorf("a page of %d cells is more than browsers show at ease: choose fewer by -n, --from or --conflicts", n)}
		}
		return wrapOutput(picture.HTML(w, m, about(world)))
	case "svg":
		return wrapOutput(picture.SVG(w, m.Graph(len(f.namespaces) == 0)))
	case "dot":
		return wrapOutput(picture.DOT(w, m.Graph(len(f.namespaces) == 0)))
	case "table":
		return wrapOutput(writeMatrix(w, m))
	}
	return f.output.write(w, newMatrixDocument(world, m), nil)
}

func about(world *meshWorld) string {
	text := fmt.Sprintf("by the rules of %s (Istio %s), at %s", world.Generation(), world.Generation().Release(), moment(world.now.UTC()))
	if len(world.unread) > 0 {
		text += "; without what could not be read, and so perhaps other than in truth"
	}
	return text
}

func newMatrixDocument(world *meshWorld, m *mesh.Matrix) matrixDocument {
	d := matrixDocument{meta: newMeta("PolicyMatrix", world.now), partial: partial{world.unread}, Generation: world.Generation().String(),
		Clients: []matrixClient{}, Items: []matrixServer{}}
	names := make([][]string, len(m.Columns))
	for i, column := range m.Columns {
		for _, c := range column {
			names[i] = append(names[i], c.Name())
			d.Clients = append(d.Clients, matrixClient{c.Name(), c.Client.Namespace, c.Client.Sidecar, c.Workloads})
		}
	}
	for row, server := range m.Servers {
		d.Items = append(d.Items, matrixServer{server.Host, server.Port, answersOf(m, row, names)})
	}
	return d
}

// answersOf is a row, with the clients of one answer together.
func answersOf(m *mesh.Matrix, row int, names [][]string) []matrixAnswer {
	answers := []matrixAnswer{}
	for column := range m.Columns {
		cell := m.At(row, column)
		i := slices.IndexFunc(answers, func(a matrixAnswer) bool { return a.Cell == *cell })
		if i < 0 {
			i, answers = len(answers), append(answers, matrixAnswer{Cell: *cell})
		}
		answers[i].Clients = append(answers[i].Clients, names[column]...)
	}
	return answers
}

// writeMatrix writes line by line: there may be many.
func writeMatrix(w io.Writer, m *mesh.Matrix) error {
	if len(m.Servers) == 0 || len(m.Columns) == 0 {
		_, err := fmt.Fprintf(w, "%s, %s: no pair to show\n", count(len(m.Servers), "port"), count(len(m.Columns), "kind")+" of clients")
		return err
	}
	host, widths := len("SERVER"), make([]int, len(m.Columns))
	for _, s := range m.Servers {
		host = max(host, len(mesh.ShortHost(s.Host)))
	}
	out := bufio.NewWriter(w)
	line := fmt.Sprintf("%-*s  PORT ", host, "SERVER")
	for i, c := range m.Columns {
		widths[i] = max(len(printable(c.Name())), len(mesh.Conflict.String()))
		line += fmt.Sprintf("  %-*s", widths[i], printable(c.Name()))
	}
	fmt.Fprintln(out, strings.TrimRight(line, " "))
	for row, s := range m.Servers {
		line := fmt.Sprintf("%-*s  %-5d", host, printable(mesh.ShortHost(s.Host)), s.Port)
		for i := range m.Columns {
			line += fmt.Sprintf("  %-*s", widths[i], m.At(row, i).Look())
		}
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
	return writeMatrixEnd(out, m)
}

// writeMatrixEnd says who shares a column, and how many there are of what.
func writeMatrixEnd(out *bufio.Writer, m *mesh.Matrix) error {
	fmt.Fprintln(out)
	for _, c := range m.Columns {
		if len(c) > 1 {
			fmt.Fprintf(out, "%s: %s\n", printable(c.Name()), printable(c.Names()))
		}
	}
	n := m.Counts()
	fmt.Fprintf(out, "%d by mutual TLS, %d in plain text, %d in conflict%s%s\n", n[mesh.Encrypted], n[mesh.Plain], n[mesh.Conflict], partly(n[mesh.Some]), depends(n[mesh.Depends]))
	return out.Flush()
}

func partly(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d that fail at some endpoints", n)
}

func depends(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d dependent on servers outside of the mesh", n)
}
