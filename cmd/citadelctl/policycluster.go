package main

import (
	"fmt"

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
	world := &meshWorld{World: mesh.NewWorld(g, objects), unread: unread, now: c.clock.now()}
	if config, is := world.Object(policy.Ref{Kind: policy.KindMeshConfig}).(*policy.MeshConfig); is {
		for _, key := range config.Unknown {
			world.warnings = append(world.warnings, mesh.Warning(key.Warning()))
		}
	}
	return world, nil
}

// missed says what could not be read, or that nothing can be. By the defaults of
// a mesh config that is there the answers would be another mesh's: a running
// citadel goes by the one of before, which is not to be had here.
func (c *cluster) missed(m kube.PolicyMiss, storage string) (unreadKind, error) {
	if m.Ref.Kind == policy.KindMeshConfig {
		return unreadKind{}, codedError{exitUsage, fmt.Errorf("there is no answer without the mesh config, and it cannot be read: mend it, or ask a running citadel, which goes by the one of before: %w", m.Err)}
	}
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
