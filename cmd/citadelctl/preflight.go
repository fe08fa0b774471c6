package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/cmd/citadelctl/health"
)

const (
	// oldestMinor is of the oldest Kubernetes 1.x that knows all fields of deploy/:
	// topologySpreadConstraints.matchLabelKeys and unhealthyPodEvictionPolicy are on
	// by default from there.
	oldestMinor = 27
	// mostSkew is how far clocks may differ before certificates seem not to be
	// valid yet.
	mostSkew = time.Minute
)

// preflight is the checks of a cluster that is to get citadel.
func (f *checkFlags) preflight(ctx context.Context, c *cluster, cmd *cobra.Command) ([]health.Check, error) {
	var checks []health.Check
	for _, look := range []func(context.Context, *cluster) ([]health.Check, error){f.apiServer, f.myRights, f.space, f.authorities} {
		found, err := look(ctx, c)
		if err != nil {
			return nil, err
		}
		checks = append(checks, found...)
	}
	world, err := f.read(ctx, c, cmd.Flags())
	if err != nil {
		return nil, err
	}
	others, err := c.others(ctx, world)
	return append(append(checks, others), health.Leftovers(world)...), err
}

func (f *checkFlags) apiServer(_ context.Context, c *cluster) ([]health.Check, error) {
	version, err := c.client.Discovery().ServerVersion()
	if err != nil {
		return nil, c.explain(err, access{verb: "get", resource: "/version"})
	}
	check := health.Check{Section: "API server", Name: "api-version", Outcome: health.Passed, Message: fmt.Sprintf("%s runs Kubernetes %s", c.server, version.GitVersion)}
	minor, err := strconv.Atoi(strings.TrimRight(version.Minor, "+"))
	if err == nil && version.Major == "1" && minor < oldestMinor {
		check.Outcome, check.Remedy = health.Failed, fmt.Sprintf("upgrade the cluster to Kubernetes 1.%d or later", oldestMinor)
	}
	skew := health.Check{Section: "API server", Name: "clock", Outcome: health.Passed, Message: "its clock and the one here agree"}
	if d := c.clock.skew(); d.Abs() > mostSkew {
		skew.Outcome, skew.Message = health.Failed, fmt.Sprintf("its clock is %s off the one here: %s", d.Abs().Round(time.Second), c.clock.now().UTC().Format(time.RFC3339))
		skew.Remedy = "set the clocks by NTP: with nodes that differ so much, new certificates are not valid yet, or seem to have ended"
	}
	return []health.Check{check, skew}, nil
}

// myRights: the API server lets nobody give rights that they lack.
func (f *checkFlags) myRights(ctx context.Context, c *cluster) ([]health.Check, error) {
	may := c.iMay(ctx)
	check := func(name, good, remedy string, rights []authorizationv1.ResourceAttributes) (health.Check, error) {
		missing, err := lacking(rights, may)
		if err != nil {
			return health.Check{}, c.explain(err, access{verb: "create", resource: "selfsubjectaccessreviews"})
		}
		if len(missing) > 0 {
			return health.Check{Section: "your rights", Name: name, Outcome: health.Failed, Message: "you may not: " + f.some(missing), Remedy: remedy}, nil
		}
		return health.Check{Section: "your rights", Name: name, Outcome: health.Passed, Message: good}, nil
	}
	install, err := check("may-install", "you may make all that deploy/ holds", "have somebody with these rights apply deploy/", single(installRights, f.storage))
	if err != nil {
		return nil, err
	}
	escalate := &authorizationv1.ResourceAttributes{Verb: "escalate", Group: "rbac.authorization.k8s.io", Resource: "clusterroles"}
	if allowed, err := may(escalate); err == nil && allowed {
		return []health.Check{install}, nil
	}
	grant, err := check("may-grant", "you have the rights that citadel is given", "have somebody with these rights, or with verb \"escalate\" on roles, apply rbac.yaml of deploy/",
		single(slices.Concat(storageRights, clusterRights, spaceRights), metav1.NamespaceAll))
	return []health.Check{install, grant}, err
}

func (f *checkFlags) space(ctx context.Context, c *cluster) ([]health.Check, error) {
	seen, err := attempt(c, access{verb: "get", resource: "namespaces", name: f.storage}, func() (*corev1.Namespace, error) {
		return c.client.CoreV1().Namespaces().Get(ctx, f.storage, metav1.GetOptions{})
	})
	if err != nil {
		return nil, err
	}
	check := health.Check{Section: "namespace", Name: "namespace", Outcome: health.Passed}
	switch {
	case seen.Unknown != "":
		check.Outcome, check.Message = health.Unknown, seen.Unknown
	case seen.Value == nil:
		check.Message = "namespace " + f.storage + " does not exist yet"
	case seen.Value.DeletionTimestamp != nil:
		check.Outcome, check.Message = health.Failed, "namespace "+f.storage+" is being deleted"
		check.Remedy = "wait until it is gone; what holds it up: kubectl get namespace " + f.storage + " -o yaml"
	default:
		check.Message = "namespace " + f.storage + " is there"
		pods, err := f.podSecurity(ctx, c, seen.Value)
		return []health.Check{check, pods}, err
	}
	return []health.Check{check}, nil
}

const enforceLabel = "pod-security.kubernetes.io/enforce"

// podSecurity: deploy/ has the namespace admit restricted pods alone, which
// others in it may not be.
func (f *checkFlags) podSecurity(ctx context.Context, c *cluster, ns *corev1.Namespace) (health.Check, error) {
	check := health.Check{Section: "namespace", Name: "pod-security", Outcome: health.Passed, Message: "citadel's pods are admitted at every level of Pod Security"}
	if ns.Labels[enforceLabel] == "restricted" {
		return check, nil
	}
	pods, err := attempt(c, access{verb: "list", resource: "pods", namespace: ns.Name}, func() (*corev1.PodList, error) {
		return c.client.CoreV1().Pods(ns.Name).List(ctx, metav1.ListOptions{LabelSelector: "istio!=citadel", Limit: 1})
	})
	switch {
	case err != nil:
		return check, err
	case pods.Unknown != "":
		check.Outcome, check.Message = health.Unknown, pods.Unknown
	case pods.Value != nil && len(pods.Value.Items) > 0:
		check.Outcome = health.Warned
		check.Message = fmt.Sprintf("other pods run in namespace %s (%s), and deploy/ sets %s=restricted", ns.Name, pods.Value.Items[0].Name, enforceLabel)
		check.Remedy = "where they are not restricted, leave the label out by a kustomization of yours: they would not be admitted again"
	}
	return check, nil
}

// authorities looks for istiod, which keeps ConfigMaps of the same name.
func (f *checkFlags) authorities(ctx context.Context, c *cluster) ([]health.Check, error) {
	seen, err := attempt(c, access{verb: "list", resource: "deployments"}, func() (*appsv1.DeploymentList, error) {
		return c.client.AppsV1().Deployments(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: "app=istiod"})
	})
	check := health.Check{Section: "other authorities", Name: "istiod", Outcome: health.Passed, Message: "istiod is not in this cluster"}
	switch {
	case err != nil:
		return nil, err
	case seen.Unknown != "":
		check.Outcome, check.Message = health.Unknown, seen.Unknown
	case seen.Value != nil && len(seen.Value.Items) > 0:
		d := seen.Value.Items[0]
		check.Outcome = health.Failed
		check.Message = fmt.Sprintf("istiod runs as Deployment %s/%s: it keeps roots of its own in ConfigMap istio-ca-root-cert of all namespaces", d.Namespace, d.Name)
		check.Remedy = "give each namespace to one of the two: label those of istiod's ca.istio.io/override=false, or run citadel with --enable-namespaces-by-default=false"
	}
	return []health.Check{check}, nil
}
