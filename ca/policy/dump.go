package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxDocuments is how many documents of YAML one text may have; those with
// nothing in them do not count.
const MaxDocuments = 100_000

// DecodeDump is Decode of a dump of a cluster: objects that cannot decide about
// mTLS are passed over and counted. Those are of kinds outside of Istio's API
// groups that Decode does not know, and ConfigMaps of other names than the mesh
// config's. A kind that Decode does not know in Istio's groups is an error still.
func DecodeDump(file string, text []byte) (objects []Object, passed int, err error) {
	all, passed, problems := decodeDump(file, text)
	for _, p := range all {
		objects = append(objects, p.Object)
	}
	return objects, passed, join(problems)
}

// ValidateDump is ValidateFile of what DecodeDump reads.
func ValidateDump(g Generation, file string, text []byte) []Problem {
	objects, _, problems := decodeDump(file, text)
	for _, o := range objects {
		for _, p := range Validate(g, o.Object) {
			p.File, p.Line = file, lineOf(o.lines, p.Field)
			problems = append(problems, p)
		}
	}
	return problems
}

func decodeDump(file string, text []byte) (objects []parsed, passed int, problems []Problem) {
	all, err := documents(file, text)
	if err != nil {
		return nil, 0, problemsOf(file, err)
	}
	s := newStrict(file)
	for _, n := range all {
		if s.passOver(n) {
			passed++
			continue
		}
		passed += s.thin(n)
		objects = append(objects, s.objects(n, false)...)
	}
	return objects, passed, s.problems
}

// thin takes what is passed over out of a List, and counts it.
func (s *strict) thin(n *yaml.Node) (passed int) {
	if h := s.headOf(n); h.Kind != "List" || h.APIVersion != "v1" {
		return 0
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if items := n.Content[i+1]; n.Content[i].Value == "items" && items.Kind == yaml.SequenceNode {
			before := len(items.Content)
			items.Content = slices.DeleteFunc(items.Content, s.passOver)
			passed += before - len(items.Content)
		}
	}
	return passed
}

// passOver tells whether an object cannot decide about mTLS.
func (s *strict) passOver(n *yaml.Node) bool {
	if n.Kind != yaml.MappingNode {
		return false
	}
	h := s.headOf(n)
	group, _, grouped := strings.Cut(h.APIVersion, "/")
	switch {
	case h.Kind == "" || h.APIVersion == "" || h.Kind == "List":
		return false
	case h.Kind == "ConfigMap" && h.APIVersion == "v1":
		return h.Meta.Name != meshConfigMap && h.Meta.Name != ""
	case group == "istio.io" || strings.HasSuffix(group, ".istio.io"):
		return false
	}
	return !slices.ContainsFunc(kinds, func(k decodable) bool {
		return k.kind == h.Kind && (!grouped || strings.Contains(k.versions[0], "/") && k.kind != "Policy")
	})
}

// Dense returns a text of YAML in which marks of documents that hold nothing are
// blanks, each line where it was: parsing an empty document costs far more than
// the three bytes it takes to write. More than MaxDocuments are an error.
func Dense(file string, text []byte) ([]byte, error) {
	dense := bytes.Clone(text)
	documents, empty := 0, false
	for at := 0; at < len(dense); {
		end := len(dense)
		if i := bytes.IndexByte(dense[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		line := dense[at:end]
		at = end
		switch content := bytes.TrimSpace(line); {
		case len(content) == 0 || content[0] == '#':
		case bytes.HasPrefix(line, []byte("---")) && len(content) == 3:
			if empty {
				copy(line, "   ")
			} else {
				documents++
			}
			empty = true
		default:
			if bytes.HasPrefix(line, []byte("--- ")) || bytes.HasPrefix(line, []byte("---\t")) || bytes.HasPrefix(line, []byte("...")) {
				documents++
			}
			empty = false
		}
		if documents > MaxDocuments {
			return nil, Problem{File: file, Message: fmt.Sprintf("has more than %d documents", MaxDocuments)}
		}
	}
	return dense, nil
}
