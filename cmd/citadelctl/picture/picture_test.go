package picture

import (
	"encoding/xml"
	"flag"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"citadel/ca/policy"
	"citadel/cmd/citadelctl/mesh"
)

var update = flag.Bool("update", false, "write the golden files anew")

// matrix is a small mesh in which each look but one occurs.
func matrix(t *testing.T) *mesh.Matrix {
	t.Helper()
	text, err := os.ReadFile("testdata/mesh.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := policy.Decode("mesh.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	return mesh.NewWorld(policy.V1, objects).Matrix(mesh.Selection{})
}

// hostile is what a stranger may call a thing.
const hostile = "</td></script><script>alert(1)</script><img src=x onerror=alert(1)>\"' onmouseover='alert(1)\\\n]]>&lt;"

// TestGolden: what is drawn does not change by accident.
func TestGolden(t *testing.T) {
	m := matrix(t)
	for name, draw := range map[string]func(io.Writer) error{
		"mesh.html":     func(w io.Writer) error { return HTML(w, m, "for a test") },
		"mesh.svg":      func(w io.Writer) error { return SVG(w, m.Graph(true)) },
		"servers.svg":   func(w io.Writer) error { return SVG(w, m.Graph(false)) },
		"mesh.dot.text": func(w io.Writer) error { return DOT(w, m.Graph(false)) },
	} {
		var out strings.Builder
		if err := draw(&out); err != nil {
			t.Fatal(err)
		}
		golden := "testdata/" + name
		if *update {
			if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if out.String() != string(want) {
			t.Errorf("%s is other than it was: go test -update, after a look at it\n%s", name, out.String())
		}
	}
}

// element is one of a page or drawing.
type element struct {
	name, text string
	attributes map[string]string
}

// parse reads a page as browsers do, or a drawing.
func parse(t *testing.T, text string, strict bool) (all []element) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	if d.Strict = strict; !strict {
		d.AutoClose, d.Entity = xml.HTMLAutoClose, xml.HTMLEntity
	}
	var open []int
	for {
		token, err := d.Token()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		switch x := token.(type) {
		case xml.StartElement:
			e := element{name: x.Name.Local, attributes: map[string]string{}}
			for _, a := range x.Attr {
				e.attributes[a.Name.Local] = a.Value
			}
			all, open = append(all, e), append(open, len(all))
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				all[open[len(open)-1]].text += string(x)
			}
		}
	}
}

// named is all elements of a name.
func named(all []element, name string) (some []element) {
	for _, e := range all {
		if e.name == name {
			some = append(some, e)
		}
	}
	return some
}

// harmless fails the test for anything that refers to or runs what is not ours.
func harmless(t *testing.T, all []element, elements ...string) {
	t.Helper()
	for _, e := range all {
		if !slices.Contains(elements, e.name) {
			t.Errorf("a stranger's element %s", e.name)
		}
		for name, value := range e.attributes {
			if strings.HasPrefix(name, "on") || slices.Contains([]string{"src", "href", "style", "action", "data"}, name) {
				t.Errorf("%s has attribute %s=%q", e.name, name, value)
			}
		}
	}
}

// strange is a mesh whose names a stranger has chosen.
func strange(t *testing.T) *mesh.Matrix {
	t.Helper()
	m := matrix(t)
	for _, column := range m.Columns {
		column[0].Client.Labels = map[string]string{hostile: hostile}
	}
	for i := range m.Servers {
		m.Servers[i].Host = hostile
	}
	for i := range m.Cells {
		m.Cells[i].ServerBy = hostile
	}
	return m
}

func TestHTMLIsHarmless(t *testing.T) {
	m := strange(t)
	var out strings.Builder
	if err := HTML(&out, m, hostile); err != nil {
		t.Fatal(err)
	}
	all := parse(t, out.String(), false)
	harmless(t, all, strings.Fields("html head meta title style body h1 p span label input select option table thead tbody tr th td script")...)
	scripts, styles := named(all, "script"), named(all, "style")
	if len(scripts) != 1 || scripts[0].text != pageScript || len(styles) != 1 || styles[0].text != pageStyle {
		t.Errorf("scripts %q, styles %q", scripts, styles)
	}
	rules := ""
	for _, e := range named(all, "meta") {
		rules += e.attributes["content"]
	}
	for _, want := range []string{"default-src 'none'", "script-src '" + sum(pageScript) + "'", "style-src '" + sum(pageStyle) + "'"} {
		if !strings.Contains(rules, want) {
			t.Errorf("the page's policy %q lacks %q", rules, want)
		}
	}
	seen := 0
	for _, e := range append(named(all, "td"), named(all, "th")...) {
		if strings.Contains(e.attributes["title"], hostile) || strings.Contains(e.text, hostile) {
			seen++
		}
	}
	if want := len(m.Servers)*(1+len(m.Columns)) + len(m.Columns); seen != want {
		t.Errorf("%d cells show the names whole, want %d", seen, want)
	}
}

func TestSVGIsHarmless(t *testing.T) {
	g := strange(t).Graph(false)
	var out strings.Builder
	if err := SVG(&out, g); err != nil {
		t.Fatal(err)
	}
	all := parse(t, out.String(), true)
	harmless(t, all, "svg", "title", "rect", "path", "text")
	titles := 0
	for _, e := range named(all, "title") {
		if strings.Contains(e.text, hostile) {
			titles++
		}
	}
	if want := len(g.Edges) + len(g.Clients) + len(g.Servers); titles != want {
		t.Errorf("%d of %d edges and nodes show the names whole", titles, want)
	}
}

func TestDOTText(t *testing.T) {
	for text, want := range map[string]string{`a`: `"a"`, `a"b`: `"a\"b"`, `a\`: `"a\\"`, `\"`: `"\\\""`, "a\nb": `"a b"`} {
		if got := dotText(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestDOTIsHarmless: quotes and backslashes stay within their strings, one
// statement a line.
func TestDOTIsHarmless(t *testing.T) {
	g := strange(t).Graph(false)
	var out strings.Builder
	if err := DOT(&out, g); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 4+len(g.Clients)+len(g.Servers)+len(g.Edges) {
		t.Errorf("%d lines", lines)
	}
	for line := range strings.Lines(out.String()) {
		inside, escaped := false, false
		for _, r := range line {
			switch {
			case escaped:
				escaped = false
			case inside && r == '\\':
				escaped = true
			case r == '"':
				inside = !inside
			}
		}
		if inside || escaped {
			t.Errorf("a string has no end: %s", line)
		}
	}
}

// TestColours: nothing is told by colour alone.
func TestColours(t *testing.T) {
	seen := map[string]bool{}
	for _, look := range allLooks {
		s := styles[look]
		for _, mark := range []string{s.colour, "dash " + s.dash, s.class} {
			if seen[mark] {
				t.Errorf("%s is marked by %q, as another", look, mark)
			}
			seen[mark] = true
		}
		if !strings.Contains(pageStyle, "."+s.class+" {") {
			t.Errorf("the page has no style for %s", look)
		}
	}
}
