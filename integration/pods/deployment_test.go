package pods

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"

	"citadel/integration/cluster"
)

// citadel is the name of the Deployment, of its lease and of its label.
const (
	citadelName  = "istio-citadel"
	citadelLabel = "istio=citadel"
	citadelUser  = "system:serviceaccount:" + cluster.StorageNamespace + ":" + cluster.CitadelAccount
)

// patience bounds every wait for something that takes a moment, on a machine
// that does much else.
const patience = 3 * time.Minute

// within asks again and again until ask is content, and fails the test with its
// last complaint when that takes too long.
func within(t testing.TB, limit time.Duration, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in %s: %v", limit, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// must unwraps a result: must(f())(t).
func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return must(plane.Kubectl(t.Context(), args...))(t)
}

func deployments() appsclient.DeploymentInterface {
	return plane.Client.AppsV1().Deployments(cluster.StorageNamespace)
}

// addFlags gives Citadel more flags.
func addFlags(ctx context.Context, flags ...string) error {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value string `json:"value"`
	}
	var all []operation
	for _, f := range flags {
		all = append(all, operation{"add", "/spec/template/spec/containers/0/args/-", f})
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	_, err = deployments().Patch(ctx, citadelName, types.JSONPatchType, text, metav1.PatchOptions{})
	return err
}

// available is nil when the Deployment is as it should be.
func available(ctx context.Context) error {
	d, err := deployments().Get(ctx, citadelName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	want := *d.Spec.Replicas
	s := d.Status
	if s.ObservedGeneration < d.Generation || s.Replicas != want || s.UpdatedReplicas != want || s.AvailableReplicas != want {
		return fmt.Errorf("of %d replicas %d are there, %d of them new, %d available", want, s.Replicas, s.UpdatedReplicas, s.AvailableReplicas)
	}
	return nil
}

// replicas are Citadel's pods.
func replicas(t testing.TB) []corev1.Pod {
	t.Helper()
	return must(plane.Client.CoreV1().Pods(cluster.StorageNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: citadelLabel}))(t).Items
}

// leader is the pod that holds the lease.
func leader(ctx context.Context) (string, error) {
	lease, err := plane.Client.CoordinationV1().Leases(cluster.StorageNamespace).Get(ctx, citadelName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return "", fmt.Errorf("nobody leads")
	}
	pods, err := plane.Client.CoreV1().Pods(cluster.StorageNamespace).List(ctx, metav1.ListOptions{LabelSelector: citadelLabel})
	if err != nil {
		return "", err
	}
	for _, pod := range pods.Items {
		if holds(*lease.Spec.HolderIdentity, pod.Name) {
			return pod.Name, nil
		}
	}
	return "", fmt.Errorf("%s leads, and is no pod", *lease.Spec.HolderIdentity)
}

// holds tells whether a lease's holder is the pod, whose host name it begins with.
func holds(holder, pod string) bool {
	return len(holder) >= len(pod) && holder[:len(pod)] == pod
}
