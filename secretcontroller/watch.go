package secretcontroller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// key names one object to keep right.
type key struct {
	kind            kind
	namespace, name string // the service account's, for accountKey
}

type kind int

const (
	heartbeatKey   kind = iota // the queue's own sign of life
	accountKey                 // a service account and its Secret
	rootsKey                   // RootsConfigMap of a namespace
	legacyRootsKey             // LegacyConfigMap
)

// resync backs the watches: each object is looked at this often, come what may.
const resync = 10 * time.Minute

// watch is the local copy of what the controller decides on. Each object is
// stripped to what that needs before it is stored; stored objects are never
// changed.
type watch struct {
	scope    Scope
	wake     func(key)
	accounts store
	secrets  store
	roots    store
	legacy   cache.SharedIndexInformer
	spaces   cache.SharedIndexInformer // nil when namespaces are listed
}

// store is one informer for the whole cluster, under "", or one for each
// listed namespace.
type store map[string]cache.SharedIndexInformer

func (s store) get(namespace, name string) (any, bool) {
	informer, ok := s[namespace]
	if !ok {
		informer, ok = s[metav1.NamespaceAll]
	}
	if !ok {
		return nil, false
	}
	obj, exists, err := informer.GetIndexer().GetByKey(namespace + "/" + name)
	return obj, exists && err == nil
}

func newWatch(client kubernetes.Interface, scope Scope, rootsPEM []byte, wake func(key)) (*watch, error) {
	w := &watch{scope: scope, wake: wake, accounts: store{}, secrets: store{}, roots: store{}}
	namespaces := scope.Listed
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
		w.spaces = coreinformers.NewNamespaceInformer(client, resync, cache.Indexers{})
	}
	byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	for _, ns := range namespaces {
		w.accounts[ns] = coreinformers.NewServiceAccountInformer(client, ns, resync, byNamespace)
		w.secrets[ns] = coreinformers.NewFilteredSecretInformer(client, ns, resync, cache.Indexers{}, selectField("type", string(SecretType)))
		w.roots[ns] = coreinformers.NewFilteredConfigMapInformer(client, ns, resync, cache.Indexers{}, selectField("metadata.name", RootsConfigMap))
	}
	w.legacy = coreinformers.NewFilteredConfigMapInformer(client, scope.StorageNamespace, resync, cache.Indexers{}, selectField("metadata.name", LegacyConfigMap))
	return w, w.handle(rootsPEM)
}

func selectField(field, value string) func(*metav1.ListOptions) {
	selector := fields.OneTermEqualSelector(field, value).String()
	return func(o *metav1.ListOptions) { o.FieldSelector = selector }
}

// handle connects events to keys. What an event says does not matter, only
// that there was one.
func (w *watch) handle(rootsPEM []byte) error {
	var errs []error
	add := func(s store, strip cache.TransformFunc, keys func(namespace, name string)) {
		for _, informer := range s {
			errs = append(errs, connect(informer, strip, keys))
		}
	}
	add(w.accounts, stripAccount, func(namespace, name string) {
		w.wake(key{accountKey, namespace, name})
		if len(w.scope.Listed) > 0 { // no Namespace object tells that this one exists
			w.wake(key{rootsKey, namespace, ""})
		}
	})
	add(w.secrets, stripSecret(rootsPEM), func(namespace, name string) {
		if account, ok := AccountOf(name); ok {
			w.wake(key{accountKey, namespace, account})
		}
	})
	add(w.roots, stripConfigMap(string(rootsPEM)), func(namespace, _ string) { w.wake(key{rootsKey, namespace, ""}) })
	errs = append(errs, connect(w.legacy, stripManagedFields, func(string, string) { w.wake(key{kind: legacyRootsKey}) }))
	if w.spaces != nil {
		errs = append(errs, connect(w.spaces, stripNamespace, func(_, name string) {
			for _, k := range w.namespaceKeys(name) {
				w.wake(k)
			}
		}))
	}
	return errors.Join(errs...)
}

func connect(informer cache.SharedIndexInformer, strip cache.TransformFunc, keys func(namespace, name string)) error {
	if err := informer.SetTransform(strip); err != nil {
		return fmt.Errorf("set up a cache: %w", err)
	}
	event := func(obj any) {
		full, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj) // knows tombstones
		if err != nil {
			return
		}
		if namespace, name, err := cache.SplitMetaNamespaceKey(full); err == nil {
			keys(namespace, name)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: event, UpdateFunc: func(_, obj any) { event(obj) }, DeleteFunc: event,
	})
	if err != nil {
		return fmt.Errorf("set up a cache: %w", err)
	}
	return nil
}

// The strip functions run on objects that nobody else holds yet.

func stripManagedFields(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

func stripAccount(obj any) (any, error) {
	if sa, ok := obj.(*corev1.ServiceAccount); ok {
		return &corev1.ServiceAccount{ObjectMeta: identityOf(sa)}, nil
	}
	return obj, nil
}

func stripNamespace(obj any) (any, error) {
	if ns, ok := obj.(*corev1.Namespace); ok {
		meta := identityOf(ns)
		meta.Labels = ns.Labels
		return &corev1.Namespace{ObjectMeta: meta}, nil
	}
	return obj, nil
}

func identityOf(o metav1.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: o.GetName(), Namespace: o.GetNamespace(), UID: o.GetUID(),
		ResourceVersion: o.GetResourceVersion(), DeletionTimestamp: o.GetDeletionTimestamp()}
}

func (w *watch) informers() []cache.SharedIndexInformer {
	all := []cache.SharedIndexInformer{w.legacy}
	for _, s := range []store{w.accounts, w.secrets, w.roots} {
		for _, informer := range s {
			all = append(all, informer)
		}
	}
	if w.spaces != nil {
		all = append(all, w.spaces)
	}
	return all
}

func (w *watch) run(ctx context.Context) {
	var running sync.WaitGroup
	for _, informer := range w.informers() {
		running.Go(func() { informer.RunWithContext(ctx) })
	}
	running.Wait()
}

func (w *watch) synced() bool {
	for _, informer := range w.informers() {
		if !informer.HasSynced() {
			return false
		}
	}
	return true
}

func (w *watch) wait(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), w.synced) {
		return fmt.Errorf("wait for the first list of every cache: %w", context.Cause(ctx))
	}
	return nil
}

// allKeys is everything that there is to keep right.
func (w *watch) allKeys() []key {
	keys := []key{{kind: heartbeatKey}, {kind: legacyRootsKey}}
	for _, ns := range w.scope.Listed {
		keys = append(keys, key{rootsKey, ns, ""})
	}
	if w.spaces != nil {
		for _, ns := range w.spaces.GetIndexer().ListKeys() {
			keys = append(keys, key{rootsKey, ns, ""})
		}
	}
	for _, informer := range w.accounts {
		keys = append(keys, keysOf(informer.GetIndexer().ListKeys())...)
	}
	return append(keys, w.orphanKeys()...)
}

// keysOf turns the cache's names into keys of service accounts.
func keysOf(full []string) []key {
	var keys []key
	for _, f := range full {
		if namespace, name, err := cache.SplitMetaNamespaceKey(f); err == nil {
			keys = append(keys, key{accountKey, namespace, name})
		}
	}
	return keys
}

// orphanKeys are those of Secrets whose service account is gone.
func (w *watch) orphanKeys() []key {
	var keys []key
	for _, informer := range w.secrets {
		for _, k := range keysOf(informer.GetIndexer().ListKeys()) {
			account, ok := AccountOf(k.name)
			if _, lives := w.accounts.get(k.namespace, account); ok && !lives {
				keys = append(keys, key{accountKey, k.namespace, account})
			}
		}
	}
	return keys
}

// namespaceKeys is what a change of a namespace's labels may concern.
func (w *watch) namespaceKeys(namespace string) []key {
	keys := []key{{rootsKey, namespace, ""}}
	for _, informer := range w.accounts {
		full, err := informer.GetIndexer().IndexKeys(cache.NamespaceIndex, namespace)
		if err == nil {
			keys = append(keys, keysOf(full)...)
		}
	}
	return keys
}

// manages tells whether a namespace is managed, as far as the caches know: one
// that they do not hold is not.
func (w *watch) manages(namespace string) bool {
	if w.spaces == nil {
		managed, _ := w.scope.Manages(namespace, nil)
		return managed
	}
	labels, exists := w.labels(namespace)
	managed, _ := w.scope.Manages(namespace, labels)
	return exists && managed
}

// labels are those of a namespace that exists and is not on its way out.
func (w *watch) labels(namespace string) (map[string]string, bool) {
	if w.spaces == nil {
		return nil, false
	}
	obj, exists, err := w.spaces.GetIndexer().GetByKey(namespace)
	ns, ok := obj.(*corev1.Namespace)
	if err != nil || !exists || !ok || ns.DeletionTimestamp != nil {
		return nil, false
	}
	return ns.Labels, true
}

func (w *watch) account(k key) (Account, bool) {
	obj, exists := w.accounts.get(k.namespace, k.name)
	sa, ok := obj.(*corev1.ServiceAccount)
	if !exists || !ok || sa.DeletionTimestamp != nil {
		return Account{}, false
	}
	return Account{Namespace: sa.Namespace, Name: sa.Name, UID: sa.UID}, true
}

func (w *watch) secret(k key) *corev1.Secret {
	obj, _ := w.secrets.get(k.namespace, SecretName(k.name))
	secret, _ := obj.(*corev1.Secret)
	return secret
}
