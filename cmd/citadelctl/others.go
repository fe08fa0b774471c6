package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"citadel/ca/kube"
	"citadel/cmd/citadelctl/health"
	"citadel/secretcontroller"
)

// others looks for citadels in other namespaces that manage the same ones. Who
// may not look everywhere is told so.
func (c *cluster) others(ctx context.Context, w health.World) (health.Check, error) {
	deployments, err := attempt(c, access{verb: "list", resource: "deployments"}, func() (*appsv1.DeploymentList, error) {
		return c.client.AppsV1().Deployments(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: "istio=citadel"})
	})
	leases, err2 := attempt(c, access{verb: "list", resource: "leases"}, func() (*coordinationv1.LeaseList, error) {
		return c.client.CoordinationV1().Leases(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, kube.LeaseName).String()})
	})
	spaces, err3 := attempt(c, access{verb: "list", resource: "namespaces"}, func() (*corev1.NamespaceList, error) {
		return c.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	})
	if err := errors.Join(err, err2, err3); err != nil {
		return health.Check{}, err
	}
	for _, unknown := range []string{deployments.Unknown, leases.Unknown, spaces.Unknown} {
		if unknown != "" {
			return health.Check{Section: "other authorities", Name: "namespaces-are-ours", Outcome: health.Warned,
				Message: "whether another citadel manages the same namespaces is not known: " + unknown, Remedy: "ask somebody who may look into all namespaces"}, nil
		}
	}
	return health.Others(w, spaces.Value.Items, otherCitadels(w, deployments.Value.Items, leases.Value.Items)), nil
}

// otherCitadels are those whose Deployment runs or whose lease is held, but for
// the one that the world is about.
func otherCitadels(w health.World, deployments []appsv1.Deployment, leases []coordinationv1.Lease) []health.Citadel {
	var found []health.Citadel
	known := map[string]bool{w.Scope.StorageNamespace: true}
	for _, d := range deployments {
		if d.Namespace == w.Scope.StorageNamespace && d.Name == health.Deployment || d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
			continue
		}
		scope, writes, err := scopeOf(&d)
		if !writes {
			continue
		}
		other := health.Citadel{Name: fmt.Sprintf("Deployment %s/%s", d.Namespace, d.Name)}
		if err == nil {
			if scope.StorageNamespace == w.Scope.StorageNamespace {
				continue // they take turns by one lease
			}
			other.Scope, known[scope.StorageNamespace] = &scope, true
		}
		found = append(found, other)
	}
	for _, l := range leases {
		if !known[l.Namespace] && held(&l, w.Now) {
			found = append(found, health.Citadel{Name: fmt.Sprintf("%s, which holds Lease %s/%s", *l.Spec.HolderIdentity, l.Namespace, l.Name)})
		}
	}
	return found
}

// scopeOf is what a Deployment's flags have its citadel manage, and whether that
// writes Secrets at all.
func scopeOf(d *appsv1.Deployment) (scope secretcontroller.Scope, writes bool, err error) {
	container := citadelOf(d)
	if container == nil {
		return scope, true, errors.New("no container of it is citadel's")
	}
	told := environment(container.Env, d.Namespace)
	arguments, err := parse(slices.Concat(container.Command, container.Args))
	maps.Copy(told, arguments)
	scope = secretcontroller.Scope{StorageNamespace: storageNamespace, EnabledByDefault: true, Listed: splitNames(told[listedFlag])}
	if told[storageFlag] != "" {
		scope.StorageNamespace = told[storageFlag]
	}
	if text := told[byDefaultFlag]; text != "" {
		enabled, parseErr := strconv.ParseBool(text)
		scope.EnabledByDefault, err = enabled, errors.Join(err, parseErr)
	}
	serverOnly, _ := strconv.ParseBool(told[serverOnlyFlag]) // no word: it writes
	return scope, !serverOnly, err
}

// citadelOf is the container that runs citadel; nil where none does.
func citadelOf(d *appsv1.Deployment) *corev1.Container {
	containers := d.Spec.Template.Spec.Containers
	n := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == "citadel" || len(containers) == 1 })
	if n < 0 {
		return nil
	}
	return &containers[n]
}

// splitNames takes a list of a flag apart.
func splitNames(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

// held tells whether somebody holds a lease at now.
func held(l *coordinationv1.Lease, now time.Time) bool {
	s := l.Spec
	if s.HolderIdentity == nil || *s.HolderIdentity == "" || s.RenewTime == nil || s.LeaseDurationSeconds == nil {
		return false
	}
	return now.Before(s.RenewTime.Add(time.Duration(*s.LeaseDurationSeconds) * time.Second))
}
