package main

import (
	"encoding/base64"
	"encoding/json"
	"net"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"citadel/ca/authn"
	"citadel/ca/catest"
	"citadel/ca/kube"
	"citadel/cmd/citadelctl/health"
	"citadel/secretcontroller"
)

// newHealthyWorld is a cluster in which nothing is wrong.
func newHealthyWorld(t *testing.T) *world {
	now := time.Now()
	w := &world{minor: "36", namespaces: []string{"default", "istio-system"}, root: catest.SelfSigned(t, now.Add(-24*time.Hour), catest.TrustDomain)}
	for _, namespace := range w.namespaces {
		w.configMaps = append(w.configMaps, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: secretcontroller.RootsConfigMap},
			Data: map[string]string{secretcontroller.RootsKey: string(w.root.RootsPEM())}})
	}
	w.configMaps = append(w.configMaps, legacyRoots("istio-system", w.root.RootsPEM()))
	w.accounts = []corev1.ServiceAccount{{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "sleep", UID: "1"}}}
	w.secrets = []corev1.Secret{w.secret(t, now, types.NamespacedName{Namespace: "default", Name: "sleep"}),
		{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: kube.CASecret}, Type: kube.CASecretType,
			Data: map[string][]byte{kube.CACertKey: w.root.RootsPEM(), kube.CAKeyKey: catest.KeyPEM(t, w.root.Key())}}}
	w.deploy(now)
	return w
}

// legacyRoots is the ConfigMap of old agents.
func legacyRoots(namespace string, text []byte) corev1.ConfigMap {
	return corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: secretcontroller.LegacyConfigMap},
		Data: map[string]string{secretcontroller.LegacyRootsKey: base64.StdEncoding.EncodeToString(text)}}
}

// deploy gives it two replicas, of which the first leads. The lease is good for
// longer than any test.
func (w *world) deploy(now time.Time) {
	labels := map[string]string{"istio": "citadel"}
	container := corev1.Container{Name: "citadel", Image: "citadel:latest", Args: []string{"--log-format=json", "--workload-cert-grace-period-ratio=0.4"},
		Ports: []corev1.ContainerPort{{Name: health.MonitoringPort, ContainerPort: 15014}}}
	w.deployments = []appsv1.Deployment{{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: health.Deployment},
		Spec: appsv1.DeploymentSpec{Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{container}}}},
		Status: appsv1.DeploymentStatus{Replicas: 2, UpdatedReplicas: 2, ReadyReplicas: 2}}}
	w.pages = map[string]string{}
	for n, name := range []string{"istio-citadel-a", "istio-citadel-b"} {
		w.pods = append(w.pods, corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: name, Labels: labels},
			Spec:   corev1.PodSpec{Containers: []corev1.Container{container}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}})
		w.pages[name+":15014 readyz"] = "ok"
		w.pages[name+":15014 metrics"] = "# HELP citadel_leader 1 while this replica writes.\ncitadel_leader " + []string{"1", "0"}[n] + "\n"
	}
	w.leases = []coordinationv1.Lease{{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: kube.LeaseName}, Spec: coordinationv1.LeaseSpec{
		HolderIdentity: new("istio-citadel-a_1"), LeaseDurationSeconds: new(int32(36000)), RenewTime: new(metav1.NewMicroTime(now))}}}
}

// newSickWorld has lost its CA, its leader, a right, a ConfigMap and a key.
func newSickWorld(t *testing.T) *world {
	w := newHealthyWorld(t)
	w.secrets = w.secrets[:1]
	delete(w.secrets[0].Data, secretcontroller.KeyKey)
	w.configMaps = w.configMaps[1:]
	w.leases[0].Spec.LeaseDurationSeconds = new(int32(15))
	w.leases[0].Spec.RenewTime = new(metav1.NewMicroTime(time.Now().Add(-time.Hour)))
	w.withheld = []string{"update secrets"}
	w.pages = map[string]string{}
	return w
}

// newMovingWorld is in a rollout: the leader is on its way out, and another pod
// goes the moment it is asked.
func newMovingWorld(t *testing.T) *world {
	w := newHealthyWorld(t)
	w.pods[0].DeletionTimestamp, w.pods[0].DeletionGracePeriodSeconds = new(metav1.Now()), new(int64(30))
	going := *w.pods[1].DeepCopy()
	going.Name = "istio-citadel-c"
	w.pods, w.fleeting = append(w.pods, going), going.Name
	delete(w.pages, "istio-citadel-a:15014 readyz")
	return w
}

// newWorldOfTwo has another citadel that manages all namespaces, and a service
// account without the right to have tokens reviewed.
func newWorldOfTwo(t *testing.T) *world {
	w := newHealthyWorld(t)
	w.deployments = append(w.deployments, citadelIn("second"))
	w.namespaces = append(w.namespaces, "web")
	w.configMaps = append(w.configMaps, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: secretcontroller.RootsConfigMap},
		Data: map[string]string{secretcontroller.RootsKey: string(w.root.RootsPEM())}})
	w.withheld = []string{"create tokenreviews"}
	return w
}

// hanging is the address of an API server that takes connections and says
// nothing.
func hanging(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return "http://" + listener.Addr().String()
}

// newCrowdedWorld is an old cluster with another authority at work, whose mesh
// config has a mistake, and a namespace that is going away.
func newCrowdedWorld(t *testing.T) *world {
	w := &world{minor: "26", namespaces: []string{"default", "istio-system"}, root: catest.SelfSigned(t, time.Now(), catest.TrustDomain)}
	w.terminating = "istio-system"
	w.deployments = []appsv1.Deployment{{ObjectMeta: metav1.ObjectMeta{Namespace: "mesh", Name: "istiod", Labels: map[string]string{"app": "istiod"}}}}
	w.configMaps = []corev1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: secretcontroller.RootsConfigMap},
		Data: map[string]string{secretcontroller.RootsKey: string(w.root.RootsPEM())}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "mesh", Name: "istio"}, Data: map[string]string{"mesh": "authPolicy: MUTUAL_TLS\nenableAutoMtls: maybe\n"}}}
	return w
}

// newMeshWorld is for tokens and bans. In mesh, citadel has no load balancer,
// and its namespace is not managed; in bare and dark there are no roots. There
// is a token that was used, one that expired, and one that is damaged in dark.
func newMeshWorld(t *testing.T) *world {
	now := time.Now()
	w := newHealthyWorld(t)
	w.namespaces = append(w.namespaces, "mesh", "bare", "dark", "empty", "vm")
	w.accounts = append(w.accounts, corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "vm", Name: "db", UID: "2"}})
	w.configMaps = append(w.configMaps, legacyRoots("mesh", w.root.RootsPEM()))
	port := corev1.ServicePort{Name: "grpc-citadel", Port: 8060}
	balanced := corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: "istio-citadel"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{port}}}
	balanced.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.9"}}
	w.services = []corev1.Service{balanced, {ObjectMeta: metav1.ObjectMeta{Namespace: "mesh", Name: "istio-citadel"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{port}}}}
	w.secrets = append(w.secrets,
		tokenSecret(t, authn.JoinToken{ID: "00000000aa", Hash: "c0ffee", Namespace: "vm", ServiceAccount: "web", Created: now.Add(-10 * time.Minute), Expires: now.Add(50*time.Minute + 30*time.Second), Uses: 2, Keys: []string{"beef1", "beef2"}}),
		tokenSecret(t, authn.JoinToken{ID: "00000000bb", Hash: "c0ffee", Namespace: "vm", ServiceAccount: "db", Created: now.Add(-3*time.Hour - 30*time.Second), Expires: now.Add(-2*time.Hour - 30*time.Second), Uses: 1}))
	damaged := tokenSecret(t, authn.JoinToken{ID: "00000000cc"})
	damaged.Namespace, damaged.Type = "dark", corev1.SecretTypeOpaque
	w.secrets = append(w.secrets, damaged)
	return w
}

func tokenSecret(t *testing.T, token authn.JoinToken) corev1.Secret {
	t.Helper()
	text, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	return corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: kube.JoinTokenPrefix + token.ID, Labels: map[string]string{"citadel.io/join-token": "true"}},
		Type: kube.JoinTokenType, Data: map[string][]byte{"token.json": text}}
}
