package policy

import (
	"strings"
	"testing"
)

// TestEmptyPeers: what the API server refuses of peers is warned of.
func TestEmptyPeers(t *testing.T) {
	for text, want := range map[string]string{
		"[{}]":                   "spec.peers[0]",
		"[null]":                 "spec.peers[0]",
		"[{mtls: {}}, {}]":       "spec.peers[1]",
		"[{mtls: null}]":         "",
		"[{jwt: {issuer: 'a'}}]": "",
	} {
		problems := ValidateFile(V1Alpha1, "f", []byte("{apiVersion: authentication.istio.io/v1alpha1, kind: MeshPolicy, metadata: {name: default}, spec: {peers: "+text+"}}"))
		if want == "" && len(problems) > 0 || want != "" && (len(problems) != 1 || problems[0].Field != want || !problems[0].Warning || !strings.Contains(problems[0].Message, "neither mtls nor jwt")) {
			t.Errorf("%s: %v; want %q", text, problems, want)
		}
	}
}
