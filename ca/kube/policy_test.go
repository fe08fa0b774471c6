package kube

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"

	"citadel/ca/policy"
	"citadel/ca/policyfeed"
)

// decoded is an object as the resolver reads it from a file.
func decoded(t *testing.T, text string) policy.Object {
	t.Helper()
	objects, err := policy.Decode("", []byte(text))
	if err != nil || len(objects) != 1 {
		t.Fatalf("%v", err)
	}
	return objects[0]
}

// TestObjectsAreAsInFiles: what is kept of an object of the cluster decides as
// what is read of it from a file.
func TestObjectsAreAsInFiles(t *testing.T) {
	meta := metav1.ObjectMeta{Name: "x", Namespace: "n", Labels: map[string]string{"app": "x"},
		Annotations: map[string]string{"auth.istio.io/80": "NONE", "networking.istio.io/exportTo": ".", "kubectl.kubernetes.io/last-applied-configuration": "{}",
			"traffic.sidecar.istio.io/excludeInboundPorts": "9"}}
	web := "grpc"
	service := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Type: "ClusterIP", ClusterIP: "10.0.0.1", Selector: map[string]string{"app": "x"},
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("web"), AppProtocol: &web}, {Name: "tcp", Port: 81, TargetPort: intstr.FromInt32(8081), Protocol: corev1.ProtocolTCP},
			{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}}}
	always, once := corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever
	front := []corev1.ContainerPort{{Name: "front", ContainerPort: 8082, Protocol: corev1.ProtocolTCP}, {Name: "front", ContainerPort: 8083, Protocol: corev1.ProtocolSCTP}}
	pod := &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{ServiceAccountName: "sa", InitContainers: []corev1.Container{{Name: "istio-proxy"}, {Name: "init", RestartPolicy: &always},
		{Name: "front", RestartPolicy: &always, Ports: front}, {Name: "setup", RestartPolicy: &once, Ports: front[:1]}},
		Containers: []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 5353, Protocol: corev1.ProtocolUDP}, {Name: "web", ContainerPort: 8080}}}, {Name: "helper"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.1.0.1", PodIPs: []corev1.PodIP{{IP: "10.1.0.1"}, {IP: "fd00::1"}}}}
	const of = "metadata: {name: x, namespace: n, "
	const annotations = "annotations: {auth.istio.io/80: NONE, networking.istio.io/exportTo: '.', traffic.sidecar.istio.io/excludeInboundPorts: '9'}"
	for text, got := range map[string]*held{
		"{apiVersion: v1, kind: Service, " + of + annotations + "}, spec: {type: ClusterIP, clusterIP: 10.0.0.1, selector: {app: x}, " +
			"ports: [{name: http, port: 80, targetPort: web, appProtocol: grpc}, {name: tcp, port: 81, targetPort: 8081}, {name: dns, port: 53, protocol: UDP}]}}": serviceObject(service),
		"{apiVersion: v1, kind: Pod, " + of + "labels: {app: x}, " + annotations + "}, spec: {serviceAccountName: sa, initContainers: [{name: istio-proxy}, " +
			"{name: front, restartPolicy: Always, ports: [{name: front, containerPort: 8082}, {name: front, containerPort: 8083, protocol: SCTP}]}, {name: setup, ports: [{name: front, containerPort: 8082}]}], " +
			"containers: [{name: app, ports: [{name: web, containerPort: 5353, protocol: UDP}, {name: web, containerPort: 8080}]}]}, status: {podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::1'}]}}": podObject(pod),
		"{apiVersion: v1, kind: Namespace, metadata: {name: n}}": namespaceObject(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n"}}),
	} {
		want := decoded(t, text)
		ignored := cmp.FilterPath(func(p cmp.Path) bool { return strings.HasSuffix(p.GoString(), "._") }, cmp.Ignore())
		if diff := cmp.Diff(want, got.object, ignored); diff != "" || got.ref != want.Ref() || got.err != nil {
			t.Errorf("%s: %v\n%s", want.Ref(), got.err, diff)
		}
	}
	pod.Status.Phase = corev1.PodSucceeded
	if h := podObject(pod); h.object != nil || h.err != nil || h.ref != (policy.Ref{Kind: policy.KindPod, Namespace: "n", Name: "x"}) {
		t.Errorf("a pod that has ended: %+v", h)
	}
}

// TestMeshConfigOfTheCluster: keys that nothing here knows do not matter, values
// that cannot be read do.
func TestMeshConfigOfTheCluster(t *testing.T) {
	read := func(text string) *held {
		return meshObject(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "istio", Namespace: "istio-system"}, Data: map[string]string{"mesh": text}})
	}
	if h := read("authPolicy: MUTUAL_TLS\nofTheYear2040: {x: [1]}\nmtlsExcludedServices: [a.b.c]\n"); h.err != nil || h.object.(*policy.MeshConfig).AuthPolicy != policy.AuthMutualTLS ||
		!slices.Equal(h.object.(*policy.MeshConfig).ExcludedServices, []string{"a.b.c"}) {
		t.Errorf("%+v", h)
	}
	for _, text := range []string{"{}", "ofTheYear2040: {x: [1]}", "trustDomain:\nauthPolicy: NONE"} {
		if h := read(text); h.err != nil || h.object == nil {
			t.Errorf("%s: %+v", text, h)
		}
	}
	if h := meshObject(&corev1.ConfigMap{BinaryData: map[string][]byte{"mesh": []byte("authPolicy: MUTUAL_TLS")}}); h.err == nil || !strings.Contains(h.err.Error(), `mesh: "{}" means defaults`) {
		t.Errorf("moved to binaryData: %+v", h)
	}
	for _, text := range []string{"authPolicy: ON", "[", "authPolicy: [MUTUAL_TLS]", "enableAutoMtls: maybe\nofTheYear2040: 1", "- a", "rootNamespace: Istio System", "authPolicy: MUTUAL_TLS\ntrustDomain: of whom/\nofTheYear2040: 1",
		"", "null", "~", "# MUTUAL_TLS", "ofTheYear2040: 1\n---\nauthPolicy: MUTUAL_TLS", "AuthPolicy: MUTUAL_TLS", "auth_policy: MUTUAL_TLS", "x: 1\nrootnamespace: y",
		"!!null {authPolicy: MUTUAL_TLS}", "authPolicy: !!null MUTUAL_TLS", "x: !!null {}\nauthPolicy: MUTUAL_TLS", "<<: {authPolicy: MUTUAL_TLS}"} {
		if h := read(text); h.err == nil || h.object != nil || !strings.Contains(h.err.Error(), "ConfigMap istio-system/istio, key mesh") {
			t.Errorf("%s: %+v", text, h)
		}
	}
}

// TestCustomObjects: what cannot be read is told with its name.
func TestCustomObjects(t *testing.T) {
	of := func(mode any) *held {
		return customObject(policy.KindPeerAuthentication)(&unstructured.Unstructured{Object: map[string]any{"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
			"metadata": map[string]any{"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1", "annotations": map[string]any{"large": strings.Repeat("x", 1000)},
				"managedFields": []any{map[string]any{"manager": "kubectl"}}},
			"spec": map[string]any{"mtls": map[string]any{"mode": mode}}, "status": map[string]any{"conditions": []any{}}}})
	}
	if h := of("STRICT"); h.err != nil || h.object.(*policy.PeerAuthentication).Spec.MTLS.Mode != policy.Strict || h.object.(*policy.PeerAuthentication).Annotations != nil || h.ResourceVersion != "1" {
		t.Errorf("%+v", h)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": map[string]any{"name": "evil"},
		"spec": map[string]any{"mtls": map[string]any{"mode": "DISABLE"}}}}
	if h := customObject(policy.KindPeerAuthentication)(u); h.err == nil || h.object != nil || !strings.Contains(h.err.Error(), "scope of its CRD") {
		t.Errorf("of a CRD that is cluster-scoped: %+v", h)
	}
	if h := of("HARD"); h.err == nil || !strings.Contains(h.err.Error(), `PeerAuthentication/n/p: spec.mtls.mode: unknown value "HARD"`) {
		t.Errorf("%+v", h)
	}
}

// TestKinds: nothing of a kind counts before all of it has been read; when it goes
// all of it goes, and when it only changes its version nothing does.
func TestKinds(t *testing.T) {
	w := &policyWatch{Policy: Policy{Feed: policyfeed.New(policy.V1), Tell: func(error) {}}, wake: make(chan struct{}, 1)}
	peer := func(name string) *held {
		o := &policy.PeerAuthentication{Meta: policy.Meta{Name: name, Namespace: "n"}}
		return &held{ref: o.Ref(), object: o}
	}
	old := newKind("PeerAuthentication", nil)
	w.kinds = []*kind{old}
	w.take(old, peer("a"), false)
	w.take(old, peer("b"), false)
	apply := func() (ready bool) {
		c, ready := w.gather()
		c.Known = ready
		w.Feed.Apply(c)
		return ready
	}
	names := func() string {
		var all []string
		for _, o := range w.Feed.State().Objects() {
			all = append(all, o.Ref().Name)
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	if apply() || names() != "" {
		t.Errorf("half a list counts: %s", names())
	}
	old.synced = true
	if !apply() || names() != "a b" {
		t.Errorf("%s", names())
	}
	next := newKind("PeerAuthentication", nil)
	next.before = w.dismiss(old)
	w.kinds = append(w.kinds, next)
	w.take(next, peer("b"), false)
	if apply() || names() != "a b" {
		t.Errorf("while another version is read: %s", names())
	}
	next.synced = true
	if !apply() || names() != "b" {
		t.Errorf("in another version: %s", names())
	}
	w.take(next, peer("c"), false)
	w.take(next, peer("c"), true)
	w.take(next, peer("d"), false)
	if apply(); names() != "b d" {
		t.Errorf("%s", names())
	}
	w.take(next, peer("e"), false)
	w.end(next)
	if apply(); names() != "" || len(w.kinds) != 0 {
		t.Errorf("the kind is gone, and there are %s", names())
	}
}

// TestBeginning: a mesh config that cannot be read is not enough to begin with.
func TestBeginning(t *testing.T) {
	mesh := policy.Ref{Kind: policy.KindMeshConfig}
	w := &policyWatch{Policy: Policy{Feed: policyfeed.New(policy.Auto)}}
	broken := policyfeed.Change{Broken: map[policy.Ref]error{mesh: policy.Problem{Message: "no"}}}
	if !w.meshBroken(broken) || w.meshBroken(policyfeed.Change{}) {
		t.Error("the first change")
	}
	w.Feed.Apply(broken)
	if !w.meshBroken(policyfeed.Change{}) || w.meshBroken(policyfeed.Change{Gone: []policy.Ref{mesh}}) || w.meshBroken(policyfeed.Change{Put: []policy.Object{&policy.MeshConfig{}}}) {
		t.Error("a later one")
	}
}
