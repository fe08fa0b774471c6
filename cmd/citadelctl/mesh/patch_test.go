package mesh

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"citadel/ca/policy"
)

// patched applies the JSON patch of a change as RFC 6902 says, apart from the
// code that made it.
func patched(t *testing.T, w *World, c Change) policy.Object {
	t.Helper()
	if c.Object == policy.KindMeshConfig.String() {
		return relined(t, w, c)
	}
	var ref policy.Ref
	for known := range w.objects {
		if known.String() == c.Object {
			ref = known
		}
	}
	var root any = map[string]any{}
	if o := w.objects[ref]; o != nil {
		text, err := json.Marshal(policy.Fields(o))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &root); err != nil {
			t.Fatal(err)
		}
	}
	if c.PatchType == "merge" {
		var patch any
		if err := json.Unmarshal([]byte(c.Patch), &patch); err != nil {
			t.Fatal(err)
		}
		return read(t, c, merge(root, patch))
	}
	var ops []struct {
		Op, Path string
		Value    any
	}
	if err := json.Unmarshal([]byte(c.Patch), &ops); err != nil || len(ops) == 0 {
		t.Fatalf("%s: %v", c.Patch, err)
	}
	for _, o := range ops {
		if o.Op != "add" {
			t.Fatalf("op %q", o.Op)
		}
		root = add(t, root, strings.Split(o.Path, "/")[1:], o.Value)
	}
	return read(t, c, root)
}

// relined puts the line of a change into the text of the mesh config, as a person
// does in an editor.
func relined(t *testing.T, w *World, c Change) policy.Object {
	t.Helper()
	text := ""
	key, _, _ := strings.Cut(c.Line, ":")
	if o := w.objects[policy.Ref{Kind: policy.KindMeshConfig}]; o != nil {
		for name, value := range policy.Fields(o) {
			line, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			if name != key {
				text += name + ": " + string(line) + "\n"
			}
		}
	}
	config, err := policy.DecodeMeshConfig("", []byte(text+c.Line+"\n"))
	if err != nil {
		t.Fatalf("%s: %v", c.Line, err)
	}
	return config
}

// merge is RFC 7396, but for null, which nothing here writes.
func merge(target, patch any) any {
	from, is := patch.(map[string]any)
	if !is {
		return patch
	}
	to, is := target.(map[string]any)
	if !is {
		to = map[string]any{}
	}
	for key, value := range from {
		to[key] = merge(to[key], value)
	}
	return to
}

func read(t *testing.T, c Change, root any) policy.Object {
	t.Helper()
	text, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	if c.Object == "MeshConfig" {
		mesh, err := policy.DecodeMeshConfig("patched", text)
		if err != nil {
			t.Fatal(err)
		}
		return mesh
	}
	all, err := policy.Decode("patched", text)
	if err != nil || len(all) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	return all[0]
}

func add(t *testing.T, at any, path []string, value any) any {
	t.Helper()
	key := strings.NewReplacer("~1", "/", "~0", "~").Replace(path[0])
	switch node := at.(type) {
	case map[string]any:
		if len(path) == 1 {
			node[key] = value
			return node
		}
		inner, has := node[key]
		if !has {
			t.Fatalf("%s is not there", key)
		}
		node[key] = add(t, inner, path[1:], value)
		return node
	case []any:
		if len(path) == 1 && key == "-" {
			return append(node, value)
		}
		i, err := strconv.Atoi(key)
		if err != nil || len(path) == 1 {
			t.Fatalf("%q in a list", key)
		}
		node[i] = add(t, node[i], path[1:], value)
		return node
	}
	t.Fatalf("%s of %T", key, at)
	return nil
}
