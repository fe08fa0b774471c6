package secretcontroller

import (
	"bytes"
	"reflect"
	"slices"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// informer stands for one whose events a test makes up.
type informer struct {
	cache.SharedIndexInformer
	handler cache.ResourceEventHandler
}

func (i *informer) SetTransform(cache.TransformFunc) error { return nil }

func (i *informer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	i.handler = h
	return nil, nil
}

// TestEveryEventWakes: what an event says does not matter, not even that it is
// a tombstone, whose object may be old or missing (compatibility 9, complaint
// 16: the ancestor panicked).
func TestEveryEventWakes(t *testing.T) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "istio.sleep"}}
	for name, c := range map[string]struct {
		event func(cache.ResourceEventHandler)
		wakes bool
	}{
		"added":                       {func(h cache.ResourceEventHandler) { h.OnAdd(secret, false) }, true},
		"listed at start":             {func(h cache.ResourceEventHandler) { h.OnAdd(secret, true) }, true},
		"updated":                     {func(h cache.ResourceEventHandler) { h.OnUpdate(nil, secret) }, true},
		"resynced":                    {func(h cache.ResourceEventHandler) { h.OnUpdate(secret, secret) }, true},
		"deleted":                     {func(h cache.ResourceEventHandler) { h.OnDelete(secret) }, true},
		"tombstone":                   {func(h cache.ResourceEventHandler) { h.OnDelete(tombstone("web/istio.sleep", secret)) }, true},
		"tombstone without an object": {func(h cache.ResourceEventHandler) { h.OnDelete(tombstone("web/istio.sleep", nil)) }, true},
		"tombstone of a stranger":     {func(h cache.ResourceEventHandler) { h.OnDelete(tombstone("web/istio.sleep", 7)) }, true},
		"tombstone with a bad key":    {func(h cache.ResourceEventHandler) { h.OnDelete(tombstone("a/b/c", nil)) }, false},
		"no object at all":            {func(h cache.ResourceEventHandler) { h.OnDelete("x") }, false},
	} {
		var woken []string
		i := &informer{}
		if err := connect(i, nil, func(namespace, name string) { woken = append(woken, namespace+"/"+name) }); err != nil {
			t.Fatal(err)
		}
		c.event(i.handler)
		if want := []string{"web/istio.sleep"}; (c.wakes && !slices.Equal(woken, want)) || (!c.wakes && len(woken) > 0) {
			t.Errorf("%s woke %q", name, woken)
		}
	}
}

func tombstone(key string, obj any) cache.DeletedFinalStateUnknown {
	return cache.DeletedFinalStateUnknown{Key: key, Obj: obj}
}

// TestCachesHoldWhatIsNeeded (K-11): the rest is dropped before it is stored.
func TestCachesHoldWhatIsNeeded(t *testing.T) {
	meta := func() metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "web", Name: "sleep", UID: "u", ResourceVersion: "1",
			Labels: map[string]string{"l": "m"}, Annotations: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "x"}}}
	}
	bare := metav1.ObjectMeta{Namespace: "web", Name: "sleep", UID: "u", ResourceVersion: "1"}
	labelled := bare
	labelled.Labels = map[string]string{"l": "m"}
	unmanaged := meta()
	unmanaged.ManagedFields = nil
	ours := func(m metav1.ObjectMeta) metav1.ObjectMeta { m.Name = "istio.sleep"; return m }
	for name, c := range map[string]struct {
		strip     cache.TransformFunc
		obj, want any
	}{
		"service account": {stripAccount, &corev1.ServiceAccount{ObjectMeta: meta(), Secrets: []corev1.ObjectReference{{Name: "t"}}}, &corev1.ServiceAccount{ObjectMeta: bare}},
		"namespace":       {stripNamespace, &corev1.Namespace{ObjectMeta: meta(), Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"k"}}}, &corev1.Namespace{ObjectMeta: labelled}},
		"config map":      {stripManagedFields, &corev1.ConfigMap{ObjectMeta: meta()}, &corev1.ConfigMap{ObjectMeta: unmanaged}},
		"secret":          {stripSecret([]byte("r")), &corev1.Secret{ObjectMeta: ours(meta()), Data: map[string][]byte{"k": {1}}}, &corev1.Secret{ObjectMeta: ours(unmanaged), Data: map[string][]byte{"k": {1}}}},
		"nobody's secret": {stripSecret([]byte("r")), &corev1.Secret{ObjectMeta: meta(), Data: map[string][]byte{"k": {1}}}, &corev1.Secret{ObjectMeta: bare}},
		"empty secret":    {stripSecret([]byte("r")), &corev1.Secret{}, &corev1.Secret{}},
		"tombstone":       {stripSecret(nil), tombstone("a/b", nil), tombstone("a/b", nil)},
		"stranger":        {stripAccount, 7, 7},
	} {
		if got, err := c.strip(c.obj); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: kept\n%+v (%v), want\n%+v", name, got, err, c.want)
		}
	}
}

// TestSecretsShareTheRoots: ten thousand Secrets hold one copy of the bundle.
func TestSecretsShareTheRoots(t *testing.T) {
	roots := []byte("roots")
	name := metav1.ObjectMeta{Name: "istio.sleep"}
	same := &corev1.Secret{ObjectMeta: name, Data: map[string][]byte{RootsKey: []byte("roots")}}
	other := &corev1.Secret{ObjectMeta: name, Data: map[string][]byte{RootsKey: []byte("other")}}
	for _, s := range []*corev1.Secret{same, other} {
		if _, err := stripSecret(roots)(s); err != nil {
			t.Fatal(err)
		}
	}
	if &same.Data[RootsKey][0] != &roots[0] {
		t.Error("a Secret keeps its own copy of today's roots")
	}
	if string(other.Data[RootsKey]) != "other" {
		t.Errorf("other roots became %q", other.Data[RootsKey])
	}
}

// TestStuffedSecretsCostLittle: tenants write Secrets of our name and type.
func TestStuffedSecretsCostLittle(t *testing.T) {
	long := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	ours := func(edit func(*corev1.Secret)) *corev1.Secret {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "istio.sleep", OwnerReferences: ownedBy("u"),
			Labels: map[string]string{ManagedByLabel: ManagedBy}, Annotations: map[string]string{AccountAnnotation: "sleep"}},
			Data: map[string][]byte{KeyKey: []byte("k"), ChainKey: []byte("c"), RootsKey: []byte("r")}}
		edit(s)
		return s
	}
	for name, c := range map[string]struct {
		edit func(*corev1.Secret)
		lost []string // of our keys
		told bool
	}{
		"as we make it": {func(*corev1.Secret) {}, nil, false},
		"a small key":   {func(s *corev1.Secret) { s.Data["mine"] = long(100) }, nil, false},
		"a large key":   {func(s *corev1.Secret) { s.Data["mine"] = long(1 << 20) }, nil, true},
		"many keys": {func(s *corev1.Secret) {
			for i := range 1000 {
				s.Data[strconv.Itoa(i)] = long(10)
			}
		}, nil, true},
		"annotations": {func(s *corev1.Secret) { s.Annotations["mine"] = string(long(200 << 10)) }, nil, true},
		"labels": {func(s *corev1.Secret) {
			for i := range 1000 {
				s.Labels[strconv.Itoa(i)] = "x"
			}
		}, nil, true},
		"owners": {func(s *corev1.Secret) {
			for range 1000 {
				s.OwnerReferences = append(s.OwnerReferences, metav1.OwnerReference{Kind: "Team"})
			}
		}, nil, true},
		"finalizers":     {func(s *corev1.Secret) { s.Finalizers = []string{string(long(200 << 10))} }, nil, true},
		"long owner":     {func(s *corev1.Secret) { s.OwnerReferences[0].Name = string(long(200 << 10)) }, nil, true},
		"our annotation": {func(s *corev1.Secret) { s.Annotations[AccountAnnotation] = string(long(200 << 10)) }, nil, true},
		"our chain":      {func(s *corev1.Secret) { s.Data[ChainKey] = long(1 << 20) }, []string{ChainKey}, true},
		"our roots":      {func(s *corev1.Secret) { s.Data[RootsKey] = long(1 << 20) }, []string{RootsKey}, true},
		"our key":        {func(s *corev1.Secret) { s.Data[KeyKey] = long(1 << 20) }, []string{KeyKey}, true},
	} {
		s := ours(c.edit)
		if _, err := stripSecret([]byte("today's"))(s); err != nil {
			t.Fatal(err)
		}
		if size := s.Size(); size > 5<<10 || (s.StringData != nil) != c.told {
			t.Errorf("%s: %d bytes are kept, marked %v", name, size, s.StringData)
		}
		for _, k := range []string{KeyKey, ChainKey, RootsKey} {
			if lost := slices.Contains(c.lost, k); lost != (len(s.Data[k]) == 0) {
				t.Errorf("%s: %s is of %d bytes", name, k, len(s.Data[k]))
			}
		}
		if _, owned := accountReference(s); owned == (name == "long owner") {
			t.Errorf("%s: owner kept: %v", name, owned)
		}
	}
}
