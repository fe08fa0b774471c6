package mesh

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"citadel/ca/policy"
)

// op sets one field of an object: the path's last part is made if it is not
// there, all others are. A last part of "-" appends to a list.
type op struct {
	path  []string
	value any
}

// annotation is an op that annotates a Service.
func annotation(s *policy.Service, key, value string) op {
	if len(s.Annotations) == 0 {
		return op{[]string{"metadata", "annotations"}, map[string]any{key: value}}
	}
	return op{[]string{"metadata", "annotations", key}, value}
}

// edit is a change of one object: to create it, or to set fields of it.
type edit struct {
	ref    policy.Ref
	create map[string]any // nil to edit
	ops    []op
	merge  map[string]any // the same as ops, for what may hold more than is known here
}

// Change is one object that a Fix creates or edits.
type Change struct {
	// Action is create or edit.
	Action string `json:"action"`
	Object string `json:"object"`
	// YAML is, of a new object, the whole in one line.
	YAML string `json:"yaml,omitempty"`
	// Patch is, of an edit, a JSON patch (RFC 6902), or where PatchType is merge a
	// merge patch (RFC 7396); of the mesh config, to the text in the ConfigMap.
	Patch string `json:"patch,omitempty"`
	// Line is, of the mesh config, the line that its YAML is to have: it stands as
	// text in a ConfigMap, where no patch reaches.
	Line      string `json:"line,omitempty"`
	PatchType string `json:"patchType,omitempty"`
	// Command applies it.
	Command string `json:"command"`

	edit edit
}

// resources are the names by which kubectl knows kinds.
var resources = map[policy.Kind]string{
	policy.KindService:            "services",
	policy.KindMeshPolicy:         "meshpolicies.authentication.istio.io",
	policy.KindPolicy:             "policies.authentication.istio.io",
	policy.KindPeerAuthentication: "peerauthentications.security.istio.io",
	policy.KindDestinationRule:    "destinationrules.networking.istio.io",
}

// change says an edit to people and programs.
func (e edit) change() (Change, error) {
	c := Change{Action: "edit", Object: e.ref.String(), edit: e}
	if e.create != nil {
		text, err := oneLine(e.create)
		c.Action, c.YAML, c.Command = "create", text, fmt.Sprintf("echo %s | kubectl apply -f -", quote(text))
		return c, err
	}
	var patch any = e.patch()
	if c.PatchType = "json"; e.merge != nil {
		patch, c.PatchType = e.merge, "merge"
	}
	text, err := json.Marshal(patch)
	if err != nil {
		return c, fmt.Errorf("write the patch of %s: %w", e.ref, err)
	}
	c.Patch = string(text)
	if e.ref.Kind == policy.KindMeshConfig {
		c.Command = "kubectl -n istio-system edit configmap istio"
		c.Line, err = e.line()
		return c, err
	}
	c.Command = "kubectl patch " + resources[e.ref.Kind] + " " + e.ref.Name
	if e.ref.Namespace != "" {
		c.Command += " -n " + e.ref.Namespace
	}
	c.Command += " --type " + c.PatchType + " -p " + quote(c.Patch)
	return c, nil
}

// line is an edit of one key of the mesh config. JSON is YAML.
func (e edit) line() (string, error) {
	if len(e.ops) != 1 || len(e.ops[0].path) != 1 {
		return "", fmt.Errorf("write the line of %s: it is not one key", e.ref)
	}
	value, err := json.Marshal(e.ops[0].value)
	if err != nil {
		return "", fmt.Errorf("write the line of %s: %w", e.ref, err)
	}
	return e.ops[0].path[0] + ": " + string(value), nil
}

// patch is the edit as a JSON patch.
func (e edit) patch() []map[string]any {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	var all []map[string]any
	for _, o := range e.ops {
		path := ""
		for _, part := range o.path {
			path += "/" + escape.Replace(part)
		}
		all = append(all, map[string]any{"op": "add", "path": path, "value": o.value})
	}
	return all
}

// quote is a text as one word of a shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// oneLine is YAML in flow style.
func oneLine(object map[string]any) (string, error) {
	var n yaml.Node
	if err := n.Encode(object); err != nil {
		return "", fmt.Errorf("write an object: %w", err)
	}
	inFlow(&n)
	first := []string{"apiVersion", "kind", "metadata", "spec"} // as people write them
	var head, rest []*yaml.Node
	for _, key := range first {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				head = append(head, n.Content[i], n.Content[i+1])
			}
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if !slices.Contains(first, n.Content[i].Value) {
			rest = append(rest, n.Content[i], n.Content[i+1])
		}
	}
	n.Content = append(head, rest...)
	text, err := yaml.Marshal(&n)
	return strings.Join(strings.Fields(string(text)), " "), err
}

func inFlow(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode {
		n.Style = yaml.FlowStyle
	}
	for _, inner := range n.Content {
		inFlow(inner)
	}
}

// apply makes the object that an edit leads to, of the fields of the one that
// there is.
func (e edit) apply(fields map[string]any) (map[string]any, error) {
	if e.create != nil {
		return e.create, nil
	}
	var root any = fields
	for _, o := range e.ops {
		next, err := set(root, o.path, o.value)
		if err != nil {
			return nil, fmt.Errorf("edit %s: /%s %w", e.ref, strings.Join(o.path, "/"), err)
		}
		root = next
	}
	object, _ := root.(map[string]any)
	return object, nil
}

// set changes a tree of maps and lists in place, and returns its root.
func set(at any, path []string, value any) (any, error) {
	if len(path) == 0 {
		return value, nil
	}
	switch node := at.(type) {
	case map[string]any:
		inner, has := node[path[0]]
		if !has && len(path) > 1 {
			return nil, fmt.Errorf("is not there")
		}
		next, err := set(inner, path[1:], value)
		node[path[0]] = next
		return node, err
	case []any:
		if path[0] == "-" && len(path) == 1 {
			return append(node, value), nil
		}
		i, err := strconv.Atoi(path[0])
		if err != nil || i < 0 || i >= len(node) {
			return nil, fmt.Errorf("is not there")
		}
		node[i], err = set(node[i], path[1:], value)
		return node, err
	}
	return nil, fmt.Errorf("is not there")
}

// object decodes what an edit leads to.
func (e edit) object(w *World) (policy.Object, error) {
	var fields map[string]any
	if old := w.objects[e.ref]; old != nil {
		fields = policy.Fields(old)
	} else if e.create == nil && e.ref.Kind == policy.KindMeshConfig {
		fields = map[string]any{}
	} else if e.create == nil {
		return nil, fmt.Errorf("edit %s: it is not there", e.ref)
	}
	fields, err := e.apply(fields)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", e.ref, err)
	}
	if e.ref.Kind == policy.KindMeshConfig {
		return policy.DecodeMeshConfig("", text)
	}
	objects, err := policy.Decode("", text)
	if err != nil || len(objects) != 1 {
		return nil, fmt.Errorf("read %s: %w", e.ref, err)
	}
	return objects[0], nil
}
