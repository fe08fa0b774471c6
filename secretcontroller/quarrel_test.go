package secretcontroller

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestQuarrelOverRoots: another authority that keeps a ConfigMap of the same
// name, as istiod does, is answered ever more slowly.
func TestQuarrelOverRoots(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.start()
		before := r.calls("update", "configmaps")
		for range 600 { // a minute, ten times a second
			cm, err := r.people.CoreV1().ConfigMaps("default").Get(t.Context(), RootsConfigMap, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if cm.Data[RootsKey] != "theirs" {
				cm.Data[RootsKey] = "theirs"
				if _, err := r.people.CoreV1().ConfigMaps("default").Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			r.pass(100 * time.Millisecond)
		}
		if n := r.calls("update", "configmaps") - before; n < 3 || n > 12 {
			t.Errorf("%d writes in a minute of quarrel", n)
		}
		r.pass(10 * time.Minute)
		cm, err := r.people.CoreV1().ConfigMaps("default").Get(t.Context(), RootsConfigMap, metav1.GetOptions{})
		if err != nil || cm.Data[RootsKey] == "theirs" {
			t.Errorf("given up: %v", err)
		}
	}, serviceAccount("default", "sleep"))
}
