package policy

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// same compares what can be written, not the blank fields.
func same(a, b Object) string {
	return cmp.Diff(a, b, cmp.FilterPath(func(p cmp.Path) bool { return strings.HasSuffix(p.GoString(), "._") }, cmp.Ignore()))
}

// roundTrip encodes an object and reads it again.
func roundTrip(t *testing.T, o Object) {
	t.Helper()
	text, err := Encode(o)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode("encoded", text)
	if err != nil || len(again) != 1 {
		t.Fatalf("%s is not read again: %v\n%s", o.Ref(), err, text)
	}
	if diff := same(o, again[0]); diff != "" {
		t.Errorf("%s is another one: %s\n%s", o.Ref(), diff, text)
	}
}

// TestEncode: each object of the case files, and those that the fuzzer begins
// with, survive being written and read.
func TestEncode(t *testing.T) {
	seen := map[Kind]int{}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		for _, c := range readCases(t, file).Resolve {
			for _, o := range c.Objects {
				seen[o.Ref().Kind]++
				roundTrip(t, o)
			}
			if c.Mesh != nil {
				seen[KindMeshConfig]++
				roundTrip(t, c.Mesh)
			}
		}
	}
	for _, text := range append(small, "{apiVersion: v1, kind: Namespace, metadata: {name: a, creationTimestamp: '2020-01-01T00:00:00.5Z'}}") {
		objects, _ := Decode("small", []byte(text)) // some are no objects
		for _, o := range objects {
			seen[o.Ref().Kind]++
			roundTrip(t, o)
		}
	}
	for kind := KindMeshConfig; kind <= KindDestinationRule; kind++ {
		if seen[kind] == 0 {
			t.Errorf("no %s was encoded", kind)
		}
	}
}

// TestDecodeConfigMap: the mesh config as it stands in a cluster, with the lines
// of the file that it is in.
func TestDecodeConfigMap(t *testing.T) {
	read := func(text string) (*MeshConfig, error) {
		objects, err := Decode("f.yaml", []byte(text))
		if len(objects) != 1 {
			return nil, err
		}
		return objects[0].(*MeshConfig), err
	}
	mesh, err := read("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  meshNetworks: 'networks: {}'\n  mesh: |-\n    authPolicy: MUTUAL_TLS\n    rootNamespace: r\n")
	if err != nil || mesh.AuthPolicy != AuthMutualTLS || mesh.RootNamespace != "r" {
		t.Errorf("%+v, %v", mesh, err)
	}
	if mesh, err := read("{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: '{}'}}"); err != nil || mesh == nil {
		t.Errorf("one of defaults: %v", err)
	}
	if _, err := DecodeMeshConfig("f", []byte("mixerAddress: istio-mixer:15004\nmixerCheck: {}\nmixerReport: {}\nprotocolDetectionTimeout: 0s\n")); err != nil {
		t.Errorf("keys of old releases: %v", err)
	}
	for _, text := range []string{"''", "' '", "null", "'null'", "~", "'~'", "'# authPolicy: MUTUAL_TLS'", "'---'"} {
		if mesh, err := read("{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: " + text + "}}"); err == nil || mesh != nil || !strings.Contains(err.Error(), `mesh: "{}" means defaults`) {
			t.Errorf("an empty one, %s: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata:\n  mesh: |\n    rootNamespace: r\n    authPolicy: ON\n": "f.yaml:7: MeshConfig: authPolicy: unrecognized auth policy",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: 'bogus: 1'}}":                                   "f.yaml:1: MeshConfig: bogus: unknown field",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: '[}'}}":                                         "f.yaml:1: ConfigMap/istio: data.mesh: is no mesh config",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: \"a: 1\\n---\\nb: 1\"}}":                        "must be one YAML document",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: {}}}":                                           "is missing",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}}":                                                             "is missing",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: other}, data: {mesh: ''}}":                                           "is called istio",
	} {
		if mesh, err := read(text); mesh != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

// TestValidateMeshConfig: what is wrong has its line, errors of reading too.
func TestValidateMeshConfig(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "[]",
		"rootNamespace: r\n":          "[]",
		"a: [\n":                      "[f: yaml: line 1: did not find expected node content]",
		"a: 1\n---\nb: 1\n":           `[f:3: a second document f:1: MeshConfig: a: unknown field "a"]`,
		"x: 1\nrootNamespace: R_\n":   `[f:1: MeshConfig: x: unknown field "x" f:2: MeshConfig: rootNamespace: "R_" is no DNS label]`,
		"\nmtlsExcludedServices: [a]": `[f:2: MeshConfig: mtlsExcludedServices[0]: "a" matches nothing: entries are compared with whole names like kubernetes.default.svc.cluster.local]`,
	} {
		if got := fmt.Sprint(ValidateMeshConfig(V1, "f", []byte(text))); got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", text, got, want)
		}
	}
}
