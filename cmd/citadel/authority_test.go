package main

import (
	"bytes"
	"encoding/base64"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"citadel/ca/catest"
	"citadel/secretcontroller"
)

// TestChangeOfRootsIsToldBeforeItIsMade: whoever puts his own CA in the place
// of the root that was made learns at the start whom that cuts off.
func TestChangeOfRootsIsToldBeforeItIsMade(t *testing.T) {
	const (
		lost    = "roots that are published now are not among those in use"
		strange = "the signing certificate is not below the roots that are published now"
	)
	now := time.Now()
	root, old := catest.Root(t, now, catest.Spec{Name: "new root"}), catest.Root(t, now, catest.Spec{Name: "old root"})
	ended := catest.Root(t, now.Add(-48*time.Hour), catest.Spec{Name: "ended root", Edit: endsIn(now, -time.Hour)})
	issuing := root.Intermediate(t, now, catest.Spec{Name: "issuing"})
	withOld := secretOf(t, issuing)
	withOld["root-cert.pem"] = slices.Concat(withOld["root-cert.pem"], old.PEM())
	for name, c := range map[string]struct {
		published []byte // nil: nothing is
		cacerts   map[string][]byte
		want      []string
	}{
		"the first start":        {nil, secretOf(t, issuing), nil},
		"no change":              {slices.Concat(issuing.PEM(), root.PEM()), secretOf(t, issuing), nil},
		"another root":           {old.PEM(), secretOf(t, issuing), []string{lost, strange}},
		"another root, with old": {old.PEM(), withOld, []string{strange}},
		"both are published":     {slices.Concat(old.PEM(), root.PEM()), withOld, nil},
		"the old is taken out":   {slices.Concat(old.PEM(), root.PEM()), secretOf(t, issuing), []string{lost}},
		"the old has ended":      {ended.PEM(), secretOf(t, issuing), nil},
		"damage":                 {[]byte("x"), secretOf(t, issuing), nil},
	} {
		t.Run(name, func(t *testing.T) {
			objects := []runtime.Object{cacerts(c.cacerts)}
			if c.published != nil {
				objects = append(objects, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: secretcontroller.LegacyConfigMap},
					Data: map[string]string{secretcontroller.LegacyRootsKey: base64.StdEncoding.EncodeToString(c.published)}})
			}
			cfg, err := configure(t, nil)
			if err != nil {
				t.Fatal(err)
			}
			client := fake.NewSimpleClientset(objects...)
			cfg.client = client
			var said bytes.Buffer
			p := &process{cfg: cfg, log: slog.New(slog.NewTextHandler(&said, nil)), audit: &auditStream{out: io.Discard}}
			if _, _, err := p.loadAuthority(t.Context(), p.cluster(client)); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(said.String(), "level=WARN"); n != len(c.want) {
				t.Errorf("%d warnings: %s", n, said.String())
			}
			for _, want := range c.want {
				if !strings.Contains(said.String(), want) {
					t.Errorf("%q is not in %s", want, said.String())
				}
			}
			if slices.Contains(c.want, lost) && !strings.Contains(said.String(), "missing=\"[CN=old root,O=Operator sha256:") {
				t.Errorf("it does not name the root: %s", said.String())
			}
		})
	}
}
