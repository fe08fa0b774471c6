package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"citadel/secretcontroller"
)

// access is one kind of request, for messages.
type access struct {
	verb, resource, namespace, name string
}

func (a access) String() string {
	switch {
	case a.name != "":
		return fmt.Sprintf("%s %s %s", a.verb, a.resource, path.Join(a.namespace, a.name))
	case strings.HasPrefix(a.resource, "/"):
		return a.verb + " " + a.resource
	case a.namespace == "":
		return fmt.Sprintf("%s %s in all namespaces", a.verb, a.resource)
	}
	return fmt.Sprintf("%s %s in namespace %s", a.verb, a.resource, a.namespace)
}

// remedy is what allows the access.
func (a access) remedy() string {
	scope := "-n " + a.namespace
	if a.namespace == "" {
		scope = "-A"
	}
	return fmt.Sprintf("you need verb %q on resource %q; look with: kubectl auth can-i %s %s %s", a.verb, a.resource, a.verb, a.resource, scope)
}

// explain says what failed, why, and what to do next, and sets the exit code.
func (c *cluster) explain(err error, a access) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	request, noAnswer := errors.AsType[*url.Error](err)
	if noAnswer {
		err = request.Err
	}
	switch {
	case apierrors.IsForbidden(err):
		return codedError{exitDenied, fmt.Errorf("%s: %w: %s", a, err, a.remedy())}
	case apierrors.IsUnauthorized(err):
		return codedError{exitDenied, fmt.Errorf("%s: API server %s does not accept the credentials of the kubeconfig: log in again, or choose another --context", a, c.server)}
	case noAnswer, apierrors.IsTimeout(err), apierrors.IsServerTimeout(err), apierrors.IsServiceUnavailable(err),
		apierrors.IsTooManyRequests(err), apierrors.IsInternalError(err):
		return codedError{exitUnreachable, fmt.Errorf("%s: API server %s: %w: check that it runs and that --context and --kubeconfig name the right cluster, then try again", a, c.server, err)}
	}
	return fmt.Errorf("%s: %w", a, err)
}

// checkNamespace tells of a namespace that does not exist. Who may not ask is
// not held up: they were allowed to list its Secrets.
func (c *cluster) checkNamespace(ctx context.Context, namespace string) error {
	if namespace == "" {
		return nil
	}
	_, err := c.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return codedError{exitNotFound, fmt.Errorf("there is no namespace %s: look for the right one with: kubectl get namespaces", namespace)}
	case apierrors.IsForbidden(err):
		return nil
	}
	return c.explain(err, access{verb: "get", resource: "namespaces", name: namespace})
}

// secrets lists the workload Secrets of a namespace, or of all.
func (c *cluster) secrets(ctx context.Context, namespace string) ([]corev1.Secret, error) {
	selector := fields.OneTermEqualSelector("type", string(secretcontroller.SecretType)).String()
	list, err := c.client.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{FieldSelector: selector})
	if err != nil {
		return nil, c.explain(err, access{verb: "list", resource: "secrets", namespace: namespace})
	}
	return list.Items, nil
}

func (c *cluster) secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	secret, err := c.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, codedError{exitNotFound, fmt.Errorf("there is no Secret %s/%s", namespace, name)}
	}
	return secret, c.explain(err, access{verb: "get", resource: "secrets", namespace: namespace, name: name})
}

func (c *cluster) accounts(ctx context.Context, namespace string) ([]corev1.ServiceAccount, error) {
	list, err := c.client.CoreV1().ServiceAccounts(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, c.explain(err, access{verb: "list", resource: "serviceaccounts", namespace: namespace})
	}
	return list.Items, nil
}

// roots reads the ConfigMap of roots of a namespace; where it has none, or for
// all, those of all namespaces.
func (c *cluster) roots(ctx context.Context, namespace string) ([]corev1.ConfigMap, error) {
	if namespace != "" {
		cm, err := c.client.CoreV1().ConfigMaps(namespace).Get(ctx, secretcontroller.RootsConfigMap, metav1.GetOptions{})
		if err == nil {
			return []corev1.ConfigMap{*cm}, nil
		}
		if !apierrors.IsNotFound(err) {
			return nil, c.explain(err, access{verb: "get", resource: "configmaps", namespace: namespace, name: secretcontroller.RootsConfigMap})
		}
	}
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, secretcontroller.RootsConfigMap).String()
	list, err := c.client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{FieldSelector: selector})
	if err != nil {
		return nil, c.explain(err, access{verb: "list", resource: "configmaps"})
	}
	return list.Items, nil
}
