package main

import (
	"context"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/kube"
	"citadel/secretcontroller"
)

// right is what somebody must be allowed to do; name is empty for all.
type right struct {
	group, resource, name string
	verbs                 []string
}

// What citadel's service account needs. A test compares it with deploy/.
var (
	// clusterRights are needed where citadel looks at all namespaces.
	clusterRights = []right{{resource: "namespaces", verbs: []string{"list", "watch"}},
		{group: "authentication.k8s.io", resource: "tokenreviews", verbs: []string{"create"}}}
	// spaceRights are needed in all namespaces that it looks at.
	spaceRights = []right{
		{resource: "serviceaccounts", verbs: []string{"get", "list", "watch"}},
		{resource: "secrets", verbs: []string{"get", "list", "watch", "create", "update", "delete"}},
		{resource: "configmaps", verbs: []string{"create"}},
		{resource: "configmaps", name: secretcontroller.RootsConfigMap, verbs: []string{"list", "watch", "update", "delete"}},
		{group: "events.k8s.io", resource: "events", verbs: []string{"create", "patch"}},
	}
	// storageRights are needed in the storage namespace.
	storageRights = []right{
		{resource: "configmaps", name: secretcontroller.LegacyConfigMap, verbs: []string{"list", "watch", "update", "delete"}},
		{resource: "configmaps", name: kube.BansConfigMap, verbs: []string{"get"}},
		{group: "coordination.k8s.io", resource: "leases", verbs: []string{"create"}},
		{group: "coordination.k8s.io", resource: "leases", name: kube.LeaseName, verbs: []string{"get", "update"}},
	}
	// storageExtra is contained in spaceRights where these are of all namespaces.
	storageExtra = []right{
		{resource: "secrets", verbs: []string{"get", "list", "create", "update", "delete"}},
		{resource: "configmaps", verbs: []string{"create"}},
	}
)

// installRights are what the person who applies deploy/ needs.
var installRights = []right{
	installs("", "namespaces"), installs("", "serviceaccounts"), installs("", "services"), installs("", "resourcequotas"),
	installs("apps", "deployments"), installs("policy", "poddisruptionbudgets"), installs("networking.k8s.io", "networkpolicies"),
	installs("rbac.authorization.k8s.io", "clusterroles"), installs("rbac.authorization.k8s.io", "clusterrolebindings"),
	installs("rbac.authorization.k8s.io", "roles"), installs("rbac.authorization.k8s.io", "rolebindings"),
}

// installs is what kubectl apply asks for.
func installs(group, resource string) right {
	return right{group: group, resource: resource, verbs: []string{"get", "create", "patch"}}
}

// unnamespaced are the resources that are of no namespace.
var unnamespaced = []string{"namespaces", "clusterroles", "clusterrolebindings"}

// needed lists the service account's rights, one verb each.
func needed(scope secretcontroller.Scope) []authorizationv1.ResourceAttributes {
	all := single(storageRights, scope.StorageNamespace)
	if len(scope.Listed) == 0 {
		return append(all, single(slices.Concat(clusterRights, spaceRights), metav1.NamespaceAll)...)
	}
	all = append(all, single(storageExtra, scope.StorageNamespace)...)
	for _, namespace := range scope.Listed {
		all = append(all, single(spaceRights, namespace)...)
	}
	return all
}

// single takes rights in a namespace apart.
func single(rights []right, namespace string) []authorizationv1.ResourceAttributes {
	var out []authorizationv1.ResourceAttributes
	for _, r := range rights {
		in := namespace
		if slices.Contains(unnamespaced, r.resource) {
			in = metav1.NamespaceAll
		}
		for _, verb := range r.verbs {
			out = append(out, authorizationv1.ResourceAttributes{Verb: verb, Group: r.group, Resource: r.resource, Name: r.name, Namespace: in})
		}
	}
	return out
}

// lacking asks for each right, and names those that are not there.
func lacking(rights []authorizationv1.ResourceAttributes, may func(*authorizationv1.ResourceAttributes) (bool, error)) (missing []string, err error) {
	for _, r := range rights {
		allowed, err := may(&r)
		if err != nil {
			return nil, err
		}
		if !allowed {
			missing = append(missing, describeRight(r))
		}
	}
	return missing, nil
}

func describeRight(r authorizationv1.ResourceAttributes) string {
	text := r.Verb + " " + strings.TrimSuffix(r.Resource+"."+r.Group, ".")
	if r.Name != "" {
		text += " " + r.Name
	}
	if r.Namespace != "" {
		text += " in " + r.Namespace
	}
	return text
}

// iMay asks for a right of the person's own.
func (c *cluster) iMay(ctx context.Context) func(*authorizationv1.ResourceAttributes) (bool, error) {
	return func(r *authorizationv1.ResourceAttributes) (bool, error) {
		review, err := c.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx,
			&authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: r}}, metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		return review.Status.Allowed, nil
	}
}

// accountMay asks for a right of a service account.
func (c *cluster) accountMay(ctx context.Context, namespace, name string) func(*authorizationv1.ResourceAttributes) (bool, error) {
	spec := authorizationv1.SubjectAccessReviewSpec{User: "system:serviceaccount:" + namespace + ":" + name,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"}}
	return func(r *authorizationv1.ResourceAttributes) (bool, error) {
		spec.ResourceAttributes = r
		review, err := c.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		return review.Status.Allowed, nil
	}
}
