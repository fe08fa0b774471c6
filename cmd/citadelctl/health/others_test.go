package health

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/secretcontroller"
)

// TestOthers: two citadels that could write the same Secrets are found, whatever
// way each was told what to manage.
func TestOthers(t *testing.T) {
	space := func(name string, labels ...string) corev1.Namespace {
		ns := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
		for i := 0; i < len(labels); i += 2 {
			ns.Labels[labels[i]] = labels[i+1]
		}
		return ns
	}
	namespaces := []corev1.Namespace{space("web"), space("east", secretcontroller.EnvLabel, "istio-system"), space("west", secretcontroller.EnvLabel, "second"),
		space("both", secretcontroller.OverrideLabel, "true"), space("none", secretcontroller.OverrideLabel, "false")}
	all := secretcontroller.Scope{StorageNamespace: "istio-system", EnabledByDefault: true}
	labelled := secretcontroller.Scope{StorageNamespace: "istio-system"}
	scope := func(s secretcontroller.Scope, listed ...string) *secretcontroller.Scope {
		s.StorageNamespace, s.Listed = "second", listed
		return &s
	}
	for name, c := range map[string]struct {
		ours   secretcontroller.Scope
		theirs []Citadel
		want   Outcome
		text   string
	}{
		"none":                   {all, nil, Passed, "no other citadel"},
		"both by default":        {all, []Citadel{{"second", scope(all)}}, Failed, "both, web"},
		"one by default":         {all, []Citadel{{"second", scope(labelled)}}, Failed, ": both:"},
		"neither by default":     {labelled, []Citadel{{"second", scope(labelled)}}, Failed, ": both:"},
		"one listed":             {all, []Citadel{{"second", scope(all, "web")}}, Failed, ": web:"},
		"one listed, not ours":   {labelled, []Citadel{{"second", scope(all, "web")}}, Passed, ""},
		"both listed, yet to be": {secretcontroller.Scope{StorageNamespace: "istio-system", Listed: []string{"new", "web"}}, []Citadel{{"second", scope(all, "new")}}, Failed, ": new:"},
		"both listed, apart":     {secretcontroller.Scope{StorageNamespace: "istio-system", Listed: []string{"a"}}, []Citadel{{"second", scope(all, "b")}}, Passed, ""},
		"not known":              {all, []Citadel{{"host-1", nil}}, Warned, "not known: host-1"},
		"one known, and apart":   {labelled, []Citadel{{"host-1", nil}, {"second", scope(all, "web")}}, Warned, "not known: host-1"},
		"one known, and not":     {all, []Citadel{{"host-1", nil}, {"second", scope(all, "web")}}, Failed, "second manages"},
	} {
		got := Others(World{Scope: c.ours, Examples: 3}, namespaces, c.theirs)
		if got.Outcome != c.want || !strings.Contains(got.Message, c.text) || (got.Remedy == "") != (got.Outcome == Passed) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
