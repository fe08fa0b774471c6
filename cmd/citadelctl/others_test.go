package main

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/cmd/citadelctl/health"
	"citadel/secretcontroller"
)

// citadelIn is a Deployment as the chart makes it.
func citadelIn(namespace string, args ...string) appsv1.Deployment {
	container := corev1.Container{Name: "citadel", Args: args, Env: []corev1.EnvVar{{Name: "CITADEL_CITADEL_STORAGE_NAMESPACE", Value: namespace}}}
	return appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: health.Deployment, Labels: map[string]string{"istio": "citadel"}},
		Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{container}}}}}
}

func leaseIn(namespace string, renewed time.Time) coordinationv1.Lease {
	return coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "istio-citadel"}, Spec: coordinationv1.LeaseSpec{
		HolderIdentity: new("host-1_2"), LeaseDurationSeconds: new(int32(15)), RenewTime: new(metav1.NewMicroTime(renewed))}}
}

// TestOtherCitadels are told from this one, from those that write nothing and
// from those that are gone, each with what its flags say.
func TestOtherCitadels(t *testing.T) {
	now := time.Now()
	w := health.World{Now: now, Scope: secretcontroller.Scope{StorageNamespace: "istio-system", EnabledByDefault: true}}
	stopped := citadelIn("stopped")
	stopped.Spec.Replicas = new(int32(0))
	found := otherCitadels(w, []appsv1.Deployment{citadelIn("istio-system"), stopped, citadelIn("server", "--server-only"),
		citadelIn("second", "--enable-namespaces-by-default=false"), citadelIn("third", "--listened-namespaces=a,b"), citadelIn("broken", "--enable-namespaces-by-default=maybe")},
		[]coordinationv1.Lease{leaseIn("istio-system", now), leaseIn("second", now), leaseIn("gone", now.Add(-time.Minute)), leaseIn("host", now)})
	names := map[string]*secretcontroller.Scope{}
	for _, c := range found {
		names[c.Name] = c.Scope
	}
	if len(found) != 4 || len(names) != 4 {
		t.Fatalf("found %+v", found)
	}
	if s := names["Deployment second/istio-citadel"]; s == nil || s.EnabledByDefault || s.StorageNamespace != "second" {
		t.Errorf("second: %+v", s)
	}
	if s := names["Deployment third/istio-citadel"]; s == nil || len(s.Listed) != 2 {
		t.Errorf("third: %+v", s)
	}
	for _, name := range []string{"Deployment broken/istio-citadel", "host-1_2, which holds Lease host/istio-citadel"} {
		if s, ok := names[name]; !ok || s != nil {
			t.Errorf("%s: %+v, %v", name, s, ok)
		}
	}
}
