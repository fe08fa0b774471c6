package policy

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

const peer = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: b}\n"

// bomb is a thousand million words in nine lines.
func bomb() string {
	text := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 10; i++ {
		text += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return text
}

// bombs are many in one list; the last of its objects is right, but too far
// back to be read.
func bombs() string {
	text := "apiVersion: v1\nkind: List\nitems:\n- &a\n  apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n  spec:\n    selector:\n      " +
		strings.ReplaceAll(bomb(), "\n", "\n      ") + "\n"
	return text + strings.Repeat("- *a\n", 10_000) + "- " + strings.ReplaceAll(peer, "\n", "\n  ") + "spec: {mtls: {mode: STRICT}}\n"
}

// hostile is what the decoder has to refuse.
var hostile = map[string]string{
	"bomb":               "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  selector:\n    " + strings.ReplaceAll(bomb(), "\n", "\n    "),
	"bomb of objects":    "a: &a " + peerFlow + "\nb: &b [*a,*a]\napiVersion: v1\nkind: List\nitems: *b\n",
	"cycle":              "&a {apiVersion: v1, kind: List, items: [*a]}",
	"cycle in an object": peer + "spec: &s {selector: {matchLabels: *s}}\n",
	"cycle that grows":   "&a {apiVersion: v1, kind: List, items: [" + peerFlow + ", *a, *a]}",
	"bombs in a list":    bombs(),
	"deep":               peer + "spec: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000),
	"merge key":          peer + "spec: {<<: {mtls: {mode: STRICT}}}\n",
	"twice":              peer + "spec: {}\nspec: {mtls: {mode: STRICT}}\n",
	"list for a map":     peer + "spec: []\n",
	"text for a map":     peer + "spec: strict\n",
	"number for a name":  strings.Replace(peer, "name: a,", "name: 1,", 1),
	"port out of range":  peer + "spec: {selector: {matchLabels: {a: b}}, portLevelMtls: {99999999999: {mode: STRICT}}}\n",
	"port with a zero":   peer + "spec: {selector: {matchLabels: {a: b}}, portLevelMtls: {\"080\": {mode: STRICT}}}\n",
	"mode in small":      peer + "spec: {mtls: {mode: strict}}\n",
	"mode as a number":   peer + "spec: {mtls: {mode: 3}}\n",
	"time that is none":  strings.Replace(peer, "name: a,", "name: a, creationTimestamp: yesterday,", 1),
	"wrong version":      strings.Replace(peer, "/v1", "/v2", 1),
	"no kind":            "metadata: {name: a}\n",
	"not a map":          "- a\n- b\n",
	"no YAML":            "a: [\n",
	"tabs":               "\ta: b\n",
	"namespace too much": "apiVersion: authentication.istio.io/v1alpha1\nkind: MeshPolicy\nmetadata: {name: default, namespace: a}\n",
	"big object":         peer + "spec: {selector: {matchLabels: {a: " + strings.Repeat("b", MaxObject) + "}}}\n",
	"big input":          strings.Repeat("#", MaxInput+1),
}

const peerFlow = "{apiVersion: v1, kind: Nothing, metadata: {name: a}}"

func TestHostile(t *testing.T) {
	for name, text := range hostile {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		objects, err := Decode("f.yaml", []byte(text))
		runtime.ReadMemStats(&after)
		if err == nil || len(objects) > 0 {
			t.Errorf("%s: %v, %v", name, objects, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
			t.Errorf("%s takes %d MiB", name, used>>20)
		}
		if _, err := DecodeMeshConfig("f.yaml", []byte(text)); err == nil {
			t.Errorf("%s is taken for a mesh config", name)
		}
	}
}

// TestWhere: errors have a file, a line, an object and a field.
func TestWhere(t *testing.T) {
	text := "# a comment\n---\n" + peer + "spec:\n  mtls:\n    mode: STRICT\n---\n" + strings.Replace(peer, "name: a,", "name: c,", 1) +
		"spec:\n  mtls:\n    mode: STRCT\n  portLevel: {}\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: d\nspec:\n  host: 'a.*'\n"
	objects, err := Decode("f.yaml", []byte(text))
	if len(objects) != 1 || objects[0].Ref() != (Ref{KindPeerAuthentication, "b", "a"}) {
		t.Errorf("objects: %v", objects)
	}
	want := []string{
		`f.yaml:15: PeerAuthentication/b/c: spec.mtls.mode: unknown value "STRCT"`,
		`f.yaml:16: PeerAuthentication/b/c: spec.portLevel: unknown field "portLevel"`,
		`f.yaml:23: DestinationRule/d: spec.host: domain name "a.*" invalid (label "*" invalid)`,
	}
	var all []string
	if joined, is := err.(interface{ Unwrap() []error }); is {
		for _, e := range joined.Unwrap() {
			all = append(all, e.Error())
		}
	}
	if len(all) != len(want) {
		t.Fatalf("%q", all)
	}
	for i := range want {
		if !strings.HasPrefix(all[i], want[i]) {
			t.Errorf("got  %s\nwant %s", all[i], want[i])
		}
	}
	var p Problem
	if !errors.As(err, &p) || p.Line != 15 || p.Field != "spec.mtls.mode" {
		t.Errorf("%+v", p)
	}
}

func TestValidateFileHasLines(t *testing.T) {
	problems := ValidateFile(V1, "f.yaml", []byte(peer+"spec:\n  mtls: {mode: STRICT}\n  portLevelMtls:\n    '80': {mode: DISABLE}\n"))
	if len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), "f.yaml:7: PeerAuthentication/b/a: spec.portLevelMtls: mesh/namespace") {
		t.Errorf("%v", problems)
	}
}

func TestDecodeJSONAndLists(t *testing.T) {
	text := `{"apiVersion":"v1","kind":"List","items":[
	{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","resourceVersion":"7","managedFields":[{}]},"spec":{"containers":[{"name":"istio-proxy","image":"x"}]},"status":{"podIP":"10.0.0.1"}},
	{"apiVersion":"authentication.istio.io/v1alpha1","kind":"Policy","metadata":{"name":"default","namespace":"a"},"spec":{"peers":[{"mtls":null}]}}]}`
	objects, err := Decode("", []byte(text))
	if err != nil || len(objects) != 2 {
		t.Fatal(objects, err)
	}
	if p := objects[0].(*Pod); !p.Sidecar() || p.Namespace != "default" || p.Status.IP != "10.0.0.1" {
		t.Errorf("%+v", p)
	}
	if p := objects[1].(*Policy); p.Spec.mode() != Strict {
		t.Errorf("%+v", p)
	}
}

// TestAbsentIsNotDisable is what the generations hang on.
func TestAbsentIsNotDisable(t *testing.T) {
	head := "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, namespace: b}\nspec: {host: c, trafficPolicy: "
	for text, want := range map[string]TLS{
		"{}}": TLSUnset, "{tls: null}}": TLSUnset, "{tls: {}}}": TLSDisable, "{tls: {mode: DISABLE}}}": TLSDisable, "{tls: {sni: x}}}": TLSDisable,
	} {
		objects, err := Decode("", []byte(head+text))
		if err != nil {
			t.Fatal(err)
		}
		got := TLSUnset
		if tls := objects[0].(*DestinationRule).Spec.TrafficPolicy.TLS; tls != nil {
			got = tls.mode()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestEnough: what stands behind too many problems, or too much, is not taken
// for right.
func TestEnough(t *testing.T) {
	one := "---\n" + peer + "spec: {mtls: {mode: STRICT, x: y}}\n"
	objects, err := Decode("f.yaml", []byte(strings.Repeat(one, complaints+50)+"---\n"+peer+"spec: {}\n"))
	if joined, is := err.(interface{ Unwrap() []error }); len(objects) > 0 || !is || len(joined.Unwrap()) != complaints {
		t.Errorf("%d objects were returned", len(objects))
	}
	if _, err := Decode("f.yaml", []byte(bombs())); err == nil || !strings.Contains(err.Error(), "aliases expand to more than") {
		t.Errorf("all of the bombs were measured: %v", err)
	}
}
