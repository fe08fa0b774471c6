package main

import (
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"citadel/ca/kube"
	"citadel/ca/policy"
	"citadel/cmd/citadelctl/mesh"
)

// mesh reads all that decides about mTLS in a cluster. What may not be read, or
// cannot be understood, is noted; a cluster that does not answer is an error.
func (c *cluster) mesh(cmd *cobra.Command, storage string, g policy.Generation) (*meshWorld, error) {
	objects, misses := kube.Policy{Client: c.client, Custom: c.custom, Namespace: storage}.Read(cmd.Context())
	var unread []unreadKind
	for _, m := range misses {
		one, err := c.missed(m, storage)
		if err != nil {
			return nil, err
		}
		unread = append(unread, one)
	}
	return &meshWorld{mesh.NewWorld(g, objects), unread, c.clock.now()}, nil
}

// missed says what could not be read, or that nothing can be.
func (c *cluster) missed(m kube.PolicyMiss, storage string) (unreadKind, error) {
	if m.Ref != (policy.Ref{}) {
		return unreadKind{Kind: m.What(), Why: m.Err.Error()}, nil
	}
	a := access{verb: "list", resource: m.Resource}
	if m.Kind == policy.KindMeshConfig {
		a = access{verb: "get", resource: m.Resource, namespace: storage, name: "istio"}
	}
	err := c.explain(m.Err, a)
	if apierrors.IsForbidden(m.Err) {
		return unreadKind{Kind: m.What(), Why: err.Error(), denied: true}, nil
	}
	return unreadKind{}, err
}
