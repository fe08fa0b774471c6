package picture

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"citadel/cmd/citadelctl/mesh"
)

// TestControlCharacters: what a name may hold and XML may not leaves the picture
// well-formed.
func TestControlCharacters(t *testing.T) {
	name := "a\x1b[31m\x00\uffff\xff<&"
	g := &mesh.Graph{Clients: []string{name}, All: []string{name}, Servers: []string{name}, Edges: []mesh.Edge{{Title: name}}}
	var out strings.Builder
	if err := SVG(&out, g); err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(out.String())); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	out.Reset()
	if err := DOT(&out, g); err != nil || strings.Contains(out.String(), "\x1b") {
		t.Errorf("%v: %q", err, out.String())
	}
}
