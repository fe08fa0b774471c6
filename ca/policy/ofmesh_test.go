package policy

import (
	"fmt"
	"strings"
	"testing"
)

// TestOfMesh: the ConfigMap istio of another namespace is not this mesh's, and
// two of this mesh's are none.
func TestOfMesh(t *testing.T) {
	in := func(namespace, auth string) string {
		return fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: istio%s}, data: {mesh: 'authPolicy: %s'}}\n---\n", namespace, auth)
	}
	own, other, unsaid := in(", namespace: istio-system", "MUTUAL_TLS"), in(", namespace: other", "NONE"), in("", "MUTUAL_TLS")
	for _, c := range []struct {
		text, namespace string
		ignored         int
		err             string
	}{
		{own + other, "istio-system", 1, ""},
		{other + own + other, "istio-system", 2, ""},
		{other + unsaid, "istio-system", 1, ""},
		{own, "mesh", 1, ""},
		{own + unsaid, "istio-system", 0, "there twice"},
		{own + own, "istio-system", 0, "there twice"},
	} {
		objects, err := Decode("f", []byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		kept, ignored, err := OfMesh(c.namespace, objects)
		if len(ignored) != c.ignored || c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s of %s: ignored %q, err %v", c.text, c.namespace, ignored, err)
		}
		for _, o := range kept {
			if o.(*MeshConfig).AuthPolicy != AuthMutualTLS {
				t.Errorf("%s of %s: another mesh's config counts", c.text, c.namespace)
			}
		}
		for _, text := range ignored {
			if !strings.Contains(text, "/istio is ignored") {
				t.Errorf("the warning %q names no ConfigMap", text)
			}
		}
	}
}
