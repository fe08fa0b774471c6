package secretcontroller

import (
	"fmt"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
)

// api is one store behind several fake clients, with what the controller
// relies on and client-go's own fake leaves out: UIDs, resource versions and
// the conflicts that they make, preconditions, immutable fields, and field
// selectors.
type api struct {
	mu      sync.Mutex
	tracker clienttesting.ObjectTracker // guarded by mu
	version int                         // guarded by mu
	broken  int                         // guarded by mu: watches from before this version are too old
	watches []apiwatch.Interface        // guarded by mu
}

func newAPI() *api {
	return &api{tracker: clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())}
}

// client returns a client of the store. Each has its own record of actions.
// Objects of the hidden names are never in its lists and watches, as if its
// caches were for ever behind.
func (a *api) client(hidden ...string) *fake.Clientset {
	c := fake.NewSimpleClientset()
	shown := func(obj runtime.Object) bool {
		m, err := meta.Accessor(obj)
		return err == nil && !slices.Contains(hidden, m.GetName())
	}
	c.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) { return a.react(action, shown) })
	c.PrependWatchReactor("*", func(action clienttesting.Action) (bool, apiwatch.Interface, error) { return a.watch(action, shown) })
	return c
}

// breakWatches closes every watch, and knows no more of what was before, as a
// restart of the API server does.
func (a *api) breakWatches() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	a.broken = a.version
	for _, w := range a.watches {
		w.Stop()
	}
	a.watches = nil
}

func (a *api) react(action clienttesting.Action, shown func(runtime.Object) bool) (bool, runtime.Object, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var obj runtime.Object
	var err error
	switch action := action.(type) {
	case clienttesting.CreateActionImpl:
		obj, err = a.create(action)
	case clienttesting.UpdateActionImpl:
		obj, err = a.update(action)
	case clienttesting.DeleteActionImpl:
		err = a.delete(action)
	case clienttesting.ListActionImpl:
		obj, err = a.tracker.List(action.GetResource(), action.GetKind(), action.GetNamespace())
		if err == nil {
			err = a.selectItems(obj, action.ListOptions.FieldSelector, shown)
		}
	default:
		return clienttesting.ObjectReaction(a.tracker)(action)
	}
	return true, obj, err
}

// stamp gives an object the version after the last one.
func (a *api) stamp(obj metav1.Object) {
	a.version++
	obj.SetResourceVersion(strconv.Itoa(a.version))
}

func (a *api) create(action clienttesting.CreateActionImpl) (runtime.Object, error) {
	obj := action.GetObject().DeepCopyObject()
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	a.stamp(m)
	if m.GetUID() == "" {
		m.SetUID(types.UID(fmt.Sprintf("uid-%d", a.version)))
	}
	return obj, a.tracker.Create(action.GetResource(), obj, action.GetNamespace())
}

func (a *api) update(action clienttesting.UpdateActionImpl) (runtime.Object, error) {
	obj := action.GetObject().DeepCopyObject()
	next, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	old, err := a.tracker.Get(action.GetResource(), action.GetNamespace(), next.GetName())
	if err != nil {
		return nil, err
	}
	have, err := meta.Accessor(old)
	if err != nil {
		return nil, err
	}
	if v := next.GetResourceVersion(); v != "" && v != have.GetResourceVersion() {
		return nil, apierrors.NewConflict(action.GetResource().GroupResource(), next.GetName(), fmt.Errorf("version is %s", have.GetResourceVersion()))
	}
	if err := immutable(old, obj); err != nil {
		return nil, err
	}
	a.stamp(next)
	return obj, a.tracker.Update(action.GetResource(), obj, action.GetNamespace())
}

// immutable refuses what the API server never updates: a Secret's type, and
// what says so itself.
func immutable(old, next runtime.Object) error {
	fixed := false
	switch was := old.(type) {
	case *corev1.Secret:
		is, ok := next.(*corev1.Secret)
		fixed = !ok || was.Type != is.Type || was.Immutable != nil && *was.Immutable
	case *corev1.ConfigMap:
		fixed = was.Immutable != nil && *was.Immutable
	}
	if !fixed {
		return nil
	}
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Object").GroupKind(), "x", nil)
}

func (a *api) delete(action clienttesting.DeleteActionImpl) error {
	old, err := a.tracker.Get(action.GetResource(), action.GetNamespace(), action.GetName())
	if err != nil {
		return err
	}
	m, err := meta.Accessor(old)
	if err != nil {
		return err
	}
	if p := action.DeleteOptions.Preconditions; p != nil &&
		((p.UID != nil && *p.UID != m.GetUID()) || (p.ResourceVersion != nil && *p.ResourceVersion != m.GetResourceVersion())) {
		return apierrors.NewConflict(action.GetResource().GroupResource(), action.GetName(), fmt.Errorf("precondition failed"))
	}
	return a.tracker.Delete(action.GetResource(), action.GetNamespace(), action.GetName())
}

func (a *api) watch(action clienttesting.Action, shown func(runtime.Object) bool) (bool, apiwatch.Interface, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	options := action.(clienttesting.WatchActionImpl).ListOptions
	since, err := strconv.Atoi(options.ResourceVersion)
	if err != nil {
		return true, nil, err
	}
	if since < a.broken {
		return true, nil, apierrors.NewResourceExpired("too old resource version")
	}
	selector, err := fields.ParseSelector(options.FieldSelector)
	if err != nil {
		return true, nil, err
	}
	w, err := a.tracker.Watch(action.GetResource(), action.GetNamespace())
	if err != nil {
		return true, nil, err
	}
	if err := a.replay(w, action, since); err != nil {
		return true, nil, err
	}
	a.watches = append(a.watches, w)
	return true, apiwatch.Filter(w, func(e apiwatch.Event) (apiwatch.Event, bool) {
		return e, selector.Matches(fieldsOf(e.Object)) && shown(e.Object)
	}), nil
}

// replay tells a new watch of what was made since a version.
func (a *api) replay(w apiwatch.Interface, action clienttesting.Action, since int) error {
	kind := map[string]string{"secrets": "Secret", "serviceaccounts": "ServiceAccount", "namespaces": "Namespace", "configmaps": "ConfigMap"}
	list, err := a.tracker.List(action.GetResource(), corev1.SchemeGroupVersion.WithKind(kind[action.GetResource().Resource]), action.GetNamespace())
	if err != nil {
		return err
	}
	return meta.EachListItem(list, func(obj runtime.Object) error {
		m, err := meta.Accessor(obj)
		if err != nil {
			return err
		}
		version, err := strconv.Atoi(m.GetResourceVersion())
		if err == nil && version > since {
			w.(*apiwatch.RaceFreeFakeWatcher).Add(obj.DeepCopyObject())
		}
		return err
	})
}

// selectItems leaves in a list what its client asked for and is shown, and
// gives it the version that it is of.
func (a *api) selectItems(list runtime.Object, by string, shown func(runtime.Object) bool) error {
	if m, err := meta.ListAccessor(list); err == nil {
		m.SetResourceVersion(strconv.Itoa(a.version))
	}
	selector, err := fields.ParseSelector(by)
	if err != nil {
		return err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return err
	}
	var kept []runtime.Object
	for _, item := range items {
		if selector.Matches(fieldsOf(item)) && shown(item) {
			kept = append(kept, item)
		}
	}
	return meta.SetList(list, kept)
}

func fieldsOf(obj runtime.Object) fields.Set {
	set := fields.Set{}
	if m, err := meta.Accessor(obj); err == nil {
		set["metadata.name"] = m.GetName()
	}
	if secret, ok := obj.(*corev1.Secret); ok {
		set["type"] = string(secret.Type)
	}
	return set
}
