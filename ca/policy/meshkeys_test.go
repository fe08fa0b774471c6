package policy

import (
	"fmt"
	"strings"
	"testing"
)

// TestMistypedKeys: a key that is nearly one that decides is not read for
// nothing, and others are kept to be told.
func TestMistypedKeys(t *testing.T) {
	for text, want := range map[string]string{
		"authPolcy: MUTUAL_TLS":               "authPolicy",
		"auth-polcy: MUTUAL_TLS":              "authPolicy",
		"authPolicies: MUTUAL_TLS":            "",
		"mtlsExcludedService: [a.b.c]":        "mtlsExcludedServices",
		"enableAutoMtl: false":                "enableAutoMtls",
		"enableAutoTls: false":                "enableAutoMtls",
		"rootNamspace: r":                     "rootNamespace",
		"trustDoamin: td":                     "trustDomain",
		"defaultDestinationRulesExportTo: []": "defaultDestinationRuleExportTo",
		"defaultServicesExportTo: []":         "defaultServiceExportTo",
		"trustDomainAliases: [td]":            "",
		"ca: {}":                              "",
	} {
		mesh, err := DecodeLiveMeshConfig("f", []byte(text))
		if told := fmt.Sprint(err); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(told, fmt.Sprintf("the field is called %q", want))) {
			t.Errorf("%s: %+v, %v; want %q", text, mesh, err, want)
		}
	}
	mesh, err := DecodeLiveMeshConfig("f", []byte("acessLogFile: /dev/stdout\nofTheYear2040: {}\n"+strings.Repeat("x", 100)+": 1\n"))
	if err != nil || fmt.Sprint(mesh.Unknown[:2]) != "[{acessLogFile accessLogFile} {ofTheYear2040 }]" || len(mesh.Unknown) != 3 {
		t.Fatalf("%+v, %v", mesh, err)
	}
	w := mesh.Unknown[0].Warning()
	if w.Code != "mesh-config-unknown-key" || !strings.Contains(w.Message, `"acessLogFile"`) || !strings.Contains(w.Message, `"accessLogFile"`) {
		t.Errorf("%+v", w)
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "k%d: 1\n", i)
	}
	if mesh, err := DecodeLiveMeshConfig("f", []byte(many.String())); err != nil || len(mesh.Unknown) != maxUnknown {
		t.Errorf("many: %v", err)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 2}, {"authpolcy", "authpolicy", 1}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
