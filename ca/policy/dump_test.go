package policy

import (
	"bytes"
	"strings"
	"testing"
)

// TestDecodeDump: what cannot decide is passed over; what looks as if it should
// decide and cannot is an error.
func TestDecodeDump(t *testing.T) {
	for text, want := range map[string]struct{ objects, passed int }{
		"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}":                                                                  {0, 1},
		"{apiVersion: v1, kind: Endpoints, metadata: {name: a}}":                                                                        {0, 1},
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: other}}":                                                                    {0, 1},
		"{apiVersion: kyverno.io/v1, kind: Policy, metadata: {name: a}}":                                                                {0, 1},
		"{apiVersion: v1, kind: Namespace, metadata: {name: a}}":                                                                        {1, 0},
		"{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Secret}, {apiVersion: v1, kind: Namespace, metadata: {name: a}}]}": {1, 1},
		strings.Repeat("---\n{apiVersion: v1, kind: Secret}\n", 3000):                                                                   {0, 3000}, // more than there may be complaints
	} {
		if objects, passed, err := DecodeDump("", []byte(text)); err != nil || len(objects) != want.objects || passed != want.passed {
			t.Errorf("%.80s: %d objects, %d passed over, %v", text, len(objects), passed, err)
		}
	}
	for _, text := range []string{
		"{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}}",
		"{apiVersion: apps/v1, kind: PeerAuthentication, metadata: {name: a}}",
		"{apiVersion: v2, kind: Pod, metadata: {name: a}}",
		"{kind: Deployment}", "{apiVersion: apps/v1}", "[]", "text",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}}",
	} {
		if _, passed, err := DecodeDump("", []byte(text)); err == nil || passed != 0 {
			t.Errorf("%s: %d passed over, %v", text, passed, err)
		}
	}
}

// TestDense: documents that hold nothing cost nothing, lines stay where they
// were, and there is an end to the others.
func TestDense(t *testing.T) {
	for text, want := range map[string]string{
		"---\n---\n# c\n--- \na: 1\n---\n---\n": "---\n   \n# c\n    \na: 1\n---\n   \n",
		"a: |\n  x\n---\nb: 1\n":                "a: |\n  x\n---\nb: 1\n",
		"--- {}\n--- {}\n---":                   "--- {}\n--- {}\n---",
	} {
		if got, err := Dense("", []byte(text)); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if dense, err := Dense("", bytes.Repeat([]byte("---\n"), MaxInput/4)); err != nil || bytes.Count(dense, []byte("---")) != 1 {
		t.Errorf("empty documents are left: %v", err)
	}
	for _, one := range []string{"---\n{}\n", "--- #\n", "...\n"} {
		if _, err := Dense("f", bytes.Repeat([]byte(one), MaxDocuments+1)); err == nil || !strings.Contains(err.Error(), "more than 100000 documents") {
			t.Errorf("%q: %v", one, err)
		}
	}
}
