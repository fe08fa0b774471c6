package secretcontroller

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// reconcileRoots keeps RootsConfigMap of a namespace right.
func (c *Controller) reconcileRoots(ctx context.Context, k key) (time.Duration, error) {
	namespace := k.namespace
	c.tellOfLabels(namespace)
	if !c.watch.manages(namespace) || !DistributesRoots(namespace) {
		c.ledge.forget(k)
		return 0, nil
	}
	obj, _ := c.watch.roots.get(namespace, RootsConfigMap)
	return c.keepConfigMap(ctx, k, obj, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: RootsConfigMap, Labels: map[string]string{RootsConfigMapLabel: "true"}},
		Data:       map[string]string{RootsKey: string(c.roots.pem)},
	})
}

// tellOfLabels tells once that a label of a namespace decides nothing.
func (c *Controller) tellOfLabels(namespace string) {
	labels, _ := c.watch.labels(namespace)
	if problem := c.set.Scope.ignored(labels); c.ledge.news(namespace, problem) {
		c.observe(time.Now(), Observation{Object: "Namespace", Name: namespace, Action: Refused, Err: errors.New(problem)}, nil)
	}
}

// reconcileLegacyRoots keeps LegacyConfigMap right. Agents of Istio 1.1 to 1.4
// take all of it as trusted; the ancestor put the chain there in place of the
// roots where it had one. The chain first and the roots after it serves both
// those that verify to the one and those that verify to the other.
func (c *Controller) reconcileLegacyRoots(ctx context.Context, k key) (time.Duration, error) {
	namespace := c.set.Scope.StorageNamespace
	obj, _, err := c.watch.legacy.GetIndexer().Get(cache.ExplicitKey(namespace + "/" + LegacyConfigMap))
	if err != nil {
		return 0, fmt.Errorf("look up ConfigMap %s/%s: %w", namespace, LegacyConfigMap, err)
	}
	text := slices.Concat(c.set.Authority.Signer().ChainPEM(), c.roots.pem)
	return c.keepConfigMap(ctx, k, obj, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: LegacyConfigMap},
		Data:       map[string]string{LegacyRootsKey: base64.StdEncoding.EncodeToString(text)},
	})
}

// keepConfigMap makes the ConfigMap hold at least what is wanted, ever more
// slowly where somebody else (istiod keeps one of this name) undoes it.
func (c *Controller) keepConfigMap(ctx context.Context, k key, cached any, want *corev1.ConfigMap) (time.Duration, error) {
	have, _ := cached.(*corev1.ConfigMap)
	if have != nil && contains(have.Data, want.Data) && contains(have.Labels, want.Labels) {
		c.ledge.forgive(k)
		return 0, nil
	}
	start := time.Now()
	if wait := c.ledge.contention(k, BadRoots, start); wait > 0 {
		c.tellOfQuarrel(k, start, Observation{Object: "ConfigMap", Name: want.Namespace + "/" + want.Name, Reason: BadRoots, Detail: "its roots are not ours"}, nil)
		return wait, nil
	}
	o := Observation{Object: "ConfigMap", Name: want.Namespace + "/" + want.Name, Action: Created, Reason: Missing}
	if have != nil {
		o.Action, o.Reason = Replaced, BadRoots
	}
	o.Err = c.guarded(ctx, func(ctx context.Context) error { return c.writeConfigMap(ctx, have, want) })
	switch {
	case terminating(o.Err):
		return 0, nil
	case apierrors.IsNotFound(o.Err) && have == nil && len(c.set.Scope.Listed) > 0:
		return c.awaitNamespace(start, k, o), nil
	case apierrors.IsAlreadyExists(o.Err) || overtaken(o.Err):
		return 0, o.Err
	case o.Err == nil:
		c.ledge.repaired(k, o.Reason)
		c.ledge.forgive(k)
	}
	c.observe(start, o, nil)
	return 0, o.Err
}

// awaitNamespace tells once that a listed namespace does not exist.
func (c *Controller) awaitNamespace(start time.Time, k key, o Observation) time.Duration {
	if last, known := c.ledge.recall(k, Account{}); !known || last.err == nil {
		o.Action, o.Err = Refused, fmt.Errorf("ConfigMap %s: its namespace does not exist: it is waited for", o.Name)
		c.ledge.fail(k, Account{}, Verdict{}, o.Err)
		c.observe(start, o, nil)
	}
	return lastRetry
}

func (c *Controller) writeConfigMap(ctx context.Context, have, want *corev1.ConfigMap) error {
	configMaps := c.set.Client.CoreV1().ConfigMaps(want.Namespace)
	if have == nil {
		if _, err := configMaps.Create(ctx, want, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create ConfigMap %s/%s: %w", want.Namespace, want.Name, err)
		}
		return nil
	}
	next, err := c.currentConfigMap(ctx, have)
	if err != nil || contains(next.Data, want.Data) && contains(next.Labels, want.Labels) {
		return err
	}
	for k, v := range want.Data {
		next.Data = with(next.Data, k, v)
	}
	for k, v := range want.Labels {
		next.Labels = with(next.Labels, k, v)
	}
	if next.Immutable != nil && *next.Immutable {
		return c.recreateConfigMap(ctx, next)
	}
	if _, err := configMaps.Update(ctx, next, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update ConfigMap %s/%s: %w", want.Namespace, want.Name, err)
	}
	return nil
}

// currentConfigMap reads all of a ConfigMap of which the cache holds a part. A
// list of one asks for no right but that of the watch.
func (c *Controller) currentConfigMap(ctx context.Context, have *corev1.ConfigMap) (*corev1.ConfigMap, error) {
	options := metav1.ListOptions{}
	selectField("metadata.name", have.Name)(&options)
	list, err := c.set.Client.CoreV1().ConfigMaps(have.Namespace).List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s/%s: %w", have.Namespace, have.Name, err)
	}
	for i := range list.Items {
		if list.Items[i].Name == have.Name {
			return &list.Items[i], nil
		}
	}
	return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), have.Name)
}

// recreateConfigMap replaces one that cannot be updated: being immutable is
// for life.
func (c *Controller) recreateConfigMap(ctx context.Context, next *corev1.ConfigMap) error {
	if size := next.Size(); size > corev1.MaxSecretSize { // the limit of ConfigMaps is the same
		return fmt.Errorf("replace immutable ConfigMap %s/%s: with what others put there it would have %d bytes, too many to be made again", next.Namespace, next.Name, size)
	}
	configMaps := c.set.Client.CoreV1().ConfigMaps(next.Namespace)
	err := configMaps.Delete(ctx, next.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &next.UID, ResourceVersion: &next.ResourceVersion}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete ConfigMap %s/%s: %w", next.Namespace, next.Name, err)
	}
	fresh := &corev1.ConfigMap{Data: next.Data, BinaryData: next.BinaryData, ObjectMeta: metav1.ObjectMeta{
		Namespace: next.Namespace, Name: next.Name, Labels: next.Labels, Annotations: next.Annotations}}
	if _, err := configMaps.Create(ctx, fresh, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create ConfigMap %s/%s: %w", next.Namespace, next.Name, err)
	}
	return nil
}

func contains(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}
