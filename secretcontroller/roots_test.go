package secretcontroller

import (
	"encoding/base64"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"citadel/ca"
	"citadel/ca/catest"
)

// TestLegacyRoots: old agents take base64 of PEM, the chain first where there
// is one (#13125).
func TestLegacyRoots(t *testing.T) { // compatibility 3.7
	for name, authority := range map[string]func(t *testing.T) *ca.Authority{
		"self-signed": func(t *testing.T) *ca.Authority { return catest.Authority(t, time.Now(), ca.Config{}) },
		"operator's":  func(t *testing.T) *ca.Authority { return plugged(t, time.Now()) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				a := authority(t)
				r.start(func(s *Settings) { s.Authority = a })
				text, err := base64.StdEncoding.DecodeString(r.configMap("istio-system", "istio-security").Data["caTLSRootCert"])
				want := slices.Concat(a.Signer().ChainPEM(), a.Signer().RootsPEM())
				if err != nil || string(text) != string(want) {
					t.Errorf("holds %q (%v)", text, err)
				}
				r.putConfigMap(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: LegacyConfigMap}})
				r.pass(time.Second)
				if got := r.configMap("istio-system", LegacyConfigMap).Data[LegacyRootsKey]; got != base64.StdEncoding.EncodeToString(want) {
					t.Errorf("emptied, it holds %q", got)
				}
			})
		})
	}
}

// TestRootsFailures: told by an observation, tried again, and ignored where
// the namespace goes.
func TestRootsFailures(t *testing.T) { // compatibility 9, complaint 29
	maps := schema.GroupResource{Resource: "configmaps"}
	terminating := apierrors.NewForbidden(maps, RootsConfigMap, errBroken)
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for name, c := range map[string]struct {
		err    error
		times  int
		told   int
		exists bool
	}{
		"500":            {internal, 2, 2, true},
		"already exists": {apierrors.NewAlreadyExists(maps, RootsConfigMap), 2, 0, true},
		"conflict":       {apierrors.NewConflict(maps, RootsConfigMap, errBroken), 2, 0, true},
		"terminating":    {terminating, -1, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.make(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: LegacyConfigMap}})
				r.setFault(failing("create", "configmaps", c.times, c.err))
				r.start(func(s *Settings) { s.Workers = 1 })
				r.pass(time.Minute)
				told := 0
				for _, o := range r.take() {
					if o.Err != nil && o.Object == "ConfigMap" {
						told++
					}
				}
				_, err := r.people.CoreV1().ConfigMaps("default").Get(t.Context(), RootsConfigMap, metav1.GetOptions{})
				if told != c.told || (err == nil) != c.exists {
					t.Errorf("told %d times, and then %v", told, err)
				}
			})
		})
	}
}

// TestImmutableConfigMapIsMadeAnew: it cannot be updated, and must not keep old
// roots for ever.
func TestImmutableConfigMapIsMadeAnew(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		yes := true
		r.make(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: RootsConfigMap, Labels: map[string]string{"team": "a"}},
			Data: map[string]string{"extra": "x", RootsKey: "old"}, Immutable: &yes})
		a := plugged(t, time.Now())
		r.start(func(s *Settings) { s.Authority = a })
		r.pass(time.Second)
		cm := r.configMap("default", RootsConfigMap)
		if cm.Data[RootsKey] != string(a.Signer().RootsPEM()) || cm.Data["extra"] != "x" || cm.Labels["team"] != "a" || cm.Labels[RootsConfigMapLabel] != "true" {
			t.Errorf("holds %v, labels %v", cm.Data, cm.Labels)
		}
		n := r.writes()
		if r.pass(time.Hour); r.writes() != n {
			t.Errorf("%d more writes", r.writes()-n)
		}
	})
}

// TestChangeOfRootsReachesTheConfigMaps at once: they spread trust, and harm
// nobody.
func TestChangeOfRootsReachesTheConfigMaps(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start()()
		next := plugged(t, time.Now())
		r.start(func(s *Settings) {
			s.Authority, s.RootsSince, s.Rotation.RootWindow = next, time.Now(), time.Hour
		})
		if got := r.configMap("default", RootsConfigMap).Data[RootsKey]; got != string(next.Signer().RootsPEM()) {
			t.Errorf("holds %q", got)
		}
	})
}
