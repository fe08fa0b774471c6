// Package picture draws who can talk to whom: as a page for a browser, as SVG,
// and for Graphviz.
//
// What it writes refers to nothing outside of itself, and all names in it are
// escaped, for strangers choose them. It refuses to decide: what holds is mesh's.
package picture

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"strings"
	"unicode"

	"citadel/cmd/citadelctl/mesh"
)

// style is how a look is drawn. Colours are from a palette that people tell apart
// who do not see all of them, and none is the only mark: words, dashes and width
// say the same.
type style struct{ class, colour, dash, width string }

var styles = map[mesh.Look]style{
	mesh.Encrypted: {"mtls", "#0072B2", "", "1.5"},
	mesh.Plain:     {"plain", "#E69F00", "6 4", "1.5"},
	mesh.Some:      {"some", "#CC79A7", "10 3 2 3", "2.5"},
	mesh.Depends:   {"depends", "#999999", "1 4", "1.5"},
	mesh.Conflict:  {"conflict", "#D55E00", "2 3", "3"},
}

var allLooks = []mesh.Look{mesh.Encrypted, mesh.Plain, mesh.Some, mesh.Depends, mesh.Conflict}

// The layout of SVG, in its units.
const (
	lineHeight = 28
	margin     = 20
	legend     = 60 // above the columns
	gap        = 320
	perLetter  = 7.5
)

// SVG draws clients on the left and servers on the right. Hovering over a line
// says why.
func SVG(w io.Writer, g *mesh.Graph) error {
	left, right := widest(g.Clients), widest(g.Servers)
	from, to := margin+left, margin+left+gap
	height := legend + lineHeight*max(len(g.Clients), len(g.Servers), 1) + margin
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="13">`+"\n", to+right+margin, height)
	fmt.Fprintf(out, "<title>Who can talk to whom</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n")
	writeLegend(out)
	for _, e := range g.Edges {
		s, y1, y2 := styles[e.Look], middle(e.Client), middle(e.Server)
		fmt.Fprintf(out, `<path class="%s" d="M%d %dC%d %d %d %d %d %d" fill="none" stroke="%s" stroke-width="%s"%s><title>%s</title></path>`+"\n",
			s.class, from, y1, from+gap/2, y1, to-gap/2, y2, to, y2, s.colour, s.width, dashes(s), xmlText(e.Title))
	}
	for i, name := range g.Clients {
		writeNode(out, from-6, middle(i), "end", name, g.All[i])
	}
	for i, name := range g.Servers {
		writeNode(out, to+6, middle(i), "start", name, name)
	}
	fmt.Fprintln(out, "</svg>")
	return out.Flush()
}

func writeLegend(out io.Writer) {
	for i, look := range allLooks {
		s, x := styles[look], margin+i*130
		fmt.Fprintf(out, `<path d="M%d 24H%d" stroke="%s" stroke-width="%s"%s/><text x="%d" y="28">%s</text>`+"\n",
			x, x+30, s.colour, s.width, dashes(s), x+38, look)
	}
}

// writeNode writes a name; hovering over it shows all that it stands for.
func writeNode(out io.Writer, x, y int, anchor, name, all string) {
	fmt.Fprintf(out, `<text x="%d" y="%d" text-anchor="%s">%s<title>%s</title></text>`+"\n", x, y+4, anchor, xmlText(name), xmlText(all))
}

func dashes(s style) string {
	if s.dash == "" {
		return ""
	}
	return ` stroke-dasharray="` + s.dash + `"`
}

func middle(i int) int { return legend + lineHeight*i + lineHeight/2 }

func widest(names []string) int {
	most := 10
	for _, name := range names {
		most = max(most, int(perLetter*float64(len([]rune(name))))+10)
	}
	return most
}

// DOT writes the same for Graphviz.
func DOT(w io.Writer, g *mesh.Graph) error {
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, "digraph mesh {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];")
	for i, name := range g.Clients {
		fmt.Fprintf(out, "  c%d [label=%s, tooltip=%s];\n", i, dotText(name), dotText(g.All[i]))
	}
	for i, name := range g.Servers {
		fmt.Fprintf(out, "  s%d [label=%s, style=rounded];\n", i, dotText(name))
	}
	lines := map[mesh.Look]string{mesh.Encrypted: "solid", mesh.Plain: "dashed", mesh.Some: "\"bold,dashed\"", mesh.Depends: "dotted", mesh.Conflict: "bold"}
	for _, e := range g.Edges {
		fmt.Fprintf(out, "  c%d -> s%d [label=%s, color=%s, style=%s, tooltip=%s];\n",
			e.Client, e.Server, dotText(e.Look.String()), dotText(styles[e.Look].colour), lines[e.Look], dotText(e.Title))
	}
	fmt.Fprintln(out, "}")
	return out.Flush()
}

// clean replaces what XML has no place for, which names of strangers may hold.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && !strings.ContainsRune("\t\r\n", r) || r == 0xFFFE || r == 0xFFFF {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
}

func xmlText(s string) string { return html.EscapeString(clean(s)) }

// dotText is a quoted string of DOT; a backslash would begin an escape there.
func dotText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ", "\r", " ").Replace(clean(s)) + `"`
}
