package kube

import (
	"context"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"citadel/ca/policy"
)

// PolicyMiss is a part of what decides about mTLS that was not read.
type PolicyMiss struct {
	// Kind is all objects of a kind, or Ref is one that is not understood.
	Kind policy.Kind
	Ref  policy.Ref
	// Resource is what Kind is called in requests.
	Resource string
	Err      error
}

// What is the kind or the object, for messages.
func (m PolicyMiss) What() string {
	if m.Ref != (policy.Ref{}) {
		return m.Ref.String()
	}
	return m.Kind.String()
}

// Read reads once what Run watches, each kind as far as it goes: what it does
// not get is among the misses, by name. Kinds that the cluster does not have are
// no misses. Feed and Tell are not needed.
func (p Policy) Read(ctx context.Context) ([]policy.Object, []PolicyMiss) {
	r := &policyReader{Policy: p}
	var all errgroup.Group // of functions that do not fail
	read := func(f func(context.Context)) {
		all.Go(func() error { f(ctx); return nil })
	}
	core := p.Client.CoreV1()
	read(func(ctx context.Context) {
		readPages(ctx, r, policy.KindNamespace, "namespaces", core.Namespaces().List, func(l *corev1.NamespaceList) []corev1.Namespace { return l.Items }, namespaceObject)
	})
	read(func(ctx context.Context) {
		readPages(ctx, r, policy.KindService, "services", core.Services("").List, func(l *corev1.ServiceList) []corev1.Service { return l.Items }, serviceObject)
	})
	read(func(ctx context.Context) {
		readPages(ctx, r, policy.KindPod, "pods", core.Pods("").List, func(l *corev1.PodList) []corev1.Pod { return l.Items }, podObject)
	})
	read(r.mesh)
	for _, c := range customs {
		read(func(ctx context.Context) { r.custom(ctx, c) })
	}
	_ = all.Wait()
	slices.SortFunc(r.misses, func(a, b PolicyMiss) int { return strings.Compare(a.What(), b.What()) })
	return r.objects, r.misses
}

// policyReader gathers what several requests bring.
type policyReader struct {
	Policy
	mu      sync.Mutex // guards the rest
	objects []policy.Object
	misses  []PolicyMiss
}

func (r *policyReader) add(h *held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case h.err != nil:
		r.misses = append(r.misses, PolicyMiss{Kind: h.ref.Kind, Ref: h.ref, Err: h.err})
	case h.object != nil:
		r.objects = append(r.objects, h.object)
	}
}

func (r *policyReader) miss(k policy.Kind, resource string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.misses = append(r.misses, PolicyMiss{Kind: k, Resource: resource, Err: err})
}

// mesh reads the mesh config. None is one of defaults.
func (r *policyReader) mesh(ctx context.Context) {
	cm, err := r.Client.CoreV1().ConfigMaps(r.Namespace).Get(ctx, meshConfigMap, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		r.miss(policy.KindMeshConfig, "configmaps", err)
	default:
		r.add(meshObject(cm))
	}
}

// pageSize is how many objects one answer holds.
const pageSize = 500

// readPages lists objects of Kubernetes' own.
func readPages[L metav1.ListInterface, T any](ctx context.Context, r *policyReader, k policy.Kind, resource string,
	list func(context.Context, metav1.ListOptions) (L, error), items func(L) []T, object func(*T) *held) {
	for o := (metav1.ListOptions{Limit: pageSize}); ; {
		page, err := list(ctx, o)
		if err != nil {
			r.miss(k, resource, err)
			return
		}
		all := items(page)
		for i := range all {
			r.add(object(&all[i]))
		}
		if o.Continue = page.GetContinue(); o.Continue == "" {
			return
		}
	}
}

// custom lists the objects of a CRD in the best version that is served.
func (r *policyReader) custom(ctx context.Context, c custom) {
	for _, version := range c.versions {
		list := r.Custom.Resource(schema.GroupVersionResource{Group: c.group, Version: version, Resource: c.resource}).List
		first, err := list(ctx, metav1.ListOptions{Limit: pageSize})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case apierrors.IsForbidden(err) && r.lacks(ctx, c.group):
			return
		}
		readPages(ctx, r, c.kind, c.resource+"."+c.group, func(ctx context.Context, o metav1.ListOptions) (*unstructured.UnstructuredList, error) {
			if o.Continue == "" {
				return first, err
			}
			return list(ctx, o)
		}, func(l *unstructured.UnstructuredList) []unstructured.Unstructured { return l.Items }, customObject(c.kind))
		return
	}
}

// lacks tells whether the cluster does not know a group at all: who may not list
// its objects is refused before that is said.
func (r *policyReader) lacks(ctx context.Context, group string) bool {
	err := r.Client.Discovery().RESTClient().Get().AbsPath("/apis/" + group).Do(ctx).Error()
	return apierrors.IsNotFound(err)
}
