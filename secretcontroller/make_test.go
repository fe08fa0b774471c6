package secretcontroller

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var fresh = material{key: []byte("new key"), chain: []byte("new chain"), roots: []byte("new roots")}

// others is a Secret that people and other controllers have added to.
func others() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "web", Name: "istio.sleep", UID: "its own", ResourceVersion: "41", Finalizers: []string{"a.b/c"},
			Labels:      map[string]string{"team": "a", ManagedByLabel: "Helm"},
			Annotations: map[string]string{"note": "b", AccountAnnotation: "admin"},
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: "v1", Kind: "ServiceAccount", Name: "sleep", UID: "earlier"},
				{APIVersion: "a.b/v1", Kind: "Team", Name: "a", UID: "c"},
			},
		},
		Type: SecretType,
		Data: map[string][]byte{"extra": []byte("x"), KeyKey: []byte("old key"), ChainKey: []byte("old chain"), RootsKey: []byte("old roots")},
	}
}

func TestComposeFromNothing(t *testing.T) { // compatibility 2.1; K-5, K-6
	got := compose(nil, account, fresh)
	want := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "web", Name: "istio.sleep",
			Labels:          map[string]string{"app.kubernetes.io/managed-by": "istio-citadel"},
			Annotations:     map[string]string{"istio.io/service-account.name": "sleep"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ServiceAccount", Name: "sleep", UID: "uid-of-sleep"}},
		},
		Type: "istio.io/key-and-cert",
		Data: map[string][]byte{"key.pem": []byte("new key"), "cert-chain.pem": []byte("new chain"), "root-cert.pem": []byte("new roots")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("composed\n%+v\nwant\n%+v", got, want)
	}
}

func TestComposeKeepsWhatIsOthers(t *testing.T) {
	got := compose(others(), account, fresh)
	for name, ok := range map[string]bool{
		"their labels":          got.Labels["team"] == "a",
		"our label":             got.Labels[ManagedByLabel] == ManagedBy,
		"their annotations":     got.Annotations["note"] == "b",
		"our annotation":        got.Annotations[AccountAnnotation] == "sleep",
		"their keys":            string(got.Data["extra"]) == "x" && len(got.Data) == 4,
		"our keys":              string(got.Data[KeyKey]) == "new key" && string(got.Data[ChainKey]) == "new chain" && string(got.Data[RootsKey]) == "new roots",
		"their owners":          slices.ContainsFunc(got.OwnerReferences, func(r metav1.OwnerReference) bool { return r.Kind == "Team" }),
		"one owner of ours":     len(got.OwnerReferences) == 2 && got.OwnerReferences[1].UID == account.UID,
		"the version to update": got.ResourceVersion == "41" && got.UID == "its own",
		"their finalizers":      slices.Equal(got.Finalizers, []string{"a.b/c"}),
	} {
		if !ok {
			t.Errorf("%s: not as they must be: %+v", name, got)
		}
	}
}

// TestComposeLeavesItsInput: what it is given is the cache's (K-2).
func TestComposeLeavesItsInput(t *testing.T) {
	for name, old := range map[string]*corev1.Secret{
		"full": others(), "empty": {}, "spare room in its lists": {ObjectMeta: metav1.ObjectMeta{
			OwnerReferences: append(make([]metav1.OwnerReference, 0, 8), others().OwnerReferences...)}},
	} {
		before := old.DeepCopy()
		got := compose(old, account, fresh)
		if !reflect.DeepEqual(old, before) {
			t.Errorf("%s: changed by composing", name)
		}
		got.Labels["x"], got.Annotations["x"], got.Data["x"] = "", "", nil
		got.OwnerReferences[0].Name = "changed"
		for i := range got.Data["extra"] {
			got.Data["extra"][i] = '!'
		}
		if !reflect.DeepEqual(old, before) {
			t.Errorf("%s: shares memory with what was composed", name)
		}
	}
}

func TestComposeTwiceIsTheSame(t *testing.T) {
	once := compose(others(), account, fresh)
	if twice := compose(once, account, fresh); !reflect.DeepEqual(once, twice) {
		t.Errorf("once\n%+v\ntwice\n%+v", once, twice)
	}
}

func TestWithLeavesItsInput(t *testing.T) {
	in := map[string]string{"a": "b"}
	out := with(in, "c", "d")
	if !maps.Equal(in, map[string]string{"a": "b"}) || !maps.Equal(out, map[string]string{"a": "b", "c": "d"}) {
		t.Errorf("in %v, out %v", in, out)
	}
	if out := with[string](nil, "c", "d"); out["c"] != "d" {
		t.Errorf("nothing with one is %v", out)
	}
}
