package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// The sizes that are read, in bytes.
const (
	MaxInput  = 16 << 20 // a whole file
	MaxObject = 1 << 20  // one object, aliases expanded
)

// decodable is a kind that Decode knows.
type decodable struct {
	kind     string
	versions []string
	cluster  bool // without a namespace
	make     func() Object
}

// kinds is what Decode knows.
var kinds = []decodable{
	{"Namespace", []string{"v1"}, true, func() Object { return new(Namespace) }},
	{"Service", []string{"v1"}, false, func() Object { return new(Service) }},
	{"Pod", []string{"v1"}, false, func() Object { return new(Pod) }},
	{"ServiceEntry", networking, false, func() Object { return new(ServiceEntry) }},
	{"WorkloadEntry", networking, false, func() Object { return new(WorkloadEntry) }},
	{"DestinationRule", networking, false, func() Object { return new(DestinationRule) }},
	{"EgressRule", []string{"config.istio.io/v1alpha2"}, false, func() Object { return new(EgressRule) }},
	{"MeshPolicy", []string{"authentication.istio.io/v1alpha1"}, true, func() Object { return new(MeshPolicy) }},
	{"Policy", []string{"authentication.istio.io/v1alpha1"}, false, func() Object { return new(Policy) }},
	{"PeerAuthentication", []string{"security.istio.io/v1beta1", "security.istio.io/v1"}, false, func() Object { return new(PeerAuthentication) }},
}

var networking = []string{"networking.istio.io/v1alpha3", "networking.istio.io/v1beta1", "networking.istio.io/v1"}

// parsed is an object with the lines on which its fields stood.
type parsed struct {
	Object
	lines map[string]int
}

// Decode reads the objects of a YAML or JSON text: documents, and Lists in them.
// A ConfigMap called istio is the mesh config under its key mesh: of whichever
// mesh, see OfMesh.
// file is only said in errors. Objects that are right are returned even when
// others are not; each error is a Problem, joined. Unknown fields, words and
// kinds, names that are no DNS names, hosts with a wildcard in the wrong place and
// a mesh config with a value that is none are errors, and what is larger than MaxInput and MaxObject.
func Decode(file string, text []byte) ([]Object, error) {
	all, problems := decode(file, text)
	var objects []Object
	for _, p := range all {
		objects = append(objects, p.Object)
	}
	return objects, join(problems)
}

// DecodeMeshConfig reads what stands under the key mesh of the ConfigMap istio.
// Its errors are those of Decode. An empty text is an empty configuration.
func DecodeMeshConfig(file string, text []byte) (*MeshConfig, error) {
	return decodedMesh(file, text, false)
}

func decodedMesh(file string, text []byte, live bool) (*MeshConfig, error) {
	mesh, problems := decodeMesh(file, text, live)
	for _, p := range broken(mesh.Object) {
		p.File, p.Object, p.Line = file, KindMeshConfig.String(), lineOf(mesh.lines, p.Field)
		problems = append(problems, p)
	}
	if err := join(problems); err != nil {
		return nil, err
	}
	return mesh.Object.(*MeshConfig), nil
}

// DecodeLiveMeshConfig is DecodeMeshConfig for a mesh that runs: keys that are
// not known are only noted, for its releases add some each time, but one that is
// written almost as a key that is read is an error. So is an empty text, which
// may be a mistake: {} is a configuration of defaults.
func DecodeLiveMeshConfig(file string, text []byte) (*MeshConfig, error) {
	all, err := documents(file, text)
	if err != nil {
		return nil, err
	}
	if nothing(all) {
		return nil, Problem{File: file, Object: KindMeshConfig.String(), Message: "is missing or " + isEmpty}
	}
	return decodedMesh(file, text, true)
}

// isEmpty is told of a ConfigMap without a word of mesh config: it may be a
// mistake, and defaults open a mesh that says otherwise.
const isEmpty = `empty: ` + meshKey + `: "{}" means defaults`

func nothing(all []*yaml.Node) bool {
	return len(all) == 0 || len(all) == 1 && all[0].ShortTag() == "!!null"
}

func decodeMesh(file string, text []byte, live bool) (parsed, []Problem) {
	s := newStrict(file)
	s.live = live
	mesh := new(MeshConfig)
	all, err := documents(file, text)
	if err != nil {
		return parsed{mesh, s.lines}, problemsOf(file, err)
	}
	if len(all) > 1 {
		s.fail(all[1], "", "a second document")
	}
	if len(all) > 0 {
		mesh = s.meshConfig(all[0])
		mesh.Unknown = s.unknown
	}
	return parsed{mesh, s.lines}, s.problems
}

func (s *strict) meshConfig(n *yaml.Node) *MeshConfig {
	mesh := new(MeshConfig)
	s.object, s.lines = KindMeshConfig.String(), map[string]int{"": n.Line}
	if s.small(n) {
		s.into(n, "", reflect.ValueOf(mesh).Elem())
	}
	return mesh
}

// documents splits a text.
func documents(file string, text []byte) ([]*yaml.Node, error) {
	if len(text) > MaxInput {
		return nil, Problem{File: file, Message: fmt.Sprintf("is larger than %d bytes", MaxInput)}
	}
	var all []*yaml.Node
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var n yaml.Node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, Problem{File: file, Message: err.Error()}
		}
		if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
			if bad := mistagged(n.Content[0]); bad != nil {
				return nil, Problem{File: file, Line: bad.Line, Message: fmt.Sprintf("tag %s is not that of the value it is given to: leave it out", bad.Tag)}
			}
			all = append(all, n.Content[0])
		}
	}
}

// mistagged is a node with a tag that its value does not have of itself, which
// would hide the value: !!null {…}. Any single value may be called a string.
func mistagged(n *yaml.Node) *yaml.Node {
	if n.Style&yaml.TaggedStyle != 0 {
		own := yaml.Node{Kind: n.Kind, Style: n.Style &^ yaml.TaggedStyle, Value: n.Value}
		if tag := n.ShortTag(); tag != own.ShortTag() && (tag != "!!str" || n.Kind != yaml.ScalarNode) {
			return n
		}
	}
	for _, inner := range n.Content {
		if bad := mistagged(inner); bad != nil {
			return bad
		}
	}
	return nil
}

// problemsOf is an error of documents as a Problem.
func problemsOf(file string, err error) []Problem {
	problem := Problem{File: file, Message: err.Error()}
	errors.As(err, &problem)
	return []Problem{problem}
}

func decode(file string, text []byte) ([]parsed, []Problem) {
	all, err := documents(file, text)
	if err != nil {
		return nil, problemsOf(file, err)
	}
	s := newStrict(file)
	var objects []parsed
	for _, n := range all {
		objects = append(objects, s.objects(n, false)...)
	}
	return objects, s.problems
}

// head is what tells one object from another.
type head struct {
	APIVersion, Kind string
	Meta             struct{ Name, Namespace string }
}

// headOf reads without complaining.
func (s *strict) headOf(n *yaml.Node) (h head) {
	get := func(n *yaml.Node, name string) *yaml.Node {
		for i := 0; n != nil && n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				value, _ := s.follow(n.Content[i+1], "")
				return value
			}
		}
		return &yaml.Node{}
	}
	meta := get(n, "metadata")
	h.APIVersion, h.Kind = get(n, "apiVersion").Value, get(n, "kind").Value
	h.Meta.Name, h.Meta.Namespace = get(meta, "name").Value, get(meta, "namespace").Value
	return h
}

// objects reads one document, which may be a list of objects, but not of lists.
func (s *strict) objects(n *yaml.Node, list bool) (all []parsed) {
	n, some := s.follow(n, "")
	if !some {
		return nil
	}
	h := s.headOf(n)
	if h.Kind == "List" && h.APIVersion == "v1" && !list {
		s.object = "List"
		s.pairs(n, "", func(key, value *yaml.Node) {
			if value, some := s.follow(value, "items"); key.Value == "items" && some && s.is(value, "items", yaml.SequenceNode) {
				for _, item := range value.Content {
					all = append(all, s.objects(item, true)...)
				}
			}
		})
		return all
	}
	if one, ok := s.one(n, h); ok {
		all = append(all, one)
	}
	return all
}

// one reads an object that is no list.
func (s *strict) one(n *yaml.Node, h head) (parsed, bool) {
	s.object = Ref{Namespace: h.Meta.Namespace, Name: h.Meta.Name}.String()
	s.object = h.Kind + s.object
	if h.Kind == "ConfigMap" && h.APIVersion == "v1" {
		return s.configMap(n)
	}
	i := slices.IndexFunc(kinds, func(k decodable) bool {
		return k.kind == h.Kind && slices.Contains(k.versions, h.APIVersion)
	})
	if i < 0 {
		s.fail(n, "", "kind %q of apiVersion %q is none that decides about mTLS", h.Kind, h.APIVersion)
		return parsed{}, false
	}
	before := len(s.problems)
	object := kinds[i].make()
	s.lines = map[string]int{"": n.Line}
	if !s.small(n) {
		return parsed{}, false
	}
	s.into(n, "", reflect.ValueOf(object).Elem())
	switch meta := object.meta(); {
	case kinds[i].cluster && meta.Namespace != "":
		s.fail(n, "metadata.namespace", "a %s has no namespace", h.Kind)
	case !kinds[i].cluster && meta.Namespace == "":
		meta.Namespace = "default"
	}
	for _, p := range broken(object) {
		s.problems = append(s.problems, s.locate(p))
	}
	return parsed{object, s.lines}, len(s.problems) == before && s.left >= 0
}

// The ConfigMap that holds the mesh config, and the key in it.
const (
	meshConfigMap = "istio"
	meshKey       = "mesh"
)

// configMap is a ConfigMap as it is applied.
type configMap struct {
	_    struct{} `ignored:"apiVersion kind immutable binaryData"`
	Meta `yaml:"metadata"`
	Data map[string]yaml.Node `yaml:"data"`
}

// configMap reads the mesh config of a ConfigMap. Lines are those of the whole
// file where the text stands as a block.
func (s *strict) configMap(n *yaml.Node) (parsed, bool) {
	before := len(s.problems)
	var c configMap
	s.lines = map[string]int{"": n.Line}
	if !s.small(n) {
		return parsed{}, false
	}
	s.into(n, "", reflect.ValueOf(&c).Elem())
	text, has := c.Data[meshKey]
	switch {
	case c.Name != meshConfigMap:
		s.fail(n, "metadata.name", "a ConfigMap that decides about mTLS is called %s", meshConfigMap)
	case !has || text.Kind != yaml.ScalarNode:
		s.fail(n, "data."+meshKey, `is missing: it holds the mesh config as text: %s: "{}" means defaults`, meshKey)
	}
	if len(s.problems) > before {
		return parsed{}, false
	}
	inner, err := documents(s.file, []byte(text.Value))
	if err != nil || len(inner) > 1 {
		s.fail(&text, "data."+meshKey, "is no mesh config: it must be one YAML document: %v", err)
		return parsed{}, false
	}
	if nothing(inner) {
		s.fail(&text, "data."+meshKey, "is %s", isEmpty)
		return parsed{}, false
	}
	own := &strict{file: s.file, left: s.left, fields: s.fields}
	mesh := own.meshConfig(inner[0])
	s.left = own.left
	for _, p := range broken(mesh) {
		own.problems = append(own.problems, own.locate(p))
	}
	for _, p := range own.problems {
		p.Line = lineIn(&text, p.Line)
		s.problems = append(s.problems, p)
	}
	mesh.Namespace = c.Namespace
	return parsed{mesh, map[string]int{"": text.Line}}, len(s.problems) == before && s.left >= 0
}

// lineIn is a line of a text in a file, as a line of that file.
func lineIn(text *yaml.Node, line int) int {
	if text.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return text.Line + line
	}
	return text.Line
}

// locate adds what the decoder knows to a problem of the object at hand.
func (s *strict) locate(p Problem) Problem {
	p.File, p.Object = s.file, s.object
	p.Line = lineOf(s.lines, p.Field)
	return p
}

// lineOf is the line of a field, or of the nearest part above it.
func lineOf(lines map[string]int, field string) int {
	for {
		if line, known := lines[field]; known || field == "" {
			return line
		}
		i := len(field) - 1
		for i > 0 && field[i] != '.' && field[i] != '[' {
			i--
		}
		field = field[:max(i, 0)]
	}
}

// small tells whether an object is within MaxObject, aliases expanded.
func (s *strict) small(n *yaml.Node) bool {
	left := MaxObject
	if s.measure(n, &left, 0); left < 0 {
		s.fail(n, "", "is larger than %d bytes", MaxObject)
	}
	return left >= 0
}

// measure counts bytes down, and what it looks at with all other visits.
func (s *strict) measure(n *yaml.Node, left *int, depth int) {
	if n, _ = s.follow(n, ""); depth > 1000 || s.left < 0 {
		*left = -1
		return
	}
	*left -= len(n.Value) + 1
	for _, inner := range n.Content {
		if *left < 0 {
			return
		}
		s.measure(inner, left, depth+1)
	}
}
