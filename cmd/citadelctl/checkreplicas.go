package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/cmd/citadelctl/health"
)

// citadelsAccount is the name of citadel's service account, as told, else as the
// Deployment says.
func citadelsAccount(told string, w health.World) string {
	if told == "" && w.Deployment.Value != nil {
		told = w.Deployment.Value.Spec.Template.Spec.ServiceAccountName
	}
	return cmp.Or(told, health.ServiceAccount)
}

// accountRights checks that citadel may do what it has to.
func (f *installFlags) accountRights(ctx context.Context, c *cluster, w health.World, account string) (health.Check, error) {
	check := health.Check{Section: "rights", Name: "account-rights"}
	rights := needed(w.Scope)
	missing, err := lacking(rights, c.accountMay(ctx, f.storage, account))
	switch {
	case apierrors.IsForbidden(err):
		check.Outcome, check.Message = health.Unknown, "no right to create subjectaccessreviews"
	case err != nil:
		return check, c.explain(err, access{verb: "create", resource: "subjectaccessreviews"})
	case len(missing) > 0:
		check.Outcome, check.Remedy = health.Failed, "apply rbac.yaml of deploy/ again, with its subjects in namespace "+f.storage
		check.Message = fmt.Sprintf("service account %s/%s may not: %s", f.storage, account, f.some(missing))
	default:
		check.Outcome, check.Message = health.Passed, fmt.Sprintf("service account %s/%s has all of %d rights", f.storage, account, len(rights))
	}
	return check, nil
}

// tokenReviews tells where citadel takes no tokens of Kubernetes: Roles alone give
// no right to have them reviewed. It says nothing where nobody can know.
func (f *installFlags) tokenReviews(ctx context.Context, c *cluster, w health.World, account string) []health.Check {
	if len(w.Scope.Listed) == 0 {
		return nil // it is one of the rights that it must have
	}
	allowed, err := c.accountMay(ctx, f.storage, account)(&authorizationv1.ResourceAttributes{Verb: "create", Group: "authentication.k8s.io", Resource: "tokenreviews"})
	check := health.Check{Section: "rights", Name: "token-reviews", Outcome: health.Passed, Message: "the CSR API takes Kubernetes tokens"}
	switch {
	case err != nil:
		return nil
	case !allowed:
		check.Outcome, check.Message = health.Warned, "the CSR API takes no Kubernetes tokens: where listed namespaces alone are managed citadel has no right to create tokenreviews, which is of the whole cluster"
		check.Remedy = fmt.Sprintf("where proxies or agents show such tokens: kubectl create clusterrolebinding istio-citadel-tokens --clusterrole=system:auth-delegator --serviceaccount=%s:%s; client certificates, join tokens and OIDC tokens need no right", f.storage, account)
	}
	return []health.Check{check}
}

// some names the first of many.
func (f *installFlags) some(names []string) string {
	shown := names[:min(len(names), max(f.examples, 1))]
	text := strings.Join(shown, ", ")
	if more := len(names) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// askReplicas asks each ready replica that stays, by way of the API server, how
// it is. Who may not is told so: the readiness that the kubelet sees was looked at.
func (c *cluster) askReplicas(ctx context.Context, w health.World) ([]health.Check, error) {
	var checks []health.Check
	leaders, moving := 0, w.HandedOver()
	for _, pod := range w.Pods.Value {
		port := monitoringPort(pod)
		if pod.DeletionTimestamp != nil {
			moving = true // it may lead until the end
			continue
		}
		if !health.Ready(pod) || port == 0 {
			continue
		}
		check, metrics, err := c.askReplica(ctx, pod, port)
		if apierrors.IsForbidden(err) {
			return []health.Check{{Section: "monitoring", Name: "replica-ready", Outcome: health.Warned, Message: "replicas were not asked: no right to get pods/proxy",
				Remedy: "to have them asked, get verb \"get\" on resource \"pods/proxy\" in namespace " + w.Scope.StorageNamespace}}, nil
		}
		if errors.Is(err, context.Canceled) {
			return nil, err
		}
		if err != nil && c.leaves(ctx, pod) {
			moving = true
			continue
		}
		checks = append(checks, check)
		if metrics["citadel_leader"] == 1 {
			leaders++
		}
		if metrics["citadel_audit_failing"] == 1 {
			checks = append(checks, health.Check{Section: "monitoring", Name: "audit-stream", Outcome: health.Failed,
				Message: "the audit stream of " + pod.Name + " cannot be written, and nothing is signed without", Remedy: "make room where --audit-log points to, or see who reads its pipe"})
		}
	}
	if len(checks) > 0 {
		checks = append(checks, oneLeader(leaders, moving))
	}
	return checks, nil
}

// leaves tells whether a pod that was there is gone by now, or about to be.
func (c *cluster) leaves(ctx context.Context, pod corev1.Pod) bool {
	now, err := c.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	return apierrors.IsNotFound(err) || err == nil && now.DeletionTimestamp != nil
}

func monitoringPort(pod corev1.Pod) int32 {
	for _, container := range pod.Spec.Containers {
		n := slices.IndexFunc(container.Ports, func(p corev1.ContainerPort) bool { return p.Name == health.MonitoringPort })
		if n >= 0 {
			return container.Ports[n].ContainerPort
		}
	}
	return 0
}

func (c *cluster) askReplica(ctx context.Context, pod corev1.Pod, port int32) (health.Check, map[string]float64, error) {
	check := health.Check{Section: "monitoring", Name: "replica-ready", Outcome: health.Passed, Message: pod.Name + " can sign now"}
	get := func(page string) ([]byte, error) {
		return c.client.CoreV1().Pods(pod.Namespace).ProxyGet("http", pod.Name, strconv.Itoa(int(port)), page, nil).DoRaw(ctx)
	}
	_, err := get("readyz")
	text, metricsErr := get("metrics")
	if err = errors.Join(err, metricsErr); err != nil {
		check.Outcome, check.Message = health.Failed, fmt.Sprintf("%s does not answer as one that can sign: %s", pod.Name, strings.ReplaceAll(err.Error(), "\n", "; "))
		check.Remedy = fmt.Sprintf("its log says why: kubectl -n %s logs %s; where a NetworkPolicy keeps the API server out, let it in to port %d", pod.Namespace, pod.Name, port)
	}
	return check, gauges(text), err
}

// gauges reads the metrics that have no labels.
func gauges(text []byte) map[string]float64 {
	values := map[string]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			values[name] = v
		}
	}
	return values
}

// oneLeader: none is no failure while the lease moves from one to another.
func oneLeader(n int, moving bool) health.Check {
	check := health.Check{Section: "monitoring", Name: "one-leader", Outcome: health.Failed}
	switch {
	case n == 0 && moving:
		check.Outcome, check.Message, check.Remedy = health.Warned, "no replica that stays says that it leads yet", "wait: the next replica takes the lease within seconds; ask again"
	case n == 0:
		check.Message, check.Remedy = "no replica says that it leads", "where another citadel holds the lease, stop it; otherwise see that the replicas may read and write the lease"
	case n == 1:
		check.Outcome, check.Message = health.Passed, "one replica says that it leads"
	default:
		check.Message, check.Remedy = fmt.Sprintf("%d replicas say that they lead", n), "ask again in a moment; where it stays so, their flags name different leases, or --leader-elect is off"
	}
	return check
}
