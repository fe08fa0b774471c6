package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"citadel/ca/policy"
	"citadel/ca/policyfeed"
)

// Policy watches what decides about mTLS in a cluster, and feeds it.
type Policy struct {
	Client kubernetes.Interface
	// Custom reads the kinds of CRDs, and the CRDs.
	Custom dynamic.Interface
	// Namespace is where ConfigMap istio holds the mesh config.
	Namespace string
	Feed      *policyfeed.Feed
	// Tell hears why something cannot be read: objects, or a whole kind.
	Tell func(error)
}

// CustomClient returns a client of the kinds of CRDs. Objects travel as JSON.
func CustomClient(cfg *rest.Config) (dynamic.Interface, error) {
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client of custom resources: %w", err)
	}
	return client, nil
}

// settle is how long events are gathered before they make a state: a rollout
// sends many.
const settle = 20 * time.Millisecond

// Run watches until ctx ends. Nobody is told anything before everything has
// been read once.
func (p Policy) Run(ctx context.Context) {
	w := &policyWatch{Policy: p, wake: make(chan struct{}, 1)}
	core := p.Client.CoreV1()
	namespaces := newKind("Namespace", transformed(namespaceObject))
	w.watch(ctx, namespaces, informerOf(namespaces, core.Namespaces(), &corev1.Namespace{}, ""))
	services := newKind("Service", transformed(serviceObject))
	w.watch(ctx, services, informerOf(services, core.Services(metav1.NamespaceAll), &corev1.Service{}, ""))
	pods := newKind("Pod", transformed(podObject))
	w.watch(ctx, pods, informerOf(pods, core.Pods(metav1.NamespaceAll), &corev1.Pod{}, ""))
	config := newKind("ConfigMap istio", transformed(meshObject))
	w.watch(ctx, config, informerOf(config, core.ConfigMaps(p.Namespace), &corev1.ConfigMap{}, "metadata.name="+meshConfigMap))
	w.watchDefinitions(ctx)
	w.feed(ctx)
	w.running.Wait()
}

// policyWatch is one run.
type policyWatch struct {
	Policy
	wake    chan struct{}
	running sync.WaitGroup

	mu    sync.Mutex
	kinds []*kind // guarded by mu: being watched, or just ended
}

// kind is one kind of objects while it is watched.
type kind struct {
	name      string
	transform cache.TransformFunc
	take      func(obj any, gone bool) // an event; nil: what is held goes to the feed
	stop      context.CancelFunc
	before    map[policy.Ref]bool // what the feed was told is there by another version of the kind

	mu      sync.Mutex
	synced  bool                 // guarded by mu: the first list is in
	ended   bool                 // guarded by mu: the kind is gone
	pending map[policy.Ref]*held // guarded by mu: the last of each object; one without object or error is gone
	there   map[policy.Ref]bool  // guarded by mu: what exists
	toldAt  time.Time            // guarded by mu: of the last trouble
	failing error                // guarded by mu: of its last request; nil since one succeeded
	since   time.Time            // guarded by mu: when failing began
}

func newKind(name string, transform cache.TransformFunc) *kind {
	return &kind{name: name, transform: transform, pending: map[policy.Ref]*held{}, there: map[policy.Ref]bool{}}
}

// watch has an informer run until ctx ends or the kind is stopped.
func (w *policyWatch) watch(ctx context.Context, k *kind, informer cache.SharedIndexInformer) {
	ctx, k.stop = context.WithCancel(ctx)
	if k.take == nil {
		k.take = func(obj any, gone bool) { w.take(k, obj, gone) }
	}
	take := func(obj any, gone bool) {
		if tombstone, is := obj.(cache.DeletedFinalStateUnknown); is {
			obj = tombstone.Obj
		}
		k.take(obj, gone)
	}
	handle, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { take(obj, false) },
		UpdateFunc: func(_, obj any) { take(obj, false) },
		DeleteFunc: func(obj any) { take(obj, true) },
	})
	err = errors.Join(err, informer.SetTransform(k.transform), informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		if ctx.Err() == nil && k.worthTelling(time.Now()) {
			w.Tell(fmt.Errorf("watch what decides about mTLS: %s: %w", k.name, err))
		}
		w.wakeUp()
	}))
	if err != nil { // of an informer that has run already
		w.Tell(fmt.Errorf("watch what decides about mTLS: %s: %w", k.name, err))
	}
	w.mu.Lock()
	w.kinds = append(w.kinds, k)
	w.mu.Unlock()
	w.running.Go(func() { informer.RunWithContext(ctx) })
	w.running.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), handle.HasSynced) {
			k.mu.Lock()
			k.synced = true
			k.mu.Unlock()
			w.wakeUp()
		}
	})
}

// worthTelling keeps an API server that is away from filling the log.
func (k *kind) worthTelling(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Sub(k.toldAt) < time.Minute {
		return false
	}
	k.toldAt = now
	return true
}

func (w *policyWatch) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take notes what an event brought. What it was is forgotten.
func (w *policyWatch) take(k *kind, obj any, gone bool) {
	h, is := obj.(*held)
	if !is {
		return
	}
	if gone {
		h = &held{ref: h.ref}
	}
	if h.err != nil {
		w.Tell(fmt.Errorf("what cannot be read does not decide about mTLS: %w", h.err))
	}
	k.mu.Lock()
	k.pending[h.ref] = h
	if h.object == nil && h.err == nil {
		delete(k.there, h.ref)
	} else {
		k.there[h.ref] = true
	}
	k.mu.Unlock()
	w.wakeUp()
}

// end has all objects of a kind go: its CRD is gone.
func (w *policyWatch) end(k *kind) {
	k.mu.Lock()
	k.ended = true
	k.mu.Unlock()
	w.wakeUp()
}

// dismiss forgets a kind, and returns what the feed goes on holding of it.
func (w *policyWatch) dismiss(k *kind) map[policy.Ref]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kinds = slices.DeleteFunc(w.kinds, func(other *kind) bool { return other == k })
	k.mu.Lock()
	defer k.mu.Unlock()
	all := maps.Clone(k.there)
	for ref := range k.pending {
		all[ref] = true
	}
	maps.Copy(all, k.before)
	return all
}

// collect adds what is pending of a kind, once its first list is in. It tells
// whether that is so, and whether the kind is over.
func (k *kind) collect(c *policyfeed.Change) (ready, over bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended {
		c.Gone = slices.AppendSeq(c.Gone, maps.Keys(k.there))
		c.Gone = slices.AppendSeq(c.Gone, maps.Keys(k.pending))
		c.Gone = slices.AppendSeq(c.Gone, maps.Keys(k.before))
		return true, true
	}
	if !k.synced {
		return false, false
	}
	for ref := range k.before {
		if !k.there[ref] {
			c.Gone = append(c.Gone, ref)
		}
	}
	k.before = nil
	for ref, h := range k.pending {
		switch {
		case h.object != nil:
			c.Put = append(c.Put, h.object)
		case h.err != nil:
			c.Broken[ref] = h.err
		default:
			c.Gone = append(c.Gone, ref)
		}
	}
	clear(k.pending)
	return true, false
}

// feed passes on what is pending, until ctx ends.
func (w *policyWatch) feed(ctx context.Context) {
	known := false
	look := time.NewTicker(patience / 3) // time alone makes a kind one that is not heard of
	defer look.Stop()
	for {
		select {
		case <-w.wake:
		case <-look.C:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return
		}
		change, ready := w.gather()
		known = known || ready && !w.meshBroken(change)
		change.Known, change.Unread = known, w.unread(time.Now())
		w.Feed.Apply(change)
	}
}

// gather collects all kinds, and tells whether each has been read once.
func (w *policyWatch) gather() (all policyfeed.Change, ready bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all.Broken = map[policy.Ref]error{}
	ready = true
	w.kinds = slices.DeleteFunc(w.kinds, func(k *kind) bool {
		read, over := k.collect(&all)
		ready = ready && read
		return over
	})
	return all, ready
}

// meshBroken tells whether there will be a mesh config that cannot be read. That
// is not enough to begin with: without it a whole mesh could turn to plain text.
func (w *policyWatch) meshBroken(c policyfeed.Change) bool {
	mesh := policy.Ref{Kind: policy.KindMeshConfig}
	mended := slices.Contains(c.Gone, mesh) || slices.ContainsFunc(c.Put, func(o policy.Object) bool { return o.Ref() == mesh })
	return c.Broken[mesh] != nil || w.Feed.State().IsBroken(mesh) && !mended
}
