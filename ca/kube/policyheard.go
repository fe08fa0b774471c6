package kube

import (
	"context"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"citadel/ca/policyfeed"
)

// patience is how long a kind that has been read may not be heard of before that
// is told as a problem: what is known of it may be old.
const patience = 30 * time.Second

// resource is how objects of one kind are asked for.
type resource[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// informerOf makes an informer whose kind knows how its requests fare. fields
// chooses objects; empty for all.
func informerOf[L runtime.Object](k *kind, r resource[L], example runtime.Object, fields string) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = fields
			list, err := r.List(ctx, o)
			k.heard(time.Now(), err, false)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = fields
			w, err := r.Watch(ctx, o)
			k.heard(time.Now(), err, true)
			return w, err
		},
	}, example, 0, cache.Indexers{})
}

// heard notes how a request of the kind fared. A list alone does not make well
// what failed: who may list and not watch does not hear of changes.
func (k *kind) heard(now time.Time, err error, watching bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil && watching:
		k.failing, k.since = nil, time.Time{}
	case err != nil:
		if k.failing == nil {
			k.since = now
		}
		k.failing = err
	}
}

// unread says why a kind is not heard of; false while it is. One that has never
// been read is told of at once.
func (k *kind) unread(now time.Time) (policyfeed.Unread, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failing == nil || k.ended || k.synced && now.Sub(k.since) < patience {
		return policyfeed.Unread{}, false
	}
	return policyfeed.Unread{What: k.name, Old: k.synced, Why: k.failing.Error()}, true
}

// unread lists the kinds that are not heard of, with the reasons.
func (w *policyWatch) unread(now time.Time) (all []policyfeed.Unread) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.kinds {
		if u, is := k.unread(now); is {
			all = append(all, u)
		}
	}
	slices.SortFunc(all, func(a, b policyfeed.Unread) int { return strings.Compare(a.What, b.What) })
	return all
}
