package main

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"citadel/ca/kube"
	"citadel/cmd/citadelctl/health"
	"citadel/secretcontroller"
)

// attempt reads what may not be there, and what the person may not see. Only
// other failures are errors.
func attempt[T any](c *cluster, a access, read func() (T, error)) (health.Seen[T], error) {
	value, err := read()
	switch {
	case err == nil:
		return health.Seen[T]{Value: value}, nil
	case apierrors.IsNotFound(err):
		return health.Seen[T]{}, nil
	case apierrors.IsForbidden(err):
		return health.Seen[T]{Unknown: "no right to " + a.String()}, nil
	}
	return health.Seen[T]{}, c.explain(err, a)
}

// fillWorld reads all but the Deployment, whose flags it goes by.
func (c *cluster) fillWorld(ctx context.Context, w *health.World) error {
	for _, read := range []func(context.Context, *health.World) error{
		c.readReplicas, c.readAuthority, c.readNamespaces, c.readSecrets, c.readRoots,
	} {
		if err := read(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) deployment(ctx context.Context, namespace, name string) (health.Seen[*appsv1.Deployment], error) {
	a := access{verb: "get", resource: "deployments", namespace: namespace, name: name}
	return attempt(c, a, func() (*appsv1.Deployment, error) {
		return c.client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	})
}

func (c *cluster) readReplicas(ctx context.Context, w *health.World) (err error) {
	namespace := w.Scope.StorageNamespace
	w.Lease, err = attempt(c, access{verb: "get", resource: "leases", namespace: namespace, name: kube.LeaseName}, func() (*coordinationv1.Lease, error) {
		return c.client.CoordinationV1().Leases(namespace).Get(ctx, kube.LeaseName, metav1.GetOptions{})
	})
	if err != nil || w.Deployment.Value == nil {
		return err
	}
	w.Pods, err = attempt(c, access{verb: "list", resource: "pods", namespace: namespace}, func() ([]corev1.Pod, error) {
		list, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(w.Deployment.Value.Spec.Selector)})
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	})
	return err
}

func (c *cluster) readAuthority(ctx context.Context, w *health.World) (err error) {
	namespace := w.Scope.StorageNamespace
	if w.Plugged, err = c.trySecret(ctx, namespace, kube.PluggedSecret); err != nil {
		return err
	}
	w.CASecret, err = c.trySecret(ctx, namespace, kube.CASecret)
	return err
}

func (c *cluster) trySecret(ctx context.Context, namespace, name string) (health.Seen[*corev1.Secret], error) {
	return attempt(c, access{verb: "get", resource: "secrets", namespace: namespace, name: name}, func() (*corev1.Secret, error) {
		return c.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	})
}

func (c *cluster) readNamespaces(ctx context.Context, w *health.World) (err error) {
	if len(w.Scope.Listed) > 0 {
		return nil
	}
	w.Namespaces, err = attempt(c, access{verb: "list", resource: "namespaces"}, func() ([]corev1.Namespace, error) {
		list, err := c.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	})
	return err
}

// everywhere lists what is in the namespaces that citadel looks at.
func everywhere[T any](c *cluster, w *health.World, resource string, list func(namespace string) ([]T, error)) (all health.Seen[[]T], err error) {
	namespaces := w.Scope.Listed
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	for _, namespace := range namespaces {
		part, err := attempt(c, access{verb: "list", resource: resource, namespace: namespace}, func() ([]T, error) { return list(namespace) })
		if err != nil || part.Unknown != "" {
			return part, err
		}
		all.Value = append(all.Value, part.Value...)
	}
	return all, nil
}

// readSecrets reads Secrets and then service accounts, so that an account that
// is gone was gone before; and last what bears the names of Secrets that are
// lacking.
func (c *cluster) readSecrets(ctx context.Context, w *health.World) (err error) {
	byType := fields.OneTermEqualSelector("type", string(secretcontroller.SecretType)).String()
	w.Secrets, err = everywhere(c, w, "secrets", func(namespace string) ([]corev1.Secret, error) {
		list, err := c.client.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{FieldSelector: byType})
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	})
	if err != nil || w.Secrets.Unknown != "" {
		return err
	}
	w.Accounts, err = everywhere(c, w, "serviceaccounts", func(namespace string) ([]corev1.ServiceAccount, error) {
		list, err := c.client.CoreV1().ServiceAccounts(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	})
	if err != nil || w.Accounts.Unknown != "" {
		return err
	}
	return c.readTaken(ctx, w)
}

// mostTaken bounds how many names of lacking Secrets are looked up.
const mostTaken = 100

func (c *cluster) readTaken(ctx context.Context, w *health.World) error {
	lacking := w.Lacking()
	for _, name := range lacking[:min(len(lacking), mostTaken)] {
		secret, err := c.trySecret(ctx, name.Namespace, name.Name)
		if err != nil {
			return err
		}
		if secret.Value != nil {
			w.Secrets.Value = append(w.Secrets.Value, *secret.Value)
		}
	}
	return nil
}

func (c *cluster) readRoots(ctx context.Context, w *health.World) (err error) {
	byName := fields.OneTermEqualSelector(metav1.ObjectNameField, secretcontroller.RootsConfigMap).String()
	w.Roots, err = everywhere(c, w, "configmaps", func(namespace string) ([]corev1.ConfigMap, error) {
		list, err := c.client.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{FieldSelector: byName})
		if err != nil {
			return nil, err
		}
		return list.Items, nil
	})
	if err != nil {
		return err
	}
	a := access{verb: "get", resource: "configmaps", namespace: w.Scope.StorageNamespace, name: secretcontroller.LegacyConfigMap}
	w.Legacy, err = attempt(c, a, func() (*corev1.ConfigMap, error) {
		return c.client.CoreV1().ConfigMaps(a.namespace).Get(ctx, a.name, metav1.GetOptions{})
	})
	return err
}
