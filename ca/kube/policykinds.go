package kube

import (
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"citadel/ca/policy"
)

// custom is a kind that comes by a CRD, if it does.
type custom struct {
	kind     policy.Kind
	group    string
	resource string
	versions []string // that can be read, the best first
}

var customs = []custom{
	{policy.KindMeshPolicy, "authentication.istio.io", "meshpolicies", []string{"v1alpha1"}},
	{policy.KindPolicy, "authentication.istio.io", "policies", []string{"v1alpha1"}},
	{policy.KindPeerAuthentication, "security.istio.io", "peerauthentications", []string{"v1", "v1beta1"}},
	{policy.KindDestinationRule, "networking.istio.io", "destinationrules", []string{"v1", "v1beta1", "v1alpha3"}},
	{policy.KindServiceEntry, "networking.istio.io", "serviceentries", []string{"v1", "v1beta1", "v1alpha3"}},
	{policy.KindWorkloadEntry, "networking.istio.io", "workloadentries", []string{"v1", "v1beta1", "v1alpha3"}},
}

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// definition is what is kept of a CRD.
type definition struct {
	metav1.ObjectMeta          // Name, UID and ResourceVersion alone
	served            []string // versions; none before it is established
}

// definitionOf runs on objects that nobody else holds yet.
func definitionOf(obj any) (any, error) {
	u, is := obj.(*unstructured.Unstructured)
	if !is {
		return obj, nil
	}
	d := &definition{ObjectMeta: metav1.ObjectMeta{Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion()}}
	if !established(u) || u.GetDeletionTimestamp() != nil {
		return d, nil
	}
	versions, _, _ := unstructured.NestedSlice(u.Object, "spec", "versions")
	for _, v := range versions {
		if fields, is := v.(map[string]any); is && fields["served"] == true {
			if name, is := fields["name"].(string); is {
				d.served = append(d.served, name)
			}
		}
	}
	return d, nil
}

func established(u *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		fields, _ := c.(map[string]any)
		return fields["type"] == "Established" && fields["status"] == "True"
	})
}

// served is a kind that is being watched, in one version.
type served struct {
	*kind
	version string
}

// watchDefinitions has the custom kinds watched that exist, as long as they do.
func (w *policyWatch) watchDefinitions(ctx context.Context) {
	now := map[string]served{} // of this informer's handlers, which run one after the other
	crds := newKind("CustomResourceDefinition", definitionOf)
	crds.take = func(obj any, gone bool) {
		if d, is := obj.(*definition); is {
			w.adapt(ctx, now, d, gone)
		}
	}
	w.watch(ctx, crds, informerOf(crds, w.Custom.Resource(definitions), &unstructured.Unstructured{}, ""))
}

// adapt starts, restarts or ends the watch of a CRD's kind.
func (w *policyWatch) adapt(ctx context.Context, now map[string]served, d *definition, gone bool) {
	i := slices.IndexFunc(customs, func(c custom) bool { return c.resource+"."+c.group == d.Name })
	if i < 0 {
		return
	}
	version := ""
	if !gone {
		version = bestOf(customs[i].versions, d.served)
	}
	old, watching := now[d.Name]
	if watching && old.version == version {
		return
	}
	if watching {
		delete(now, d.Name)
		old.stop()
	}
	if version == "" {
		if watching {
			w.end(old.kind)
		}
		return
	}
	k := newKind(customs[i].kind.String(), transformed(customObject(customs[i].kind)))
	if watching { // its objects hold until they are read in the other version
		k.before = w.dismiss(old.kind)
	}
	now[d.Name] = served{k, version}
	resource := schema.GroupVersionResource{Group: customs[i].group, Version: version, Resource: customs[i].resource}
	w.watch(ctx, k, informerOf(k, w.Custom.Resource(resource), &unstructured.Unstructured{}, ""))
}

// bestOf is the first that is served; empty for none.
func bestOf(wanted, served []string) string {
	for _, v := range wanted {
		if slices.Contains(served, v) {
			return v
		}
	}
	return ""
}
